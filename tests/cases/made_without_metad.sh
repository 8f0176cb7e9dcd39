#!/usr/bin/env bash
# A file that is made and written while metad is away is seen by another mount with its bytes as soon as it is seen at all, although
# its program has it open still and nothing made it send them.
. "$(dirname "$0")/caselib.sh"
devcluster up --chunkd 3 --metad-args "--lease-term=20s" # so that it is not over before the file is made
devcluster mount "$mnt"
devcluster mount "$work/other"
for round in 1 2 3; do
    dir=dir$round
    mkdir "$mnt/$dir" # of which the mount has the lease then
    head -c 100 /dev/zero >"$mnt/$dir/before" # it has chunks in store now
    # devcluster must not have the file open: a process that ends closes it, and waits
    mkfifo "$work/go$round"
    (read -r _ <"$work/go$round"; devcluster start metads) >"$work/start" 2>&1 &
    starts=$!
    devcluster kill metads
    exec 8>"$work/go$round"
    exec 9>"$mnt/$dir/file"
    printf %64s x >&9
    echo go >&8
    python3 - "$work/other/$dir/file" <<'P' || fail "round $round: $(cat "$work/start")"
import os, sys, time
end = time.monotonic() + 30
while True: # of this process's own, since another one for each look takes its time
    try:
        size = os.stat(sys.argv[1]).st_size
        break
    except FileNotFoundError:
        if time.monotonic() > end:
            sys.exit("the file is not seen by the other mount")
if size != 64:
    sys.exit(f"the other mount sees the file with {size} of 64 bytes")
P
    exec 9>&-
    exec 8>&-
    wait "$starts"
done
check_sanitizers
