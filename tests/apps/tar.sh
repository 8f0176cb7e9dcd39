#!/usr/bin/env bash
# tar with ACLs, extended attributes, sparse files and hard links: local -> archive -> mount -> archive on the mount -> local.
. "$(dirname "$0")/lib.sh"
need tar setfattr getfattr setfacl getfacl
src=$APP_LOCAL/src
odd_tree "$src"
some_files "$src/files"
keep=(--format=posix --acls --xattrs '--xattrs-include=*' --numeric-owner -S)
step "onto the mount"
tar -C "$src" "${keep[@]}" -cf "$APP_LOCAL/out.tar" .
mkdir "$APP_DIR/tree" "$APP_LOCAL/back"
tar -C "$APP_DIR/tree" "${keep[@]}" -xpf "$APP_LOCAL/out.tar"
same_tree "extracted on the mount" "$src" "$APP_DIR/tree"
expect "differences that tar --compare sees" "" "$(tar -C "$APP_DIR/tree" "${keep[@]}" --compare -f "$APP_LOCAL/out.tar" 2>&1)"
step "and back, with the archive on the mount"
tar -C "$APP_DIR/tree" "${keep[@]}" -cf "$APP_DIR/back.tar" .
tar -C "$APP_LOCAL/back" "${keep[@]}" -xpf "$APP_DIR/back.tar"
same_tree "back from the mount" "$src" "$APP_LOCAL/back"
step "an incremental archive"
touch -d 2012-12-12 "$APP_DIR/tree/plain/file7" # not in the future any more
tar -C "$APP_DIR/tree" "${keep[@]}" --listed-incremental="$APP_LOCAL/snar" -cf /dev/null .
sleep 1.1 # tar compares whole seconds
echo more >>"$APP_DIR/tree/plain/file20"
tar -C "$APP_DIR/tree" "${keep[@]}" --listed-incremental="$APP_LOCAL/snar" -cf "$APP_LOCAL/inc.tar" . 2>/dev/null
expect "files in the increment" ./plain/file20 "$(tar -tf "$APP_LOCAL/inc.tar" | grep -v '/$')"
echo "RESULT: $(find "$src" | wc -l) names"
