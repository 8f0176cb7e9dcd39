#!/usr/bin/env bash
# Metads join a running cluster: one becomes three, one at a time; each is killed once, and the others go on; leadership
# is handed over; one is removed; the last one goes on alone.
# one metad: it makes several itself
. "$(dirname "$0")/caselib.sh"
mkdir -p "$cluster"
base=$((20000 + RANDOM % 20000))
addr() { echo "127.0.0.1:$((base + $1))"; }
pids=()
start() { # N [OPTIONS]
    local n=$1
    shift
    "$bin/replfs-metad" --data "$cluster/metad$n" --listen "$(addr "$n")" --log-file "$cluster/metad$n.log" "$@" &
    pids[n]=$!
    case_pids="${pids[*]}"
}
stop_all() { # in order, so that sanitizers speak
    local p
    for p in "${pids[@]}"; do kill "$p" 2>/dev/null || true; done
    for p in "${pids[@]}"; do wait "$p" 2>/dev/null || true; done
}
at_end+=(stop_all)
ask() { ctl metad list --json --meta "$(addr "$1")" 2>/dev/null; } # N
field() { python3 -c 'import json,sys
r = json.load(sys.stdin)
print(eval(sys.argv[1], {"r": r, "m": {x["id"]: x for x in r["metads"]}}))' "$1"; }
voters() { ask "$1" | field 'sum(x["role"] == "voter" for x in r["metads"])' 2>/dev/null; }
voters_are() { [ "$(voters "$1")" = "$2" ]; } # N HOW_MANY
leader() { # the id that a running metad names and that agrees
    local n l
    for n in "${!pids[@]}"; do
        l=$(ask "$n" | field 'r["leader"] if r["leader"] == r["self"] else 0' 2>/dev/null) || continue
        [ "${l:-0}" = 0 ] || { echo "$l"; return; }
    done
    return 1
}
has_leader() { leader >/dev/null; }

"$bin/replfs-metad" --init --data "$cluster/metad1" >/dev/null
start 1
wait_for 20 "metad 1 to lead" has_leader
start 2 --join "$(addr 1)"
wait_for 30 "metad 2 to be a voter" voters_are 1 2
start 3 --join "$(addr 2)" # which does not lead, and says who does
wait_for 30 "metad 3 to be a voter" voters_are 1 3
expect "ids" "1 2 3" "$(ask 3 | field '" ".join(str(x["id"]) for x in r["metads"])')"
expect "addresses" "$(addr 1) $(addr 2) $(addr 3)" "$(ask 1 | field '" ".join(x["addr"] for x in r["metads"])')"

# -- each is killed once while it leads, or not; the others go on, and it comes back
for n in 1 2 3; do
    kill -9 "${pids[n]}"
    wait "${pids[n]}" 2>/dev/null || true
    unset "pids[$n]"
    wait_for 20 "a leader without metad $n" has_leader
    start "$n" --join "$(addr 1)"
    wait_for 20 "metad $n to be heard of" eval 'ask $(leader) | field "m['"$n"'][\"online\"]" | grep -qx True'
done

# -- one steps down when it is told to: once, although the answer comes when it leads no more
began() { cat "$cluster"/metad?.log | grep -c 'serving as the leader'; }
for meta in "$(leader)" $(($(leader) % 3 + 1)); do
    was=$(leader) before=$(began)
    ctl metad step-down --meta "$(addr "$meta")" || fail "metad $was did not step down, asked by metad $meta"
    wait_for 20 "another leader than metad $was" eval '[ "$(leader || echo '"$was"')" != '"$was"' ]'
    expect "leaderships since" 1 "$(($(began) - before))"
done

# -- all at once: each knows where the others were, though no leader has told it since
for n in 1 2 3; do kill -9 "${pids[n]}"; done
for n in 1 2 3; do wait "${pids[n]}" 2>/dev/null || true; done
for n in 1 2 3; do start "$n"; done
wait_for 20 "a leader after all metads were killed" has_leader

# -- nobody joins with an address that another one has
rm -rf "$work/twin"
"$bin/replfs-metad" --data "$work/twin" --listen "127.0.0.1:$((base + 9))" --advertise "$(addr 2)" --join "$(addr 1)" \
    --log-file "$work/twin.log" && fail "a twin joined"
grep -q "metad 2 has that address" "$work/twin.log" || fail "the twin was not told why: $(cat "$work/twin.log")"

# -- one is removed while it runs: it says so, with the command to come back, and that no restart would help; so it does
l=$(leader)
gone=$((l % 3 + 1))
ctl metad remove "$gone" --meta "$(addr "$l")" >/dev/null || fail "metad $gone cannot be removed"
rc=0
wait "${pids[gone]}" || rc=$?
expect "exit status of a metad that was removed" 78 "$rc"
unset "pids[$gone]"
grep -q "was removed from the cluster.*replfs-metad --join" "$cluster/metad$gone.log" || fail "metad $gone does not say that it was removed"
mv "$cluster/metad$gone" "$cluster/metad$gone.removed"
start "$gone" --join "$(addr "$l")"
wait_for 30 "the removed one to be a voter again" voters_are "$l" 3
expect "ids" "4" "$(ask "$gone" | field 'r["self"]')"

# -- one leaves, as far as the others are concerned
leads_at() { # which of them it is, whatever its id
    local n
    for n in "${!pids[@]}"; do
        [ "$(ask "$n" | field 'r["leader"] == r["self"]' 2>/dev/null)" = True ] && echo "$n" && return
    done
    return 1
}
wait_for 20 "a leader among those that are left" eval 'leads_at >/dev/null'
at=$(leads_at)
out=$((at % 3 + 1))
kill "${pids[out]}"
wait "${pids[out]}" || fail "metad $out did not end well"
unset "pids[$out]"
echo "metads: $(ask "$at" | field '[(x["id"], x["role"]) for x in r["metads"]]')"
check_sanitizers
echo "fine"
