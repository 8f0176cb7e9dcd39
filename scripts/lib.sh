# Shared by the scripts of this folder: source it. Functions print what they do and why they fail.
# shellcheck shell=bash

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf '%s\n' "$*"; }
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# wait_for SECONDS WHAT COMMAND...: runs COMMAND until it succeeds; dies naming WHAT after SECONDS.
wait_for() {
    local end=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" 2>/dev/null; do
        [ $SECONDS -lt "$end" ] || die "gave up waiting for $what"
        sleep 0.05
    done
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# build_into DIR [cmake options]: configures once, builds, keeps the log and shows its end on failure.
build_into() {
    local dir=$1 log
    shift
    log=$dir/build.log
    mkdir -p "$dir"
    { cmake -S "$repo" -B "$dir" "$@" && cmake --build "$dir" -j "$(nproc)"; } >"$log" 2>&1 || {
        tail -40 "$log"
        die "the build failed; the whole log is $log"
    }
}
