#!/usr/bin/env bash
# Directories of a tree that is being walked are listed before they are asked for: a listing is never older than the last
# change, whoever made it.
. "$(dirname "$0")/caselib.sh"
devcluster up --chunkd 2 --metad-args "--lease-term=10s --session-lease=60s"
two_mounts
cat >"$work/walk.py" <<'EOP'
# walk.py DIR FIRST COMMAND: lists DIR and the FIRST directories in it as a walk does, runs COMMAND, lists the others; prints
# "name: what is in it" of all
import os, subprocess, sys
d, first, command = sys.argv[1], int(sys.argv[2]), sys.argv[3]
def listed(n):
    return "%s: %s" % (n, " ".join(sorted(e.name for e in os.scandir(os.path.join(d, n)))))
names = sorted(e.name for e in os.scandir(d) if e.is_dir())
out = [listed(n) for n in names[:first]]
subprocess.run(["bash", "-c", command], check=True)
out += [listed(n) for n in names[first:]]
print("\n".join(out))
EOP
walk() { timeout 60 python3 "$work/walk.py" "$@"; }
plant() { # a tree of 16 directories, that nobody has alone
    rm -rf "$a/t"
    mkdir -p "$a/t/"d{01..16}
    for n in {01..16}; do touch "$a/t/d$n/one" "$a/t/d$n/two"; done
    ls -R "$b/t" >/dev/null
    devcluster unmount "$b"
    devcluster mount "$b" -o noatime # an access time that is told is a change of what was listed
    b_pid=$(pid_of_mount "$b")
}
export a b cluster cases_repo
export -f devcluster

# -- while metad stands still the walk goes on
plant
whole=$(for n in {01..16}; do echo "d$n: one two"; done)
export -f transfers at_rest wait_for
export b_pid
got=$(walk "$b/t" 3 'wait_for 20 "the mount to be at rest" at_rest; devcluster stop metads') || { devcluster cont metads; fail "what was to be listed next waits for metad"; }
devcluster cont metads
expect "the tree, walked while metad stood still" "$whole" "$got"

# -- what was walked once is listed again without metad, when the kernel has forgotten it
mkdir "$a/again"
for n in {100..199}; do mkdir "$a/again/$n" && touch "$a/again/$n/one"; done
whole=$(ls -lR "$b/again")
sync
echo 2 >/proc/sys/vm/drop_caches
devcluster stop metads
got=$(timeout 60 ls -lR "$b/again") || { devcluster cont metads; fail "what was listed is asked for again"; }
devcluster cont metads
expect "the tree, listed again" "$whole" "$got"

# -- never stale: what others and oneself have changed since
# shellcheck disable=SC2016 # walk evaluates it
for change in 'touch "$M/t/d09/three"' 'rm "$M/t/d09/one"' 'mv "$M/t/d09/one" "$M/t/d10/three"' 'rm -r "$M/t/d09"; mkdir "$M/t/d09"; touch "$M/t/d09/new"'; do
    for M in "$a" "$b"; do
        export M
        plant
        got=$(walk "$b/t" 3 "wait_for 20 'the mount to be at rest' at_rest; $change")
        expect "the tree, walked: $change in $M" "$(cd "$a/t" && for n in d*; do echo "$n: $(ls "$n" | paste -sd ' ')"; done)" "$got"
    done
done
# attributes, too
plant
# shellcheck disable=SC2016
walk "$b/t" 3 'wait_for 20 "the mount to be at rest" at_rest; echo longer >"$a/t/d12/one"; chmod 600 "$a/t/d12/two"' >/dev/null
expect "sizes and modes" "7 600" "$(ls -ln "$b/t/d12" >/dev/null; echo "$(stat -c %s "$b/t/d12/one") $(stat -c %a "$b/t/d12/two")")"
check_sanitizers
