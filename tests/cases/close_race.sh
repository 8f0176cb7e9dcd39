#!/usr/bin/env bash
# Programs that write one file together, each opening and closing it for every write. The end of one's close frees its
# handle; that must never wait for what another has just written, on a thread that its answer needs: the close of
# a program then took the mount's time-out and failed.
. "$(dirname "$0")/caselib.sh"
devcluster up --chunkd 3
devcluster mount "$mnt" -o timeout=8s
timeout 120 python3 - "$mnt" "${CLOSE_RACE_ROUNDS:-300}" <<'P' || fail "a write or close failed, or took too long"
import os, sys, threading, time
mnt, rounds = sys.argv[1], int(sys.argv[2])
worst, errors = [0.0], []
def program(k):
    name = "%s/f%d" % (mnt, k % 2)
    for i in range(rounds):
        t = time.monotonic()
        try:
            fd = os.open(name, os.O_WRONLY | os.O_CREAT, 0o644)
            os.pwrite(fd, b"x" * 9, (k * rounds + i) * 9)
            os.close(fd)
        except OSError as e:
            errors.append(e)
            return
        worst[0] = max(worst[0], time.monotonic() - t)
threads = [threading.Thread(target=program, args=(k,)) for k in range(6)]
for t in threads: t.start()
for t in threads: t.join()
print("%d writes, the slowest with its close took %.2f s" % (6 * rounds, worst[0]))
if errors: sys.exit("first error: %s" % errors[0])
sizes = [os.stat("%s/f%d" % (mnt, k)).st_size for k in range(2)]
if sizes != [(5 + k) * rounds * 9 for k in range(2)]: sys.exit("sizes %s" % sizes)
P
check_sanitizers
