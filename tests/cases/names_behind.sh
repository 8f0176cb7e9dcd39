#!/usr/bin/env bash
# Names written behind: files and directories are made in a directory that is the mount's alone without waiting for metad;
# another mount sees all of them all the same, as do the listing, a metad that was killed, and fsync.
. "$(dirname "$0")/caselib.sh"
devcluster up --chunkd 2 --metad-args "--lease-term=3s --session-lease=30s"
two_mounts

# -- metad stands still: what it need not decide goes on. A small file's bytes are with the chunkds.
mkdir "$a/d"
echo first >"$a/d/first" # chunks to write to are at hand from now on
devcluster stop metads
cat >"$work/made.py" <<'EOP'
import os, stat, sys
d = sys.argv[1]
os.mkdir(d)
os.mkdir(d + "/sub")
for i in range(1, 21):
    os.close(os.open("%s/empty%d" % (d, i), os.O_CREAT | os.O_WRONLY, 0o644))
    os.symlink("target %d" % i, "%s/link%d" % (d, i))
os.mknod(d + "/pipe", stat.S_IFIFO | 0o644)
os.chmod(d + "/sub", 0o750)
os.utime(d + "/sub", (1234567890, 1234567890))
EOP
made() { # DIR: with entries of each kind, by few programs: the lease ends with its term
    python3 "$work/made.py" "$1"
    cp -a "$plain" "$1/copy" # as an ACL that says only the mode, and no default ACL
}
export work plain=$work/plain
mkdir "$plain"
echo plain >"$plain/f"
chmod 640 "$plain/f"
timeout 20 bash -c "$(declare -f made); made $a/d/held" || { devcluster cont metads; fail "names wait for a metad that stands still"; }
[ ! -e "$a/d/held/nothing" ] || fail "a name that nobody made"
links=$(timeout 20 stat -c %h "$a/d/held") || links="no answer"
devcluster cont metads
expect "links of the directory, shown while metad stood still" 4 "$links"
shape() { (cd "$1" && find . -printf '%p %y %m %U %G %n %T@ %C@ %i %l\n' | sort); }
expect "the other mount's view" "$(shape "$a/d")" "$(shape "$b/d")"
expect "mode and bytes of a copy" "640 plain" "$(stat -c %a "$b/d/held/copy/f") $(cat "$b/d/held/copy/f")"
expect "number of names" 43 "$(ls "$b/d/held" | wc -l)"

# -- seen at once by the other, whatever is under way; and then shared: both make names in one directory
for i in $(seq 1 30); do
    mkdir "$a/d/n$i"
    echo "$i" >"$a/d/n$i/f"
    expect "file $i" "$i" "$(cat "$b/d/n$i/f")"
    echo "b$i" >"$b/d/n$i/g"
    expect "file g$i" "b$i" "$(cat "$a/d/n$i/g")"
    ! mkdir "$b/d/n$i" 2>/dev/null || fail "one name was made twice"
    ! (set -o noclobber; : >"$b/d/n$i/f") 2>/dev/null || fail "O_EXCL made a file that exists"
done
# both race for the same names: each has one winner
race() { # MOUNT
    for i in $(seq 1 100); do (set -o noclobber; echo "$1" >"$1/d/race/$i") 2>/dev/null && echo "$i"; done || true
}
mkdir "$a/d/race"
race "$a" >"$work/won-a" & racer=$!
race "$b" >"$work/won-b"
wait "$racer"
expect "winners" 100 "$(cat "$work/won-a" "$work/won-b" | sort -un | wc -l)"
expect "wins" 100 "$(cat "$work/won-a" "$work/won-b" | wc -l)"

# -- metad is killed with names that it has not heard of: they come again, once
mkdir "$a/fresh" # what b has looked into is shared for a while
devcluster stop metads
timeout 20 bash -c "$(declare -f made); made $a/fresh/killed" || fail "names wait for a metad that stands still"
devcluster kill metads
devcluster start metads
expect "the other mount's view after a metad's death" "$(shape "$a/fresh")" "$(shape "$b/fresh")"
expect "names made before it" 43 "$(ls "$b/fresh/killed" | wc -l)"

