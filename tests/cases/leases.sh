#!/usr/bin/env bash
# Two mounts, each cache under leases: what one caches (attributes, names, missing names, listings, pages) is never stale for
# the other's changes; a holder that is stopped, killed or cut off delays others by the lease term at most; one that
# comes back shows nothing old; a metad restart forgets leases but nobody sees old things for it.
. "$(dirname "$0")/caselib.sh"
devcluster up --chunkd 2 --metad-args "--lease-term=2s --session-lease=30s"
two_mounts

# -- never stale: b caches by looking, a changes, b looks again at once
look() { # everything that could be cached about $b/d
    stat -c "%s %a %h %U" "$b/d"/* >/dev/null 2>&1 || true
    ls -la "$b/d" >/dev/null
    cat "$b/d"/* >/dev/null 2>&1 || true
    [ -e "$b/d/missing" ] || true
    getfattr -d "$b/d/f" >/dev/null 2>&1 || true
}
mkdir "$a/d"
echo one >"$a/d/f"
for i in $(seq 1 20); do
    look
    echo "text $i" >"$a/d/f"
    expect "contents $i" "text $i" "$(cat "$b/d/f")"
    look
    chmod $((600 + i % 8)) "$a/d/f"
    expect "mode $i" $((600 + i % 8)) "$(stat -c %a "$b/d/f")"
    look
    touch -d "@$((1000000000 + i))" "$a/d/f"
    expect "mtime $i" $((1000000000 + i)) "$(stat -c %Y "$b/d/f")"
    look
    echo x >"$a/d/missing"
    expect "missing name appears $i" x "$(cat "$b/d/missing")"
    look
    mv "$a/d/missing" "$a/d/moved"
    expect "listing after rename $i" "f, moved" "$(ls -m "$b/d")"
    [ ! -e "$b/d/missing" ] || fail "round $i: the old name is still there after rename"
    look
    ln "$a/d/f" "$a/d/link"
    expect "link count $i" 2 "$(stat -c %h "$b/d/f")"
    look
    rm "$a/d/link" "$a/d/moved"
    expect "link count after unlink $i" 1 "$(stat -c %h "$b/d/f")"
    expect "listing after unlink $i" f "$(ls -m "$b/d")"
    look
    mkdir "$a/d/sub"
    expect "subdirectories $i" 3 "$(stat -c %h "$b/d")"
    look
    rmdir "$a/d/sub"
    truncate -s $((i * 1000)) "$a/d/f"
    expect "size $i" $((i * 1000)) "$(stat -c %s "$b/d/f")"
done
# the same size and the same mtime as before: only the lease can tell
for i in 1 2 3 4 5; do
    exec 7<"$b/d/f"
    cat <&7 >/dev/null
    printf 'same%d' "$i" >"$a/d/f"
    touch -d @1000000000 "$a/d/f"
    expect "in-place change $i" "same$i" "$(cat "$b/d/f")"
    exec 7<&-
done
# both in turn
for i in $(seq 1 30); do
    echo "a$i" >"$a/d/turn"
    expect "turn a$i" "a$i" "$(cat "$b/d/turn")"
    echo "b$i" >"$b/d/turn"
    expect "turn b$i" "b$i" "$(cat "$a/d/turn")"
done

# what is written and not closed yet: the other's read fetches it
exec 7>"$a/d/growing"
for i in $(seq 1 10); do
    printf 'line %d\n' "$i" >&7
    expect "line $i of a file that its writer has open" "line $i" "$(tail -1 "$b/d/growing")"
done
exec 7>&-

# a file held open: a change of one's own, and reads that no attributes come before, show the other's bytes
cat >"$work/held.py" <<'EOF'
import mmap, os, sys
a, b = sys.argv[1] + "/d/held", sys.argv[2] + "/d/held"
def put(path, text): # in place, same size, and there when it returns
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    os.pwrite(fd, text.encode() * 1024, 0)
    os.close(fd)
def check(what, got, want):
    if got != want.encode():
        sys.exit("%s: expected %s, got %r" % (what, want, got))
put(a, "first...")
fd, direct = os.open(b, os.O_RDWR), os.open(b, os.O_RDWR | os.O_DIRECT)
page = mmap.mmap(fd, 4096, mmap.MAP_SHARED, mmap.PROT_READ)
for i in range(20):
    check("before", os.pread(fd, 8, 0), "first..." if not i else "second%02d" % (i - 1))
    os.pread(direct, 4096, 0)
    page[:8]
    put(a, "second%02d" % i)
    if i % 4 == 0:
        os.fchmod(fd, 0o600 + i % 8)
    elif i % 4 == 1:
        os.utime(fd, (i, i))
    elif i % 4 == 2:
        os.ftruncate(fd, 8192)
    check("O_DIRECT %d" % i, os.pread(direct, 8, 0), "second%02d" % i)
    check("mapping %d" % i, page[:8], "second%02d" % i)
    check("read %d" % i, os.pread(fd, 8, 0), "second%02d" % i)
EOF
python3 "$work/held.py" "$a" "$b" || fail "a file held open shows old bytes"

# -- a stopped holder: the other waits for the term, then goes on; continued, the holder shows the new state
look
p=$(pid_of_mount "$b")
kill -STOP "$p"
timeout 20 sh -c "echo stopped >'$a/d/f'" || { kill -CONT "$p"; fail "a stopped client holds up others for more than its term"; }
timeout 20 touch "$a/d/while-stopped" || { kill -CONT "$p"; fail "a stopped client holds up others"; }
kill -CONT "$p"
expect "contents after the stop" stopped "$(cat "$b/d/f")"
[ -e "$b/d/while-stopped" ] || fail "the continued client does not see a file made meanwhile"

# -- metad goes and comes back
look
devcluster kill leader
devcluster start metads
echo again >"$a/d/f"
rm "$a/d/while-stopped"
expect "contents after a metad restart" again "$(cat "$b/d/f")"
[ ! -e "$b/d/while-stopped" ] || fail "a removed file is still there after a metad restart"

# -- a killed holder
look
kill -KILL "$p"
timeout 20 sh -c "echo last >'$a/d/f'" || fail "a dead client holds up others for more than its term"
expect "own contents" last "$(cat "$a/d/f")"
umount -l "$b"
check_sanitizers
