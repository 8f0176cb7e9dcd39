#!/usr/bin/env bash
# A metad that runs from an older copy of its data directory deletes nothing, mixes nothing up, says so, and waits for a
# person; and when the right directory is back, everything is there.
# only with --all
# one metad: with several, the others tell an older copy what it lacks
. "$(dirname "$0")/caselib.sh"
metad=$cluster/metad
seed() { printf '%s' "$1" | sha256sum | cut -c1-32; }
put() { # FILE TEXT: 200 kB that follow from TEXT, synced
    head -c 200000 /dev/zero | openssl enc -aes-128-ctr -nosalt -pass pass:"$(seed "$2")" 2>/dev/null >"$1"
    python3 -c 'import os,sys; os.fsync(os.open(sys.argv[1], os.O_RDWR))' "$1"
}
same() { # FILE TEXT
    cmp -s "$1" <(head -c 200000 /dev/zero | openssl enc -aes-128-ctr -nosalt -pass pass:"$(seed "$2")" 2>/dev/null)
}
problem() { grep -q "\"$1\"" <<<"$(ctl health --json "$mnt" 2>/dev/null || true)"; }
no_problem() { ! problem "$1"; }
chunks_of() { ctl info --json "$1" | grep -o '"chunk": *"[0-9a-f]*"'; }
stored() { ctl chunkd list --json "$mnt" | python3 -c 'import json,sys; print(sum(k["chunks"] for k in json.load(sys.stdin)["chunkds"]))'; }
stop_metad() { devcluster unmount "$mnt" >/dev/null; devcluster term metad >/dev/null; }
begin_metad() { devcluster start metad >/dev/null; devcluster mount "$mnt" -o timeout=20 >/dev/null; }

devcluster up --chunkd 2 --metad-args "--suspect=1s --dead=3s --session-lease=2s" >/dev/null
devcluster mount "$mnt" -o timeout=20 >/dev/null
put "$mnt/old" old
stop_metad
cp -a "$metad" "$work/backup"
begin_metad
for i in 1 2 3; do put "$mnt/day$i" "day$i"; done
put "$mnt/gone" gone
rm "$mnt/gone"
first=$(chunks_of "$mnt/day1")
wait_healthy 10

echo "- started by mistake: the older copy runs for a while, is written to, and deletes nothing"
stop_metad
mv "$metad" "$work/right"
cp -a "$work/backup" "$metad"
begin_metad
wait_for 10 "the older metad to say that it is behind" problem metad-behind
same "$mnt/old" old || fail "an old file differs under the older metad"
[ ! -e "$mnt/day1" ] || fail "the older metad knows a newer file"
for i in 1 2 3; do put "$mnt/new$i" "new$i"; done
rm "$mnt/old"
[ "$(chunks_of "$mnt/new1")" != "$first" ] || fail "a chunk number was given twice"
expect "recover says that metad is behind" 1 "$(ctl recover "$mnt" >/dev/null && echo 0 || echo $?)"
ctl quarantine drop --all "$mnt" >/dev/null 2>&1 && fail "a metad that is behind releases what it does not know"
for i in 1 2 3; do same "$mnt/new$i" "new$i" || fail "new$i differs under the older metad"; done
stop_metad
mv "$metad" "$work/mistaken"
mv "$work/right" "$metad"
begin_metad
for f in old day1 day2 day3; do same "$mnt/$f" "$f" || fail "$f differs under the right metad"; done
[ ! -e "$mnt/new1" ] || fail "the right metad knows a file of the other"
problem metad-behind && fail "the right metad believes itself behind"
wait_for 10 "the other metad's chunks in quarantine" problem quarantine
for i in 4 5; do put "$mnt/day$i" "day$i"; done
inodes=$(stat -c %i "$mnt"/day[1-5] | xargs)
ctl quarantine drop --all "$mnt" >/dev/null
wait_healthy 10
for f in old day1 day2 day3 day4 day5; do same "$mnt/$f" "$f" || fail "$f differs after the release"; done

