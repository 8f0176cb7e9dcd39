#!/usr/bin/env bash
# The owner of a disk takes space back while programs work: without --now everything is copied elsewhere first; with it
# copies go at once wherever another one is good, and what has no other stays. Capacity changes live. All contents stay.
# only with --all
# not under sanitizers: the case drain asks the same of the daemons, test_nodes_leave the rest
. "$(dirname "$0")/caselib.sh"
devcluster up --chunkd 4
devcluster mount "$mnt"
ctl setrepl "$mnt" 2
mkdir "$mnt/old" "$mnt/new" "$work/old" "$work/new"
for i in $(seq 30); do random_file "$work/old/big$i" 4; done
for i in $(seq 40); do head -c 30000 /dev/urandom >"$work/old/small$i"; done
cp "$work"/old/* "$mnt/old"
sync -f "$mnt"

load() {
    local k=0
    while [ ! -e "$work/stop" ]; do
        k=$((k + 1))
        random_file "$work/one" 1
        cp "$work/one" "$work/new/f$((k % 10))" && cp "$work/one" "$mnt/new/f$((k % 10))" || return 1
        echo "line $k" | tee -a "$work/new/log" >>"$mnt/new/log" || return 1
    done
}
load &
loader=$!
segments() { # ID: bytes that its segment logs take on the disk
    du -cB1 "$cluster/chunkd$1"/disk1/seg-*.log 2>/dev/null | tail -1 | cut -f1
}
below() { [ "$(segments "$1")" -le "$2" ]; }

before=$(segments 1)
t0=$(date +%s.%N)
ctl reclaim 1 80% --wait --timeout 120s "$mnt" || fail "reclaim did not end: $(ctl chunkd list "$mnt")"
wait_for 30 "the space to be back: $before bytes were used" below 1 $((before * 30 / 100))
t1=$(date +%s.%N)
echo "80 % of $((before >> 20)) MiB given back under load in $(echo "$t1 $t0" | awk '{printf "%.1f", $1 - $2}') s: $(($(segments 1) >> 20)) MiB are left"
diff -r "$work/old" "$mnt/old" || fail "files differ after the reclaim"
[ -z "$(copies "$mnt"/old/* | grep -v '^[23]$')" ] || fail "a chunk is below its goal after a reclaim without --now"

before=$(segments 2)
t0=$(date +%s.%N)
ctl reclaim 2 80% --now --wait --timeout 120s "$mnt" || fail "reclaim --now did not end: $(ctl chunkd list "$mnt")"
wait_for 30 "the space to be back: $before bytes were used" below 2 $((before * 30 / 100))
t1=$(date +%s.%N)
echo "--now: 80 % of $((before >> 20)) MiB in $(echo "$t1 $t0" | awk '{printf "%.1f", $1 - $2}') s"
touch "$work/stop"
wait $loader || fail "a program that worked meanwhile failed"
diff -r "$work/old" "$mnt/old" || fail "files differ after reclaim --now"
diff -r "$work/new" "$mnt/new" || fail "files that were written meanwhile differ"
wait_healthy 120 # what --now gave up was copied elsewhere

# live, up and down
limit() { ctl chunkd list --json "$mnt" | python3 -c 'import json,sys
for c in json.load(sys.stdin)["chunkds"]:
  if c["id"] == 3: d = c["disks"][0]; print(d.get("limit", 0), d["capacity"])'; }
limited() { [ "$(limit)" = "$1" ]; }
ctl chunkd capacity 3:0 500M "$mnt"
wait_for 20 "the chunkd to say that it has 500 MiB" limited "$((500 << 20)) $((500 << 20))"
devcluster kill metad
devcluster start metad
devcluster kill chunkd3
devcluster start chunkd3
wait_for 60 "the limit to hold after restarts" limited "$((500 << 20)) $((500 << 20))"
ctl chunkd capacity 3 none "$mnt"
unlimited() { local is capacity; read -r is capacity < <(limit) && [ "$is" = 0 ] && [ "$capacity" -gt $((500 << 20)) ]; }
wait_for 20 "the limit to be gone" unlimited

# nowhere else: what has no other copy is kept, and named
mkdir "$mnt/once"
ctl setrepl "$mnt/once" 1
ctl chunkd capacity 1 none "$mnt"
for i in 2 3 4; do ctl chunkd capacity $i 0 "$mnt" >/dev/null; done
roomy() { ctl chunkd list --json "$mnt" | python3 -c 'import json,sys
sys.exit(not any(c["id"] == 1 and c["disks"][0]["free"] > 100 << 20 for c in json.load(sys.stdin)["chunkds"]))'; }
wait_for 20 "metad to hear of the space" roomy
random_file "$work/x" 8
cp "$work/x" "$mnt/once/x"
sync -f "$mnt"
only_there() { [ "$(ctl info --json "$mnt/once/x" | python3 -c 'import json,sys
print({x["chunkd"] for f in json.load(sys.stdin)["files"] for c in f["chunks"] for x in c["copies"]})')" = "{1}" ]; }
wait_for 60 "the file to be on chunkd 1 alone: the mount had chunks granted on others" only_there
if ctl reclaim 1 100% --now --wait --timeout 60s "$mnt" >"$work/said"; then fail "nothing was kept: $(cat "$work/said")"; fi
grep "keeps" "$work/said" >/dev/null || fail "reclaim --now does not say what it kept: $(cat "$work/said")"
cmp "$work/x" "$mnt/once/x"
diff -r "$work/old" "$mnt/old"
devcluster unmount "$mnt"
devcluster mount "$mnt"
cmp "$work/x" "$mnt/once/x"
diff -r "$work/old" "$mnt/old"
check_sanitizers
