#!/usr/bin/env bash
# metad's only disk is destroyed while files are written: the names come back from chunkds, all but those of the last second
# or two, with the bytes that were in them; what nobody knows any more is kept. And a backup of the names becomes a metad.
# only with --all
# not under sanitizers: test_copies, test_chunkd_names and the case names_lost ask the same of the daemons
# one metad: with several, the others have what was on it
. "$(dirname "$0")/caselib.sh"
metad=$cluster/metad
problem() { grep -q "\"$1\"" <<<"$(ctl health --json "$mnt" 2>/dev/null || true)"; }
field() { ctl status --json "$mnt" | python3 -c "import json,sys; s=json.load(sys.stdin); print($1)"; }
three_copies() { [ "$(field 'sum(1 for n in s["names"] if n["checkpoint"] and n["age_ms"] < 5000)')" = 3 ]; }
chunkd_addrs() { for k in 1 2 3; do sed -n 's/.*listening on \([0-9.:]*\),.*/\1/p' "$cluster/chunkd$k.log" | tail -1; done | paste -sd,; }
recover() { "$bin/replfs-metad" --recover --from "$addrs" --data "$1" >"$work/recovered" 2>&1; }

cat >"$work/writer" <<'EOP'
import os, sys, time
mnt, acked, begin = sys.argv[1], open(sys.argv[2], "a"), int(sys.argv[3])
def text(i): return (b"%d " % i) * (1 + i * 37 % 3000)
for i in range(begin, 1000000):
    d = "%s/d%d" % (mnt, i // 100)
    try:
        os.makedirs(d, exist_ok=True)
        f = os.open(d + "/new", os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o640)
        os.write(f, text(i))
        os.fsync(f)
        os.close(f)
        os.rename(d + "/new", "%s/f%d" % (d, i))
        if i % 2: # every second one is also certain by itself
            f = os.open("%s/f%d" % (d, i), os.O_RDWR)
            os.fsync(f)
            os.close(f)
            acked.write("%d %f\n" % (i, time.monotonic()))
            acked.flush()
    except OSError:
        time.sleep(0.05)
        break
EOP
cat >"$work/checker" <<'EOP'
import os, sys
mnt, acked, killed, grace = sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4])
def text(i): return (b"%d " % i) * (1 + i * 37 % 3000)
lost, old, n, youngest, there = 0, 0, 0, 0.0, []
for line in open(acked).readlines():
    i, t = line.split()
    i, t = int(i), float(t)
    n += 1
    try:
        got = open("%s/d%d/f%d" % (mnt, i // 100, i), "rb").read()
    except FileNotFoundError:
        lost += 1
        youngest = max(youngest, killed - t)
        if t < killed - grace:
            old += 1
        continue
    if got != text(i):
        sys.exit("f%d differs: %d bytes instead of %d" % (i, len(got), len(text(i))))
    there.append(line)
print("%d of %d synced files are lost, the oldest was %.2f s old" % (lost, n, youngest))
if old:
    sys.exit("%d files are lost that were older than %.1f s" % (old, grace))
open(acked, "w").writelines(there) # what is lost is lost: from now on these must be there
EOP
now() { python3 -c 'import time; print(time.monotonic())'; }
begin_writer() { # FIRST
    python3 "$work/writer" "$mnt" "$work/acked" "$1" &
    writer=$!
    case_pids=$writer
}
acked_more_than() { [ "$(wc -l <"$work/acked")" -gt "$1" ]; }

devcluster up --chunkd 3 --metad-args "--suspect=1s --dead=3s --session-lease=2s" >/dev/null
devcluster mount "$mnt" -o timeout=20 >/dev/null
addrs=$(chunkd_addrs)
touch "$work/acked"
begin_writer 0
wait_for 20 "files" acked_more_than 200
wait_for 20 "three copies of the names" three_copies
wait_for 20 "more files" acked_more_than 400

echo "- nobody recovers a cluster that lives"
recover "$work/no" && fail "recovered although metad runs"
grep -q "is alive" "$work/recovered" || fail "no reason given: $(cat "$work/recovered")"

echo "- metad is killed, and its disk is gone"
killed=$(now)
kill -9 "$(cat "$cluster/metad.pid")"
devcluster kill metad >/dev/null 2>&1 || true
rm -rf "$metad"
kill "$writer" 2>/dev/null || true
sleep 0.2 # the chunkds have noticed that it is gone
recover "$metad" || fail "--recover: $(cat "$work/recovered")"
grep -q "changes after that are lost" "$work/recovered" || fail "what is lost is not said"
recover "$metad" && fail "recovered into a directory with a metad"
devcluster start metad >/dev/null
ls "$mnt" >/dev/null || fail "the mount that stayed up does not answer"
devcluster unmount "$mnt" >/dev/null || devcluster unmount "$mnt" >/dev/null
devcluster mount "$mnt" -o timeout=20 >/dev/null
python3 "$work/checker" "$mnt" "$work/acked" "$killed" 2 || fail "files differ or are lost"

echo "- it goes on: new files, new copies, nothing is given twice"
if problem metad-behind; then ctl recover --accept "$mnt" >/dev/null; fi
mkdir "$mnt/after"
for i in $(seq 1 100); do echo "after $i" >"$mnt/after/$i"; done
sync "$mnt/after/100"
python3 "$work/checker" "$mnt" "$work/acked" "$(now)" 0 >/dev/null || fail "files differ after new ones were written"
for i in $(seq 1 100); do [ "$(cat "$mnt/after/$i")" = "after $i" ] || fail "after/$i differs"; done
wait_for 30 "three copies of the names again" three_copies
if problem quarantine; then ctl quarantine drop --all "$mnt" >/dev/null; fi
wait_healthy 20

echo "- one copy is damaged, one chunkd is away: the third serves"
sleep 0.5
before=$(find "$mnt" | sort | sha256sum)
devcluster unmount "$mnt" >/dev/null
devcluster term metad >/dev/null
devcluster kill chunkd3 >/dev/null
newest=$(ls "$cluster"/chunkd1/disk1/names | tail -1)
python3 - "$cluster/chunkd1/disk1/names/$newest" <<'EOP'
import os, sys
f = open(sys.argv[1], "r+b")
f.seek(os.path.getsize(sys.argv[1]) // 3)
b = f.read(1)
f.seek(-1, 1)
f.write(bytes([b[0] ^ 1]))
EOP
mv "$metad" "$work/right"
recover "$metad" || fail "--recover with a damaged copy: $(cat "$work/recovered")"
devcluster start metad chunkd3 >/dev/null
devcluster mount "$mnt" -o timeout=20 >/dev/null
[ "$(find "$mnt" | sort | sha256sum)" = "$before" ] || fail "names differ after the recovery from the good copy"


echo "- a backup is made while files are written, and becomes a metad"
begin_writer 500000
wait_for 20 "files" acked_more_than $(($(wc -l <"$work/acked") + 50))
sync "$mnt/after/1"
n=$(find "$mnt/d0" "$mnt/after" | sort | sha256sum)
asked=$(now)
ctl backup-meta "$work/backup" "$mnt" >"$work/said" || fail "backup-meta: $(cat "$work/said")"
expect "mode of the backup" 600 "$(stat -c %a "$work/backup")"
wait_for 20 "files that are not in it" acked_more_than $(($(wc -l <"$work/acked") + 20))
kill "$writer" && wait "$writer" 2>/dev/null || true
case_pids=
devcluster unmount "$mnt" >/dev/null
devcluster term metad >/dev/null
mv "$metad" "$work/right2"
"$bin/replfs-metad" --restore "$work/backup" --data "$metad" >"$work/restored" 2>&1 || fail "--restore: $(cat "$work/restored")"
devcluster start metad >/dev/null
devcluster mount "$mnt" -o timeout=20 >/dev/null
[ "$(find "$mnt/d0" "$mnt/after" | sort | sha256sum)" = "$n" ] || fail "names differ after --restore"
python3 "$work/checker" "$mnt" "$work/acked" "$asked" 0 || fail "what was there before the backup is lost"
wait_for 20 "the older metad to say that it is behind" problem metad-behind

echo "- the directory from before the restore is started again: it serves nothing, until somebody says that it is the right one"
devcluster unmount "$mnt" >/dev/null
devcluster term metad >/dev/null
mv "$metad" "$work/restored2"
mv "$work/right2" "$metad"
devcluster start metad >/dev/null 2>&1 || true
metad_is_down() { ! kill -0 "$(cat "$cluster/metad.pid" 2>/dev/null || echo 0)" 2>/dev/null; }
wait_for 20 "the former metad to end" metad_is_down
grep -q "most chunkds have obeyed a metad whose data directory was made of a copy" "$cluster/metad.log" || fail "it does not say why it ended"
"$bin/replfs-metad" --new-life --data "$metad" >"$work/said" 2>&1 || fail "--new-life: $(cat "$work/said")"
devcluster start metad >/dev/null
devcluster mount "$mnt" -o timeout=20 >/dev/null
python3 "$work/checker" "$mnt" "$work/acked" "$(now)" 0 || fail "files differ or are lost in the right directory"
problem metad-behind && fail "the right metad believes itself behind"
echo more >"$mnt/after/more"
sync "$mnt/after/more" || fail "the right metad cannot write"
head -c 100 "$work/backup" >"$work/cut"
"$bin/replfs-metad" --restore "$work/cut" --data "$work/no" >/dev/null 2>&1 && fail "a cut backup was restored"
devcluster unmount "$mnt" >/dev/null
check_sanitizers
echo "metad's disk lost: fine"
