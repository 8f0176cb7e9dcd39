#!/usr/bin/env bash
# Random operations compared with a model, while daemons are killed, stopped and started, over remounts, and from two
# mounts in turn (close-to-open). At the end the space of what was overwritten and deleted is given back, although a
# file stays open for writing.
. "$(dirname "$0")/caselib.sh"
ops=${OPS:-1200}
devcluster up --chunkd 4
devcluster mount "$mnt" -o timeout=60
ctl setrepl "$mnt" 3
seed=$((${SEED:-1} * 1000))
exercise() { python3 "$cases_repo/tests/cases/exerciser.py" "$1" $((seed++)) "$2" "$work/model"; } # MOUNT OPERATIONS
during() { # STEPS...: an exerciser runs while the steps are taken, and ends well
    exercise "$mnt" "$ops" &
    case_pids=$!
    "$@"
    wait "$case_pids" || fail "the exerciser found a difference"
    case_pids=
    seed=$((seed + 1))
}
written() { # FILES: so many were made anew by the exerciser under way
    [ "$(find "$mnt" -type f -newer "$work/mark" | wc -l)" -ge "$1" ]
}
busy() { touch "$work/mark"; wait_for 30 "the exerciser to write" written 3; }

exercise "$mnt" "$ops"
devcluster unmount "$mnt"
devcluster mount "$mnt" -o timeout=60

restarts() {
    busy; devcluster kill metad; devcluster start metad
    busy; devcluster kill chunkd2
    busy; devcluster start chunkd2
    busy; devcluster kill all; devcluster start all
    busy; devcluster stop chunkd1
    sleep 4   # longer than a slow append is waited for
    devcluster cont chunkd1
}
during restarts

mkdir "$work/mnt2"
devcluster mount "$work/mnt2" -o timeout=60
exec 9>"$work/mnt2/open"
echo x >&9
for _ in 1 2 3 4; do
    exercise "$mnt" 60
    exercise "$work/mnt2" 60
done
wait_healthy 60

for _ in 1 2 3 4 5 6; do
    head -c 20M /dev/zero >"$work/mnt2/big"
    rm "$work/mnt2/big"
done
space_is_back() { [ "$(du -sm --total "$cluster"/chunkd*/disk1 | tail -1 | cut -f1)" -lt 200 ]; }
wait_for 30 "space of deleted files to be given back" space_is_back
exec 9>&-
check_sanitizers
