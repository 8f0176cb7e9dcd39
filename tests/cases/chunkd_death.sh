#!/usr/bin/env bash
# One of four chunkds dies by kill -9 while a copy runs and while a read runs: both finish with the right bytes; with its
# disk wiped all chunks come back to goal on the remaining three. One that never comes back is removed.
. "$(dirname "$0")/caselib.sh"
size=${SIZE_MIB:-192}
devcluster up --chunkd 4 --metad-args "--suspect=2s --dead=4s"
devcluster mount "$mnt"
ctl setrepl "$mnt" 3
random_file "$work/f" "$size"
sum=$(sum_of "$work/f")

dd if="$work/f" of="$mnt/f1" bs=1M conv=fsync status=none &
writer=$!
grown() { [ "$(stat -c %s "$mnt/f1")" -gt $((size * 1024 * 256)) ]; }
wait_for 60 "a quarter of the file to be written" grown
devcluster kill chunkd1
wait $writer || fail "the copy failed when chunkd1 was killed"
expect "copy made while chunkd1 died" "$sum" "$(sum_of "$mnt/f1")"

echo "wiping chunkd1, waiting for repair"
devcluster wipe chunkd1
t0=$(date +%s.%N)
dead() { ctl chunkd list "$mnt" | grep dead >/dev/null; }
wait_for 60 "chunkd1 to be found dead" dead
all_at_goal() { [ -z "$(copies "$mnt/f1" | grep -vx 3)" ]; }
wait_for 240 "all chunks back at goal 3" all_at_goal
t1=$(date +%s.%N)
echo "back at goal after $(echo "$t1 $t0" | awk '{printf "%.1f", $1 - $2}') s from the wipe, $size MiB file, of which a part had a copy there"
ctl status "$mnt"

# and a read: a fresh mount, so that nothing is cached
devcluster start chunkd1
devcluster unmount "$mnt"
devcluster mount "$mnt"
sha256sum <"$mnt/f1" | cut -d' ' -f1 >"$work/sum" &
reader=$!
devcluster kill chunkd2
wait $reader || fail "the read failed when chunkd2 was killed"
expect "read while chunkd2 died" "$sum" "$(cat "$work/sum")"

# it never comes back: it is taken off the lists, but not while it may hold the last copy of anything
refused() { # ID WHY
    if ctl chunkd remove "$1" "$mnt" 2>"$work/said"; then fail "chunkd $1 was removed: $2"; fi
    grep "$2" "$work/said" >/dev/null || fail "chunkd remove $1 does not say '$2': $(cat "$work/said")"
}
devcluster start chunkd2
mkdir "$mnt/once"
ctl setrepl "$mnt/once" 1
for i in $(seq 40); do head -c 10000 /dev/urandom >"$mnt/once/$i"; done
sync -f "$mnt"
refused 2 "is connected"
devcluster kill chunkd2
refused 2 "last good copy"
rm -r "$mnt/once"
wait_for 30 "what holds no last copy to be removed" ctl chunkd remove 2 "$mnt"
expect "chunkds (the wiped one came back as the fifth)" "3 4 5" "$(ctl chunkd list --json "$mnt" | python3 -c 'import json,sys; print(*sorted(c["id"] for c in json.load(sys.stdin)["chunkds"]))')"
refused 2 "there is no chunkd 2"
check_sanitizers