echo "- restored under a mount that stays up: programs with open files get errors, nothing else is written into"
python3 - "$mnt/day5" "$mnt/fresh" "$work/go" >"$work/held" <<'EOP' &
import os, sys, time
fds = [os.open(p, os.O_RDWR | os.O_CREAT) for p in sys.argv[1:3]]
os.write(fds[1], b"before")
os.fsync(fds[1])
open(sys.argv[3] + ".ready", "w").close()
while not os.path.exists(sys.argv[3]):
    time.sleep(0.05)
for fd in fds:
    try:
        os.write(fd, b"WRONG")
        os.fsync(fd)
        print("written")
    except OSError:
        print("error")
EOP
case_pids=$!
wait_for 10 "the program with open files" test -e "$work/go.ready"
devcluster kill metad >/dev/null
rm -rf "$metad"
cp -a "$work/backup" "$metad"
devcluster start metad >/dev/null
wait_for 10 "the restored metad to say that it is behind" problem metad-behind
ls "$mnt" >/dev/null
for i in 1 2 3 4 5 6; do put "$mnt/after$i" "after$i"; done
touch "$work/go"
wait "$case_pids"
case_pids=
expect "writes to files that are not there any more" "error error" "$(xargs <"$work/held")"
devcluster unmount "$mnt" >/dev/null
devcluster mount "$mnt" -o timeout=20 >/dev/null
same "$mnt/old" old || fail "an old file differs after the restore"
for i in 1 2 3 4 5 6; do same "$mnt/after$i" "after$i" || fail "after$i differs"; done

echo "- accepted: what was lost is listed until a person releases it"
before=$(stored)
ctl recover --accept "$mnt" >/dev/null || fail "recover --accept"
wait_for 10 "the warning about the quarantine" problem quarantine
problem metad-behind && fail "still behind after recover --accept"
devcluster term metad >/dev/null
devcluster start metad >/dev/null
wait_for 10 "the decision to be remembered" no_problem metad-behind
wait_for 10 "the warning about the quarantine after a restart" problem quarantine
listed=$(ctl quarantine --json "$mnt" | grep -o '"chunk"' | wc -l)
[ "$listed" -ge 10 ] || fail "the lost files' chunks are not listed"
grep -q "^in quarantine: $listed copies of chunks" <<<"$(ctl status "$mnt")" || fail "status does not count the $listed copies in quarantine"
expect "status, as JSON" "$listed" "$(ctl status --json "$mnt" | python3 -c 'import json,sys; print(json.load(sys.stdin)["quarantine"])')"
[ "$(stored)" -ge "$before" ] || fail "something was deleted: $(stored) of $before copies are left"

echo "- adopted: the bytes of the lost files are in lost+found, under their inodes' numbers"
ctl quarantine adopt nonsense "$mnt" >/dev/null 2>&1 && fail "a chunk 'nonsense' was adopted"
ctl quarantine adopt --all "$mnt" >"$work/adopted" 2>&1 || fail "adopt: $(cat "$work/adopted")"
expect "mode of lost+found" 700 "$(stat -c %a "$mnt/lost+found")"
read -r -a inode <<<"$inodes"
for i in 1 2 3 4 5; do same "$mnt/lost+found/inode-${inode[i - 1]}" "day$i" || fail "day$i differs in lost+found: $(ls -l "$mnt/lost+found")"; done
ctl quarantine adopt --all "$mnt" >/dev/null && fail "something was adopted twice"
wait_healthy 10
for i in 1 2 3 4 5 6; do same "$mnt/after$i" "after$i" || fail "after$i differs after the adoption"; done
for i in 1 2 3 4 5; do same "$mnt/lost+found/inode-${inode[i - 1]}" "day$i" || fail "day$i differs in lost+found in the end"; done
devcluster unmount "$mnt" >/dev/null
check_sanitizers
echo "older metad: fine"
