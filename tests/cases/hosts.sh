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
for f in "$mnt"/*; do
    hosts=$(ctl info --json "$f" | python3 -c 'import json,sys
for c in json.load(sys.stdin)["files"][0]["chunks"]: print(len(c["copies"]), len({x["host_id"] for x in c["copies"]}))' | sort -u)
    expect "copies and distinct hosts of $f" "2 2" "$hosts"
done
echo "61 files, every chunk on two hosts"
check_sanitizers
