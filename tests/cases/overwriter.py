"""Overwrites a file in place, at random, and a model of it the same way:

    overwriter.py FILE MODEL MIB TIMES [--block KIB] [--fsync N] [--seed N] [--hold STOP]

FILE is written whole, then so many random blocks of 4 KiB to --block KiB (default 64) that all of it is written TIMES times.
--fsync N: an fsync after each N writes. --hold: the file stays open until STOP is there. Prints the seconds and MB/s of the
overwriting when it is done."""
import argparse, os, random, time

p = argparse.ArgumentParser()
p.add_argument("file")
p.add_argument("model")
p.add_argument("mib", type=int)
p.add_argument("times", type=int)
p.add_argument("--block", type=int, default=64)
p.add_argument("--fsync", type=int, default=0)
p.add_argument("--seed", type=int, default=1)
p.add_argument("--hold")
a = p.parse_args()
size = a.mib << 20
rnd = random.Random(a.seed)
pool = os.urandom(8 << 20)
fd, model = (os.open(f, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644) for f in (a.file, a.model))


def put(off, n):
    at = rnd.randrange(len(pool) - n)
    data = memoryview(pool)[at : at + n]
    for f in (fd, model):
        if os.pwrite(f, data, off) != n:
            raise SystemExit("short write")


for off in range(0, size, 1 << 20):
    put(off, 1 << 20)
os.fsync(fd)
done, writes, began = 0, 0, time.monotonic()
while done < a.times * size:
    n = rnd.randrange(1, a.block // 4 + 1) * 4096
    put(rnd.randrange((size - n) // 4096 + 1) * 4096, n)
    done, writes = done + n, writes + 1
    if a.fsync and writes % a.fsync == 0:
        os.fsync(fd)
os.fsync(fd)
took = time.monotonic() - began
print(f"{took:.1f} s {done / took / 1e6:.1f} MB/s", flush=True)
while a.hold and not os.path.exists(a.hold):
    time.sleep(0.1)
os.close(fd)
