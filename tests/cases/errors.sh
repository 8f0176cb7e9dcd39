#!/usr/bin/env bash
# What goes wrong is said: unknown options, no metad, no --init, a mount that outlives its metad, disk of another cluster.
. "$(dirname "$0")/caselib.sh"
mkdir -p "$mnt"
says() { # PATTERN COMMAND...: must fail and say PATTERN
    local pattern=$1
    shift
    if timeout 60 "$@" >"$work/out" 2>&1; then fail "succeeded, but should not: $*"; fi
    grep -qE -- "$pattern" "$work/out" || fail "'$*' does not say '$pattern': $(cat "$work/out")"
}
says "nonsense" "$bin/mount.replfs" 127.0.0.1:1 "$mnt" -o nonsense
says "127.0.0.1:1" "$bin/mount.replfs" 127.0.0.1:1 "$mnt" -o timeout=1
says "$work/nowhere" "$bin/mount.replfs" 127.0.0.1:1 "$work/nowhere" -o timeout=1
says -- "--init" "$bin/replfs-metad" --data="$work/empty" --listen=127.0.0.1:0
says "bogus" "$bin/replfs-metad" --bogus
says "data" "$bin/replfs-chunkd" --meta=127.0.0.1:1
says "replfs" "$bin/replfsctl" status /tmp
for p in replfs-metad replfs-chunkd mount.replfs replfsctl; do
    "$bin/$p" --help | grep -i usage >/dev/null || fail "$p --help shows no usage"
    "$bin/$p" --version | grep '[0-9]' >/dev/null || fail "$p --version shows none"
done

devcluster up --chunkd 2
devcluster mount "$mnt" -o timeout=2
echo x >"$mnt/x"
says "already|exist|in use" "$bin/replfs-metad" --init --data="$cluster/metad"
says "use|lock" "$bin/replfs-metad" --data="$cluster/metad" --listen=127.0.0.1:0
says "use|lock" "$bin/replfs-chunkd" --data="$cluster/chunkd1/disk1" --meta="$(devcluster addr)" --listen=127.0.0.1:0
devcluster kill metads
says "rror|imed" timeout 50 stat "$mnt/never-asked-for"   # not under a lease: EIO or ETIMEDOUT within the time-out, never stuck
devcluster start metads
readable() { [ "$(cat "$mnt/x")" = x ]; }
wait_for 30 "the mount to find its metad again" readable
devcluster kill all
timeout 60 umount "$mnt" || fail "umount hangs or fails without a cluster"
says "no replfs|not on" "$bin/replfsctl" status "$mnt"
check_sanitizers
