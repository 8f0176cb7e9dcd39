#!/usr/bin/env bash
# kill -9 of metad and all chunkds at one moment, under load, several rounds: every file whose fsync returned
# before the kill is whole afterwards, and the metadata log is never refused.
# only with --all
. "$(dirname "$0")/caselib.sh"
rounds=${ROUNDS:-4}
devcluster up --chunkd 3
devcluster mount "$mnt" -o timeout=60
ctl setrepl "$mnt" 3

writer() { # ROUND K: files with fsync until told to stop; a name goes to the list only after fsync returned
    local i=0 f
    while [ ! -e "$work/stop" ]; do
        f=r$1-w$2-$((i++))
        head -c $((RANDOM * 8 + 1)) /dev/urandom >"$work/tmp$2"
        dd if="$work/tmp$2" of="$mnt/$f" bs=64k conv=fsync status=none 2>>"$work/writer.err" || continue
        printf '%s %s\n' "$(sum_of "$work/tmp$2")" "$f" >>"$work/done$2"
    done
}
enough() { [ "$(cat "$work"/done* 2>/dev/null | wc -l)" -ge "$1" ]; }

want=0
for r in $(seq 1 "$rounds"); do
    rm -f "$work/stop"
    pids=()
    for k in 1 2 3; do writer "$r" "$k" & pids+=($!); done
    case_pids="${pids[*]}"
    want=$((want + 20))
    wait_for 120 "$want files to be fsynced" enough "$want"
    devcluster kill all
    touch "$work/stop"
    devcluster start all
    for p in "${pids[@]}"; do wait "$p" || true; done
    case_pids=
    # every file acknowledged in any round, with the bytes it had
    cat "$work"/done* >"$work/all"
    devcluster unmount "$mnt"
    devcluster mount "$mnt" -o timeout=60
    (cd "$mnt" && sha256sum --quiet -c "$work/all") || fail "round $r: an fsynced file is damaged or missing"
    echo "round $r: $(wc -l <"$work/all") fsynced files whole"
    want=$(wc -l <"$work/all")
done
check_sanitizers
