#!/usr/bin/env python3
"""Random writes, reads, truncates, renames and unlinks on a mount, each compared with a model that is
kept in a file between runs. Usage: exerciser.py MOUNT SEED OPERATIONS STATEFILE"""
import os
import pickle
import random
import sys

FILE_MAX = 3 << 20
SIZES = [1, 10, 100, 511, 4096, 5000, 65536, 70000, 200000]


class Exerciser:
    def __init__(self, mnt, seed, state):
        self.mnt, self.state, self.step = mnt, state, 0
        self.rnd = random.Random(seed)
        self.fds = {}
        self.model = {}
        if os.path.exists(state):
            with open(state, "rb") as f:
                self.model = pickle.load(f)

    def path(self, name):
        return os.path.join(self.mnt, name)

    def fd(self, name):
        if name not in self.fds:
            self.fds[name] = os.open(self.path(name), os.O_RDWR | os.O_CREAT, 0o644)
            self.model.setdefault(name, bytearray())
        return self.fds[name]

    def drop(self, name):
        if name in self.fds:
            os.close(self.fds.pop(name))

    def same(self, name, what, got, want):
        if got == want:
            return
        at = next((i for i, (x, y) in enumerate(zip(got, want)) if x != y), min(len(got), len(want)))
        sys.exit(f"step {self.step}: {name}: {what}: {len(got)} bytes, expected {len(want)}, "
                 f"first difference at {at}")

    def check(self, name):
        with open(self.path(name), "rb") as f:
            self.same(name, "whole file", f.read(), bytes(self.model[name]))

    def resize(self, name, size):
        m = self.model[name]
        if size < len(m):
            del m[size:]
        m.extend(bytes(size - len(m)))

    def write(self, name, m):
        off = self.rnd.randrange(FILE_MAX if self.rnd.random() < .4 else len(m) + 1)
        size = self.rnd.choice(SIZES) if self.rnd.random() < .9 else self.rnd.randrange(1, 1 << 20)
        data = self.rnd.randbytes(max(1, min(size, FILE_MAX - off)))
        if os.pwrite(self.fd(name), data, off) != len(data):
            sys.exit(f"step {self.step}: {name}: short write")
        if off > len(m):
            m.extend(bytes(off - len(m)))
        m[off:off + len(data)] = data

    def read(self, name, m):
        off, size = self.rnd.randrange(FILE_MAX), self.rnd.randrange(1, 300000)
        self.same(name, f"read at {off}", os.pread(self.fd(name), size, off), bytes(m[off:off + size]))

    def truncate(self, name, m):
        size = self.rnd.randrange(FILE_MAX if self.rnd.random() < .5 else len(m) + 1)
        os.truncate(self.fd(name) if self.rnd.random() < .5 else self.path(name), size)
        self.resize(name, size)

    def rename(self, name, _):
        other = self.rnd.choice([n for n in self.names if n != name])
        self.drop(name)
        self.drop(other)
        os.rename(self.path(name), self.path(other))
        self.model[other] = self.model.pop(name)

    def unlink(self, name, _):
        self.drop(name)
        os.unlink(self.path(name))
        del self.model[name]

    def empty(self, name, m):
        os.close(os.open(self.path(name), os.O_WRONLY | os.O_TRUNC))
        m.clear()

    names = [f"f{i}" for i in range(6)]
    actions = [(45, write), (25, read), (10, truncate), (4, lambda x, n, m: os.fsync(x.fd(n))),
               (8, lambda x, n, m: x.drop(n)), (1, rename), (1, unlink), (1, empty),
               (5, lambda x, n, m: x.check(n))]

    def run(self, steps):
        for name in self.model:
            self.check(name)
        for self.step in range(steps):
            name = self.rnd.choice(self.names)
            self.fd(name)
            action = self.rnd.choices([a for _, a in self.actions], [w for w, _ in self.actions])[0]
            action(self, name, self.model[name])
            if name in self.model:
                size = os.stat(self.path(name)).st_size
                if size != len(self.model[name]):
                    sys.exit(f"step {self.step}: {name}: size {size}, expected {len(self.model[name])}")
        for name in self.model:
            self.check(name)
        for name in list(self.fds):
            self.drop(name)
        with open(self.state, "wb") as f:
            pickle.dump(self.model, f)


Exerciser(sys.argv[1], int(sys.argv[2]), sys.argv[4]).run(int(sys.argv[3]))
