#!/usr/bin/env bash
# What clients on three mounts are told of one small directory can be put in one order, while metad is killed and stopped, and
# a chunkd killed; and the checker that says so finds an answer that was made up. tests/linear/run is the long form.
# ROUNDS=20: more histories.
# only with --all
# not under sanitizers: its kills leave them nothing to say
. "$(dirname "$0")/caselib.sh"
mkdir "$work/linear"
TMPDIR=$work/linear "$cases_repo/tests/linear/run" --rounds "${ROUNDS:-6}" --seconds 1 --nemesis kill,stop,chunkd --keep "$work/bad" ||
    fail "not linearizable"
for fault in stale lost doubled reordered; do
    # clients one after the other: nothing overlaps that could explain it
    "$bin/linear_check" --generate 1 --clients 1 --unknown 0 --fault $fault >"$work/history"
    if "$bin/linear_check" "$work/history" >"$work/report"; then fail "a history with the fault '$fault' passed"; fi
    grep -q '^not linearizable' <<<"$(sed 's/^[^ ]* //' "$work/report")" || fail "no report: $(cat "$work/report")"
done
