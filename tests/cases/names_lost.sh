#!/usr/bin/env bash
# A name that was answered and is lost after all is told: by the fsync of a directory that was open meanwhile, once. The mount
# sleeps with a name that metad has not heard of; when it wakes its session is over, and another mount has taken the name.
# --all: also with 3 metads
. "$(dirname "$0")/caselib.sh"
devcluster up --chunkd 2 --metad-args "--lease-term=1s --session-lease=2s"
two_mounts
cat >"$work/sync.py" <<'EOP'
import os, sys
fds = {d: os.open(d, os.O_RDONLY) for d in sys.argv[1:]}
print("open", flush=True)
for line in sys.stdin:
    d = line.strip()
    try:
        os.fsync(fds[d])
        print("0", flush=True)
    except OSError as e:
        print(os.strerror(e.errno), flush=True)
EOP
mkdir "$a/d" "$a/other"
: >"$a/d/first"
coproc syncer { exec python3 "$work/sync.py" "$a/d" "$a/other"; }
case_pids=$!
read -r said <&"${syncer[0]}"
expect "syncer" open "$said"
sync_is() { # WHAT WANT DIR
    local got
    echo "$3" >&"${syncer[1]}"
    read -t 60 -r got <&"${syncer[0]}" || fail "$1: no answer"
    expect "$1" "$2" "$got"
}
sync_is "fsync of a directory, all well" 0 "$a/d"

a_pid=$(pid_of_mount "$a")
wakes() { kill -CONT "$a_pid" 2>/dev/null || true; }
at_end+=(wakes)
devcluster stop metads
made=yes
timeout 20 mkdir "$a/d/taken" || made=no
kill -STOP "$a_pid"
devcluster kill metads # with what had come to it
devcluster start metads
expect "a name is made while metad stands still" yes "$made"
wait_for 20 "the other mount to make the name" ln -sT other "$b/d/taken"
kill -CONT "$a_pid"

sync_is "fsync of the directory that lost a name" "Input/output error" "$a/d"
sync_is "its second fsync" 0 "$a/d"
sync_is "fsync of another directory that was open" "Input/output error" "$a/other"
sync_is "its second fsync" 0 "$a/other"
expect "the name is the other's" other "$(readlink "$a/d/taken")"
python3 -c 'import os,sys
fd = os.open(sys.argv[1], os.O_RDONLY)
os.fsync(fd)' "$a/d" || fail "a directory opened later is told of what was lost before"
grep "taken" "$cluster"/mount*.log >/dev/null || fail "the log does not name what was lost"
check_sanitizers
