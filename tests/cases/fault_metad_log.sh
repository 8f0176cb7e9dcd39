#!/usr/bin/env bash
# metad's disk hangs for longer than the mount's time-out while an fsynced file is written over: the commit is in the log's
# queue, the client has given up, its keepalives go on. When the disk is back, the file is whole, in its old or its new
# version. Needs root (a frozen file system in a loop device).
# one metad: with several, a majority without the disk that hangs goes on
. "$(dirname "$0")/caselib.sh"
img=$work/meta.img fs=$cluster/fs
thaw() { fsfreeze -u "$fs" 2>/dev/null || true; }
unmount_fs() { umount "$fs" 2>/dev/null || umount -l "$fs" 2>/dev/null || true; }
take_down() { thaw; devcluster down --keep >/dev/null 2>&1 || true; unmount_fs; }
at_end+=(take_down)
mkdir -p "$fs"
truncate -s 200M "$img"
mkfs.ext4 -q -F "$img"
mount -o loop "$img" "$fs"
ln -s fs/metad "$cluster/metad"
"$bin/replfs-metad" --init --data="$fs/metad" >/dev/null
devcluster up --chunkd 2
devcluster mount "$mnt" -o timeout=2
python3 - "$mnt/f" <<'P'
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
os.pwrite(fd, b'A' * 1000000, 0)
os.fsync(fd)
P
held() { find "$cluster"/chunkd*/disk1 -name 'seg-*' -exec du -ck {} + | tail -1 | cut -f1; }
fsfreeze -f "$fs"
# an fsync that fails after 2 s; the mount lives on and tells metad every few seconds what it still holds
python3 - "$mnt/f" <<'P'
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
os.pwrite(fd, b'B' * 1000000, 0)
try:
    os.fsync(fd)
    sys.exit("fsync returned 0 while metad's disk hung")
except OSError:
    pass
os.close(fd)
P
# metad hears of it, and looks for garbage once a second; deleted bytes would be punched out of the segments
full=$(held)
punched() { [ "$(held)" -lt $((full - 900)) ]; }
for _ in $(seq 28); do
    if punched; then break; fi
    sleep 0.25
done
thaw
whole() {
    python3 - "$mnt/f" <<'P'
import os, sys
d = open(sys.argv[1], 'rb').read()
sys.exit(0 if len(d) == 1000000 and len(set(d)) == 1 else 1)
P
}
settled() { [ "$(ctl status "$mnt" --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["chunks"])')" = 1 ] && whole; }
devcluster unmount "$mnt" || true
devcluster mount "$mnt"
wait_for 20 "the file to be whole, in its old or new version: $(ctl info "$mnt/f")" settled
wait_healthy 20
check_sanitizers
