#!/usr/bin/env bash
# Clocks hours apart: a chunkd two hours ahead, a mount two hours ahead, then metad two hours behind all others: files are
# written and read as ever, get metad's time, and health names whose clock it is.
. "$(dirname "$0")/caselib.sh"
wrong() { # SECONDS COMMAND...
    LD_PRELOAD=$bin/fault_wallclock.so WALLCLOCK_OFFSET=$1 "${@:2}"
}
try() { # NAME: writes, syncs and reads back through $mnt
    cp "$work/f" "$mnt/$1" || fail "$1: cannot be written"
    timeout 20 sync "$mnt/$1" || fail "$1: cannot be synced"
    echo 1 >/proc/sys/vm/drop_caches
    cmp "$work/f" "$mnt/$1" || fail "$1: cannot be read back"
}
named() { ctl health "$mnt" >"$work/health" 2>&1 || true; grep -q "$1" "$work/health"; }
random_file "$work/f" 8
devcluster up --chunkd 2
devcluster term chunkd1
wrong 7200 devcluster start chunkd1
devcluster mount "$mnt" -o timeout=10
try a-chunkd-ahead
wait_for 10 "health to name chunkd 1's clock" named "clock of chunkd 1 .* ahead of metad's"
devcluster unmount "$mnt"

wrong 7200 devcluster mount "$mnt" -o timeout=10
try a-mount-ahead
wait_for 10 "health to name the mount's clock" named "clock of client .*$mnt is 1 h 59 min\|clock of client .*$mnt is 2 h"
touch "$mnt/a-mount-ahead"
age=$(($(date +%s) - $(stat -c %Y "$mnt/a-mount-ahead")))
[ "$age" -lt 60 ] && [ "$age" -gt -60 ] || fail "a file that a mount with a wrong clock changed is $age s old"
# each chunk granted is written to the log: a mount that takes them for expired at once uses up ids without end
used=$(ctl info --json "$mnt/a-mount-ahead" | python3 -c 'import json,sys; print(max(int(c["chunk"],16) for c in json.load(sys.stdin)["files"][0]["chunks"]))')
[ "$used" -lt 2000 ] || fail "chunk ids were used up: the newest is $used"
devcluster unmount "$mnt"

devcluster term metads
wrong -7200 devcluster start metads
devcluster mount "$mnt" -o timeout=10
try metad-behind
cmp "$work/f" "$mnt/a-chunkd-ahead" || fail "cannot be read with metad behind"
check_sanitizers
