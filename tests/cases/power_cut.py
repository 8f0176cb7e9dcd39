#!/usr/bin/env python3
"""Writes to a mount until the power goes, and says afterwards what must be there. Used by power_cut.sh.

  power_cut.py load MNT BOOK SECONDS END DISK...   random load, then END, then the power cut of all DISKs; makes BOOK.end
  power_cut.py check MNT BOOK                      compares what is there with the book, prints what must not be

The book knows for each name the state that is safe (what fsync, or fsync of the directory, has answered for) and all
that was asked for since: after the cut the name must be in one of these states. A state is "absent" or a version of the
file's bytes. Each 512 bytes of a version tell which one they belong to, so that mixed ones are seen.

  bytes that were never synced, of a file that was new     may be gone: short, zeros, or unreadable
  a safe file replaced by rename                           is whole, old or new
  a safe file overwritten in place                         each block old or new
  a file that is appended to                               whole as far as it was synced
  a safe file truncated and written again                  old, or the beginning of the new: readable anyway

The power is cut by the thread whose fsync just returned: an answer given too early has no time to become true. END
is what comes last: "load" cuts in the middle of everything; with the others all is quiet but for one last fsync, which
no other's sync can make true: "append" of bytes just written, "reopen" of bytes written and closed before (which
takes another request), "names" of directories, just after metad has made a checkpoint. "displace" is the reverse: what
is safe is replaced in all three ways, nothing is synced, and the power goes within some 0.2 s: chunkds sync by
themselves after one second.
"""
import fcntl, glob, json, os, random, struct, sys, threading, time
from concurrent.futures import ThreadPoolExecutor

UNIT = 512
WORKERS = 4


def unit(name, version, i):
    return (b"%s %d %d\n" % (name.encode(), version, i)).ljust(UNIT, b".")


def size_of(name, version):
    return random.Random(f"{name} {version}").choice([1, 3, 16, 100, 300, 600])


def content(name, version):
    return b"".join(unit(name, version, i) for i in range(size_of(name, version)))


class Stop(Exception):
    """The power is gone, or the time is over."""


class Book:
    """What every name may be. `names`: path -> [state, ...], the first one safe. A state is {"v": version, 0 is absent;
    "new": its bytes may be lost; "synced": they were fsynced; "cut": any beginning will do}. `blocks`: path -> for each
    unit of a file that is written in place [safe version, newest version]."""

    def __init__(self, data=None):
        data = data or {"names": {}, "blocks": {}, "version": 0}
        self.names, self.blocks, self.version = data["names"], data["blocks"], data["version"]
        self.lock, self.frozen = threading.Lock(), False

    def save(self, path):
        with open(path + ".tmp", "w") as f:
            json.dump({"names": self.names, "blocks": self.blocks, "version": self.version}, f)
        os.rename(path + ".tmp", path)

    def __enter__(self):
        self.lock.acquire()
        if self.frozen:
            self.lock.release()
            raise Stop

    def __exit__(self, *_):
        self.lock.release()

    def next_version(self):
        with self:
            self.version += 1
            return self.version

    def now(self, name):
        return self.names.get(name, [{"v": 0}])[-1]

    def asks(self, name, v, new, **more):
        """Before the call: from now on the name may be this, too."""
        with self:
            self.names.setdefault(name, [{"v": 0}]).append(dict(v=v, new=new, **more))

    def answered(self, name, data):
        """After an fsync: the last state is the only one. `data`: so are its bytes."""
        with self:
            self.keep_last(name, data)

    def keep_last(self, name, data):
        states = self.names[name]
        if data:
            self.names[name] = [{**states[-1], "new": False, "synced": True}]
            self.names[name][0].pop("cut", None)
            for b in self.blocks.get(name, []):
                b[0] = b[1]
            if os.path.dirname(name) in self.names: # directories are never removed
                self.keep_last(os.path.dirname(name), False)
        elif "cut" in states[-1]: # the name is safe, not what is in the file
            self.names[name] = [s for s in states if s["v"]]
        else:
            self.names[name] = states[-1:]


