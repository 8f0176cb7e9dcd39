#!/usr/bin/env bash
# Quotas of directory trees on a real mount: EDQUOT where it belongs (mkdir, write, dd, rename, close of concurrent
# writers), df shows them, what is deleted comes back, all of it across restarts of metad.
. "$(dirname "$0")/caselib.sh"
devcluster up --chunkd 2
devcluster mount "$mnt"
cd "$mnt"
quota() { ctl quota "$@" >/dev/null; }
use() { # DIR: bytes and inodes in use by the quota of that very directory
    ctl quota get --json "$1" | python3 -c 'import json,sys
q = json.load(sys.stdin)["paths"][0]["quotas"][0]
print(q["bytes"], q["inodes"])'
}
use_is() { [ "$(use "$1")" = "$2 $3" ]; }
refused() { # WANTED COMMAND...: it fails, saying so
    local want=$1
    shift
    "$@" 2>"$work/err" && fail "$* succeeded"
    grep "$want" "$work/err" >/dev/null || fail "$* said '$(cat "$work/err")', not '$want'"
}
full="Disk quota exceeded" cross="cross-device link"
M=$((1 << 20))

# inodes
mkdir p
quota set p --bytes 10M --inodes 5
mkdir p/d && touch p/d/f && ln -s f p/d/s && mkfifo p/d/fifo
refused "$full" mkdir p/e
refused "$full" touch p/e
refused "$full" ln -s x p/d/e
refused "$full" mkfifo p/d/e
ln p/d/f p/d/f2 # a name, not an inode
expect "use" "0 5" "$(use p)"
rm p/d/s
wait_for 10 "the inode of a deleted link to come back" use_is p 0 4
quota set p --inodes none
expect "bytes limit kept" 10485760 "$(ctl quota get --json p/d | grep -o '"max_bytes": *[0-9]*' | grep -o '[0-9]*$')"

# bytes
refused "$full" dd if=/dev/zero of=p/big bs=1M count=20
expect "size of what fitted" $((10 * M)) "$(stat -c %s p/big)"
expect "use" "$((10 * M)) 5" "$(use p)"
refused "$full" dd if=/dev/zero of=p/d/f bs=1 count=1 conv=notrunc
dd if=/dev/urandom of=p/big bs=64k count=100 conv=notrunc,fsync status=none # overwriting adds nothing
truncate -s 1T p/d/f                                                        # nor do holes
refused "$full" dd if=/dev/zero of=p/d/f bs=4k count=1 seek=1000000 conv=notrunc
read -r size avail < <(df -B1 --output=size,avail p/d | tail -1)
expect "df in the tree" "$((10 * M)) 0" "$size $avail"
[ "$(df -B1 --output=size . | tail -1)" -gt $((100 * M)) ] || fail "df outside of the tree shows its quota"
truncate -s 4M p/big
expect "use after truncate" "$((4 * M)) 5" "$(use p)"
head -c 5M /dev/urandom >p/more
cp p/more "$work/more"
exec 5<>p/more
rm p/more
expect "unlinked but open" "$((9 * M)) 6" "$(use p)"
exec 5>&-
wait_for 10 "the bytes of a closed file without a name to come back" use_is p $((4 * M)) 5

# a quota that comes while bytes are on their way to metad behind a program's back: they are lost, the program is told,
# and nothing else waits for it
mkdir late
timeout 100 python3 - "$bin/replfsctl" "$cluster/mount.log" <<'END' || fail "a quota that comes late"
import errno, os, subprocess, sys, time
ctl, log = sys.argv[1:]
fd = os.open('late/f', os.O_CREAT | os.O_WRONLY)
os.write(fd, bytes(1 << 20))
subprocess.run([ctl, 'quota', 'set', 'late', '--bytes', '512K'], check=True, stdout=subprocess.DEVNULL)
told = False
try:
    os.write(fd, bytes(1 << 20))
except OSError as e: # the first bytes are refused already
    assert e.errno == errno.EDQUOT, e
    told = True
until = time.monotonic() + 30
while 'bytes written are lost: the quota of directory /late' not in open(log).read():
    assert time.monotonic() < until, 'metad does not refuse the bytes, or nobody says so'
    time.sleep(0.05)
try:
    os.fsync(fd)
    assert told, 'fsync says nothing of what was lost'
except OSError as e:
    assert e.errno == errno.EDQUOT, e
END
timeout 60 bash -c 'sync -f late && touch other && sync other' || fail "the mount stands still"
quota remove late
rm -r late other

