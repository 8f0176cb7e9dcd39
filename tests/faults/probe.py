# probe.py DIR WORK: makes, writes and syncs a small file in DIR (which it makes) every 50 ms until WORK/enough is there. How long
# each took, in seconds, goes to a line of WORK/steps; an error to WORK/failed, and ends it.
import os, sys, time
d, work = sys.argv[1:]
n = 0
try:
    os.mkdir(d)
    while not os.path.exists(work + "/enough"):
        begin = time.monotonic()
        f = os.open("%s/%d" % (d, n % 20), os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o644)
        os.write(f, b"%d" % n)
        os.fsync(f)
        os.close(f)
        if n % 20 == 19: os.unlink("%s/%d" % (d, n % 20))
        with open(work + "/steps", "a") as f: f.write("%.4f\n" % (time.monotonic() - begin))
        n += 1
        time.sleep(0.05)
except OSError as e:
    with open(work + "/failed", "a") as f: f.write("the probe, step %d: %s\n" % (n, e))
