#!/usr/bin/env bash
# git: a repository of 5,000 and more objects is cloned onto the mount, its objects unpacked to loose files, committed to,
# packed again, checked, and cloned back; objects and work trees must be the same.
. "$(dirname "$0")/lib.sh"
need git
export HOME=$APP_LOCAL GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
git config --global init.defaultBranch main
git config --global safe.directory '*'
git config --global gc.auto 0 # or one goes on in the background
commits=150 files=12
[ "$QUICK" = yes ] && commits=20

step "a repository of $commits commits"
origin=$APP_LOCAL/origin.git clone=$APP_DIR/clone
git init -q --bare "$origin"
awk -v commits=$commits -v files=$files 'BEGIN {
    srand(7)
    for (c = 1; c <= commits; c++) {
        print "commit refs/heads/main\ncommitter a <a@b> " 1600000000 + c * 3600 " +0000"
        m = "commit " c; print "data " length(m) "\n" m
        for (f = 0; f < files; f++) {
            s = ""; for (l = 0; l < 30; l++) s = s "line " l " of " int(rand() * 1e9) "\n"
            print "M 100644 inline dir" (c + f) % 17 "/sub" f % 3 "/file" (c * 7 + f) % 97 "\ndata " length(s) "\n" s
        }
    }
    print "reset refs/heads/other\nfrom refs/heads/main\n"
}' | git -C "$origin" fast-import --quiet
git -C "$origin" rev-list --objects --all | cut -d' ' -f1 | sort >"$APP_LOCAL/objects"
n=$(wc -l <"$APP_LOCAL/objects")
[ "$QUICK" = yes ] || [ "$n" -ge 5000 ] || fail "only $n objects"

step "clone of $n objects onto the mount"
git clone -q --no-local "$origin" "$clone"
cd "$clone"
expect "status after clone" "" "$(git status --porcelain)"
git rev-list --objects --all | cut -d' ' -f1 | sort >"$APP_LOCAL/cloned"
same "objects and cloned objects" "$APP_LOCAL/objects" "$APP_LOCAL/cloned"

step "unpack to loose objects"
mkdir "$APP_DIR/packs"
mv .git/objects/pack/* "$APP_DIR/packs/"
for p in "$APP_DIR"/packs/*.pack; do git unpack-objects -q <"$p"; done
rm -rf "$APP_DIR/packs"
expect "loose objects" "$n" "$(git count-objects | cut -d' ' -f1)"
git fsck --full --strict 2>&1 | tee "$APP_LOCAL/fsck" | sed -n 1,5p
! grep -E 'missing|corrupt|error|fatal' "$APP_LOCAL/fsck" || fail "fsck of loose objects"

step "work: commits, branches, merge, stash, rebase"
for i in $(seq 20); do
    echo "$i" >>"dir$((i % 17))/notes" && git add -A && git commit -qm "note $i"
done
git checkout -qb topic HEAD~10 && echo topic >topic && git add topic && git commit -qm topic
git rebase -q main && git checkout -q main && git merge -q --no-ff -m merge topic
echo change >>topic && git stash -q && expect "status after stash" "" "$(git status --porcelain)" && git stash pop -q
git commit -qam last
git mv dir1 moved && git commit -qm moved
git worktree add -q "$APP_DIR/worktree" other && git worktree remove "$APP_DIR/worktree"

step "gc"
git gc -q --prune=now
expect "loose objects after gc" 0 "$(git count-objects | cut -d' ' -f1)"
git fsck --full --strict 2>&1 | tee "$APP_LOCAL/fsck" | sed -n 1,5p
! grep -E 'missing|corrupt|error|fatal|dangling' "$APP_LOCAL/fsck" || fail "fsck after gc"
expect "status after gc" "" "$(git status --porcelain)"

step "clone back, and push"
git clone -q "$clone" "$APP_LOCAL/back"
diff -r --exclude=.git "$clone" "$APP_LOCAL/back"
for d in "$clone" "$APP_LOCAL/back"; do git -C "$d" rev-list --objects HEAD | cut -d' ' -f1 | sort >"$APP_LOCAL/$(basename "$d").list"; done
same "objects cloned back" "$APP_LOCAL/clone.list" "$APP_LOCAL/back.list"
git init -q --bare "$APP_DIR/bare.git"
git -C "$APP_LOCAL/back" push -q "$APP_DIR/bare.git" main
git -C "$APP_DIR/bare.git" fsck --full --strict 2>&1 | sed -n 1,5p
expect "pushed" "$(git rev-parse main)" "$(git -C "$APP_DIR/bare.git" rev-parse main)"
echo "RESULT: $n objects"
