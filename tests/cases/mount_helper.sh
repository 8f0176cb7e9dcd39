#!/usr/bin/env bash
# mount(8) finds the helper: mount -t replfs, an fstab line with mount MNT, remount after a mount died, umount, lazy umount.
. "$(dirname "$0")/caselib.sh"
[ "$(id -u)" = 0 ] || fail "needs root"
[ -e /sbin/mount.replfs ] && kept=1 || ln -s "$bin/mount.replfs" /sbin/mount.replfs
restore() { [ -n "${kept:-}" ] || rm -f /sbin/mount.replfs; finish; }
trap restore EXIT
devcluster up --chunkd 2
meta=$(devcluster addr)
mkdir -p "$mnt"
mount -t replfs "$meta" "$mnt" -o "rw,noatime,log_file=$work/mount.log"
echo x >"$mnt/x"
expect "type" fuse.replfs "$(findmnt -n -o FSTYPE "$mnt")"
umount "$mnt"
printf '%s %s replfs noauto,_netdev,log_file=%s 0 0\n' "$meta" "$mnt" "$work/mount.log" >"$work/fstab"
mount -T "$work/fstab" "$mnt"
expect "file through fstab" x "$(cat "$mnt/x")"
pkill -KILL -f "mount.replfs $meta $mnt" || true
dead() { ! stat "$mnt" >/dev/null 2>&1; }
wait_for 10 "the killed mount to be noticed" dead
umount -l "$mnt"
mount -t replfs "$meta" "$mnt" -o "ro,log_file=$work/mount.log"
expect "file after remount" x "$(cat "$mnt/x")"
if echo y 2>/dev/null >"$mnt/y"; then fail "a read-only mount accepted a new file"; fi
exec 6<"$mnt/x"
umount -l "$mnt"
expect "file open across a lazy umount" x "$(cat <&6)"
exec 6<&-
gone() { ! pgrep -f "mount.replfs $meta $mnt" >/dev/null; }
wait_for 30 "the client to end after a lazy umount" gone
check_sanitizers
