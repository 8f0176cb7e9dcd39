#!/usr/bin/env bash
# Copies made by copy_file_range share their chunks and live on alone; fallocate reserves, punches and zeroes; holes are
# found; appends of two mounts stay whole. All of it survives a restart of every daemon.
. "$(dirname "$0")/caselib.sh"
devcluster up --chunkd 3
mnt2=$work/mnt2
devcluster mount "$mnt"
devcluster mount "$mnt2"
ctl setrepl "$mnt" 2

info() { # FILE EXPR: of the file's info as JSON
    ctl info --json "$1" | python3 -c "import json,sys; f=json.load(sys.stdin)['files'][0]; c=f['chunks']; print($2)"
}
clone() { # SRC DST SRC_OFF DST_OFF LEN: prints how much was done
    python3 - "$@" <<'P'
import os, sys
s, d = os.open(sys.argv[1], os.O_RDONLY), os.open(sys.argv[2], os.O_RDWR | os.O_CREAT)
so, do, n = map(int, sys.argv[3:])
done = 0
while done < n:
    k = os.copy_file_range(s, d, n - done, so + done, do + done)
    if k == 0: break
    done += k
print(done)
P
}
blocks() { stat -c %b "$1"; }
seek() { # FILE WHENCE OFFSET
    python3 -c "import os,sys
try: print(os.lseek(os.open(sys.argv[1], os.O_RDONLY), int(sys.argv[3]), getattr(os, sys.argv[2])))
except OSError as e: print(e.errno)" "$@"
}

# shared chunks
random_file "$work/r" 20
cp "$work/r" "$mnt/a"
printf unflushed >>"$work/r"
exec 5>>"$mnt/a" && printf unflushed >&5 && exec 5>&-
size=$(stat -c %s "$work/r")
expect "cloned bytes" "$size" "$(clone "$mnt/a" "$mnt/b" 0 0 $((size + 100)))"
cmp "$work/r" "$mnt/b"
cmp "$work/r" "$mnt2/b"
expect "the same chunks" "$(info "$mnt/a" "sorted(x['chunk'] for x in c)")" "$(info "$mnt/b" "sorted(x['chunk'] for x in c)")"
expect "note" "['shared by 2 files']" "$(info "$mnt/a" "sorted({x['note'] for x in c})")"
expect "blocks of a clone" "$(blocks "$mnt/a")" "$(blocks "$mnt/b")"
ctl setrepl "$mnt/b" 3
wait_healthy 60
expect "goal of what is shared" "[3]" "$(info "$mnt/a" "sorted({x['goal'] for x in c})")"
ctl info "$mnt/a" | grep "shared with a file of goal 3" >/dev/null || fail "info does not say why a has goal 3: $(ctl info "$mnt/a")"
expect "copies" 3 "$(copies "$mnt/a" | sort -u)"

# each has its own life
printf XYZ | dd of="$mnt/b" bs=1 seek=1000 conv=notrunc status=none
cp "$work/r" "$work/rb"
printf XYZ | dd of="$work/rb" bs=1 seek=1000 conv=notrunc status=none
cmp "$work/rb" "$mnt/b"
cmp "$work/r" "$mnt2/a"
expect "odd ranges" 5000 "$(clone "$mnt/a" "$mnt/b" 12345 777 5000)"
expect "within one file" 4097 "$(clone "$mnt/b" "$mnt/b" 3 $((size + 10)) 4097)"
python3 - "$work/r" "$work/rb" "$size" <<'P'
import sys
r, size = open(sys.argv[1], 'rb').read(), int(sys.argv[3])
with open(sys.argv[2], 'r+b') as f:
    b = bytearray(f.read())
    b[777:777 + 5000] = r[12345:12345 + 5000]
    b += bytes(10) + b[3:3 + 4097]
    f.seek(0); f.write(b)
P
cmp "$work/rb" "$mnt/b"
cmp "$work/rb" "$mnt2/b"
python3 - "$mnt/b" <<'P' || fail "overlapping ranges of one file are cloned"
import errno, os, sys
f = os.open(sys.argv[1], os.O_RDWR)
try: os.copy_file_range(f, f, 100, 0, 50)
except OSError as e: sys.exit(e.errno != errno.EINVAL)
sys.exit(1)
P
rm "$mnt/b"
goal_is_2() { [ "$(info "$mnt/a" "sorted({x['goal'] for x in c})")" = "[2]" ]; }
wait_for 30 "the goal when the clone is gone" goal_is_2
wait_healthy 60
cmp "$work/r" "$mnt/a"

