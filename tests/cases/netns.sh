#!/usr/bin/env bash
# Every daemon and the client in a network namespace of its own: works, and survives a chunkd that is cut off (its link goes
# down) in the middle of a write.
. "$(dirname "$0")/caselib.sh"
[ "$(id -u)" = 0 ] || fail "needs root for network namespaces"
devcluster up --chunkd 4 --hosts --metad-args "--suspect=2s --dead=5s"
devcluster mount "$mnt"
ctl setrepl "$mnt" 2
random_file "$work/f" 96
eval "$(devcluster env)"
dd if="$work/f" of="$mnt/f" bs=1M conv=fsync status=none &
writer=$!
some() { [ "$(stat -c %s "$mnt/f" 2>/dev/null || echo 0)" -gt 10000000 ]; }
wait_for 60 "10 MB to be written" some
ip -n "$NS-sw" link set chunkd1 down
wait $writer || fail "the write failed when chunkd1 was cut off"
expect "bytes written across the cut" "$(sum_of "$work/f")" "$(sum_of "$mnt/f")"
ip -n "$NS-sw" link set chunkd1 up
wait_healthy 120
check_sanitizers
