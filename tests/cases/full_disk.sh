#!/usr/bin/env bash
# A full cluster says ENOSPC to the writer at once, keeps what was written, and takes data again once something is deleted.
. "$(dirname "$0")/caselib.sh"
devcluster up --chunkd 3 --chunkd-args "--capacity=300M --segment-size=16M"
devcluster mount "$mnt" -o timeout=30
random_file "$work/f" 120
random_file "$work/large" 300
cp "$work/f" "$mnt/f"
cp "$work/f" "$mnt/g"
if cp "$work/large" "$mnt/h" 2>"$work/err"; then fail "540 MiB of two copies fit into 900 MiB"; fi
grep "No space left" "$work/err" >/dev/null || fail "cp said: $(cat "$work/err")"
told() { ctl health "$mnt" | grep -i -E 'full|space' >/dev/null; }
set +o pipefail # health's exit code tells of the problem too
wait_for 10 "health to mention the full disks" told
set -o pipefail
expect "first file" "$(sum_of "$work/f")" "$(sum_of "$mnt/f")"
expect "second file" "$(sum_of "$work/f")" "$(sum_of "$mnt/g")"
rm "$mnt/f" "$mnt/h"
roomy() { cp "$work/f" "$mnt/again" 2>/dev/null; }
wait_for 90 "the space of deleted files to come back" roomy
expect "file written into freed space" "$(sum_of "$work/f")" "$(sum_of "$mnt/again")"
check_sanitizers
