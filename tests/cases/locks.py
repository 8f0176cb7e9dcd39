#!/usr/bin/env python3
"""File locks on two real mounts of one cluster: locks.py MNT1 MNT2 PART...

Every party is a process of its own (an agent, which does what it is told over a pipe), so that a lock has an owner that
can wait, be interrupted and be killed. Nothing waits for a fixed time: an agent counts as waiting when it sits in its
system call.
"""
import errno, fcntl, json, os, re, select, signal, struct, subprocess, sys, time

PATIENCE = 60
OFD_GETLK, OFD_SETLK, OFD_SETLKW = 36, 37, 38
FLOCK = 'hhqqi4x'
R, W, U = fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK


# ---- the agent ----

class Interrupted(Exception):
    pass


def interrupted(*_):
    raise Interrupted()


def lk(cmd, fd, kind, start, length):
    arg = struct.pack(FLOCK, kind, os.SEEK_SET, start, length, 0)
    return list(struct.unpack(FLOCK, fcntl.fcntl(fd, cmd, arg)))


def rounds(path, how, n):
    """Adds n to a counter in the file, one by one, each under a lock."""
    for _ in range(n):
        fd = os.open(path, os.O_RDWR)
        if how == 'flock':
            fcntl.flock(fd, fcntl.LOCK_EX)
        else:
            lk(fcntl.F_SETLKW if how == 'posix' else OFD_SETLKW, fd, W, 0, 0)
        value = int(os.pread(fd, 32, 0) or b'0')
        os.pwrite(fd, b'%08d' % (value + 1), 0)
        os.close(fd)


def agent():
    fds, children = {}, {}
    signal.signal(signal.SIGUSR1, interrupted)
    signal.siginterrupt(signal.SIGUSR1, True)
    for line in sys.stdin:
        op, *a = json.loads(line)
        try:
            r = 0
            if op == 'open':
                fds[a[0]] = os.open(a[1], os.O_RDONLY if a[2:] else os.O_RDWR | os.O_CREAT, 0o644)
            elif op == 'close':
                os.close(fds.pop(a[0]))
            elif op == 'dup':
                fds[a[1]] = os.dup(fds[a[0]])
            elif op == 'lk':
                r = lk(a[0], fds[a[1]], *a[2:])
            elif op == 'flock':
                fcntl.flock(fds[a[0]], a[1])
            elif op == 'fork':  # a child that has what we have, until it is told to end
                rd, wr = os.pipe()
                pid = os.fork()
                if pid == 0:
                    os.close(wr)
                    os.read(rd, 1)
                    os._exit(0)
                os.close(rd)
                children[a[0]] = (pid, wr)
            elif op == 'reap':
                os.close(children[a[0]][1])
                os.waitpid(children[a[0]][0], 0)
            elif op == 'read':
                r = os.pread(fds[a[0]], 100, 0).decode()
            elif op == 'write':
                os.pwrite(fds[a[0]], a[1].encode(), 0)
            elif op == 'rounds':
                rounds(*a)
            r = ['ok', r]
        except Interrupted:
            r = ['EINTR', 0]
        except OSError as e:
            r = ['EDEADLK' if e.errno == errno.EDEADLK else errno.errorcode[e.errno], 0]
        print(json.dumps(r), flush=True)


