#!/usr/bin/env bash
# Small files are read ahead, and files under a lease are opened, without metad: what another mount changes is seen all the
# same, what it removes stays readable for who has it open, and so does one's own. FILES=200 ROUNDS=4: the long form.
# not under sanitizers: test_client_prefetch, test_client_lease_cache and test_service_lease ask the same of the mount and metad
. "$(dirname "$0")/caselib.sh"
devcluster up --chunkd 2 --metad-args "--lease-term=3s --session-lease=30s"
two_mounts
files=${FILES:-100} rounds=${ROUNDS:-2}
fill() { # TEXT: small files
    local n
    for n in $(seq 1 "$files"); do echo "$1 $n" >"$a/d/$n"; done
}
cat >"$work/all.py" <<'EOP'
# all.py DIR TEXT FROM TO [LIST]: lists DIR, or takes LIST's names, and reads FROM..TO of them in that order; each must be
# "TEXT n"
import os, sys
d, text, first, last = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
names = open(sys.argv[5]).read().split() if len(sys.argv) > 5 else [e.name for e in os.scandir(d) if e.stat().st_size]
for n in names[first:last]:
    with open(os.path.join(d, n)) as f:
        got = f.read()
    if got != "%s %s\n" % (text, n):
        sys.exit("%s: %r instead of %r" % (n, got, "%s %s" % (text, n)))
EOP
all() { python3 "$work/all.py" "$@"; }

# -- opened and read while metad stands still: the mount has been reading ahead
mkdir "$a/d"
fill first
ls -l "$b/d" >/dev/null # no file is the other mount's alone any more: a listing brings leases
devcluster unmount "$b"
devcluster mount "$b"
b_pid=$(pid_of_mount "$b")
ls -Us "$b/d" | awk 'NR > 1 {print $2}' >"$work/names"
all "$b/d" first 0 20 "$work/names"
wait_for 20 "the mount to be at rest" at_rest
devcluster stop metads
timeout 10 python3 "$work/all.py" "$b/d" first 20 50 "$work/names" || { devcluster cont metads; fail "files that were read ahead wait for metad"; }
devcluster cont metads
all "$b/d" first 0 "$files"

# -- never stale: what b has read ahead of the files that it read is not what a has made of them since
for i in $(seq 1 "$rounds"); do
    fill "round$i"
    all "$b/d" "round$i" 0 "$files" # none is a's alone any more
    : >"$a/d/empty$i"          # and the directory is listed anew
    all "$b/d" "round$i" 0 $((i * 20))
    wait_for 20 "the mount to be at rest" at_rest
    fill "later$i" # of the same size
    all "$b/d" "later$i" 0 "$files"
    fill "a longer round $i"
    all "$b/d" "a longer round $i" 0 "$files"
    for k in 3 50 99; do
        echo "a shorter $k" >"$a/d/$k"
        expect "file $k, round $i" "a shorter $k" "$(cat "$b/d/$k")"
    done
done
# while b reads all of the time: what it gets is one of the two texts, and the new one once a is done
fill "state 0"
(while [ ! -e "$work/enough" ]; do cat "$b/d/"* | grep -vE '^state [0-9]+ [0-9]+$'; done) >"$work/odd" & reader=$!
for i in $(seq 1 3); do
    fill "state $i"
    all "$b/d" "state $i" 0 "$files"
done
touch "$work/enough"
wait "$reader" || true
expect "texts that nobody wrote" "" "$(cat "$work/odd")"

# -- open without metad's knowledge, and removed: by the other, by another name, by oneself, with a metad that died meanwhile
cat >"$work/open.py" <<'EOP'
# open.py COMMAND FILE...: opens all, runs COMMAND, reads them
import subprocess, sys
files = [open(n) for n in sys.argv[2:]]
subprocess.run(["bash", "-c", sys.argv[1]], check=True)
sys.stdout.write(" ".join("%d %s" % (len(t), " ".join(sorted(set(t.split())))) for t in (f.read() for f in files)))
EOP
for i in one two; do python3 -c "print('$i\n' * 75000, end='')" >"$work/$i"; done # too long to be read ahead
holds() { # COMMAND: with which two files go that b has open
    cp "$work/one" "$a/d/x"
    cp "$work/two" "$a/d/y"
    ls -l "$b/d" >/dev/null
    expect "contents of files that are open: $1" "300000 one 300000 two" "$(timeout 60 python3 "$work/open.py" "$1" "$b/d/x" "$b/d/y")"
    [ ! -e "$b/d/x" ] || fail "$1: x is still there"
}
export a b cluster cases_repo
export -f devcluster
# shellcheck disable=SC2016 # holds evaluates it
for i in $(seq 1 2); do
    holds 'rm "$a/d/x" "$a/d/y"; sync "$a"'
    holds 'rm "$b/d/x" "$b/d/y"; sync "$b"'
    holds 'mv "$a/d/1" "$a/d/y"; rm "$a/d/x"; cp "$a/d/2" "$a/d/1"'
    holds 'mv "$b/d/1" "$b/d/y"; rm "$b/d/x"; cp "$b/d/2" "$b/d/1"'
done
# shellcheck disable=SC2016
holds 'devcluster kill leader; devcluster start metads >/dev/null; rm "$a/d/x" "$a/d/y"; sync "$a"'
# shellcheck disable=SC2016
holds 'rm "$a/d/x" "$a/d/y"; devcluster kill leader; devcluster start metads >/dev/null; sync "$a"'
check_sanitizers
