#!/usr/bin/env bash
# File locks between two mounts: POSIX ranges, OFD locks, flock; waiting, deadlocks, signals; a metad restart, a client
# that dies, a mount that ends while somebody waits.
# --all: also with 3 metads
. "$(dirname "$0")/caselib.sh"

devcluster up --chunkd 2 --metad-args "--session-lease=3s" >/dev/null
two_mounts
DEVCLUSTER=$(python3 -c 'import json, sys; print(json.dumps(sys.argv[1:]))' "$cases_repo/scripts/devcluster" --dir "$cluster")
MOUNT2_PID=$(pid_of_mount "$b")
export DEVCLUSTER MOUNT2_PID

locks() { timeout 240 python3 "$cases_repo/tests/cases/locks.py" "$@"; }
locks "$a" "$b" exclusion release deadlock interrupt ofd flock counter restart
locks "$a" "$work/c" unmount
locks "$a" "$b" lost_client
check_sanitizers
