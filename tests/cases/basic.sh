#!/usr/bin/env bash
# A tree and a big file go onto the mount and come back the same, also after everything was stopped and started;
# links, renames, open-unlinked files, statfs and mount's own output behave.
. "$(dirname "$0")/caselib.sh"
devcluster up --chunkd 3
devcluster mount "$mnt"
ctl setrepl "$mnt" 3

findmnt -n -o FSTYPE,SOURCE "$mnt" | grep "fuse.replfs.*:7000" >/dev/null || fail "findmnt shows $(findmnt -n "$mnt")"
src=/usr/include/linux
cp -a $src "$mnt/tree"
random_file "$work/big" 40
cp "$work/big" "$mnt/big"
diff -r --no-dereference $src "$mnt/tree"

# names and links
cd "$mnt"
ln big hard
expect "link count" 2 "$(stat -c %h big)"
ln -s big soft
expect "readlink" big "$(readlink soft)"
mkdir -p a/b/c && mv a/b/c a/c && rmdir a/b
[ -d a/c ] || fail "renamed directory is missing"
echo one >r1 && echo two >r2 && mv r1 r2
expect "rename over" one "$(cat r2)"
rmdir a 2>/dev/null && fail "rmdir of a non-empty directory succeeded"
mkfifo fifo && [ -p fifo ] || fail "no fifo"
name=$(printf 'n%.0s' {1..255})
echo long >"$name" && expect "255 byte name" long "$(cat "$name")"
touch "${name}x" 2>/dev/null && fail "256 byte name accepted"
chmod 640 r2 && expect mode 640 "$(stat -c %a r2)"
touch -d '2001-02-03 04:05:06.789' r2 && expect mtime 2001-02-03 "$(stat -c %y r2 | cut -d' ' -f1)"

# an open file without a name still reads and writes
exec 5<>open-unlinked
echo before >&5
rm open-unlinked
echo after >&5
expect "open-unlinked content" "before after" "$(cat /proc/self/fd/5 | xargs)"
exec 5>&-

# overwrite, append, truncate, sparse
printf 0123456789 >f && printf XX | dd of=f bs=1 seek=4 conv=notrunc status=none && printf tail >>f
expect "overwrite and append" 0123XX6789tail "$(cat f)"
truncate -s 5 f && expect truncate 0123X "$(cat f)"
truncate -s 8 f && expect "grown with zeros" "0123X\0\0\0" "$(tr '\0' '#' <f | sed 's/#/\\0/g')"
dd if=/dev/urandom of=sparse bs=4k count=1 seek=1000 status=none
expect "sparse size" $((1001 * 4096)) "$(stat -c %s sparse)"
[ "$(stat -c %b sparse)" -le 64 ] || fail "sparse file has $(stat -c %b sparse) blocks"
cmp -n $((4096 * 1000)) sparse /dev/zero
[ "$(df --output=size "$mnt" | tail -1)" -gt 0 ] || fail "df shows no size"
cd "$work"

sum=$(sum_of "$work/big")
devcluster unmount "$mnt"
devcluster term all
devcluster start all
devcluster mount "$mnt"
diff -r --no-dereference $src "$mnt/tree"
expect "big file after restart" "$sum" "$(sum_of "$mnt/big")"
expect "hard link after restart" "$sum" "$(sum_of "$mnt/hard")"
rm -rf "$mnt/tree" && [ ! -e "$mnt/tree" ] || fail "rm -rf left something"
wait_healthy 30
check_sanitizers
