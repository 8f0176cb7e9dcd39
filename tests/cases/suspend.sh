#!/usr/bin/env bash
# A laptop is closed: its mount stands still for longer than the session's lease, with changes that were answered and not
# told to metad yet. They are there when it wakes up, but where others have changed the same meanwhile.
# --all: also with 3 metads
. "$(dirname "$0")/caselib.sh"
devcluster up --chunkd 2 --metad-args "--lease-term=4s --session-lease=4s" >/dev/null
two_mounts
a_pid=$(pid_of_mount "$a")

lapses=0
silent() { cat "$cluster"/metad*.log | grep -c 'silent for 4000 ms' || true; }
lapsed() { [ "$(silent)" -gt "$lapses" ]; }
asleep() { # metad may go on, the mount may not, until its session has lapsed
    lapses=$(silent)
    kill -STOP "$a_pid"
    devcluster cont metads
    wait_for 20 "the session's end" lapsed
}
awake() { kill -CONT "$a_pid"; }
at_end+=(awake)
shape() { (cd "$1" && find . -printf '%p %y %m %U %G %s %T@ %l\n' | sort; find . -type f -print0 | sort -z | xargs -0 sha256sum); }

plain=$work/plain
mkdir -p "$plain/sub/deep"
touch "$plain/"f{1..30}
echo contents >"$plain/sub/deep/f" # few chunks are at hand while metad does not answer
chmod 640 "$plain/f1"
touch -d @1234567890 "$plain/sub/deep/f" "$plain/sub"

mkdir "$a/d"
echo first >"$a/d/first" # chunks to write to are at hand from now on
echo mine >"$a/d/both"
echo mine >"$a/d/name"
echo mine >"$a/d/removed"
sync "$a/d/first"
# a program that has two files open all the time; it writes as it is told
mkfifo "$work/tell" "$work/told"
cat >"$work/program.py" <<'EOP'
import os, sys
d, work = sys.argv[1:]
both, log = open(d + "/both", "r+b", 0), open(d + "/log", "wb", 0)
log.write(b"before\n")
for line in open(work + "/tell"):
    answer = "ok"
    if line == "write\n":
        both.write(b"ours\n")
        log.write(b"during\n")
    else:
        log.write(b"after\n")
        os.fsync(log.fileno())
        try: os.fsync(both.fileno())
        except OSError as e: answer = e.strerror
    with open(work + "/told", "w") as f: f.write(answer)
EOP
python3 "$work/program.py" "$a/d" "$work" &
case_pids=$!
exec 7>"$work/tell"
program() { echo "$1" >&7 && timeout 20 cat "$work/told"; }

# -- metad stands still, so that of all this it hears after the mount's sleep at the earliest
devcluster stop metads
timeout 20 bash -c 'cp -a "$1" "$2/d/copy" && rm "$2/d/removed" "$2/d/name"' - "$plain" "$a" ||
    { devcluster cont metads; fail "these wait for a metad that stands still"; }
program write >/dev/null
asleep
echo theirs >"$b/d/both"
echo theirs >"$b/d/name.new"
mv "$b/d/name.new" "$b/d/name"
sync "$b/d/both"
devcluster kill metads # what may come back is in its log
devcluster start metads
expect "status tells of mounts that may come back" 1 "$("$bin/replfsctl" status --json "$b" | grep -oP '"sessions_lapsed": *\K\d+')"
awake
expect "what was copied before the sleep" "$(cd "$plain" && shape .)" "$(cd "$a/d/copy" && shape .)"
expect "the same at the other mount" "$(cd "$plain" && shape .)" "$(cd "$b/d/copy" && shape .)"
[ ! -e "$b/d/removed" ] || fail "what was removed before the sleep is back"
expect "fsync of a file that others changed meanwhile" "Input/output error" "$(program sync)"
expect "a file that both changed" theirs "$(cat "$a/d/both")"
expect "a name that was removed here and given anew there" theirs "$(cat "$a/d/name")"
grep -q '"name" (inode .* was removed, and metad did not do it' "$cluster"/mount*.log || fail "the log does not name what was given up"
exec 7>&-
expect "a file that was open during the sleep" "before during after" "$(xargs <"$b/d/log")"

# -- just after a copy, as it comes: whatever is on its way
for i in $(seq 1 30); do echo "contents $i" >"$plain/f$i"; ln -s "f$i" "$plain/sub/l$i"; done
random_file "$plain/sub/deep/large" 2
cp -a "$plain" "$a/d/at"
asleep
awake
expect "a copy just before the sleep" "$(cd "$plain" && shape .)" "$(cd "$a/d/at" && shape .)"
check_sanitizers
