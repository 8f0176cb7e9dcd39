#!/usr/bin/env bash
# ext4 finds an error and goes read-only under a chunkd that has the only copies of files: they are read, also after a restart,
# health says how it is, and they are copied away as soon as there is somewhere to go.
. "$(dirname "$0")/caselib.sh"
disk=$cluster/chunkd1/disk1
mkdir -p "$disk"
truncate -s 300M "$work/img"
mkfs.ext4 -q -F "$work/img"
mount -o loop,errors=remount-ro "$work/img" "$disk" 2>/dev/null || { echo "SKIPPED: no loop devices here"; exit 0; }
unmount_disk() { devcluster down --keep >/dev/null 2>&1; umount "$disk" || umount -l "$disk"; }
at_end+=(unmount_disk)
trigger=/sys/fs/ext4/$(basename "$(findmnt -n -o SOURCE "$disk")")/trigger_fs_error
[ -w "$trigger" ] || { echo "SKIPPED: ext4 has no trigger_fs_error here"; exit 0; }

devcluster up --chunkd 2 --metad-args "--suspect=1s --dead=3s"
devcluster mount "$mnt" -o timeout=10
mkdir "$mnt/one"
ctl setrepl "$mnt/one" 1 >/dev/null
devcluster kill chunkd2
for i in 1 2 3 4; do random_file "$work/f$i" 1; done
copied() { cp "$work"/f? "$mnt/one/"; }
wait_for 20 "files to be written with one chunkd" copied
sync "$mnt"/one/f? # what was not, ext4 may drop when it goes read-only

echo "a test" >"$trigger"
said() { (ctl health "$mnt" || true) | grep "$1" >/dev/null; }
readable() {
    local i
    devcluster unmount "$mnt"
    devcluster mount "$mnt" -o timeout=10
    for i in 1 2 3 4; do cmp "$work/f$i" "$mnt/one/f$i" || fail "$1: f$i cannot be read from the disk that went read-only"; done
}
: >"$mnt/x" # something is written there, which tells
echo x 2>/dev/null >"$mnt/one/x" || true
wait_for 15 "health to tell the read-only disk" said "disk $disk of chunkd 1 .* takes no writes any more"
wait_for 10 "health to tell the endangered chunks" said "^ERROR: [0-9]* chunks have their only good copies on disks that take no writes"
said "chunks have no good copy left" && fail "health calls chunks lost that can be read"
readable "at once"
devcluster term chunkd1
devcluster start chunkd1
readable "after a restart"
wait_for 10 "health to tell the read-only disk again" said "takes no writes any more"

devcluster start chunkd2
moved() { ! said "only good copies on disks that take no writes"; }
wait_for 20 "the chunks to be copied away" moved
devcluster kill chunkd1
readable "from where they were copied to"
check_sanitizers
