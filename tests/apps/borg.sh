#!/usr/bin/env bash
# borg: an encrypted repository on the mount takes two backups, prunes and compacts, verifies all data, and gives the tree back.
. "$(dirname "$0")/lib.sh"
need borg
export BORG_REPO=$APP_DIR/repo BORG_PASSPHRASE=secret BORG_BASE_DIR=$APP_LOCAL/borg
src=$APP_LOCAL/src
some_files "$src"
cd "$APP_LOCAL"
step "init and first backup of $(find "$src" -type f | wc -l) files, $(du -sm "$src" | cut -f1) MB"
borg init -e repokey
borg create ::first src
cp -a src first
change_files "$src"
step "second backup"
borg create ::second src
step "extract of both"
mkdir out1 out2 out3
(cd out1 && borg extract ::first)
diff -r --no-dereference first out1/src
(cd out2 && borg extract ::second)
diff -r --no-dereference src out2/src
step "prune, compact, check --verify-data"
borg prune --keep-last 1
borg compact
expect archives second "$(borg list --short)"
borg check --verify-data
(cd out3 && borg extract ::second)
diff -r --no-dereference src out3/src
step "extract onto the mount"
mkdir "$APP_DIR/out"
(cd "$APP_DIR/out" && borg extract ::second)
diff -r --no-dereference src "$APP_DIR/out/src"
echo "RESULT: repository of $(du -sm "$BORG_REPO" | cut -f1) MB"
