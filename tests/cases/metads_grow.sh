#!/usr/bin/env bash
# One metad becomes three while a mount is in use, and the first one is killed: the mount and the chunkds know of the new ones
# only by what they were told meanwhile. Then back to two of three, and the removed one is not asked again.
# one metad: it makes several itself
. "$(dirname "$0")/caselib.sh"
METADS=1 devcluster up --chunkd 2
devcluster mount "$mnt"
first=$(devcluster addr)
ip=${first%:*}
base=$((20000 + RANDOM % 20000))
pids=()
join() { # N
    "$bin/replfs-metad" --data "$work/metad$1" --listen "$ip:$((base + $1))" --join "$first" --log-file "$cluster/metad$1.log" &
    pids[$1]=$!
}
end_all() {
    local p
    for p in "${pids[@]}"; do kill "$p" 2>/dev/null || true; done
    for p in "${pids[@]}"; do wait "$p" 2>/dev/null || true; done
}
at_end+=(end_all)
list() { ctl metad list --json "$mnt" | python3 -c 'import json,sys
r = json.load(sys.stdin)
print(eval(sys.argv[1], {"r": r["metads"], "leader": r["leader"]}))' "$1"; }
voters_are() { [ "$(list 'sum(m["role"] == "voter" for m in r)')" = "$1" ]; }
told() { grep -q "metad $ip:$((base + $2)) is a member" "$cluster/$1.log"; } # WHO N

mkdir "$mnt/d"
for n in 2 3; do
    join $n
    wait_for 30 "metad $n to be a voter" voters_are $n
    echo "$n" >"$mnt/d/$n"
done
for who in chunkd1 chunkd2 mount; do
    for n in 2 3; do wait_for 20 "$who to hear of metad $n" told $who $n; done
done
devcluster kill metad
echo after >"$mnt/d/after" # waits for the next leader
expect "what was written before" "2 3" "$(cat "$mnt/d/2" "$mnt/d/3" | xargs)"
sync -f "$mnt/d"
expect "leader" True "$(list 'leader in (2, 3)')"
new=$(list leader)

ctl metad remove 1 "$mnt"
expect "members" "2 3" "$(list '" ".join(str(m["id"]) for m in r)')"
devcluster start metad || true # it may be up for a moment, until it is told
wait_for 20 "the removed one to be told, and to say the way back" grep -q "replfs-metad.*--join" "$cluster/metad.log"
# -- a damaged one is not told to look for a backup
other=$((5 - new))
kill -9 "${pids[$other]}"
wait "${pids[$other]}" 2>/dev/null || true
cp -a "$work/metad$other" "$work/damaged"
rm "$work/damaged/log/"*-*
code=0
"$bin/replfs-metad" --data "$work/damaged" --listen "$ip:$((base + other))" >"$work/said" 2>&1 || code=$?
expect "exit code of a damaged metad" 78 "$code"
grep -q "replfsctl metad remove $other --meta.*; then mv .* && replfs-metad --join" "$work/said" ||
    fail "the way out was not named: $(cat "$work/said")"
join "$other"

kill -9 "${pids[$new]}" # of two voters: nobody leads until it is back
wait "${pids[$new]}" 2>/dev/null || true
join "$new"
echo again >"$mnt/d/again"
was=$(list leader)
began() { cat "$cluster"/metad*.log | grep -c 'serving as the leader'; }
before=$(began)
ctl metad step-down "$mnt"
[ "$(list leader)" != "$was" ] || fail "metad $was leads still"
expect "leaderships since" 1 "$(($(began) - before))"
expect "all files" "2 3 after again" "$(cd "$mnt/d" && echo [23] after again)"
check_sanitizers
echo "fine"
