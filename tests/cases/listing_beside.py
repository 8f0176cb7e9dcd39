"""Listings beside changes. A listing that is under way must not take back what has been changed since it began: not here
(`steps`), and not while others list without end (`beside`). usage: listing_beside.py steps|beside SECONDS MOUNT.."""
import os, random, stat, subprocess, sys, time

what, seconds, mounts = sys.argv[1], float(sys.argv[2]), sys.argv[3:]
LIST, CHANGE = mounts[0], mounts[-1]


def fail(text):
    print('FAILED:', text, flush=True)
    sys.exit(1)


def at(mount, *names):
    return os.path.join(mount, *names)


def state(path):
    """What a program can see of a file; None: there is none."""
    try:
        s = os.lstat(path)
        with open(path) as f:
            text = f.read()
    except FileNotFoundError:
        return None
    return (text, s.st_size, stat.S_IMODE(s.st_mode), s.st_uid, s.st_mtime_ns if s.st_mtime_ns < 10**12 else 0)


def put(path, text):
    with open(path, 'w') as f:
        f.write(text)


def again(path, text):
    os.unlink(path)
    put(path, text)


def moved(path):
    os.rename(path, path + '.moved')


STEPS = {
    'write': lambda p: put(p, 'hello'),
    'chmod': lambda p: os.chmod(p, 0o600),
    'utime': lambda p: os.utime(p, ns=(7 * 10**9, 7 * 10**9)),
    'chown': lambda p: os.chown(p, 1000, 1000),
    'truncate': lambda p: os.truncate(p, 1),
    'unlink': os.unlink,
    'replace': lambda p: again(p, 'new'),
    'rename': moved,
}


def steps():
    """One change between the first and the last piece of a listing."""
    n = 60
    for name, change in STEPS.items():
        d = at(LIST, 'steps')
        os.mkdir(d)
        for i in range(n):
            put(at(d, '%03d' % i), 'old')
        for i in (40, n - 1):
            seen, changed = at(d, '%03d' % i), at(CHANGE, 'steps', '%03d' % i)
            it = os.scandir(d)
            next(it).stat(follow_symlinks=False)
            change(changed)
            want = state(changed)
            if state(seen) != want:
                fail('%s %d: not seen before the listing goes on' % (name, i))
            for e in it:  # attributes of the others keep the kernel asking with attributes
                e.name == '%03d' % i or e.stat(follow_symlinks=False)
            got = state(seen)
            if got != want:
                fail('%s %d: the listing took it back: %s, expected %s' % (name, i, got, want))
        subprocess.run(['rm', '-r', d], check=True)


def lister(dirs, go):
    r, k = random.Random(os.getpid()), 0
    while os.path.exists(go):
        subprocess.run(['ls', '-lR', r.choice(dirs)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        k += 1
    return k


def check(name, want, k):
    for m in mounts:
        got = state(at(m, 'beside', name))
        if got != want:
            fail('%s of %s: %s, expected %s; step %d, pid %d' % (name, m, got, want, k, os.getpid()))


def writer(number, until):
    """Files of its own, among others' and the crowd: each change through any of the mounts is seen through all."""
    r, k, mine = random.Random(number), 0, {}
    while time.time() < until:
        k += 1
        name = '%d/w%d.%d' % (k % 3, number, r.randrange(12))
        p, was = at(r.choice(mounts), 'beside', name), mine.get(name)
        op = r.choice(('write', 'write', 'chmod', 'utime', 'unlink', 'replace', 'truncate'))
        if op == 'write' or was is None:
            text = '%d\n' % k * 5
            put(p, text)
            want = (text, len(text), was[2] if was else 0o644, 0, 0)
        elif op == 'chmod':
            mode = r.choice((0o600, 0o640, 0o644))
            os.chmod(p, mode)
            want = was[:2] + (mode,) + was[3:]
        elif op == 'utime':
            os.utime(p, ns=(k * 10**6, k * 10**6))
            want = was[:4] + (k * 10**6,)
        elif op == 'unlink':
            os.unlink(p)
            want = None
        elif op == 'truncate':
            os.truncate(p, len(was[0]) // 2)
            want = (was[0][:len(was[0]) // 2], len(was[0]) // 2) + was[2:4] + (0,)
        else:
            put(p + '.new', 'replaced %d' % k)
            os.rename(p + '.new', p)
            want = ('replaced %d' % k, len('replaced %d' % k), 0o644, 0, 0)
        mine[name] = want
        check(name, want, k)
        if r.random() < 0.3:
            time.sleep(r.random() * 0.02)
        if r.random() < 0.3:
            name = r.choice(list(mine))
            check(name, mine[name], k)
    return k


def beside():
    d, go = at(LIST, 'beside'), os.environ['GO']
    os.mkdir(d)
    for sub in '012':
        os.mkdir(at(d, sub))
        for i in range(100):
            put(at(d, sub, 'crowd%03d' % i), '')
    put(go, '')
    os.umask(0o022)
    until, pids = time.time() + seconds, {}
    for i in range(2):
        pids[forked(lister, [at(m, 'beside') for m in mounts], go)] = 'listings'
        pids[forked(writer, i, until)] = 'changes'
    bad = 0
    while pids:
        pid, code = os.wait()
        kind = pids.pop(pid)
        bad += code != 0
        if 'changes' not in pids.values() and os.path.exists(go):
            os.unlink(go)
    subprocess.run(['rm', '-r', d], check=True)
    sys.exit(bad != 0)


def forked(fn, *args):
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        print('%s: %d rounds' % (fn.__name__, fn(*args)), flush=True)
        code = 0
    finally:
        os._exit(code)


{'steps': steps, 'beside': beside}[what]()
