#!/usr/bin/env bash
# restic: a repository on the mount takes backups of a local tree and of one on the mount itself, forgets and prunes, checks
# every byte, and gives back what it was given.
. "$(dirname "$0")/lib.sh"
need restic
export RESTIC_REPOSITORY=$APP_DIR/repo RESTIC_PASSWORD=secret RESTIC_CACHE_DIR=$APP_LOCAL/cache
src=$APP_LOCAL/src
some_files "$src"
step "init and first backup of $(find "$src" -type f | wc -l) files, $(du -sm "$src" | cut -f1) MB"
restic init -q
cd "$APP_LOCAL"
restic backup -q src
cp -a src first
change_files "$src"
step "second backup"
restic backup -q src
step "restore of both"
read -r a b < <(restic snapshots --json | python3 -c 'import json,sys; print(*[s["short_id"] for s in json.load(sys.stdin)])')
restic restore -q "$a" --target out1
diff -r --no-dereference first out1/src
restic restore -q "$b" --target out2
diff -r --no-dereference src out2/src
step "a tree on the mount: an unchanged one is not read again"
cp -a src/include "$APP_DIR/tree"
restic backup -q "$APP_DIR/tree"
restic backup --json "$APP_DIR/tree" | tail -1 >summary
expect "files new or changed in the second backup" "0 0" \
    "$(python3 -c 'import json; s = json.load(open("summary")); print(s["files_new"], s["files_changed"])')"
step "forget, prune, check --read-data"
restic forget -q --keep-last 1 --prune
restic check -q --read-data
restic restore -q latest --path "$APP_LOCAL/src" --target out3
diff -r --no-dereference src out3/src
step "restore onto the mount"
restic restore -q latest --path "$APP_LOCAL/src" --target "$APP_DIR/out"
diff -r --no-dereference src "$APP_DIR/out/src"
echo "RESULT: repository of $(du -sm "$RESTIC_REPOSITORY" | cut -f1) MB"