# reservations, clones and appends
refused "$full" fallocate -l 7M p/d/f2
fallocate -l 6M p/more
expect "use after fallocate" "$((10 * M)) 6" "$(use p)"
dd if=/dev/urandom of=p/more bs=1M count=6 conv=notrunc,fsync status=none # into what is reserved
expect "use after writing into it" "$((10 * M)) 6" "$(use p)"
clone() { python3 -c 'import os, sys
a, b = os.open(sys.argv[1], os.O_RDONLY), os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT)
n = os.fstat(a).st_size
while n: n -= os.copy_file_range(a, b, n)' "$@"; }
refused "$full" clone p/big p/cloned
refused "$full" bash -c 'echo more >>p/more'
fallocate -p -o 0 -l 4M p/more
clone p/big p/cloned
expect "use after a clone" "$((10 * M)) 7" "$(use p)"
rm p/more p/cloned
wait_for 10 "clones to be given back" use_is p $((4 * M)) 5

# renames and links between trees
mkdir q t && quota set q --inodes 3
head -c 7M /dev/urandom >out
refused "$full" mv out p/in
[ -e out ] || fail "mv that was refused lost the file"
mv p/big q/ && expect "moved away" "0 4 $((4 * M)) 2" "$(use p) $(use q)"
mv out p/in && expect "moved in" "$((7 * M)) 5" "$(use p)"
refused "$cross" ln p/in in2
refused "$cross" python3 -c 'import os; os.rename("p/d/f2", "f2")'
expect "two names kept" 2 "$(stat -c %h p/d/f)"
touch t/1 t/2
refused "$full" python3 -c 'import os; os.rename("t", "q/t")'
[ -e t/1 ] || fail "directory lost"
rm t/2 t/1 && mv t q/ && expect "directory moved in" "$((4 * M)) 3" "$(use q)"
quota set q/t --bytes 1M # in another one
refused "$full" touch q/t/x
quota set q --inodes 10
mkdir q/t/u && cp "$work/more" q/t/u/x 2>/dev/null && fail "5 MiB in a quota of 1"
expect "list" "$mnt/p $mnt/q $mnt/q/t" "$(ctl quota list . --json | grep '"directory"' | cut -d'"' -f4 | xargs)"
expect "list below" "$mnt/q $mnt/q/t" "$(ctl quota list q --json | grep '"directory"' | cut -d'"' -f4 | xargs)"

# metad restarts, by the log and by a checkpoint
cd "$work"
before=$(ctl quota list "$mnt" --json)
devcluster kill leader && devcluster start metads
expect "quotas after a crash" "$before" "$(ctl quota list "$mnt" --json)"
devcluster term leader && devcluster start metads
expect "quotas after a restart" "$before" "$(ctl quota list "$mnt" --json)"
cd "$mnt"
refused "$full" cp "$work/more" p/again
rm -rf p/in p/again
cp "$work/more" p/again
cmp "$work/more" p/again
wait_for 10 "the bytes of deleted files to come back" use_is p $((5 * M)) 5

# two writers that fit alone: metad refuses the later commit, and close says so
race() {
    python3 - <<'PY' && grep "quota of directory /r of this" "$cluster/mount.log" >/dev/null
import errno, os, sys
os.makedirs("r", exist_ok=True)
fds = [os.open("r/%d" % i, os.O_CREAT | os.O_TRUNC | os.O_WRONLY) for i in range(2)]
refused = []
for fd in fds:
    try: os.write(fd, b"x" * (6 << 20))
    except OSError as e: refused.append(e.errno)
for fd in fds:
    try: os.fsync(fd)
    except OSError as e: refused.append(e.errno)
    os.close(fd)
assert refused and set(refused) == {errno.EDQUOT}, refused
assert sum(os.stat("r/%d" % i).st_blocks for i in range(2)) * 512 <= 10 << 20
PY
}
mkdir r && quota set r --bytes 10M
wait_for 30 "two writers to exceed a quota" race
rm -r r && mkdir r && expect "a directory made anew has no quota" 0 "$(ctl quota get --json r | grep -c max_bytes || true)"

# rights
chmod 711 "$work" && chmod 777 p
as_user() { setpriv --reuid 12345 --regid 12345 --clear-groups "$@"; }
refused "only root" as_user "$bin/replfsctl" quota set p --bytes 1G
refused "only root" as_user "$bin/replfsctl" quota remove p
refused "only root" as_user "$bin/replfsctl" quota list p
as_user "$bin/replfsctl" quota get p | grep 10 >/dev/null || fail "quota get as a user"
quota remove p
refused "no quota of its own" ctl quota remove p
cp "$work/more" p/1 && cp "$work/more" p/2 && cp "$work/more" p/3
cd "$work"
wait_healthy 60
check_sanitizers
