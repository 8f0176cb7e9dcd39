#!/usr/bin/env bash
# setrepl 3 -> 1 -> 2 on a file and on a tree: info shows exactly that many copies each time; new files inherit.
. "$(dirname "$0")/caselib.sh"
devcluster up --chunkd 3
devcluster mount "$mnt"
ctl setrepl "$mnt" 3
random_file "$mnt/f" 5
mkdir -p "$mnt/tree/sub"
for i in $(seq 1 30); do head -c $((i * 1000)) /dev/urandom >"$mnt/tree/f$i"; echo "$i" >"$mnt/tree/sub/g$i"; done
sync
all_have() { # N FILES...: every chunk of every file has exactly N copies
    local n=$1
    shift
    [ "$(copies "$@" | sort -u)" = "$n" ]
}
for n in 3 1 2; do
    ctl setrepl "$mnt/f" $n --wait
    wait_for 60 "file f to have exactly $n copies" all_have $n "$mnt/f"
    expect "getrepl of f" $n "$(ctl getrepl --json "$mnt/f" | grep -o '"goal": *[0-9]*' | grep -o '[0-9]*$')"
    ctl setrepl -R "$mnt/tree" $n --wait
    wait_for 60 "the tree to have exactly $n copies" all_have $n "$mnt"/tree/f* "$mnt"/tree/sub/*
    echo "goal $n reached by file and tree"
done
echo new >"$mnt/tree/sub/new"
expect "a new file inherits its directory's goal" 2 "$(copies "$mnt/tree/sub/new")"
ctl setrepl "$mnt/f" 0 2>"$work/err" && fail "goal 0 accepted"
ctl setrepl "$mnt/f" 9 2>>"$work/err" && fail "goal 9 accepted"
ctl setrepl "$mnt/f" two 2>>"$work/err" && fail "goal 'two' accepted"
cat "$work/err"
wait_healthy 60
check_sanitizers