class Agent:
    all = []

    def __init__(self, path=None, name='f'):
        self.p = subprocess.Popen([sys.executable, __file__, 'agent'], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        Agent.all.append(self)
        self.pid = self.p.pid
        if path:
            self.ok('open', name, path)

    def send(self, *cmd):
        self.p.stdin.write(json.dumps(cmd).encode() + b'\n')
        self.p.stdin.flush()

    def answered(self, timeout=0):
        return bool(select.select([self.p.stdout], [], [], timeout)[0])

    def result(self):
        assert self.answered(PATIENCE), f'agent {self.pid} does not answer (in system call {self.syscall()})'
        return json.loads(self.p.stdout.readline())

    def ask(self, *cmd):
        self.send(*cmd)
        return self.result()

    def ok(self, *cmd):
        r = self.ask(*cmd)
        assert r[0] == 'ok', f'{cmd}: {r[0]}'
        return r[1]

    def fails(self, how, *cmd):
        r = self.ask(*cmd)
        assert r[0] == how, f'{cmd}: expected {how}, got {r}'

    def syscall(self):
        with open(f'/proc/{self.pid}/syscall') as f:
            return f.read().split()[0]

    def waits(self, *cmd):
        """Sends a command and sees it wait in fcntl or flock."""
        self.send(*cmd)
        self.still_waits()

    def still_waits(self):
        until = time.monotonic() + PATIENCE
        while self.syscall() not in ('72', '73', '32', '25'):  # fcntl, flock: x86-64, arm64
            assert time.monotonic() < until, 'not in a system call for locks'
        assert not self.answered(), f'expected to wait, but: {self.result()}'

    def granted(self):
        r = self.result()
        assert r[0] == 'ok', f'expected to get the lock, but: {r[0]}'

    def kill(self):
        self.p.kill()
        self.p.wait()

    def end(self):
        if self.p.poll() is None:
            self.p.stdin.close()
            try:
                self.p.wait(5)
            except subprocess.TimeoutExpired:
                self.kill()
        self.p.stdout.close()


SET, SETW, GET = fcntl.F_SETLK, fcntl.F_SETLKW, fcntl.F_GETLK


def free(path):
    """Nobody has or waits for anything: a fresh process can lock all of it, both kinds, at once."""
    a = Agent(path)
    a.ok('lk', SET, 'f', W, 0, 0)
    a.ok('flock', 'f', fcntl.LOCK_EX | fcntl.LOCK_NB)
    a.end()


# ---- parts ----

def part_exclusion(m1, m2):
    for a, b in ((m1, m2), (m1, m1)):
        p, q = Agent(a + '/x'), Agent(b + '/x')
        p.ok('lk', SET, 'f', W, 10, 10)
        q.fails('EAGAIN', 'lk', SET, 'f', R, 19, 1)
        q.ok('lk', SET, 'f', W, 20, 0)
        assert q.ok('lk', GET, 'f', W, 0, 0) == [W, 0, 10, 10, p.pid]
        assert p.ok('lk', GET, 'f', R, 0, 0) == [W, 0, 20, 0, q.pid]
        assert p.ok('lk', GET, 'f', W, 0, 15)[0] == U  # one's own is not in the way
        p.ok('lk', SET, 'f', R, 13, 4)                 # splits: 10..12 W, 13..16 R, 17..19 W
        q.ok('lk', SET, 'f', R, 14, 1)
        p.fails('EAGAIN', 'lk', SET, 'f', W, 13, 4)
        assert q.ok('lk', GET, 'f', W, 16, 9) == [R, 0, 13, 4, p.pid]
        p.ok('lk', SET, 'f', U, 11, 1)
        assert q.ok('lk', GET, 'f', R, 10, 9) == [W, 0, 10, 1, p.pid]
        q.waits('lk', SETW, 'f', W, 10, 10)
        p.ok('lk', SET, 'f', U, 0, 0)
        q.granted()
        q.end(), p.end()
        free(a + '/x')


def part_release(m1, m2):
    f = '/r'
    for how in ('unlock', 'close', 'other', 'exit', 'kill'):
        p, q = Agent(m1 + f), Agent(m2 + f)
        p.ok('open', 'ro', m1 + f, 'ro')
        p.ok('lk', SET, 'f', W, 0, 0)
        q.waits('lk', SETW, 'f', R, 0, 0)
        if how == 'unlock':
            p.ok('lk', SET, 'f', U, 0, 0)
        elif how == 'close':
            p.ok('close', 'f')
        elif how == 'other':  # as POSIX has it: any descriptor of the file, even one for reading
            p.ok('close', 'ro')
        elif how == 'exit':
            p.end()
        else:
            p.kill()
        q.granted()
        q.end(), p.end()
        free(m1 + f)
    # a read lock through a file opened for reading, and a copy of the descriptor
    p, q = Agent(), Agent(m2 + f)
    p.ok('open', 'a', m1 + f, 'ro')
    p.ok('dup', 'a', 'b')
    p.ok('lk', SET, 'a', R, 0, 0)
    p.fails('EBADF', 'lk', SET, 'a', W, 0, 0)
    q.waits('lk', SETW, 'f', W, 0, 0)
    p.ok('close', 'b')
    q.granted()
    q.end(), p.end()
    free(m1 + f)


def part_deadlock(m1, m2):
    """A circle of two, then of three: exactly one is refused, and when it unlocks the others go on."""
    for mounts in ((m1, m1), (m1, m2), (m1, m1, m1), (m1, m2, m1)):
        a = [Agent(m + '/d') for m in mounts]
        for i, x in enumerate(a):
            x.ok('lk', SET, 'f', W, i, 1)
        for i, x in enumerate(a):
            x.send('lk', SETW, 'f', W if i else R, (i + 1) % len(a), 1)
        refused = select.select([x.p.stdout for x in a], [], [], PATIENCE)[0]
        assert len(refused) == 1, f'{len(refused)} answers'
        at = [x.p.stdout for x in a].index(refused[0])
        assert a[at].result()[0] == 'EDEADLK'
        for x in a:
            if x is not a[at]:
                x.still_waits()
        for k in range(len(a)):  # backwards, each is waited for by the one before
            x = a[at - k]
            if k:
                x.granted()
            x.ok('close', 'f')
        for x in a:
            x.end()
        free(m1 + '/d')


def part_interrupt(m1, m2):
    for kind in ('lk', 'flock'):
        cmd = ('lk', SETW, 'f', W, 0, 0) if kind == 'lk' else ('flock', 'f', fcntl.LOCK_EX)
        p, q, r = Agent(m1 + '/i'), Agent(m2 + '/i'), Agent(m2 + '/i')
        p.ok(*cmd)
        q.waits(*cmd)
        os.kill(q.pid, signal.SIGUSR1)
        assert q.result()[0] == 'EINTR'
        q.waits(*cmd)
        r.waits(*cmd)
        r.kill()  # while it waits: must neither hang nor be granted later
        p.end()
        q.granted()
        q.end()
        free(m1 + '/i')


def part_ofd(m1, m2):
    p, q = Agent(m1 + '/o'), Agent(m2 + '/o')
    p.ok('open', 'g', m1 + '/o')
    p.ok('lk', OFD_SETLK, 'f', W, 0, 10)
    p.fails('EAGAIN', 'lk', OFD_SETLK, 'g', R, 0, 1)  # the same process, another open file
    p.fails('EAGAIN', 'lk', SET, 'f', R, 0, 1)        # they exclude POSIX locks, even one's own
    assert q.ok('lk', OFD_GETLK, 'f', W, 5, 1)[:4] == [W, 0, 0, 10]
    p.ok('close', 'g')                                # does not lose the lock
    p.ok('dup', 'f', 'h')
    p.ok('close', 'f')                                # nor this: the open file lives
    q.fails('EAGAIN', 'lk', OFD_SETLK, 'f', W, 0, 1)
    q.waits('lk', OFD_SETLKW, 'f', W, 0, 1)
    p.ok('fork', 'c')
    p.ok('close', 'h')                                # the child still has it
    q.still_waits()
    p.ok('reap', 'c')
    q.granted()
    q.end(), p.end()
    free(m1 + '/o')


def part_flock(m1, m2):
    sh, ex, un, nb = fcntl.LOCK_SH, fcntl.LOCK_EX, fcntl.LOCK_UN, fcntl.LOCK_NB
    p, q = Agent(m1 + '/l'), Agent(m2 + '/l')
    p.ok('flock', 'f', ex)
    p.ok('lk', SET, 'f', W, 0, 0)      # the kinds know nothing of each other
    q.fails('EAGAIN', 'flock', 'f', sh | nb)
    p.ok('open', 'g', m1 + '/l', 'ro')
    p.fails('EAGAIN', 'flock', 'g', ex | nb)  # another open file, even within the process
    p.ok('flock', 'f', sh)             # a downgrade
    q.ok('flock', 'f', sh | nb)
    q.fails('EAGAIN', 'flock', 'f', ex | nb)  # a failed conversion loses the former lock
    p.ok('flock', 'f', ex | nb)
    p.ok('fork', 'c')
    p.ok('close', 'f')
    q.waits('flock', 'f', ex)          # the child's copy holds it
    p.ok('reap', 'c')
    q.granted()
    p.waits('flock', 'g', ex)
    q.ok('flock', 'f', un)
    p.granted()
    p.ok('fork', 'd')                  # unlocking through any copy unlocks
    p.ok('flock', 'g', un)
    q.ok('flock', 'f', ex | nb)
    p.ok('reap', 'd')
    for _ in range(100):               # locked again right after the file was closed
        for m in (m1, m2):
            fd = os.open(m + '/l2', os.O_RDWR | os.O_CREAT)
            fd2 = os.open(m + '/l2', os.O_RDWR)
            fcntl.flock(fd, ex | nb)
            os.close(fd)
            fcntl.flock(fd2, ex | nb)
            fcntl.flock(fd2, un)
            os.close(fd2)
    q.end(), p.end()
    free(m1 + '/l')


def part_counter(m1, m2):
    """What was written under a lock is seen under the next one, wherever."""
    for how in ('posix', 'ofd', 'flock'):
        agents = [Agent() for _ in range(4)]
        open(m1 + '/' + how, 'w').close()
        for i, a in enumerate(agents):
            a.send('rounds', (m1 if i % 2 else m2) + '/' + how, how, 50)
        for a in agents:
            a.granted()
            a.end()
        with open(m2 + '/' + how) as f:
            assert int(f.read()) == 200, f'{how}: increments were lost'


def devcluster(*args):
    command, *where = json.loads(os.environ['DEVCLUSTER'])
    return subprocess.run([command, *args, *where], check=True, stdout=subprocess.PIPE, text=True).stdout


def part_restart(m1, m2):
    p, q, r = Agent(m1 + '/m'), Agent(m2 + '/m'), Agent(m2 + '/m')
    p.ok('lk', SET, 'f', W, 0, 10)
    p.ok('lk', SET, 'f', R, 20, 10)
    p.ok('flock', 'f', fcntl.LOCK_EX)
    q.waits('lk', SETW, 'f', W, 25, 1)
    devcluster('kill', 'metads')
    r.waits('flock', 'f', fcntl.LOCK_EX)  # asked while there is no metad
    devcluster('start', 'metads')
    x = Agent(m2 + '/m')
    x.fails('EAGAIN', 'lk', SET, 'f', R, 0, 1)
    x.ok('lk', SET, 'f', R, 25, 1)
    x.ok('lk', SET, 'f', U, 0, 0)
    assert x.ok('lk', GET, 'f', R, 0, 0) == [W, 0, 0, 10, p.pid]
    q.still_waits()
    r.still_waits()
    p.ok('lk', SET, 'f', U, 0, 0)
    q.granted()
    p.end()
    r.granted()
    for a in (q, r, x):
        a.end()
    free(m1 + '/m')


def part_lost_client(m1, m2):
    """The mount at m2 is killed by the shell when we say so: its locks end with its session."""
    p, q = Agent(m1 + '/k'), Agent(m2 + '/k')
    q.ok('lk', SET, 'f', W, 0, 0)
    q.ok('flock', 'f', fcntl.LOCK_SH)
    p.waits('lk', SETW, 'f', W, 0, 0)
    os.kill(int(os.environ['MOUNT2_PID']), signal.SIGKILL)
    p.granted()
    p.ok('flock', 'f', fcntl.LOCK_EX)
    q.kill()
    p.end()
    free(m1 + '/k')


def part_unmount(m1, m2):
    """A mount ends while somebody waits on it: he is told, and nothing stays behind."""
    for how in ('-f', 'term'):
        devcluster('mount', m2)
        p, q = Agent(m1 + '/u'), Agent(m2 + '/u')
        p.ok('lk', SET, 'f', W, 0, 0)
        q.waits('lk', SETW, 'f', W, 0, 0)
        if how == 'term':
            pid = re.search(f'mounted on {m2}, pid ([0-9]+)', devcluster('status')).group(1)
            os.kill(int(pid), signal.SIGTERM)
        else:
            subprocess.run(['umount', '-f', m2], stderr=subprocess.DEVNULL)  # busy, but aborted
        assert q.result()[0] != 'ok'
        q.end()
        devcluster('unmount', m2)
        p.end()
        free(m1 + '/u')


def main():
    if sys.argv[1] == 'agent':
        return agent()
    m1, m2 = sys.argv[1:3]
    try:
        for part in sys.argv[3:]:
            started = time.monotonic()
            globals()['part_' + part](m1, m2)
            print(f'{part}: fine ({time.monotonic() - started:.1f} s)', flush=True)
    finally:
        for a in Agent.all:
            if a.p.poll() is None:
                a.p.kill()


main()
