#!/usr/bin/env bash
# A disk that is not mounted: its empty directory is not taken for a new disk. As a chunkd's only one it is refused; beside
# another it is left out and health says ERROR; mounted again, everything is back.
. "$(dirname "$0")/caselib.sh"
devcluster up --chunkd 2 --disks 2 --chunkd-args "--segment-size=4M" --metad-args "--suspect=1s --dead=3s"
devcluster mount "$mnt"
for i in $(seq 12); do random_file "$work/f$i" 1; cp "$work/f$i" "$mnt"; done
sync -f "$mnt"
wait_healthy 20
unmounted() { mv "$1" "$1.away"; mkdir "$1"; }
mounted() { rmdir "$1"; mv "$1.away" "$1"; }
disk=$cluster/chunkd1/disk

devcluster term chunkd1
unmounted "${disk}1"
devcluster start chunkd1
told() { (ctl health "$mnt" || true) | grep "^ERROR: disk ${disk}1 of chunkd 1 .* is missing" >/dev/null; }
wait_for 10 "health to name the missing disk" told
expect "what the directory holds" "" "$(ls -A "${disk}1")"
for i in $(seq 12); do cmp "$work/f$i" "$mnt/f$i"; done

devcluster term chunkd1
unmounted "${disk}2"
if devcluster start chunkd1 >/dev/null 2>&1; then fail "a chunkd started without any disk"; fi
grep "Mount the file system that belongs there" "$cluster/chunkd1.log" >/dev/null || fail "its log does not say what to do"
expect "what the directories hold" "" "$(find "${disk}1" "${disk}2" -mindepth 1)"
where() { (ctl health "$mnt" || true) | grep -A1 "chunkd 1 .* is dead" | grep "${disk}1, ${disk}2" >/dev/null; }
wait_for 15 "health to name the disks of the chunkd that is away" where

mounted "${disk}1"
mounted "${disk}2"
devcluster start chunkd1
wait_healthy 30
for i in $(seq 12); do cmp "$work/f$i" "$mnt/f$i"; done
check_sanitizers
