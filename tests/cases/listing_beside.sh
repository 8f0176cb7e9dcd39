#!/usr/bin/env bash
# A listing beside changes, on one mount and on two: it takes nothing back that was changed since it began, while ls -lR
# runs without end either, and it ends although what it lists is replaced as it goes. BESIDE_S: seconds of ls -lR for each (3).
. "$(dirname "$0")/caselib.sh"
devcluster up --chunkd 2
two_mounts
here=$(dirname "$0")
export GO=$work/go

# -- it ends
timeout 60 python3 - "$a" <<'P' || fail "a listing that replaces what it lists does not end"
import os, sys
d = sys.argv[1] + '/ends'
os.mkdir(d)
n = 0
for i in range(1200):
    open('%s/%d' % (d, i), 'w').close()
for e in os.scandir(d):
    os.unlink(e.path)
    open(e.path, 'w').close()
    n += 1
    if n > 1200:
        sys.exit('%d entries' % n)
if n != 1200 or len(os.listdir(d)) != 1200:
    sys.exit('%d entries, then %d' % (n, len(os.listdir(d))))
f = os.open(d, os.O_RDONLY)  # rewound, it ends where the directory ends then
os.listdir(f)
open(d + '/later', 'w').close()
os.lseek(f, 0, os.SEEK_SET)
if 'later' not in os.listdir(f):
    sys.exit('a name made before rewinddir is missing')
P
rm -r "$a/ends"

# -- one change each
python3 "$here/listing_beside.py" steps 0 "$a" || fail "one mount"
python3 "$here/listing_beside.py" steps 0 "$a" "$b" || fail "two mounts"

# -- many
python3 "$here/listing_beside.py" beside "${BESIDE_S:-3}" "$a" || fail "one mount, without end"
python3 "$here/listing_beside.py" beside "${BESIDE_S:-3}" "$a" "$b" || fail "two mounts, without end"
check_sanitizers
echo ok