class Worker(threading.Thread):
    """One directory, one thread. Each step is one operation as a program would do it."""

    def __init__(self, load, k):
        super().__init__()
        self.load, self.book, self.dir, self.random = load, load.book, f"w{k}", random.Random(load.seed * 100 + k)
        self.lazy = False # it syncs nothing
        self.steps = [self.create, self.replace, self.replace, self.overwrite, self.overwrite, self.append, self.rewrite,
                      self.remove, self.fsync_file, self.fsync_dir, self.make_dir]

    def run(self):
        try:
            while not self.load.over():
                self.random.choice(self.steps)()
        except Stop:
            pass
        except OSError as e: # of a mount without disks; before the cut nothing may fail
            if not self.load.book.frozen:
                self.load.error = f"{self.dir}: {e}"

    def path(self, name):
        return os.path.join(self.load.mnt, name)

    def often(self, chance):
        return not self.lazy and self.random.random() < chance

    def pick(self, kind):
        return f"{self.dir}/{kind}{self.random.randrange(5)}"

    def write(self, name, v, flags):
        fd = os.open(self.path(name), os.O_WRONLY | os.O_CREAT | flags, 0o644)
        data = content(name, v)
        while data:
            n = self.random.choice([100, 4096, 50000, 1 << 20])
            os.write(fd, data[:n])
            data = data[n:]
        return fd

    def sync_and_close(self, fd, name):
        os.fsync(fd)
        self.book.answered(name, True)
        self.load.synced()
        os.close(fd)

    # -- the operations: each on a kind of file of its own
    def create(self, name=None, sync=None):
        name = name or self.pick("n")
        if self.book.now(name)["v"]:
            return self.remove(name)
        v = self.book.next_version()
        self.book.asks(name, v, True)
        fd = self.write(name, v, os.O_EXCL)
        if self.often(0.5) if sync is None else sync:
            self.sync_and_close(fd, name)
        else:
            os.close(fd)

    def remove(self, name=None):
        name = name or self.pick("n")
        if self.book.now(name)["v"]:
            self.book.asks(name, 0, True)
            os.unlink(self.path(name))

    def replace(self):
        name, v = self.pick("r"), self.book.next_version()
        before, new, sync = self.book.now(name), name + ".new", self.often(0.3)
        fd = os.open(self.path(new), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.write(fd, content(name, v))
        if sync:
            os.fsync(fd)
        os.close(fd)
        self.book.asks(name, v, not sync and (not before["v"] or before.get("new", False)), synced=sync)
        os.rename(self.path(new), self.path(name))
        if self.often(0.3):
            self.fsync_dir()

    def overwrite(self):
        name, n = self.pick("o"), 256
        fd = self.begin(name)
        if not self.book.blocks[name]:
            self.put(fd, name, 0, n)
        for _ in range(self.random.choice([1, 1, 4])):
            at = self.random.randrange(n)
            self.put(fd, name, at, min(self.random.choice([1, 8, 64]), n - at))
        self.end(fd, name)

    def append(self):
        name = self.pick("a")
        fd = self.begin(name)
        self.put(fd, name, len(self.book.blocks[name]), self.random.choice([1, 8, 100]))
        self.end(fd, name)

    def begin(self, name):
        if not self.book.now(name)["v"]:
            with self.book:
                self.book.blocks[name] = []
            self.book.asks(name, 1, True)
        return os.open(self.path(name), os.O_RDWR | os.O_CREAT, 0o644)

    def put(self, fd, name, at, length):
        v = self.book.next_version()
        with self.book:
            blocks = self.book.blocks[name]
            blocks.extend([0, 0] for _ in range(at + length - len(blocks)))
            for b in blocks[at : at + length]:
                b[1] = v
        os.pwrite(fd, b"".join(unit(name, v, i) for i in range(at, at + length)), at * UNIT)

    def end(self, fd, name):
        if self.often(0.3):
            self.sync_and_close(fd, name)
        else:
            os.close(fd)

    def rewrite(self):
        name, v = self.pick("t"), self.book.next_version()
        before = self.book.now(name)
        self.book.asks(name, v, not before["v"] or before.get("new", False), cut=True)
        self.end(self.write(name, v, os.O_TRUNC), name)

    def fsync_file(self):
        name = self.pick(self.random.choice("nroat"))
        if self.book.now(name)["v"]:
            self.sync_and_close(os.open(self.path(name), os.O_RDWR), name)

    def fsync_dir(self, dir=None):
        dir = dir or self.dir
        fd = os.open(self.path(dir), os.O_RDONLY)
        os.fsync(fd)
        with self.book:
            for name in self.book.names:
                if os.path.dirname(name) == dir:
                    self.book.keep_last(name, False)
        self.load.synced()
        os.close(fd)

    def make_dir(self):
        dir = self.pick("d")
        if not self.book.now(dir)["v"]:
            self.book.asks(dir, 1, False, dir=True)
            os.mkdir(self.path(dir))
        file = f"{dir}/n0"
        self.create(file)
        if self.often(0.5):
            self.fsync_dir(self.dir)
            self.fsync_dir(dir)

    def fsync_all(self):
        for name, states in list(self.book.names.items()):
            if name.startswith(self.dir + "/") and states[-1]["v"] and "dir" not in states[-1]:
                self.sync_and_close(os.open(self.path(name), os.O_RDWR), name)
        self.fsync_dir()

    # -- what comes last when all is quiet
    def last(self, end):
        if end == "displace":
            return self.displace()
        self.load.ending = True
        name = f"{self.dir}/last{self.book.next_version()}"
        if end == "append":
            self.create(name, True)
        elif end == "reopen":
            self.create(name, False)
            self.sync_and_close(os.open(self.path(name), os.O_RDWR), name)
        else:
            self.await_checkpoint()
            self.book.asks(name, 1, False, dir=True)
            os.mkdir(self.path(name))
            self.create(name + "/n", False)
            fd = os.open(self.path(name), os.O_RDONLY)
            os.fsync(fd)
            with self.book:
                self.book.keep_last(name, False)
                self.book.keep_last(name + "/n", False)
            self.load.synced()


    def await_checkpoint(self):
        """Changes until a metad's log was cut behind a new one."""
        def made():
            return {f for place in self.load.places for f in glob.glob(os.path.join(place, "data/log/snapshot-*.meta"))}
        before = made()
        while made() <= before:
            os.setxattr(self.path(self.dir), "user.filler", os.urandom(2000))
            if time.monotonic() > self.load.until + 30:
                raise OSError(0, "no checkpoint within 30 s")

    def displace(self):
        for step in (self.replace, self.overwrite, self.rewrite):
            for _ in range(8):
                step()
        self.fsync_all()
        self.lazy = True
        for step in (self.replace, self.overwrite, self.rewrite):
            for _ in range(3):
                step()
        time.sleep(self.random.choice([0.05, 0.1, 0.2]))
        self.load.cut()


class Load:
    def __init__(self, mnt, book_path, seconds, end, disks):
        with open(book_path) as f:
            self.book = Book(json.load(f))
        self.mnt, self.book_path, self.end = mnt, book_path, end
        self.seed = int(os.environ.get("SEED", time.time_ns() % 1000000))
        self.places, self.disks = disks, [os.open(d, os.O_RDONLY) for d in disks]
        self.until, self.error, self.ending = time.monotonic() + seconds, None, False
        self.done = threading.Event()

    def over(self):
        return self.error or (self.end != "load" and time.monotonic() > self.until)

    def synced(self):
        """Called by who was just told that something is safe."""
        if self.ending or (self.end == "load" and time.monotonic() > self.until):
            self.cut()

    def cut(self):
        with self.book:
            self.book.frozen = True
        for d in self.disks:
            fcntl.ioctl(d, 0x8004587D, struct.pack("I", 2)) # EXT4_IOC_SHUTDOWN, nothing of its log is flushed
        self.book.save(self.book_path)
        self.done.set()
        raise Stop

    def run(self):
        workers = [Worker(self, k) for k in range(WORKERS)]
        for w in workers:
            os.makedirs(w.path(w.dir), exist_ok=True)
            w.fsync_dir()
        os.fsync(os.open(self.mnt, os.O_RDONLY))
        for w in workers:
            w.start()
        if self.end == "load":
            while not self.done.wait(0.1) and not self.error:
                pass
        else:
            for w in workers:
                w.join()
            try:
                if not self.error:
                    workers[0].last(self.end)
            except Stop:
                pass
            except OSError as e:
                self.error = str(e)
        with open(self.book_path + ".end", "w") as f: # the other threads' calls, and so this process, end with the mount
            f.write(f"before the power cut: {self.error}\n" if self.error else "")
        os._exit(0)


# -- afterwards --------------------------------------------------------------------------------------
def read(path, units):
    """Its bytes and how many of them could be read, or None when it is not there. The first `units` are read by
    themselves: what follows them may be lost."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    size, data = os.fstat(fd).st_size, b""
    try:
        for end in (min(units * UNIT, size), size):
            while len(data) < end:
                got = os.pread(fd, end - len(data), len(data))
                if not got:
                    raise OSError(0, "shorter than fstat said")
                data += got
    except OSError:
        pass
    os.close(fd)
    return data, size


def whole(name, state, data, size):
    return len(data) == size and data == content(name, state["v"])


def beginning(name, state, data, size):
    """Nothing but units of that version in their places, or zeros."""
    want = content(name, state["v"])
    if size > len(want):
        return False
    return all(data[i : i + UNIT] == want[i : i + UNIT][: len(data) - i] or not data[i : i + UNIT].strip(b"\0")
               for i in range(0, len(data), UNIT))


def matches(name, state, found):
    if not state["v"] or found is None:
        return not state["v"] and found is None
    if whole(name, state, *found):
        return True
    return (state["new"] or ("cut" in state and len(found[0]) == found[1])) and beginning(name, state, *found)


def safe_units(blocks):
    return sum(1 for safe, _ in blocks if safe)


def check_blocks(name, blocks, found):
    """What is wrong with a file written in place, and whether all that was there before is there now."""
    data, size = found
    wrong, complete = [], True
    for i, (safe, newest) in enumerate(blocks):
        got = data[i * UNIT : (i + 1) * UNIT]
        if not got.strip(b"\0"):
            what = "is missing" if len(data) == size else "cannot be read"
        else:
            words = got.split()
            v = int(words[1]) if len(words) > 2 and words[1].isdigit() else -1
            if got == unit(name, v, i) and safe <= v <= newest:
                blocks[i][:] = [v, v]
                continue
            what = f"holds {got[:40]!r}"
        complete = False
        if safe or what.startswith("holds"):
            wrong.append(f"block {i} {what}, safe is {safe}, newest {newest}")
    return wrong, complete


class Check:
    def __init__(self, mnt, book_path):
        with open(book_path) as f:
            self.book = Book(json.load(f))
        self.mnt, self.book_path = mnt, book_path
        self.bad = {"synced": [], "displaced": []}
        self.dropped = 0
        files = [n for n, states in self.book.names.items() if not any("dir" in s for s in states)]
        with ThreadPoolExecutor(64) as pool: # who reads what is lost may wait for a time-out
            units = [safe_units(self.book.blocks.get(n, [])) for n in files]
            self.found = dict(zip(files, pool.map(lambda n, u: read(os.path.join(mnt, n), u), files, units)))

    def complain(self, synced, text):
        self.bad["synced" if synced else "displaced"].append(text)

    def one(self, name, states):
        """The state that the name is in now, or absent after it was removed because it holds what may be lost."""
        if any("dir" in s for s in states):
            path = os.path.join(self.mnt, name)
            there = os.path.isdir(path)
            if not any(bool(s["v"]) == there for s in states):
                self.complain(True, f"{name}: the directory is {'there' if there else 'missing'}")
            return {"v": 1, "new": False, "dir": True} if there else None
        found = self.found[name]
        if name in self.book.blocks:
            if found is None:
                if all(s["v"] for s in states):
                    self.complain(True, f"{name} is missing")
                return None
            blocks = self.book.blocks[name]
            untouched = all(safe == newest or not safe for safe, newest in blocks)
            wrong, complete = check_blocks(name, blocks, found)
            if wrong:
                self.complain(untouched, f"{name}: {len(wrong)} blocks, the first: {wrong[0]}")
            return {"v": 1, "new": False, "synced": True} if complete else None
        for s in reversed(states):
            if matches(name, s, found):
                return {"v": s["v"], "new": False, "synced": True} if s["v"] and whole(name, s, *found) else None
        what = "missing" if found is None else f"{found[1]} bytes, the first {len(found[0])} can be read, begins {found[0][:24]!r}"
        last = len(states) == 1
        self.complain(last and (found is None or states[0].get("synced", False)),
                      f"{name} is {what}; it may be: " + ", ".join(self.tell(name, s) for s in states))
        return None

    @staticmethod
    def tell(name, s):
        if not s["v"]:
            return "absent"
        return f"version {s['v']} of {size_of(name, s['v']) * UNIT} bytes" + (" or less" if s["new"] or "cut" in s else "")

    def run(self):
        after = {}
        for name in sorted(self.book.names):
            state = self.one(name, self.book.names[name])
            if state:
                after[name] = [state]
                continue
            self.book.blocks.pop(name, None)
        self.book.names = after
        for dir, _, files in os.walk(self.mnt):
            for f in files:
                if os.path.relpath(os.path.join(dir, f), self.mnt) not in after:
                    self.dropped += 1
                    os.unlink(os.path.join(dir, f))
        for dir in {os.path.dirname(n) for n in after} | {"."}:
            fd = os.open(os.path.join(self.mnt, dir), os.O_RDONLY)
            os.fsync(fd)
            os.close(fd)
        self.book.save(self.book_path)
        for kind, text in (("synced", "fsynced, and lost"), ("displaced", "safe once, lost by an unsynced change")):
            for line in self.bad[kind][:8]:
                print(f"{text}: {line}")
        bad = sum(map(len, self.bad.values()))
        if bad:
            print(f"the newest version of all: {self.book.version}")
        print(f"{len(self.found)} files looked at, {self.dropped} held what nobody had synced, {bad} wrong", flush=True)
        return 1 if self.bad["synced"] else 2 if bad else 0


if __name__ == "__main__":
    verb, mnt, book = sys.argv[1:4]
    if not os.path.exists(book):
        Book().save(book)
    if verb == "check":
        sys.exit(Check(mnt, book).run())
    Load(mnt, book, float(sys.argv[4]), sys.argv[5], sys.argv[6:]).run()
