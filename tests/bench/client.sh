# What one client of a cluster gets while something else goes on in it: for scripts of this folder that measure what background
# work costs. Sourced by them, with chunkds (how many) and base (a folder, or '') set; gives them work (a folder that is
# cleaned up with the cluster in it), mnt, devcluster, ctl.
# shellcheck shell=bash
. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib.sh"

usage() { sed -n '2,/^set -/p' "$0" | sed '$d; s/^# \{0,1\}//'; }
devcluster() { "$repo/scripts/devcluster" "$@" --dir "$work/c"; }
ctl() { "$REPLFS_BUILD/bin/replfsctl" "$@"; }
cleanup() {
    local code=$?
    trap - EXIT ERR
    set +e
    devcluster down >/dev/null 2>&1 || { devcluster down; code=1; }
    rm -rf "$work"
    exit $code
}
begin() { # [DEVCLUSTER ARGUMENTS]: a cluster, mounted
    export REPLFS_BUILD=${REPLFS_BUILD:-$repo/build}
    work=$(mktemp -d "${base:-${TMPDIR:-/tmp}}/replfs-${0##*/}.XXXXXX")
    mnt=$work/mnt
    trap cleanup EXIT
    trap 'exit 130' INT TERM
    devcluster up --chunkd "$chunkds" "$@" >/dev/null
    devcluster mount "$mnt" >/dev/null
    ctl setrepl "$mnt" 2
}
now() { date +%s.%N; }
rate_of() { echo "$1 $2 $3" | awk '{printf "%.1f\n", $1 / ($3 - $2)}'; } # MIB FROM TO
make_source() { # MIB: $work/source
    head -c "$1M" /dev/zero | openssl enc -aes-128-ctr -nosalt -pass pass:bench 2>/dev/null >"$work/source"
    part=$1
}
transfer() { # writes the source with one fsync(2), reads it with cold caches; prints MiB/s with "w" and "r"
    local a b c
    sync
    echo 3 >/proc/sys/vm/drop_caches
    cat "$work/source" >/dev/null
    a=$(now)
    dd if="$work/source" of="$mnt/probe" bs=1M conv=fsync status=none
    b=$(now)
    echo "$(rate_of "$part" "$a" "$b") w"
    devcluster unmount "$mnt" >/dev/null
    devcluster mount "$mnt" >/dev/null
    echo 3 >/proc/sys/vm/drop_caches
    b=$(now)
    cat "$mnt/probe" >/dev/null
    c=$(now)
    echo "$(rate_of "$part" "$b" "$c") r"
}
