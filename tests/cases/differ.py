"""The same random calls on a local directory and, each through one of several mounts, on replfs: results, errors, bytes and
what is listed must be the same. usage: differ.py SEED CALLS LOCAL MOUNT.. (LOCAL: on ext4; a folder of its own is made in each)"""
import ctypes, os, random, stat, sys

seed, calls, local, mounts = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:]
r = random.Random(seed)
libc = ctypes.CDLL(None, use_errno=True)
TOP = 'differ.%d' % seed
NAMES = ['a', 'b', 'c', 'd', 'e', 'f', 'long' * 30]
SIZES = (0, 1, 10, 4095, 4096, 5000, 65536, 200001)
KEEP, PUNCH, ZERO = 1, 3, 16


def path():
    return '/'.join(r.choice(NAMES) for _ in range(r.choice((1, 1, 2, 2, 3))))


def seen(s, full=True):
    """Of a stat: directories' sizes and times that nobody set differ, and may."""
    t = s.st_mtime_ns if s.st_mtime_ns < 10**15 else 'now'
    size = 0 if stat.S_ISDIR(s.st_mode) else s.st_size
    return (oct(s.st_mode), s.st_nlink, s.st_uid, s.st_gid, size, t if full and not stat.S_ISDIR(s.st_mode) else 0)


def opened(p, flags, fn):
    fd = os.open(p, flags, 0o644)
    try:
        return fn(fd)
    finally:
        os.close(fd)


def write(d, p, off, n, fill, flags):
    def all_of_it(fd):
        return os.pwrite(fd, bytes([fill]) * n, off)
    return opened(d + p, os.O_WRONLY | flags, all_of_it)


def allocate(d, p, mode, off, n):
    def it(fd):
        if libc.fallocate(fd, mode, ctypes.c_long(off), ctypes.c_long(n)):
            raise OSError(ctypes.get_errno(), 'fallocate')
    return opened(d + p, os.O_RDWR, it)


def copy(d, p, q, off, to, n):
    def it(out):
        return opened(d + p, os.O_RDONLY, lambda fd: os.copy_file_range(fd, out, n, off, to))
    return opened(d + q, os.O_RDWR | os.O_CREAT, it)


def read(d, p, off, n):
    return opened(d + p, os.O_RDONLY, lambda fd: os.pread(fd, n, off))


def listing(d, p):
    """Names with attributes, as ls -l and find get them: those that come with the listing."""
    with os.scandir(d + p) as it:
        return sorted((e.name, seen(e.stat(follow_symlinks=False))) for e in it)


def half_listing(d, p):
    """One that is given up."""
    with os.scandir(d + p) as it:
        for e in it:
            e.stat(follow_symlinks=False)
            break


def tree(d):
    out = []
    for at, dirs, files in os.walk(d):
        for n in dirs + files:
            f = os.path.join(at, n)
            s = os.lstat(f)
            text = None
            if stat.S_ISREG(s.st_mode):
                with open(f, 'rb') as g:
                    text = hash(g.read())
            out.append((os.path.relpath(f, d), seen(s), text))
    return sorted(out)


def xattr(d, p, name, value):
    os.setxattr(d + p, 'user.' + name, value)
    return sorted((n, os.getxattr(d + p, n)) for n in os.listxattr(d + p) if n.startswith('user.'))


def any_call():
    """A function of a folder, ready to be called on each."""
    p, q, size, off = path(), path(), r.choice(SIZES), r.choice(SIZES)
    fill, t, mode = r.randrange(256), r.randrange(10**9), r.choice((0o600, 0o644, 0o755, 0o4755, 0o2711))
    flags = r.choice((os.O_CREAT, os.O_CREAT, 0, os.O_CREAT | os.O_EXCL, os.O_CREAT | os.O_TRUNC, os.O_APPEND))
    amode = r.choice((PUNCH, PUNCH, ZERO, ZERO | KEEP, KEEP, 0))
    return r.choices((
        ('write', p, off, size, flags, lambda d: write(d, p, off, size, fill, flags)),
        ('read', p, off, size, lambda d: read(d, p, off, size)),
        ('truncate', p, size, lambda d: os.truncate(d + p, size)),
        ('allocate', p, amode, off, size, lambda d: allocate(d, p, amode, off, size or 1)),
        ('copy', p, q, off, size, lambda d: copy(d, p, q, off, 0 if p == q else size, min(size, off) if p == q else size)),
        ('chmod', p, oct(mode), lambda d: os.chmod(d + p, mode)),
        ('chown', p, fill, lambda d: os.chown(d + p, fill, -1)),
        ('utime', p, t, lambda d: os.utime(d + p, ns=(t, t))),
        ('stat', p, lambda d: seen(os.lstat(d + p))),
        ('list', p, lambda d: listing(d, p)),
        ('list', '.', lambda d: listing(d, '.')),
        ('half', p, lambda d: half_listing(d, p)),
        ('mkdir', p, lambda d: os.mkdir(d + p, mode & 0o777)),
        ('rmdir', p, lambda d: os.rmdir(d + p)),
        ('unlink', p, lambda d: os.unlink(d + p)),
        ('rename', p, q, lambda d: os.rename(d + p, d + q)),
        ('link', p, q, lambda d: os.link(d + p, d + q)),
        ('symlink', p, q, lambda d: os.symlink(p, d + q)),
        ('readlink', p, lambda d: os.readlink(d + p)),
        ('xattr', p, fill, lambda d: xattr(d, p, 'n%d' % (fill % 3), b'x' * (fill % 50))),
    ), (16, 10, 4, 6, 6, 5, 2, 5, 8, 6, 6, 3, 6, 3, 5, 7, 4, 2, 2, 3))[0]


def result(fn, d):
    try:
        return fn(d)
    except OSError as e:
        return 'error %d, %s' % (e.errno, os.strerror(e.errno))


here = os.path.join(local, TOP)
there = [os.path.join(m, TOP) for m in mounts]
os.umask(0o022)
os.mkdir(here)
os.mkdir(there[0])
bad, history = 0, []
for k in range(calls):
    call, m = any_call(), r.choice(there)
    want, got = result(call[-1], here + '/'), result(call[-1], m + '/')
    history.append('%d %s %s -> %.60s' % (k, there.index(m), call[:-1], want))
    if want != got:
        bad += 1
        print('seed %d, call %d, mount %d, %s\n  local  %.300s\n  replfs %.300s' % (seed, k, there.index(m), call[:-1], want, got))
        print('  before: ' + '\n          '.join(history[-8:-1]))
        if bad > 3:
            break
    if k % 500 == 499 or k == calls - 1:
        want = tree(here)
        for m in there:
            got = tree(m)
            if want != got:
                bad += 1
                print('seed %d, after call %d: trees differ: %.500s' % (seed, k, sorted(set(want) ^ set(got))))
        if bad:
            break
os.system('rm -rf %s %s' % (here, there[0]))
print('seed %d: %d calls, %d differences' % (seed, k + 1, bad))
sys.exit(bad != 0)
