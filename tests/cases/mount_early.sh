#!/usr/bin/env bash
# Mounting a cluster that is not there yet: waited for, in the foreground or the background; and one whose metad was killed a
# moment ago and still waits for its clients, by a mount with a short time-out.
. "$(dirname "$0")/caselib.sh"
devcluster up --chunkd 1 --metad-args "--lease-term=4s"
meta=$(devcluster addr)
mkdir "$mnt" "$work/bg"
devcluster term metads
code=0
mount_bg() { "$bin/mount.replfs" "$meta" "$work/bg" -o "bg,timeout=1s,log_file=$work/bg.log"; }
mount_bg 2>"$work/err" || code=$?
expect "bg without metad" 0 "$code"
grep -q "in the background" "$work/err" || fail "bg says: $(cat "$work/err")"
"$bin/mount.replfs" "$meta" "$mnt" -o "retry=1,timeout=1s,log_file=$work/fg.log" 2>"$work/err" &
mounting=$!
at_end+=(unmount_all)
unmount_all() { umount -l "$mnt" "$work/bg" 2>/dev/null; }
wait_for 20 "the mount to say that it waits" grep -q "trying on" "$work/err"
devcluster start metads
wait $mounting || fail "the mount did not wait: $(cat "$work/err")"
wait_for 30 "the mount in the background" mountpoint -q "$work/bg"
# -p: a mkdir that took longer than the time-out may have been done all the same
wait_for 20 "metad to give new inode numbers, which wait for the first chunkd" mkdir -p "$mnt/x"
[ -d "$work/bg/x" ] || fail "both are mounted, but not the same"
umount "$work/bg"

# somebody holds leases who does not come back soon
stat "$mnt/x" >/dev/null
kill -STOP "$(pid_of_mount "$mnt")"
devcluster kill metads
devcluster start metads
"$bin/mount.replfs" "$meta" "$work/bg" -o "timeout=1s,log_file=$work/bg.log" || fail "no mount during the grace"
kill -CONT "$(pid_of_mount "$mnt")"
umount "$work/bg"
umount "$mnt"
check_sanitizers
echo ok
