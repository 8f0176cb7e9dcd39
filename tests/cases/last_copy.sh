#!/usr/bin/env bash
# Of three copies one has rotted without a word, and the goal goes down to one: the copy that stays is a good one, whichever it
# is, since it is read in full before the others go.
. "$(dirname "$0")/caselib.sh"
devcluster up --chunkd 3
devcluster mount "$mnt"
mkdir "$mnt/d"
ctl setrepl "$mnt/d" 3
for i in 1 2 3 4 5 6; do random_file "$mnt/d/f$i" 2; done
sync -f "$mnt"
ctl setrepl -R "$mnt/d" 3 --wait --timeout 60s 2>/dev/null
(cd "$mnt/d" && sha256sum f?) >"$work/sums"
# it stays up: the rot happens below it
python3 - "$cluster"/chunkd1/disk1/seg-*.log <<'P'
import os, sys
for p in sys.argv[1:]:
    f = open(p, 'r+b')
    for o in range(70000, os.fstat(f.fileno()).st_size, 65536):
        f.seek(o)
        b = f.read(1)
        if b and b != b'\0':
            f.seek(o)
            f.write(bytes([b[0] ^ 4]))
P
ctl setrepl -R "$mnt/d" 1 --wait --timeout 60s 2>/dev/null
expect "copies of each chunk" "1" "$(for i in 1 2 3 4 5 6; do copies "$mnt/d/f$i"; done | sort -u)"
devcluster unmount "$mnt"
devcluster mount "$mnt" -o timeout=5
(cd "$mnt/d" && sha256sum --quiet -c "$work/sums") || fail "a file whose two good copies were dropped"
wait_healthy 20
check_sanitizers
