#!/usr/bin/env bash
# One of six computers is dead: repair copies what it had. Two more at once, half of all: repair waits, says so, and goes on when
# a person says so, also under the next metad; when all are back it would ask again.
. "$(dirname "$0")/caselib.sh"
devcluster up --chunkd 6 --metad-args "--suspect=1s --dead=3s"
devcluster mount "$mnt"
ctl setrepl "$mnt" 4
for i in $(seq 20); do head -c 200000 /dev/urandom >"$work/f$i"; done
cp "$work"/f* "$mnt"
sync -f "$mnt"
wait_healthy 60
all_have() { [ -z "$(copies "$mnt"/f* | grep -vx "$1")" ]; }
job() { ctl jobs --json "$mnt" | python3 -c 'import json,sys
j = {x["name"]: x for x in json.load(sys.stdin)["jobs"]}["repair"]
print(j[sys.argv[1]])' "$1"; }
said() { grep -q "\"$1\"" <<<"$(ctl health --json "$mnt" || true)"; }
not_said() { ! said "$1"; }

devcluster kill chunkd6
wait_for 60 "one to be dead" said chunkd-dead
wait_for 60 "one dead chunkd to be repaired by itself" all_have 4
not_said repair-held || fail "repair waits although one computer is dead"
if ctl repair resume "$mnt" 2>"$work/err"; then fail "repair resume changed something while nothing waits"; fi
grep "does not wait" "$work/err" >/dev/null || fail "repair resume says: $(cat "$work/err")"
devcluster start chunkd6
wait_healthy 60

devcluster kill chunkd4 chunkd5 chunkd6
wait_for 60 "repair to be held" said repair-held
waits() { [[ "$(job waiting)" == *"too much is dead"* ]]; }
wait_for 60 "repair to say why it waits" waits
done_before=$(job "done")
ctl jobs "$mnt"
ctl health "$mnt" && fail "health is content with half of all computers dead"
idle() { [ "$(job queued) $(job running)" = "0 0" ]; }
wait_for 60 "all chunks to be looked at" idle
expect "copies made while repair waits" "$done_before" "$(job "done")"

ctl repair resume "$mnt"
wait_for 60 "what is left to have three copies" all_have 3
not_said repair-held || fail "health still says that repair waits"
devcluster kill metad
devcluster start metad
accepted() { [ "$(ctl config get dead-accepted "$mnt")" = "$1" ]; }
wait_for 60 "the next metad to know what was accepted" accepted 3
wait_for 60 "it to find them dead" said chunkd-dead
not_said repair-held || fail "the next metad asks again"

devcluster start chunkd4 chunkd5 chunkd6
wait_for 60 "what was accepted to be taken back once all are there" accepted 0
wait_for 120 "all to have four copies" all_have 4
for i in $(seq 20); do cmp "$work/f$i" "$mnt/f$i"; done
check_sanitizers
