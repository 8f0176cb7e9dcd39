# Shared by the case tests: each case is a script of its own that sources this, gets a private $work folder and
# cluster, and leaves nothing behind: the trap takes down cluster and mounts and prints logs on failure.
# shellcheck shell=bash
set -euo pipefail
cases_repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
. "$cases_repo/scripts/lib.sh"
REPLFS_BUILD=$(realpath -m "${REPLFS_BUILD:-$cases_repo/build}")
export REPLFS_BUILD
bin=$REPLFS_BUILD/bin
export ASAN_OPTIONS=${ASAN_OPTIONS:-}:verify_asan_link_order=0 # what a case preloads into a daemon comes before it
# METADS=3: with so many metads. A case about one metad says so, and is not run then; 77: neither passed nor failed.
if [ "${METADS:-1}" != 1 ] && why=$(sed -n 's/^# one metad: //p' "$0") && [ -n "$why" ]; then
    echo "NOT RUN with $METADS metads: $why"
    exit 77
fi
work=$(mktemp -d "${TMPDIR:-/tmp}/replfs-case.XXXXXX")
cluster=$work/cluster mnt=$work/mnt
python=$(first_program python3)
if [ -n "$python" ] && [ "$python" != "$(type -P python3)" ]; then
    mkdir "$work/bin"
    ln -s "$python" "$work/bin/python3"
    PATH=$work/bin:$PATH
fi
devcluster() { "$cases_repo/scripts/devcluster" "$@" --dir "$cluster"; }
ctl() { "$bin/replfsctl" "$@"; }
two_mounts() { # of the cluster: $a and $b
    a=$work/a b=$work/b
    devcluster mount "$a"
    devcluster mount "$b"
}
metads() { local i; echo metad; for i in $(seq 2 "${METADS:-1}"); do echo "metad$i"; done; }
metad_dirs() { local n; for n in $(metads); do echo "$cluster/$n"; done; }
pid_of_mount() { mount_pids "$1" | tail -1; } # DIR
transfers() { # bytes read by the mount with pid $b_pid
    local key value
    while read -r key value; do [ "$key" != rchar: ] || echo "$value"; done <"/proc/${b_pid:?}/io"
}
at_rest() { # no more comes to it than keepalives: what was being read ahead has arrived. A mount that gets no CPU for a moment is not at rest
    local before after _
    before=$(transfers)
    for _ in 1 2; do
        sleep 0.2
        after=$(transfers)
        [ $((after - before)) -le 150 ] || return 1
        before=$after
    done
}

at_end=() # functions that undo what a case did outside of $work; a trap of its own would lose the exit code
finish() {
    local code=$? f
    trap - EXIT ERR
    trap "" PIPE # whoever read our output may be gone; what was started is not
    set +e
    cd /
    if [ $code != 0 ]; then
        echo "--- case failed with $code; logs:"
        for f in "$cluster"/*.log; do [ -e "$f" ] && { echo "--- $f"; tail -40 "$f"; }; done
    fi
    [ -n "${case_pids:-}" ] && kill $case_pids 2>/dev/null
    for f in ${at_end[@]+"${at_end[@]}"}; do "$f"; done
    devcluster down >"$work/down" 2>&1 || { echo "devcluster down failed:"; cat "$work/down"; devcluster down; [ $code = 0 ] && code=1; }
    # a sanitizer's finding in any daemon fails the case even when the daemon's work looked right
    if [ -n "${sanitizer_hits:-}" ]; then code=1; fi
    rm -rf "$work"
    exit $code
}
trap finish EXIT
trap 'exit 130' INT TERM

fail() { echo "FAILED: $*"; exit 1; }
expect() { # WHAT WANT GOT
    [ "$2" = "$3" ] || fail "$1: expected '$2', got '$3'"
}
check_sanitizers() {
    local hits what='ERROR: (AddressSanitizer|LeakSanitizer)|runtime error:|WARNING: ThreadSanitizer'
    hits=$(grep -lE "$what" "$cluster"/*.log 2>/dev/null || true)
    [ -z "$hits" ] || { sanitizer_hits=1; grep -hE -A40 -m1 "$what" $hits; fail "sanitizer report in $hits"; }
}
random_file() { # FILE MIB: incompressible bytes, quickly
    head -c "$2"M /dev/zero | openssl enc -aes-128-ctr -nosalt -pass pass:"$RANDOM$RANDOM" 2>/dev/null >"$1"
}
sum_of() { sha256sum <"$1" | cut -d' ' -f1; }
health_is() { ctl health "$mnt" >/dev/null 2>&1; }
wait_healthy() { # SECONDS
    wait_for "$1" "full health: $(ctl health "$mnt" 2>&1 | head -5)" health_is
}
copies() { # FILES...: number of healthy copies of each chunk, one a line
    ctl info --json "$@" | python3 -c 'import json,sys
for f in json.load(sys.stdin)["files"]:
  for c in f["chunks"]: print(sum(1 for x in c["copies"] if x["state"]=="ok"))'
}
