#!/usr/bin/env bash
# The fault laboratory, in short: two rounds of any faults, on a goal of 2 and of 3. tests/faults/run is the long form.
# only with --all
# --all: also with 3 metads
# not under sanitizers: half of its faults are kills, which leave them nothing to say, and its limits are those of plain builds
. "$(dirname "$0")/caselib.sh"
for seed in 1 2; do
    "$cases_repo/tests/faults/run" --rounds 1 --seed "$seed" --faults 4 --dir "$work" --keep "$work/bad" || {
        tail -n 30 "$work"/bad/*.log "$work"/bad/cluster/*.log
        fail "seed $seed: tests/faults/run --rounds 1 --seed $seed"
    }
done
