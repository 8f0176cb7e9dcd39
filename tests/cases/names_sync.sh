#!/usr/bin/env bash
# meta-copies-sync: what fsync has acknowledged outlives metad's disk, down to the last change; and when no chunkd takes copies
# programs go on, and health says what that means.
# only with --all
. "$(dirname "$0")/caselib.sh"
problem() { grep -q "\"$1\"" <<<"$(ctl health --json "$mnt" 2>/dev/null || true)"; }
no_problem() { ! problem "$1"; }
three_copies() { ctl status --json "$mnt" | python3 -c 'import json,sys; sys.exit(sum(1 for n in json.load(sys.stdin)["names"] if n["checkpoint"] and not n["error"]) != 3)'; }
made() { # DIR: and synced; the seconds that it took
    python3 - "$1" <<'EOP'
import os, sys, time
t = time.monotonic()
os.mkdir(sys.argv[1])
os.fsync(os.open(sys.argv[1], os.O_RDONLY))
os.fsync(os.open(os.path.dirname(sys.argv[1]), os.O_RDONLY))
print("%.2f" % (time.monotonic() - t))
EOP
}

echo "- metad's disk is lost while files are written"
"$cases_repo/tests/bench/recover" --files 300 --seconds 4 --sync --dir "$work" || fail "something that was acknowledged is lost"

echo "- no chunkd takes copies"
devcluster up --chunkd 3 --metad-args "--suspect=20s" >/dev/null
devcluster mount "$mnt" -o timeout=60 >/dev/null
ctl config set meta-copies-sync maybe "$mnt" >/dev/null 2>&1 && fail "meta-copies-sync is 'maybe'"
ctl config set meta-copies-sync on "$mnt" >/dev/null
expect "config get" on "$(ctl config get meta-copies-sync "$mnt")"
ctl config set meta-copies 0 "$mnt" >/dev/null 2>&1 && fail "no copies, and changes wait for them"
wait_for 30 "three copies of the names" three_copies
made "$mnt/first" >/dev/null
no_problem names-unsynced || fail "names-unsynced while all is well"
devcluster stop chunkd1 chunkd2 chunkd3 >/dev/null
took=$(made "$mnt/second")
echo "a change without any copy took $took s"
wait_for 20 "the warning" problem names-unsynced
devcluster cont chunkd1 chunkd2 chunkd3 >/dev/null
wait_for 30 "copies again" no_problem names-unsynced
made "$mnt/third" >/dev/null
devcluster unmount "$mnt" >/dev/null
check_sanitizers
echo "names sync: fine"
