#!/usr/bin/env bash
# Nobody reads. Bits flip in the segments of one chunkd, segments of another are cut off: the scrub alone finds it, nothing
# else, and metad heals it. It can be paused, goes on after a restart, and tells what no copy has by name and range.
# not under sanitizers: test_chunkd_scrub, test_scrub_state and test_nodes_scrub ask the same of the daemons
. "$(dirname "$0")/caselib.sh"
files=${FILES:-24} flips=${FLIPS:-60} cuts=${CUTS:-4}
devcluster up --chunkd 3 --chunkd-args "--segment-size=4M"
devcluster mount "$mnt"
mkdir "$mnt/d"
ctl setrepl "$mnt/d" 3
random_file "$work/all" "$((files * 2))"
for i in $(seq 1 "$files"); do dd if="$work/all" of="$mnt/d/f$i" bs=1M count=2 skip=$((i * 2 - 2)) status=none; done
for i in $(seq 1 200); do head -c $((i * 61)) "$work/all" >"$mnt/d/small$i"; done
sync -f "$mnt"
ctl setrepl -R "$mnt/d" 3 --wait --timeout 60s 2>/dev/null
(cd "$mnt/d" && sha256sum ./*) >"$work/sums"
devcluster unmount "$mnt" # no client from here on
ask=(--meta "$(devcluster addr leader)")
told() { ctl scrub status --json "${ask[@]}"; }
field() { # CHUNKD KEY
    told | python3 -c 'import json,sys
print([d[sys.argv[2]] for d in json.load(sys.stdin)["disks"] if d["chunkd"] == int(sys.argv[1])][0])' "$1" "$2"
}
begun() { for n in 1 2 3; do [ "$(field $n pass)" -ge 1 ] || return 1; done; }
wait_for 30 "each chunkd to tell of its scrub" begun
full_pass() { # of each chunkd, from its beginning to its end
    local n
    for n in 1 2 3; do was[n]=$(field $n pass); done
    ctl scrub start --fast "${ask[@]}"
    wait_for 120 "a pass of every chunkd to be over: $(told)" passed
}
was=()
passed() { local n; for n in 1 2 3; do [ "$(field $n pass)" -ge $((was[n] + 2)) ] || return 1; done; }
full_pass
for n in 1 2 3; do expect "found by chunkd $n when nothing is wrong" 0 "$(field $n found)"; done
[ "$(field 1 oldest_s)" -lt 600 ] || fail "the oldest byte of chunkd 1 after a pass: $(field 1 oldest_s) s"

# -- rot: flips on the first, cuts on the second ---------------------------------------------------
python3 - "$flips" "$cluster"/chunkd1/disk1/seg-*.log <<'P'
import os, random, sys
rnd = random.Random(7)
flips, names = int(sys.argv[1]), sys.argv[2:]
while flips:
    f = open(rnd.choice(names), "r+b")
    at = rnd.randrange(4096, max(4097, os.fstat(f.fileno()).st_size))
    f.seek(at)
    b = f.read(1)
    if b and b != b"\0":  # zeros may be behind the last record
        f.seek(at)
        f.write(bytes([b[0] ^ 1 << rnd.randrange(8)]))
        flips -= 1
P
mapfile -t segments < <(printf '%s\n' "$cluster"/chunkd2/disk1/seg-*.log | head -n -1) # all but the open one
[ ${#segments[@]} -ge "$cuts" ] || fail "only ${#segments[@]} segments to be cut"
for s in "${segments[@]:0:$cuts}"; do truncate -s $(($(stat -c %s "$s") / 3)) "$s"; done
full_pass
[ "$(field 1 found)" -gt 5 ] && [ "$(field 2 found)" -gt 2 ] || fail "found too little: $(told)"
expect "found by chunkd 3, which is well" 0 "$(field 3 found)"
healed() { for n in 1 2; do [ "$(field $n open)" = 0 ] && [ "$(field $n healed)" = "$(field $n found)" ] || return 1; done; }
wait_for 120 "all to be healed: $(told)" healed
found1=$(field 1 found) found2=$(field 2 found)
full_pass
expect "found again by chunkd 1" "$found1" "$(field 1 found)"
expect "found again by chunkd 2" "$found2" "$(field 2 found)"
echo "$flips flips: $found1 copies healed; $cuts cuts: $found2 copies healed"
whole() { ctl health "${ask[@]}" >/dev/null; }
wait_for 60 "health: $(ctl health "${ask[@]}" 2>&1)" whole
for n in 1 2; do # each of the two is read alone
    others=$(seq 1 3 | grep -vx "$n" | sed 's/^/chunkd/')
    # shellcheck disable=SC2086
    devcluster stop $others
    devcluster mount "$mnt" -o timeout=20
    (cd "$mnt/d" && sha256sum --quiet -c "$work/sums") || fail "chunkd $n gives other bytes than were written"
    devcluster unmount "$mnt"
    # shellcheck disable=SC2086
    devcluster cont $others
done
wait_for 60 "health again: $(ctl health "${ask[@]}" 2>&1)" whole

# -- pause, restart, resume --------------------------------------------------------------------------
ctl config set scrub-rate 1 "${ask[@]}" >/dev/null
ctl scrub start 1 "${ask[@]}"
some() { [ "$(field 1 bytes_done)" -gt 3000000 ]; }
wait_for 60 "some of a slow pass: $(told)" some
ctl scrub pause 1 "${ask[@]}"
paused() { [ "$(field 1 state)" = paused ]; }
wait_for 30 "the pause to be told" paused
pass=$(field 1 pass) bytes=$(field 1 bytes_done)
devcluster term chunkd1
devcluster start chunkd1
wait_for 30 "chunkd 1 to be paused still" paused
expect "pass after the restart" "$pass" "$(field 1 pass)"
expect "bytes of it" "$bytes" "$(field 1 bytes_done)"
grep -q paused <<<"$(ctl scrub status "${ask[@]}")" || fail "status does not say paused: $(ctl scrub status "${ask[@]}")"
ctl config set scrub-rate 1000 "${ask[@]}" >/dev/null
ctl scrub resume 1 "${ask[@]}"
next() { [ "$(field 1 pass)" -gt "$pass" ] && [ "$(field 1 state)" = running ]; }
wait_for 60 "the pass to end after resume: $(told)" next
if ctl scrub start 77 "${ask[@]}" 2>"$work/err"; then fail "start of a chunkd that is not there"; fi

# -- a block of which every copy is bad ----------------------------------------------------------------
devcluster mount "$mnt"
random_file "$work/lost" 1
cp "$work/lost" "$mnt/d/lost file"
sync -f "$mnt"
ctl setrepl "$mnt/d/lost file" 3 --wait --timeout 60s 2>/dev/null
expect "damaged, before" 0 "$(ctl damaged --json "$mnt" | python3 -c 'import json,sys; print(len(json.load(sys.stdin)["ranges"]))')"
devcluster unmount "$mnt"
python3 - "$work/lost" "$cluster"/chunkd*/disk1/seg-*.log <<'P'
import sys
needle, hits = open(sys.argv[1], "rb").read()[700000:700032], set()
for name in sys.argv[2:]:
    f = open(name, "r+b")
    at = f.read().find(needle)
    if at >= 0:
        f.seek(at)
        f.write(bytes([needle[0] ^ 4]))
        hits.add(name.split("/chunkd")[-1].split("/")[0])
assert len(hits) == 3, hits
P
full_pass
listed() { [ "$(ctl damaged --json "${ask[@]}" | python3 -c 'import json,sys; print(len(json.load(sys.stdin)["ranges"]))')" = 1 ]; }
wait_for 60 "the damage to be listed" listed
devcluster mount "$mnt" -o timeout=5
ctl damaged "$mnt" >"$work/out" && fail "damaged exits with 0 when there is damage"
grep -q "d/lost file: bytes [0-9]* to 1048575 " "$work/out" || fail "damaged says: $(cat "$work/out")"
first=$(sed 's/.*: bytes \([0-9]*\) to.*/\1/' "$work/out")
[ "$first" -le 700000 ] && [ "$first" -gt 690000 ] || fail "damaged from byte $first, the flip was at 700000"
ctl damaged "$mnt/d/f1" >"$work/out" || fail "damaged of a file that is whole: $(cat "$work/out")"
cmp <(head -c "$first" "$mnt/d/lost file") <(head -c "$first" "$work/lost") || fail "what is in front of the damage cannot be read"
expect "copies of the damaged chunk, which are kept" 3 "$(copies "$mnt/d/lost file" | sort -u)"
cp "$work/lost" "$mnt/d/lost file"
sync -f "$mnt"
gone() { ctl damaged "$mnt" >"$work/out"; }
wait_for 60 "the list to be empty after the file was written again" gone
cmp "$work/lost" "$mnt/d/lost file"
check_sanitizers
