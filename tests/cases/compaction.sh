#!/usr/bin/env bash
# A file that is open all the time is overwritten in place at random, 20 times over: what it takes on each chunkd comes down
# to 2.2 times its size, its contents are those of a model, here and on a fresh mount, also while chunkds and metad are
# killed; readers of it never see an error.
. "$(dirname "$0")/caselib.sh"
size=${COMPACTION_MIB:-64}
devcluster up --chunkd 2 --metad-args "--suspect=2s --dead=6s"
two_mounts
mnt=$a
ctl setrepl "$mnt" 2
used() { du -s -B1M "$cluster/chunkd$1" | cut -f1; }
within() { # NUMERATOR DENOMINATOR: times the size, on each chunkd
    for i in 1 2; do [ $(($(used $i) * $2)) -le $((size * $1)) ] || return 1; done
}
job() { # KEY
    ctl status --json "$mnt" | python3 -c 'import json,sys
print([j for j in json.load(sys.stdin)["jobs"] if j["name"] == "compact"][0][sys.argv[1]])' "$1"
}
touch "$a/f"
python3 "$cases_repo/tests/cases/overwriter.py" "$a/f" "$work/model" "$size" 20 --hold "$work/stop" >"$work/said" &
writer=$! case_pids=$!
(
    while [ ! -e "$work/stop" ]; do # a reader on the other mount, whose maps are often of yesterday
        cat "$b/f" >/dev/null 2>>"$work/reader" || echo "cat failed" >>"$work/reader"
        sleep 0.5
    done
) &
reader=$!
case_pids="$writer $reader"
most=0
while [ ! -s "$work/said" ]; do
    sleep 0.5
    kill -0 $writer 2>/dev/null || fail "the writer is gone"
    for i in 1 2; do
        u=$(used $i)
        [ "$u" -le $most ] || most=$u
    done
done
compacted() { [ "$(job "done")" -gt 0 ]; }
wait_for 60 "a compaction" compacted # counted since metad's start
ended="$(job "done") chunks compacted, $(job failed) failed"
devcluster kill metad
devcluster start metad
devcluster kill chunkd1
devcluster start chunkd1
wait_for 120 "2.2 times the size (now $(used 1) and $(used 2) of $size MiB; compact: $(ctl status --json "$mnt" | grep -A12 '"compact"' | tr -d '\n'))" within 22 10
echo "$size MiB overwritten 20 times in $(cat "$work/said"): at most $most MiB on a chunkd meanwhile, $(used 1) and $(used 2) afterwards; $ended"
touch "$work/stop"
wait $writer || fail "the writer failed"
wait $reader || true
[ ! -s "$work/reader" ] || fail "a reader met errors: $(head -3 "$work/reader")"
cmp "$work/model" "$a/f" || fail "the contents differ"
cmp "$work/model" "$b/f" || fail "the contents differ on the other mount"
devcluster unmount "$a"
devcluster mount "$a"
cmp "$work/model" "$a/f" || fail "the contents differ on a fresh mount"
wait_healthy 60
rm "$a/f"
empty() { [ "$(ctl status --json "$mnt" | python3 -c 'import json,sys; print(json.load(sys.stdin)["chunks"])')" = 0 ]; }
wait_for 60 "all chunks to go" empty
check_sanitizers