# -- removal: what is ours alone goes without metad, for the other all the same at once
mkdir "$a/gone"
timeout 20 bash -c "$(declare -f made); made $a/gone/tree"
unmade() { # DIR: by name, since a listing may have to ask metad
    rm "$1/"{empty,link}{1..20} "$1/pipe" "$1/copy/f"
    rmdir "$1/copy" "$1/sub" "$1"
}
devcluster stop metads
timeout 20 bash -c "$(declare -f unmade); unmade $a/gone/tree" || { devcluster cont metads; fail "removing waits for a metad that stands still"; }
[ ! -e "$a/gone/tree" ] || { devcluster cont metads; fail "what was removed is still there"; }
devcluster kill metads
devcluster start metads
expect "the other mount's view of a removal after a metad's death" "" "$(ls "$b/gone")"
mkdir -p "$a/old/deep/er"
touch "$a/old/"{1..50} "$a/old/deep/er/file"
ls -lR "$b/old" >/dev/null # the other keeps all of it
! rmdir "$a/old" 2>/dev/null || fail "rmdir took a directory that is not empty"
rm -r "$a/old"
[ ! -e "$b/old" ] || fail "a tree that both had looked at is still there"
# an open file, and one with two names: the link count that the other sees is never old
mkdir "$a/links"
for i in $(seq 1 20); do
    echo "$i" >"$a/links/open"
    ln "$a/links/open" "$a/links/second"
    exec 8<"$b/links/open"
    expect "links of an open file $i" 2 "$(stat -L -c %h /dev/fd/8)"
    rm "$a/links/second"
    expect "links of an open file after rm $i" 1 "$(stat -L -c %h /dev/fd/8)"
    rm "$a/links/open"
    expect "links of a removed open file $i" 0 "$(stat -L -c %h /dev/fd/8)"
    expect "its contents $i" "$i" "$(cat <&8)"
    exec 8<&-
done
# one's own open file
echo own >"$a/links/own"
exec 8<"$a/links/own"
rm "$a/links/own"
expect "links of one's own removed file" 0 "$(stat -L -c %h /dev/fd/8)"
expect "contents of one's own removed file" own "$(cat <&8)"
exec 8<&-
# both remove the same names: each has one winner
mkdir "$a/rm"
touch "$a/rm/"{1..100}
takes() { for i in $(seq 1 100); do rm "$1/rm/$i" 2>/dev/null && echo "$i"; done || true; }
takes "$a" >"$work/took-a" & racer=$!
takes "$b" >"$work/took-b"
wait "$racer"
expect "removals" 100 "$(cat "$work/took-a" "$work/took-b" | sort -n | uniq -c | awk '$1 == 1' | wc -l)"

# -- fsync of the directory, or of the file, is a promise: the mount dies right behind it
mkdir "$a/kept"
cat >"$work/fsync.py" <<'EOP'
import os, sys
d = sys.argv[1]
for i in range(20):
    os.mkdir("%s/d%d" % (d, i))
    fd = os.open("%s/d%d/f" % (d, i), os.O_CREAT | os.O_WRONLY)
    os.write(fd, b"kept")
    os.fsync(fd)
for i in range(20):
    os.mkdir("%s/e%d" % (d, i))
fd = os.open(d, os.O_RDONLY)
os.fsync(fd)
os.kill(int(sys.argv[2]), 9)
EOP
python3 "$work/fsync.py" "$a/kept" "$(pid_of_mount "$a")"
umount -l "$a"
expect "directories after the mount's death" 40 "$(ls "$b/kept" | wc -l)"
expect "files after the mount's death" 20 "$(cat "$b"/kept/d*/f | grep -o kept | wc -l)"

# -- a directory that others keep looking into is shared, and stays right
devcluster mount "$a"
mkdir "$a/shared"
(while [ ! -e "$work/enough" ]; do ls "$b/shared" >/dev/null; done) & looker=$!
for i in $(seq 1 200); do
    : >"$a/shared/$i"
    [ $((i % 20)) != 0 ] || expect "listing of $i" "$i" "$(ls "$b/shared" | wc -l)"
done
touch "$work/enough"
wait "$looker"
check_sanitizers
