#!/usr/bin/env bash
# rsync -aHAX: a tree with one of everything goes onto the mount and back; a second run has nothing to do; changed files in
# place; what is deleted here is deleted there.
. "$(dirname "$0")/lib.sh"
need rsync setfattr getfattr setfacl getfacl
src=$APP_LOCAL/src dst=$APP_DIR/dst back=$APP_LOCAL/back
odd_tree "$src"
some_files "$src/files"
python3 -c 'import socket,sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])' "$src/socket"
age "$src"
sync_to() { rsync -aHAX --numeric-ids "$@"; }

step "first run"
sync_to -S "$src/" "$dst/"
same_tree "after the first run" "$src" "$dst"
[ "$(stat -c %b "$dst/sparse")" -le 256 ] || fail "the sparse file has $(stat -c %b "$dst/sparse") blocks"
step "second run transfers nothing"
expect "changes of a second run" "" "$(sync_to -S --itemize-changes --delete "$src/" "$dst/")"
expect "changes of a third run, by checksums" "" "$(sync_to --checksum --itemize-changes --delete "$src/" "$dst/")"

step "changed in place"
change_files "$src/files"
cp "$src/plain/big" "$APP_LOCAL/was"
printf 'CHANGED' | dd of="$src/plain/big" bs=1 seek=2345678 conv=notrunc status=none
touch -d '2016-06-06' "$src/plain/big"
inode=$(stat -c %i "$dst/plain/big")
sync_to --inplace --no-whole-file --stats "$src/plain/" "$dst/plain/" >"$APP_LOCAL/stats"
literal=$(sed -n 's/^Literal data: \([0-9,]*\).*/\1/p' "$APP_LOCAL/stats" | tr -d ,)
[ "$literal" -lt 100000 ] || fail "7 changed bytes made rsync send $literal"
expect "inode of the file changed in place" "$inode" "$(stat -c %i "$dst/plain/big")"
expect "hard link still the same file" "$(stat -c %i "$dst/plain/big.hard")" "$inode"
same "file changed in place" "$src/plain/big" "$dst/plain/big"

step "deleted and changed"
rm -rf "$src/deep/a/b" "$src/odd names/with space" "$src/plain/file8"
rm -rf "$src/empty" && echo "a file now" >"$src/empty"
rm "$src/plain/file9" && mkdir "$src/plain/file9" && touch "$src/plain/file9/in"
setfacl -b "$src/plain/file10" && setfattr -x user.dir "$src/deep"
age "$src"
sync_to --delete "$src/" "$dst/"
same_tree "after --delete" "$src" "$dst"
expect "changes after --delete" "" "$(sync_to --itemize-changes --delete "$src/" "$dst/")"

step "back"
sync_to -S "$dst/" "$back/"
same_tree "back from the mount" "$src" "$back"
echo "RESULT: $(find "$src" | wc -l) names"
