#!/usr/bin/env bash
# A file that is made and written while metad is away is seen by another mount with all that was written before it looks, as soon as
# it is seen at all, although its program has it open still and nothing made it send the bytes.
. "$(dirname "$0")/caselib.sh"
devcluster up --chunkd 3 --metad-args "--lease-term=20s" # so that it is not over before the file is made
devcluster mount "$mnt"
devcluster mount "$work/other"
cat >"$work/write" <<'P'
import os, sys, time
mine, other, made, *logs = sys.argv[1:]
def state():
    return [(os.stat(x).st_size, os.stat(x).st_mtime_ns) for x in logs]
before = state()
fd = os.open(mine, os.O_CREAT | os.O_WRONLY)
written = os.write(fd, b"x" * 64)
open(made, "w")
while state() == before: # no metad begins yet. Bytes are sent by themselves within a second: so that there are newer ones
    written += os.write(fd, b"x" * 64)
    time.sleep(0.002)
end = time.monotonic() + 60
while True:
    try:
        size = os.stat(other).st_size
        break
    except FileNotFoundError:
        if time.monotonic() > end:
            sys.exit("the file is not seen by the other mount")
if size != written:
    sys.exit(f"the other mount sees {size} of {written} bytes")
P
for round in 1 2 3; do
    dir=dir$round
    mkdir "$mnt/$dir" # of which the mount has the lease then
    head -c 100 /dev/zero >"$mnt/$dir/before" # it has chunks in store now
    devcluster kill metads
    python3 "$work/write" "$mnt/$dir/file" "$work/other/$dir/file" "$work/made$round" "$cluster"/metad*.log 2>"$work/err" &
    writes=$!
    wait_for 60 "the file to be made" test -e "$work/made$round"
    devcluster start metads
    wait "$writes" || fail "round $round: $(cat "$work/err")"
done
check_sanitizers
