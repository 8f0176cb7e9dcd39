#!/usr/bin/env bash
# mount(8) and umount(8) find the helpers: mount -t replfs, an fstab line with mount MNT, remount after a mount died; umount
# returns when what was written is on disk and not before, and not at all without metad; lazy umount.
. "$(dirname "$0")/caselib.sh"
[ "$(id -u)" = 0 ] || fail "needs root"
made=()
undo() {
    umount -l "$work/bound" "$mnt" 2>/dev/null
    rm -f "${made[@]}"
}
at_end+=(undo)
for helper in mount.replfs umount.fuse.replfs mount.fuse.replfs; do
    [ -e /sbin/$helper ] || { ln -s "$bin/mount.replfs" /sbin/$helper && made+=("/sbin/$helper"); }
done
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
kill -KILL "$(pid_of_mount "$mnt")"
dead() { ! stat "$mnt" >/dev/null 2>&1; }
wait_for 10 "the killed mount to be noticed" dead
umount -l "$mnt"
mount -t replfs "$meta" "$mnt" -o "ro,log_file=$work/mount.log"
expect "file after remount" x "$(cat "$mnt/x")"
if echo y 2>/dev/null >"$mnt/y"; then fail "a read-only mount accepted a new file"; fi
umount "$mnt"

# a file of it that is bound elsewhere
mount -t replfs "$meta" "$mnt" -o "log_file=$work/mount.log"
: >"$work/bound"
mount --bind "$mnt/x" "$work/bound"
mount -o remount,ro "$mnt"
if echo y 2>/dev/null >"$mnt/y"; then fail "remount,ro: a new file was accepted"; fi
mount -o remount,rw "$mnt"
exec 6>"$mnt/y"
if mount -o remount,ro "$mnt" 2>"$work/err"; then fail "remount,ro with a file open for writing"; fi
grep -q "not remounted" "$work/err" || fail "remount says: $(cat "$work/err")"
exec 6>&-
expect "the bound file" x "$(cat "$work/bound")"
umount "$work/bound"
expect "below it" "" "$(cat "$work/bound")"
umount "$mnt"

mount -t replfs "$meta" "$mnt" -o "async_close,timeout=60s,log_file=$work/mount.log"
mkdir "$mnt/d" && : >"$mnt/d/first" && sync "$mnt/d" # from here on names are made behind
devcluster stop metads
for i in $(seq 200); do echo "$i" >"$mnt/d/$i"; done
umount "$mnt" 2>"$work/umount" &
umounting=$!
wait_for 30 "umount to say that it waits" grep -q "brought to the cluster" "$work/umount"
findmnt -n "$mnt" >/dev/null || fail "umount did not wait for metad"
devcluster cont metads
wait $umounting || fail "umount: $(cat "$work/umount")"
devcluster kill all
devcluster start all
mount -t replfs "$meta" "$mnt" -o "log_file=$work/mount.log"
expect "what umount waited for, after all daemons were killed" "$(seq 200)" "$(seq -f "$mnt/d/%g" 200 | xargs cat)"
umount "$mnt"

mount -t replfs "$meta" "$mnt" -o "async_close,timeout=2s,log_file=$work/mount.log"
mkdir "$mnt/e" && : >"$mnt/e/first" && sync "$mnt/e"
devcluster stop metads
for i in $(seq 10); do echo "$i" >"$mnt/e/$i"; done
rc=0
umount "$mnt" 2>"$work/umount" || rc=$?
expect "umount without metad" 32 $rc
grep -q "so it stays mounted" "$work/umount" || fail "umount says: $(cat "$work/umount")"
findmnt -n "$mnt" >/dev/null || fail "it does not stay mounted"
umount -f "$mnt"
devcluster cont metads

mount -t replfs "$meta" "$mnt" -o "log_file=$work/mount.log"
exec 6<"$mnt/x"
umount -l "$mnt"
expect "file open across a lazy umount" x "$(cat <&6)"
exec 6<&-
gone() { [ -z "$(pid_of_mount "$mnt")" ]; }
wait_for 30 "the client to end after a lazy umount" gone

# a signal ends a mount in use, too, and leaves nothing there
mount -t replfs "$meta" "$mnt" -o "log_file=$work/mount.log"
exec 6>"$mnt/z"
echo z >&6
kill -TERM "$(pid_of_mount "$mnt")"
wait_for 30 "the client to end after a signal" gone
if mountpoint -q "$mnt" || ! [ -d "$mnt" ]; then fail "a dead mount is left behind by SIGTERM"; fi
exec 6>&-
mount -t replfs "$meta" "$mnt" -o "log_file=$work/mount.log"
expect "what was written before the signal" z "$(cat "$mnt/z")"
umount "$mnt"
check_sanitizers
