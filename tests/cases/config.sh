#!/usr/bin/env bash
# Settings of the cluster: taken from metad's options when it is new, changed while it runs, kept over a restart with other
# options, which are told not to count. The key of capabilities outlives a restart, and a metad of one is upgraded by itself.
. "$(dirname "$0")/caselib.sh"

devcluster up --chunkd 2 --metad-args "--suspect=2s --dead=4s" >/dev/null
devcluster mount "$mnt"
ask=("$mnt")
[ "$(ctl config get dead "${ask[@]}")" = 4s ]
[ "$(ctl config get session-keep "${ask[@]}")" = 72h ]
ctl config list "${ask[@]}" | grep -q '^min-copies  *0  *0 '
[ "$(ctl config set dead 5s "${ask[@]}")" = 5s ]
[ "$(ctl config get dead "${ask[@]}")" = 5s ]
[ "$(ctl config set session-keep default "${ask[@]}")" = 72h ]
for bad in "dead 1ms" "dead x" "dread 5s" "suspect 1h" "min-copies 9" "min-copies -1" "lease-term 61s"; do
    # shellcheck disable=SC2086 # two words
    if ctl config set $bad "${ask[@]}" >/dev/null 2>"$work/why"; then
        fail "config set $bad is taken"
    fi
    [ -s "$work/why" ]
done
ctl config --json "${ask[@]}" | python3 -c '
import json, sys
c = json.load(sys.stdin)
v = {s["name"]: s for s in c["settings"]}
assert c["feature_level"] == c["feature_level_newest"], c
assert v["dead"]["value"] == 5000 and v["dead"]["from"] == "cluster" and v["dead"]["unit"] == "ms", v["dead"]
assert v["suspect"]["value"] == 2000, v["suspect"]
'
ctl metad upgrade "${ask[@]}" | grep -q 'the newest'
echo before >"$mnt/file"
sync -f "$mnt/file"
devcluster kill leader >/dev/null
devcluster start metads >/dev/null
echo after >>"$mnt/file" # with grants from before
sync -f "$mnt/file"
[ "$(cat "$mnt/file")" = $'before\nafter' ]
[ "$(ctl config get dead "${ask[@]}")" = 5s ]
grep -q -- '--dead 4000 ms does not count: in this cluster it is 5000 ms' "$cluster"/metad*.log
for d in $(metad_dirs); do [ -d "$d/log" ] && [ ! -e "$d/cap.key" ]; done
check_sanitizers
