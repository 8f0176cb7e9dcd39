#!/usr/bin/env bash
# The conformance program, first on ext4, where every assertion must hold (else the program is wrong), then on a mount of
# goal 2, where those of tests/conform/differences may fail, and with the second of two openers on another mount.
# SLOW=1 runs the slow cases too.
. "$(dirname "$0")/caselib.sh"
program=("$bin/test_conform" ${SLOW:+--slow})
ext4=$work
loop_down() { umount "$work/ext4" 2>/dev/null || true; }

if [ "$(df --output=fstype "$work" | tail -1)" != ext4 ]; then
    truncate -s 1G "$work/ext4.img"
    mkfs.ext4 -q -F "$work/ext4.img"
    mkdir "$work/ext4"
    mount -o loop "$work/ext4.img" "$work/ext4" ||
        fail "$work is not on ext4 and no loop device could be mounted: there is nothing to compare with (set TMPDIR to a folder on ext4)"
    at_end+=(loop_down)
    ext4=$work/ext4
fi
chmod 755 "$work" # the users that the program becomes must get there
echo "on ext4:"
"${program[@]}" "$ext4" || fail "the program does not hold on ext4"

devcluster up --chunkd 3
devcluster mount "$mnt" -o suid,dev # as on ext4
ctl setrepl "$mnt" 2
echo "on replfs:"
"${program[@]}" --differences "$cases_repo/tests/conform/differences" "$mnt" || fail "replfs behaves otherwise than ext4"
devcluster mount "$work/mnt2" -o suid,dev
echo "two openers on two mounts:"
"${program[@]}" --only pair --peer "$work/mnt2" "$mnt" || fail "two mounts are not as one file system"
expect "what is left behind" "" "$(ls -A "$mnt")"
check_sanitizers
