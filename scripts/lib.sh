# Shared by the scripts of this folder: source it. Functions print what they do and why they fail.
# shellcheck shell=bash

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf '%s\n' "$*"; }
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }
# Nothing ends a script (set -e) without a word: where it was and what failed.
set -o errtrace
trap '[ "$BASH_SUBSHELL" != 0 ] || printf "%s: line %s ended with %s: %s\n" "${BASH_SOURCE[0]##*/}" "$LINENO" "$?" "$BASH_COMMAND" >&2' ERR

# wait_for SECONDS WHAT COMMAND...: runs COMMAND until it succeeds; dies naming WHAT after SECONDS.
wait_for() {
    local end=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" 2>/dev/null; do
        if [ $SECONDS -ge "$end" ]; then
            "$@" && return # once more, and seen
            die "gave up waiting for $what ($*)"
        fi
        sleep 0.05
    done
}

# mount_pids MNT: of the mount.replfs processes of MNT. Unlike pgrep(1) it leaves other processes alone: to read
# /proc/PID/stat is to wait for an exec(2) there to end, and that for the mounts whose files it closes.
mount_pids() {
    local p
    for p in $(grep -lsx mount.replfs /proc/[0-9]*/comm); do
        p=${p%/comm}
        if tr '\0' '\n' 2>/dev/null <"$p/cmdline" | grep -xF -- "$1" >/dev/null; then echo "${p#/proc/}"; fi
    done 2>/dev/null
}

# A version manager's python3 is a shell script that takes ten times as long to start as the program.
first_program() { # NAME: in $PATH, that is no script
    local p
    for p in $(type -aP "$1"); do
        if [ "$(head -c 2 "$p")" != '#!' ]; then
            echo "$p"
            return
        fi
    done
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# build_into DIR TARGET [cmake options]: configures once, builds, keeps the log and shows its end on failure.
build_into() {
    local dir=$1 target=$2 log generator=()
    shift 2
    log=$dir/build.log
    mkdir -p "$dir"
    # ninja starts fewer processes than make
    if [ ! -e "$dir/CMakeCache.txt" ] && command -v ninja >/dev/null; then generator=(-G Ninja); fi
    { cmake ${generator[@]+"${generator[@]}"} -S "$repo" -B "$dir" "$@" && cmake --build "$dir" --target "$target" -j "$(nproc)"; } >"$log" 2>&1 || {
        grep -A8 -m3 'error:\|FAILED:' "$log" || tail -40 "$log"
        die "the build failed; the whole log is $log"
    }
}
