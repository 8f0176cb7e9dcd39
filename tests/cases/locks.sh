#!/usr/bin/env bash
# File locks between two mounts: POSIX ranges, OFD locks, flock; waiting, deadlocks, signals; a metad restart, a client
# that dies, a mount that ends while somebody waits.
. "$(dirname "$0")/caselib.sh"

m1=$work/m1 m2=$work/m2 m3=$work/m3
devcluster up --chunkd 2 --metad-args "--session-lease=3s" >/dev/null
devcluster mount "$m1"
devcluster mount "$m2"
DEVCLUSTER=$(python3 -c 'import json, sys; print(json.dumps(sys.argv[1:]))' "$cases_repo/scripts/devcluster" --dir "$cluster")
MOUNT2_PID=$(pgrep -f "mount[.]replfs .* $m2( |\$)")
export DEVCLUSTER MOUNT2_PID

locks() { timeout 240 python3 "$cases_repo/tests/cases/locks.py" "$@"; }
locks "$m1" "$m2" exclusion release deadlock interrupt ofd flock counter restart
locks "$m1" "$m3" unmount
locks "$m1" "$m2" lost_client
check_sanitizers
