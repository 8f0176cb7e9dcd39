#!/usr/bin/env bash
# Extended attributes and ACLs, files without a name, setuid bits and capabilities that writes take away, access times,
# mappings, and the mount's flags, as programs know them from ext4.
. "$(dirname "$0")/caselib.sh"
[ "$(id -u)" = 0 ] || fail "needs root"
devcluster up --chunkd 2
devcluster mount "$mnt"
meta=$(devcluster addr)
chmod 1777 "$mnt"
chmod 755 "$work"
cd "$mnt"
as_nobody() { setpriv --reuid=65534 --regid=65534 --clear-groups -- "$@"; }
py() { python3 -c "import errno, mmap, os, time
def refused(want, f, *a, **k):
    try: f(*a, **k)
    except OSError as e: assert e.errno == want, (errno.errorcode[e.errno], f, a)
    else: raise AssertionError(('not refused', f, a))
$1"; }
py_nobody() { py "os.setgroups([]); os.setgid(65534); os.setuid(65534)
$1"; }

# flags of the mount
expect "flags, type and source" "rw,nosuid,nodev,relatime fuse.replfs $meta" \
    "$(findmnt -n -o VFS-OPTIONS,FSTYPE,SOURCE "$mnt" | xargs)"

# extended attributes
py "
open('x', 'w').close()
os.setxattr('x', 'user.a', b'1' * 300)
os.setxattr('x', 'trusted.t', b'\0\xff')
os.setxattr('x', 'security.s', b'')
assert os.getxattr('x', 'user.a') == b'1' * 300
assert os.getxattr('x', 'trusted.t') == b'\0\xff' and os.getxattr('x', 'security.s') == b''
assert sorted(os.listxattr('x')) == ['security.s', 'trusted.t', 'user.a']
refused(errno.EEXIST, os.setxattr, 'x', 'user.a', b'', os.XATTR_CREATE)
refused(errno.ENODATA, os.setxattr, 'x', 'user.b', b'', os.XATTR_REPLACE)
refused(errno.ENODATA, os.getxattr, 'x', 'user.b')
refused(errno.ENODATA, os.removexattr, 'x', 'user.b')
refused(errno.ENODATA, os.getxattr, 'x', 'security.capability')
refused(errno.EOPNOTSUPP, os.setxattr, 'x', 'other.b', b'')
refused(errno.ERANGE, os.setxattr, 'x', 'user.' + 'n' * 251, b'')
refused(errno.E2BIG, os.setxattr, 'x', 'user.b', b'b' * 65537)
os.setxattr('x', 'user.a', b'2', os.XATTR_REPLACE)
os.removexattr('x', 'security.s')
os.symlink('x', 'sx')
refused(errno.EPERM, os.setxattr, 'sx', 'user.a', b'', follow_symlinks=False)
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
buf = ctypes.create_string_buffer(2)
os.setxattr('x', 'user.a', b'333')
assert libc.getxattr(b'x', b'user.a', None, 0) == 3
assert libc.getxattr(b'x', b'user.a', buf, 2) == -1 and ctypes.get_errno() == errno.ERANGE
assert libc.listxattr(b'x', None, 0) == len('trusted.t user.a ')
assert libc.listxattr(b'x', buf, 2) == -1 and ctypes.get_errno() == errno.ERANGE
"
py_nobody "
assert os.listxattr('x') == ['user.a'], os.listxattr('x')
for f in (lambda: os.getxattr('x', 'trusted.t'), lambda: os.setxattr('x', 'trusted.t', b''), lambda: os.setxattr('x', 'user.a', b'')):
    try: f()
    except OSError: pass
    else: raise AssertionError('not refused')"
cp -a x copied
expect "user attribute after cp -a" 333 "$(getfattr --only-values -n user.a copied)"

# ACLs: asked for at each access, change the mode, are inherited instead of the umask
echo secret >acl && chmod 600 acl
as_nobody cat acl 2>/dev/null && fail "nobody reads a file of mode 600"
setfacl -m u:65534:r acl
expect "nobody reads by ACL" secret "$(as_nobody cat acl)"
expect "mode shows the mask" 640 "$(stat -c %a acl)"
as_nobody sh -c 'echo x >acl' 2>/dev/null && fail "an ACL for reading let nobody write"
chmod 600 acl
as_nobody cat acl 2>/dev/null && fail "nobody reads although chmod took the mask away"
setfacl -b acl
expect "no ACL left" "" "$(getfattr -d -m - acl)"
mkdir dacl && setfacl -d -m u:65534:rwx,o::- dacl
(umask 077 && mkdir dacl/sub && echo x >dacl/f && mknod dacl/p p)
expect "default ACL replaces the umask: directory" "770 770" "$(stat -c %a dacl/sub) $(getfacl -c dacl/sub | grep -c default | sed 's/.*/770/')"
expect "default ACL replaces the umask: file, fifo" "660 660" "$(stat -c %a dacl/f dacl/p | xargs)"
(umask 027 && mkdir u && echo x >u/f && mknod u/p p)
expect "umask without an ACL" "750 640 640" "$(stat -c %a u u/f u/p | xargs)"
as_nobody bash -c 'mkdir -m 2775 sg && touch sg/f && chmod 2755 sg/f' # setting an ACL clears setgid for strangers to the group
chgrp 1 sg/f && chmod 2755 sg/f
as_nobody setfacl -m u:1:r sg/f
expect "setgid after setfacl by its owner, not in the group" 755 "$(stat -c %a sg/f)"

# files without a name
py "
top = os.open('/', os.O_RDONLY)
fd = os.open('.', os.O_TMPFILE | os.O_RDWR, 0o640)
st = os.fstat(fd)
assert st.st_nlink == 0 and st.st_mode & 0o777 == 0o640, st
os.write(fd, b'no name')
before = os.listdir('.')
assert os.pread(fd, 99, 0) == b'no name'
os.link('/proc/self/fd/%d' % fd, 'named', src_dir_fd=top, follow_symlinks=True)
os.write(fd, b' yet')
os.close(fd)
assert open('named').read() == 'no name yet' and os.stat('named').st_nlink == 1
assert set(os.listdir('.')) - set(before) == {'named'}
fd = os.open('.', os.O_TMPFILE | os.O_RDWR | os.O_EXCL, 0o600)
refused(errno.ENOENT, os.link, '/proc/self/fd/%d' % fd, 'never', src_dir_fd=top, follow_symlinks=True)
refused(errno.ENOTDIR, os.open, 'named', os.O_TMPFILE | os.O_RDWR)
"

# setuid, setgid and capabilities go with a change of the contents or of the owner
echo content >t0
cp /bin/true s && chown 65534:65534 s
mode_after() { # WHAT WANT COMMAND..
    local what=$1 want=$2
    shift 2
    chmod 6755 s
    "$@"
    expect "mode after $what" "$want" "$(stat -c %a s)"
}
mode_after "write" 755 as_nobody sh -c 'echo >>s'
mode_after "truncate" 755 as_nobody truncate -s 10 s
mode_after "O_TRUNC" 755 as_nobody sh -c ': >s'
mode_after "write by root" 6755 sh -c 'echo >>s'
mode_after "chown by root" 755 chown 65534 s
mode_after "write, seen while the file is open" 755 py_nobody "
f = os.open('s', os.O_WRONLY); os.write(f, b'x'); assert os.stat('s').st_mode & 0o7777 == 0o755; os.close(f)"
mode_after "fallocate" 755 as_nobody fallocate -l 100000 s
mode_after "punching" 755 as_nobody fallocate -p -o 4096 -l 4096 s
mode_after "copy_file_range" 755 py_nobody "
assert os.copy_file_range(os.open('x', os.O_RDONLY), os.open('s', os.O_WRONLY), 5) == 0
assert os.copy_file_range(os.open('t0', os.O_RDONLY), os.open('s', os.O_WRONLY), 5) == 5"
chmod 2745 s && as_nobody sh -c 'echo >>s'
expect "setgid without x for the group" 2745 "$(stat -c %a s)"
caps() { py "os.setxattr('s', 'security.capability', bytes.fromhex('0100000200040000000000000000000000000000'))"; }
no_caps() { getfattr -n security.capability s >/dev/null 2>&1 && fail "capabilities stayed after $1" || true; }
caps && getfattr -n security.capability s >/dev/null
echo >>s && no_caps "a write"
caps && truncate -s 1 s && no_caps "truncate"
caps && chown 0 s && no_caps "chown"
py "
f = os.open('s', os.O_WRONLY)
os.write(f, b'written before')
os.setxattr('s', 'security.capability', bytes.fromhex('0100000200040000000000000000000000000000'))
os.close(f)
assert os.getxattr('s', 'security.capability')
os.write(os.open('s', os.O_WRONLY), b'after')
refused(errno.ENODATA, os.getxattr, 's', 'security.capability')"

# access times: relatime
py "
def at(p, **k): return os.stat(p, follow_symlinks=False, **k).st_atime_ns
def read(p): open(p).read(); return at(p)
open('t', 'w').write('one')
a = at('t')
b = read('t'); assert b > a, 'first read'
assert read('t') == b, 'second read'
open('t', 'a').write('two')
c = read('t'); assert c > b, 'read after a write'
assert open('t').read() == 'onetwo'
os.utime('t', (1000, 1000))
assert at('t') == 1000 * 10**9
d = read('t'); assert d > c, 'read of an old one'
os.utime('t', ns=(d - 86400 * 10**9 - 1, 5))
e = read('t'); assert e > d, 'a day old'
os.utime('t', ns=(77, 5)) # what was read before must not come after
os.fsync(os.open('t', os.O_RDONLY))
assert at('t') == 77
st = os.stat('t'); read('t'); now = os.stat('t')
assert (st.st_mtime_ns, st.st_ctime_ns) == (now.st_mtime_ns, now.st_ctime_ns)
os.utime('t', ns=(77, 5))
os.read(os.open('t', os.O_RDONLY | os.O_NOATIME), 9)
assert at('t') == 77, 'O_NOATIME'
os.mkdir('td'); a = at('td')
os.listdir('td'); b = at('td'); assert b > a
os.listdir('td'); assert at('td') == b
open('td/f', 'w').close(); os.listdir('td'); assert at('td') > b
os.symlink('t', 'tl'); a = at('tl')
os.readlink('tl'); assert at('tl') > a
"
atimes() { stat -c %x t td tl; }
shown=$(atimes)
cd "$work"
devcluster unmount "$mnt"
devcluster mount "$mnt" -o strictatime,nodiratime
cd "$mnt"
expect "access times after unmount" "$shown" "$(atimes)"
findmnt -n -o VFS-OPTIONS "$mnt" | grep nodiratime >/dev/null || fail "nodiratime is not shown"
py "
a = os.stat('t').st_atime_ns; open('t').read(); b = os.stat('t').st_atime_ns; assert b > a
time.sleep(0.01); open('t').read(); assert os.stat('t').st_atime_ns > b, 'strictatime'
open('td/g', 'w').close(); a = os.stat('td').st_atime_ns; os.listdir('td'); assert os.stat('td').st_atime_ns == a, 'nodiratime'"
shown=$(atimes)
cd "$work"
devcluster unmount "$mnt"
for o in noatime ro; do
    devcluster mount "$mnt" -o $o
    cat "$mnt/t" >/dev/null
    ls "$mnt/td" >/dev/null
    expect "access times with $o" "$shown" "$(cd "$mnt" && atimes)"
    [ $o = noatime ] || py "refused(errno.EROFS, os.open, '$mnt/new', os.O_CREAT | os.O_WRONLY)
refused(errno.EROFS, os.setxattr, '$mnt/t', 'user.x', b'')
refused(errno.EROFS, os.utime, '$mnt/t', (1, 1))
refused(errno.EROFS, os.unlink, '$mnt/t')"
    devcluster unmount "$mnt"
done
devcluster mount "$mnt"
cd "$mnt"
expect "access times at the end" "$shown" "$(atimes)"

# mappings, also of files opened with O_DIRECT; odd offsets are fine there
py "
for flags in 0, os.O_DIRECT:
    fd = os.open('m', os.O_RDWR | os.O_CREAT | os.O_TRUNC | flags)
    os.ftruncate(fd, 8192)
    m = mmap.mmap(fd, 8192)
    m[0:3] = b'abc'; m[5000:5003] = b'xyz'
    m.flush()
    assert os.pread(fd, 3, 0) == b'abc' and os.pread(fd, 3, 5000) == b'xyz'
    os.pwrite(fd, b'QQQ', 101)
    assert m[101:104] == b'QQQ'
    m.close(); os.close(fd)
    data = open('m', 'rb').read()
    assert len(data) == 8192 and data[5000:5003] == b'xyz' and data[101:104] == b'QQQ'
p = mmap.mmap(os.open('m', os.O_RDONLY), 8192, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
p[0:1] = b'!'
assert open('m', 'rb').read(1) == b'a'
fd = os.open('alloc', os.O_RDWR | os.O_CREAT)
os.pwrite(fd, b'x' * 100000, 10**9)
assert os.stat('alloc').st_blocks in range(190, 300), 'blocks before they are flushed'
"

# what is mapped and cached follows a clone and a hole; cp shares chunks instead of moving bytes
py "
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
src, dst = (os.open(n, os.O_RDWR | os.O_CREAT) for n in ('csrc', 'cdst'))
os.write(src, b's' * 20000); os.write(dst, b'd' * 20000)
m = mmap.mmap(dst, 20000)
assert m[9000:9001] == b'd'
assert os.copy_file_range(src, dst, 9000, 0, 5000) == 9000
want = b'd' * 5000 + b's' * 9000 + b'd' * 6000
assert m[:] == want and os.pread(dst, 30000, 0) == want
assert libc.fallocate(dst, 3, 6000, 10000) == 0
want = want[:6000] + bytes(10000) + want[16000:]
assert m[:] == want and os.pread(dst, 30000, 0) == want
m[7000:7001] = b'm'; m.flush()
assert os.pread(dst, 2, 6999) == b'\0m'"
random_file big 8
cp big big2
cmp big big2
chunks() { ctl info --json "$1" | python3 -c 'import json,sys; print(sorted(c["chunk"] for c in json.load(sys.stdin)["files"][0]["chunks"]))'; }
[ "$(chunks big)" != "[]" ] || fail "no chunks of big"
expect "chunks after cp" "$(chunks big)" "$(chunks big2)"

# file handles, as NFS servers use them
py "
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
class H(ctypes.Structure): _fields_ = [('n', ctypes.c_uint), ('type', ctypes.c_int), ('b', ctypes.c_char * 128)]
os.makedirs('h/d', exist_ok=True); open('h/d/f', 'w').write('by handle')
h, mid = H(128, 0), ctypes.c_int()
assert not libc.name_to_handle_at(-100, b'h/d/f', ctypes.byref(h), ctypes.byref(mid), 0), ctypes.get_errno()
os.rename('h/d', 'h/e')
open('/proc/sys/vm/drop_caches', 'w').write('2')
fd = libc.open_by_handle_at(os.open('.', os.O_RDONLY), ctypes.byref(h), os.O_RDONLY)
assert fd >= 0 and os.read(fd, 99) == b'by handle', ctypes.get_errno()
os.close(fd)
os.unlink('h/e/f')
open('/proc/sys/vm/drop_caches', 'w').write('2')
assert libc.open_by_handle_at(os.open('.', os.O_RDONLY), ctypes.byref(h), os.O_RDONLY) == -1 and ctypes.get_errno() == errno.ESTALE"

# an open file without a name can still be changed in every way
py "
fd = os.open('gone', os.O_RDWR | os.O_CREAT)
os.unlink('gone')
os.write(fd, b'abc'); os.ftruncate(fd, 10); os.fchmod(fd, 0o600); os.fchown(fd, 1, 2); os.utime(fd, (1, 2))
os.setxattr(fd, 'user.a', b'1')
st = os.fstat(fd)
assert (st.st_size, st.st_mode & 0o777, st.st_uid, st.st_gid, st.st_mtime, st.st_nlink) == (10, 0o600, 1, 2, 2, 0), st
assert os.pread(fd, 20, 0) == b'abc' + bytes(7) and os.getxattr(fd, 'user.a') == b'1'"
cd "$work"
check_sanitizers
