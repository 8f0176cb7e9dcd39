#!/usr/bin/env bash
# Other users of the computer: without TLS they reach no daemon, whatever role they claim; set-user-ID files of the cluster do
# not make them root; data directories are closed to them, and closed again when they were open.
. "$(dirname "$0")/caselib.sh"
[ "$(id -u)" = 0 ] || fail "needs root"
other() { setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; }
devcluster up --chunkd 2
meta=$(devcluster addr)
chmod 755 "$work" "$(dirname "$bin")" "$bin" 2>/dev/null || true
cp "$bin/replfsctl" "$work/ctl" && chmod 755 "$work/ctl" # the build folder may be closed to others
ctl chunkd list --meta "$meta" >/dev/null || fail "root is not served"
if other timeout 30 "$work/ctl" chunkd list --meta "$meta" >"$work/out" 2>&1; then fail "metad serves user 65534: $(head -2 "$work/out")"; fi
grep -q "without TLS only root" "$work/out" || fail "the refusal does not say why: $(cat "$work/out")"
# a port that everybody can connect to would be another way in
for at in ${meta//,/ }; do
    for port in "${at##*:}" 7100; do
        if (: <"/dev/tcp/${at%:*}/$port") 2>/dev/null; then fail "port $port of ${at%:*} is open"; fi
    done
done

devcluster mount "$mnt"
cp "$(command -v id)" "$mnt/id" && chmod 4755 "$mnt/id"
mknod "$mnt/null" c 1 3 && chmod 666 "$mnt/null"
expect "user id of a set-user-ID program run by another user" 65534 "$(other "$mnt/id" -u)"
if other sh -c ": >'$mnt/null'" 2>/dev/null; then fail "a device node of the cluster can be opened"; fi
devcluster unmount "$mnt"
devcluster mount "$mnt" -o suid,dev
expect "the same with -o suid" 0 "$(other "$mnt/id" -u)"
devcluster unmount "$mnt"

mapfile -t dirs < <(metad_dirs)
open_files() { find "${dirs[@]}" "$cluster"/chunkd*/disk1 -perm /077; }
expect "data open to others" "" "$(open_files)"
devcluster term all
chmod -R go+rX "${dirs[@]}" "$cluster"/chunkd*
devcluster start all
expect "data open to others after a start" "" "$(open_files)"
grep -q "was open to other users" "$cluster/chunkd1.log" || fail "the chunkd does not say that its data was open"
check_sanitizers
