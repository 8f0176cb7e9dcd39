#!/usr/bin/env bash
# Flipped bytes: in one copy's chunk segment the reader still gets the right bytes and the copy is replaced; in the metadata
# log or a checkpoint metad refuses to start and names the file; put back, it starts.
# one metad: what it refuses is the log and the checkpoints of one directory
. "$(dirname "$0")/caselib.sh"
devcluster up --chunkd 3 --metad-args "--checkpoint-bytes=1M"
devcluster mount "$mnt"
ctl setrepl "$mnt" 3
random_file "$work/f" 24
cp "$work/f" "$mnt/f"
sync "$mnt/f"
sum=$(sum_of "$work/f")

flip() { # FILE OFFSET: complements one byte
    local b
    b=$(od -An -tu1 -j "$2" -N1 "$1")
    # shellcheck disable=SC2059
    printf "\\x$(printf %x $((b ^ 255)))" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

# find the file's bytes in a segment of each chunkd in turn and damage one copy while nobody reads
needle=$(head -c 9000000 "$work/f" | tail -c 16 | od -An -tx1 | tr -d ' \n')
for n in 1 2 3; do
    devcluster term "chunkd$n"
    seg='' off=''
    for s in "$cluster/chunkd$n"/disk1/seg-*; do
        off=$(python3 - "$s" "$needle" <<'P'
import sys
print(open(sys.argv[1], "rb").read().find(bytes.fromhex(sys.argv[2])))
P
)
        [ "$off" -ge 0 ] && { seg=$s; break; }
    done
    [ -n "$seg" ] || fail "the file's bytes are in no segment of chunkd$n"
    flip "$seg" "$off"
    devcluster start "chunkd$n"
    devcluster unmount "$mnt"
    devcluster mount "$mnt"
    # the other two cannot answer, so the damaged copy must be tried... and refused; then they can
    expect "read with a damaged copy on chunkd$n" "$sum" "$(sum_of "$mnt/f")"
    others=$(seq 1 3 | grep -vx "$n" | sed 's/^/chunkd/')
    # shellcheck disable=SC2086
    devcluster stop $others
    devcluster unmount "$mnt"
    devcluster mount "$mnt" -o timeout=20
    (sum_of "$mnt/f" >"$work/sum" 2>&1) &
    reader=$!
    reported() { grep -q 'ERR_CRC\|bad checksum\|CRC' "$cluster/mount.log"; }
    wait_for 60 "the client to meet the bad block" reported
    # shellcheck disable=SC2086
    devcluster cont $others
    wait $reader || true
    expect "read that met the bad copy on chunkd$n" "$sum" "$(cat "$work/sum")"
    healed() { [ "$(copies "$mnt/f" | sort -u)" = 3 ] && health_is; }
    wait_for 60 "the copy on chunkd$n to be replaced" healed
    devcluster term "chunkd$n"
    devcluster start "chunkd$n"
    break
done

# the metadata: make a log and a checkpoint worth damaging
made=0
checkpointed() { compgen -G "$cluster/metad/checkpoint-*[0-9]" >/dev/null && compgen -G "$cluster/metad/log/snapshot-*" >/dev/null; }
until checkpointed; do
    mkdir "$mnt/d$((made += 1))"
    for i in $(seq 1 200); do echo "$i" >"$mnt/d$made/m$i"; done
    [ $made -lt 40 ] || fail "no checkpoint after $((made * 200)) files: $(ls "$cluster/metad" "$cluster/metad/log")"
done
for i in $(seq 1 200); do echo "$i" >"$mnt/m$i"; done # these are in the log only
devcluster unmount "$mnt"
devcluster kill metad
cp -a "$cluster/metad" "$work/metad.good"
refused() { # WHAT: metad must not start, and must name a file in its directory
    if devcluster start metad >"$work/out" 2>&1; then fail "metad started with a damaged $1"; fi
    tail -3 "$cluster/metad.log" | grep "$cluster/metad" >/dev/null || fail "metad's refusal of a damaged $1 names no file: $(tail -3 "$cluster/metad.log")"
    echo "damaged $1 refused: $(grep -a error "$cluster/metad.log" | tail -1)"
    rm -rf "$cluster/metad" "$cluster/metad.pid"
    cp -a "$work/metad.good" "$cluster/metad"
}
damage_each() { # KIND FILES...: flips a byte in the middle of what each file holds
    local kind=$1 f used damaged=0
    shift
    for f in "$@"; do
        used=$(python3 -c 'import sys; d=open(sys.argv[1],"rb").read().rstrip(b"\0"); print(len(d))' "$f")
        [ "$used" -gt 16 ] || continue # a segment that was only begun
        flip "$f" $((used / 2))
        refused "$kind ${f##*/}"
        damaged=$((damaged + 1))
    done
    [ $damaged -gt 0 ] || fail "found no $kind to damage"
}
mapfile -t files < <(find "$cluster/metad/log" -type f \( -name 'open-*' -o -name '[0-9]*-[0-9]*' \) | sort)
damage_each "log segment" "${files[@]}"
mapfile -t files < <(find "$cluster/metad" -maxdepth 1 -name 'checkpoint-*' | sort | tail -1)
damage_each checkpoint "${files[@]}"
mapfile -t files < <(find "$cluster/metad/log" -type f -name 'snapshot-*' ! -name '*.meta' | sort | tail -1)
damage_each "snapshot descriptor" "${files[@]}"
devcluster start metad
devcluster mount "$mnt"
expect "file after the good state came back" 200 "$(cat "$mnt/m200")"
expect "big file after all this" "$sum" "$(sum_of "$mnt/f")"
check_sanitizers