# reserved, punched, zeroed
fallocate -l 8M "$mnt/f"
expect "reserved size" $((8 << 20)) "$(stat -c %s "$mnt/f")"
expect "reserved blocks" 16384 "$(blocks "$mnt/f")"
expect "reserved has no data" 6 "$(seek "$mnt/f" SEEK_DATA 0)"
cmp -n $((8 << 20)) "$mnt/f" /dev/zero
fallocate -n -o 8M -l 1M "$mnt/f"
expect "size kept" $((8 << 20)) "$(stat -c %s "$mnt/f")"
expect "blocks behind the end" 18432 "$(blocks "$mnt/f")"
dd if="$work/r" of="$mnt/f" bs=1M count=4 conv=notrunc status=none
expect "written into the reservation" 18432 "$(blocks "$mnt/f")"
fallocate -p -o 1M -l 1M "$mnt/f"
fallocate -z -o 3M -l 512K "$mnt/f"
expect "after a punch" 16384 "$(blocks "$mnt/f")"
head -c 8M "$mnt/f" >"$work/f"
python3 - "$work/r" "$work/f" <<'P' || fail "wrong bytes after punch and zero"
import sys
m = 1 << 20
r, f = open(sys.argv[1], 'rb').read(), open(sys.argv[2], 'rb').read()
want = r[:m] + bytes(m) + r[2 * m:3 * m] + bytes(m // 2) + r[3 * m + m // 2:4 * m] + bytes(4 * m)
sys.exit(f != want)
P
expect "first hole" $((1 << 20)) "$(seek "$mnt/f" SEEK_HOLE 0)"
expect "next data" $((2 << 20)) "$(seek "$mnt/f" SEEK_DATA $((1 << 20)))"
expect "zeroed is a hole" $((3 << 20)) "$(seek "$mnt2/f" SEEK_HOLE $((2 << 20)))"
expect "no data behind" 6 "$(seek "$mnt/f" SEEK_DATA $((4 << 20)))"
expect "last hole" $((4 << 20)) "$(seek "$mnt/f" SEEK_HOLE $((3584 << 10)))"
fallocate -c -o 0 -l 4096 "$mnt/f" 2>/dev/null && fail "collapse is not refused"
fallocate -l 1P "$mnt/g" 2>"$work/err" && fail "a petabyte is reserved"
grep -i "space" "$work/err" >/dev/null || fail "no ENOSPC: $(cat "$work/err")"

# a write that is still buffered: before a punch it goes, after it stays
python3 - "$mnt/w" <<'P' || fail "buffered writes around a punch"
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
f = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
for i in range(50):
    os.pwrite(f, b'a' * 30000, 0)
    if libc.fallocate(f, 3, 1000, 20000): sys.exit(1)
    os.pwrite(f, b'b' * 100, 5000)
    assert os.fstat(f).st_blocks >= 20, os.fstat(f).st_blocks
    want = b'a' * 1000 + bytes(4000) + b'b' * 100 + bytes(15900) + b'a' * 9000
    if os.pread(f, 40000, 0) != want: sys.exit(2)
P

# appends of two mounts
append() { # MOUNT TAG
    python3 - "$1/log" "$2" <<'P'
import os, sys
f = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
for i in range(300):
    line = f"{sys.argv[2]} {i} ".encode()
    line += b'.' * (100 + i % 900) + b'\n'
    assert os.write(f, line) == len(line)
P
}
: >"$mnt/log"
append "$mnt" one & pids=$!
append "$mnt2" two & pids="$pids $!"
append "$mnt" three & pids="$pids $!"
for p in $pids; do wait "$p"; done
check_log() { # MOUNT
    python3 - "$1/log" <<'P' || fail "appended lines are torn or missing on $1"
import sys
at = {}
for line in open(sys.argv[1], 'rb').read().split(b'\n')[:-1]:
    tag, i, dots = line.split(b' ')
    assert int(i) == at.get(tag, 0), line[:20]
    assert dots == b'.' * (100 + int(i) % 900), line[:20]
    at[tag] = int(i) + 1
assert at == {b'one': 300, b'two': 300, b'three': 300}, at
P
}
check_log "$mnt2"
check_log "$mnt"

clone "$mnt/a" "$mnt/c" 0 0 "$size" >/dev/null
sum=$(sum_of "$mnt/f") alloc=$(blocks "$mnt/f")
devcluster unmount "$mnt"
devcluster unmount "$mnt2"
devcluster term all
devcluster start all
devcluster mount "$mnt"
cmp "$work/r" "$mnt/a"
cmp "$work/r" "$mnt/c"
check_log "$mnt"
expect "bytes after restart" "$sum" "$(sum_of "$mnt/f")"
expect "blocks after restart" "$alloc" "$(blocks "$mnt/f")"
wait_healthy 60
check_sanitizers
