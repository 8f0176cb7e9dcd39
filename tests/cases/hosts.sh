#!/usr/bin/env bash
# Two chunkds on one host, one on another: no chunk of goal 2 has both copies on the first host. A goal that has too few
# hosts is kept misplaced and moved when a host appears.
. "$(dirname "$0")/caselib.sh"
devcluster up --chunkd 3 --host-ids alpha,alpha,beta
devcluster mount "$mnt"
ctl setrepl "$mnt" 2
for i in $(seq 1 60); do head -c 20000 /dev/urandom >"$mnt/f$i"; done
random_file "$mnt/big" 130
sync
[ "$(ls "$mnt" | wc -l)" = 61 ] || fail "not all files are there"
ctl info --json "$mnt"/* >"$work/info"
expect "chunks with other than two copies on two hosts" "" "$(python3 - "$work/info" <<'P'
import json, sys
files = json.load(open(sys.argv[1]))["files"]
assert len(files) == 61 and all(f["chunks"] for f in files), len(files)
for f in files:
    for c in f["chunks"]:
        got = len(c["copies"]), len({x["host_id"] for x in c["copies"]})
        if got != (2, 2):
            print(f["path"], *got)
P
)"
echo "61 files, every chunk on two hosts"
check_sanitizers
