#!/usr/bin/env bash
# A laptop goes for the night: paused, its absence starts no repair and no alarm, over a restart of metad, too; what would
# be left with one copy awake is copied before it goes. Unannounced, a short stop is no alarm either.
# only with --all
# not under sanitizers: the case drain asks the same of the daemons, test_nodes_leave the rest
. "$(dirname "$0")/caselib.sh"
devcluster up --chunkd 4 --metad-args "--suspect=1s --dead=3s"
devcluster mount "$mnt"
mkdir "$mnt/two" "$mnt/three" "$work/two" "$work/three"
ctl setrepl "$mnt/two" 2
ctl setrepl "$mnt/three" 3
for i in $(seq 12); do
    random_file "$work/two/f$i" 1
    random_file "$work/three/f$i" 1
done
cp "$work"/two/* "$mnt/two"
cp "$work"/three/* "$mnt/three"
sync -f "$mnt"
wait_healthy 30

ctl chunkd pause 1 --for 10h "$mnt"
awake() { # FILES...: copies of each chunk that are on others than chunkd 1
    ctl info --json "$@" | python3 -c 'import json,sys
for f in json.load(sys.stdin)["files"]:
  for c in f["chunks"]: print(sum(1 for x in c["copies"] if x["state"] == "ok" and x["chunkd"] != 1))'
}
two_awake() { [ -z "$(awake "$mnt"/two/* | grep -v '^[2-9]$')" ]; }
wait_for 60 "two copies of each chunk to be awake" two_awake
devcluster term chunkd1
absent() { # SECONDS: silent for so long, and it counts
    ctl chunkd list --json "$mnt" | python3 -c 'import json,sys
for c in json.load(sys.stdin)["chunkds"]:
  if c["id"] == 1: sys.exit(not (c["last_seen_ms"] > 1000 * int(sys.argv[1]) and c["state"] == "suspect" and c["paused_s"] > 35000))' "$1"
}
wait_for 30 "it to be away for twice the time of death" absent 6
health_is || fail "its absence is an alarm: $(ctl health "$mnt")"
three_there() { [ -z "$(awake "$mnt"/three/* | grep -v '^[23]$')" ]; }
three_there || fail "chunks with two copies awake were copied"
devcluster kill metad
devcluster start metad
wait_for 60 "it to be waited for by a metad that has just started" absent 6
three_there || fail "chunks with two copies awake were copied after a restart of metad"
health_is || fail "its absence is an alarm after a restart of metad: $(ctl health "$mnt")"
random_file "$work/two/night" 5
cp "$work/two/night" "$mnt/two/night"
sync -f "$mnt"
diff -r "$work/two" "$mnt/two"
diff -r "$work/three" "$mnt/three"
devcluster start chunkd1
ctl chunkd resume 1 "$mnt"
at_goal() { [ -z "$(copies "$mnt"/two/* | grep -vx 2)" ] && [ -z "$(copies "$mnt"/three/* | grep -vx 3)" ]; }
wait_for 60 "all chunks at their goals, surplus gone" at_goal
diff -r "$work/two" "$mnt/two"
diff -r "$work/three" "$mnt/three"
wait_healthy 30

# not paused: a stop is announced, and is an alarm only when it lasts
devcluster term chunkd2
stopped() { ctl chunkd list --json "$mnt" | python3 -c 'import json,sys
for c in json.load(sys.stdin)["chunkds"]:
  if c["id"] == 2: sys.exit(not (c["stopped"] and c["state"] != "up"))'; }
wait_for 10 "metad to know that it was stopped" stopped
grep "does not answer" <(ctl health "$mnt" || true) >/dev/null && fail "a short stop is an alarm"
dead() { { ctl health "$mnt" || true; } | grep "chunkd 2 .* is dead" >/dev/null; }
wait_for 30 "it to be dead, as any that is away" dead
devcluster start chunkd2
wait_healthy 60
diff -r "$work/two" "$mnt/two"
check_sanitizers
