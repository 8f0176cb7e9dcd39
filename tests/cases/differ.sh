#!/usr/bin/env bash
# Random calls, listings with attributes among them, give the same on replfs through two mounts as on a local directory.
# DIFFER_CALLS (400), DIFFER_SEEDS (1 2), LOCAL: a folder on ext4.
. "$(dirname "$0")/caselib.sh"
devcluster up --chunkd 2
two_mounts
local_dir=${LOCAL:-$work}
for seed in ${DIFFER_SEEDS:-1 2}; do
    PYTHONHASHSEED=0 python3 "$(dirname "$0")/differ.py" "$seed" "${DIFFER_CALLS:-400}" "$local_dir" "$a" "$b" || fail "seed $seed"
done
check_sanitizers
echo ok
