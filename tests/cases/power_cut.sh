#!/usr/bin/env bash
# The power of all computers goes, the client's too, under load: ext4 below each daemon stops at once and what was not
# synced is gone. Afterwards every fsynced byte and name is there, files replaced by rename are whole in their old or new
# version, what was safe and then changed without fsync can be read, and health recovers. power_cut.py has the details.
# ROUNDS=50: the long form; ENDS="append names": rounds of these kinds only.
# only with --all
# --all: also with 3 metads
# not under sanitizers: its kills leave them nothing to say, and crash_rounds reads what kills leave behind
. "$(dirname "$0")/caselib.sh"
rounds=${ROUNDS:-5}
# chunkds sync slowly: whoever answers before the bytes are down is found out
slow=(--env "LD_PRELOAD=$bin/bench_slowsync.so SLOWSYNC_MS=25 SLOWSYNC_ONLY=replfs-chunkd")
# a dead mount keeps what it had open, deleted or not, until its session ends: bytes lost in there are health's business
devcluster up --chunkd 3 --power-cut --metad-args "--checkpoint-bytes=64K --dead=8s --lease-term=1s --session-lease=10s" "${slow[@]}"
disks="$(metad_dirs | xargs) $cluster/chunkd1 $cluster/chunkd2 $cluster/chunkd3"
read -r -a ends <<<"${ENDS:-load append reopen names displace}"
 bad=0
for r in $(seq 1 "$rounds"); do
    end=${ends[$(((r - 1) % ${#ends[@]}))]}
    devcluster mount "$mnt" -o timeout=20
    rm -f "$work/book.end"
    # shellcheck disable=SC2086
    python3 "$cases_repo/tests/cases/power_cut.py" load "$mnt" "$work/book" "${SECS:-1.5}" "$end" $disks &
    load=$! case_pids=$!
    wait_for 60 "the power cut" test -e "$work/book.end"
    devcluster powercut all
    wait $load
    case_pids=
    [ ! -s "$work/book.end" ] || fail "round $r: $(cat "$work/book.end")"
    devcluster start all
    devcluster mount "$mnt" -o timeout=5 # what is lost is waited for so long
    code=0
    python3 "$cases_repo/tests/cases/power_cut.py" check "$mnt" "$work/book" || code=$?
    echo "round $r ($end): $code"
    [ $code = 0 ] || bad=$((bad + 1))
    wait_healthy 40
    devcluster unmount "$mnt"
done
[ $bad = 0 ] || fail "in $bad of $rounds rounds something is not there that was safe"
check_sanitizers
