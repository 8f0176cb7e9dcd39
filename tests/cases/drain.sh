#!/usr/bin/env bash
# One of four chunkds is drained while programs work, metad is killed meanwhile, and it is removed when nothing is on it any
# more: all contents stay. A drain that has nowhere to go says so.
. "$(dirname "$0")/caselib.sh"
devcluster up --chunkd 4 --metad-args "--suspect=2s --dead=6s"
devcluster mount "$mnt"
ctl setrepl "$mnt" 2
mkdir "$mnt/old" "$mnt/new" "$work/old" "$work/new"
for i in 1 2 3 4 5 6 7 8; do random_file "$work/old/big$i" 6; done
for i in $(seq 60); do head -c 20000 /dev/urandom >"$work/old/small$i"; done
cp "$work"/old/* "$mnt/old"
sync -f "$mnt"

load() { # the same to a mount and to a local directory, until told to stop
    local k=0
    while [ ! -e "$work/stop" ]; do
        k=$((k + 1))
        random_file "$work/one" 1
        cp "$work/one" "$work/new/f$((k % 15))" && cp "$work/one" "$mnt/new/f$((k % 15))" || return 1
        echo "line $k" | tee -a "$work/new/log" >>"$mnt/new/log" || return 1
        [ $((k % 4)) != 0 ] || { mv "$work/new/f$((k % 15))" "$work/new/moved" && mv "$mnt/new/f$((k % 15))" "$mnt/new/moved" || return 1; }
    done
}
load &
loader=$!
field() { # ID KEY
    ctl chunkd list --json "$mnt" | python3 -c 'import json,sys
for c in json.load(sys.stdin)["chunkds"]:
  if c["id"] == int(sys.argv[1]): print(c[sys.argv[2]])' "$1" "$2"
}
is() { [ "$(field "$1" "$2")" = "$3" ]; }
t0=$(date +%s.%N)
ctl chunkd drain 2 "$mnt"
is 2 draining True || fail "chunkd list does not say that it drains"
devcluster kill metad
devcluster start metad # it goes on by itself
wait_for 60 "the drain to go on" is 2 draining True
ctl chunkd drain 2 --wait --timeout 120s "$mnt" >"$work/said" || fail "the drain did not end: $(cat "$work/said"; ctl chunkd list "$mnt")"
grep "it can be removed" "$work/said" >/dev/null || fail "drain --wait says: $(cat "$work/said")"
t1=$(date +%s.%N)
expect "chunks on the drained one" 0 "$(field 2 chunks)"
is 2 removable True || fail "it is not removable"
{ ctl health "$mnt" || true; } | grep "chunkd remove 2" >/dev/null || fail "health does not say that it can be removed"
ctl chunkd remove 2 "$mnt"
touch "$work/stop"
wait $loader || fail "a program that worked meanwhile failed"
expect "chunkds" "1 3 4" "$(ctl chunkd list --json "$mnt" | python3 -c 'import json,sys; print(*sorted(c["id"] for c in json.load(sys.stdin)["chunkds"]))')"
devcluster kill chunkd2
diff -r "$work/old" "$mnt/old" || fail "old files differ"
diff -r "$work/new" "$mnt/new" || fail "files that were written meanwhile differ"
devcluster unmount "$mnt"
devcluster mount "$mnt"
diff -r "$work/old" "$mnt/old" || fail "old files differ on a fresh mount"
diff -r "$work/new" "$mnt/new" || fail "files that were written meanwhile differ on a fresh mount"
wait_healthy 60
echo "drained under load in $(echo "$t1 $t0" | awk '{printf "%.1f", $1 - $2}') s"

# three are left: at goal 3 none of them can be emptied
ctl setrepl -R "$mnt/old" 3 --wait --timeout 120s 2>/dev/null
ctl chunkd drain 3 "$mnt"
says_why() { { ctl health "$mnt" || true; } | grep "goal 3 needs 3 hosts, 2 are left" >/dev/null; }
wait_for 60 "health to say why the drain waits" says_why
if ctl chunkd remove 3 "$mnt" 2>/dev/null; then fail "it was removed with copies on it"; fi
ctl chunkd undrain 3 "$mnt"
wait_healthy 60
diff -r "$work/old" "$mnt/old"
check_sanitizers
