#!/usr/bin/env bash
# The manual is true: man pages render without warnings, have what --help has and nothing else, and the tasks of
# replfs-admin(7) work as written (restoring a backup: older_metad.sh; a disk that is missing: disk_missing.sh).
. "$(dirname "$0")/caselib.sh"
man=$cases_repo/man
mkdir "$work/pages"
page() { cat "$work/pages/$1"; } # NAME: as text on endless lines

echo "- pages"
for f in "$man"/*; do
    MANWIDTH=10000 man -l --warnings "$f" 2>"$work/said" | col -b >"$work/pages/${f##*/}"
    [ ! -s "$work/said" ] || fail "$f: $(cat "$work/said")"
    grep -q '^EXAMPLES' "$work/pages/${f##*/}" || fail "${f##*/} has no EXAMPLES"
done
options() { grep -oE -- '--[a-z][a-z-]*' | sort -u; }
for p in replfs-metad replfs-chunkd; do
    differ=$(diff <("$bin/$p" --help | options) <(page $p.8 | sed -n '/^OPTIONS/,/^[A-Z]/{/^EXAMPLES/q;p}' | options) || true)
    [ -z "$differ" ] || fail "$p --help (<) and its page (>) have different options:"$'\n'"$differ"
done
ctl --help >"$work/ctl-help"
options <"$work/ctl-help" >"$work/help"
page replfsctl.1 | options >"$work/page"
missing=$(comm -23 "$work/help" "$work/page")
[ -z "$missing" ] || fail "options of replfsctl that are not in its page: $missing"
for o in $("$bin/mount.replfs" --help | sed -n '/^Options:/,/^and/{s/^  \([a-z_]*\).*/\1/p}'); do
    grep -qw "$o" "$work/pages/mount.replfs.8" || case $o in no[ads]*|atime|diratime|async) ;; *) fail "mount option $o is not in mount.replfs(8)" ;; esac
done
for v in $(sed -n '/^Verbs:/,/^$/s/^  \([a-z-]*\) .*/\1/p' "$work/ctl-help"); do
    grep -q "replfsctl $v" "$work/pages/replfsctl.1" || fail "replfsctl(1) has no verb $v"
done
for v in $(sed 's/\\-/-/g' "$man"/*.[1578] | grep -oE '^ +replfsctl [a-z-]+' | awk '{print $2}' | sort -u); do
    grep -q "^  $v " "$work/ctl-help" || fail "a page tells to use 'replfsctl $v', which there is not"
done

echo "- tasks"
devcluster up --chunkd 3 --metad-args "--suspect=1s --dead=3s" >/dev/null
devcluster mount "$mnt" >/dev/null
start_chunkd() { # K, as a host of its own
    "$bin/replfs-chunkd" --data="$work/disk$1" --meta="$(devcluster addr)" --listen="$(devcluster addr metad | sed "s/\.[0-9]*:.*/.$((50 + $1))/"):7100" \
        --host-id="new$1" --host-name="new$1" --pid-file="$work/pid$1" >>"$work/log$1" 2>&1 &
    case_pids=$! # the one that may run when the case fails
}
list() { ctl chunkd list --json "$mnt" | python3 -c 'import json,sys; print(*(str(k["id"]) + ":" + k["host_name"] for k in json.load(sys.stdin)["chunkds"]))'; }
lists() { list | grep -w "$1" >/dev/null; }
unlisted() { ! lists "$1"; }
stop_chunkd() {
    kill "$(cat "$work/pid$1")"
    wait_for 20 "chunkd new$1 to end" test ! -e "$work/pid$1"
}
mkdir "$mnt/tree"
for i in $(seq 40); do echo "$i" >"$mnt/tree/$i"; done
whole() { for i in $(seq 40); do [ "$(cat "$mnt/tree/$i")" = "$i" ] || fail "file $i is not what it was $1"; done; }

echo "- add a host"
"$bin/replfs-chunkd" --init --data="$work/disk4" >/dev/null
start_chunkd 4
wait_for 20 "chunkd 4 to be listed" lists 4:new4
ctl setrepl "$mnt" 4 -R --wait --timeout 60s >/dev/null
expect "copies of each file with goal 4" 4 "$(copies "$mnt"/tree/* | sort -u)"

echo "- replace the only disk of a chunkd"
ctl setrepl "$mnt" 3 -R --wait --timeout 60s >/dev/null
stop_chunkd 4
rm -rf "$work/disk4"
start_chunkd 4 # the directory is no disk: refused
wait_for 20 "the daemon to refuse an empty directory" grep -q "holds no replfs disk\|cannot use data directory" "$work/log4"
"$bin/replfs-chunkd" --init --data="$work/disk4" >/dev/null
start_chunkd 4
wait_for 20 "the chunkd with a new number" lists 5:new4
wait_for 20 "the old number to leave the list" unlisted 4:new4
wait_healthy 60

echo "- retire a chunkd"
ctl chunkd remove 5 "$mnt" 2>/dev/null && fail "a connected chunkd was removed"
stop_chunkd 4
removed() { ctl chunkd remove 5 "$mnt" 2>/dev/null; }
wait_for 20 "the chunkd to be removed" removed
lists 5:new4 && fail "a removed chunkd is listed"
wait_healthy 60
whole "after the removal"

echo "- move metad"
rsync -a "$cluster/metad/" "$work/moved/"
echo late >"$mnt/late"
devcluster term metad >/dev/null
mv "$cluster/metad" "$work/metad.moved"
rsync -a --checksum --delete "$work/metad.moved/" "$work/moved/"
mv "$work/moved" "$cluster/metad"
devcluster start metad >/dev/null
expect "what was written before the move" late "$(cat "$mnt/late")"
whole "after the move"
echo more >"$mnt/more"
wait_healthy 60

echo "- upgrade: restart the metads, then the chunkds, one by one"
for n in $(metads) chunkd1 chunkd2 chunkd3; do
    devcluster term "$n" >/dev/null
    devcluster start "$n" >/dev/null
    wait_healthy 60
done
umount "$mnt"
devcluster mount "$mnt" >/dev/null
whole "after the upgrade"
check_sanitizers
