# Shared by the scripts of this folder, in which programs work on a mount while daemons are killed or replaced: source it.
# What its functions use of the script's:
#   metads      how many there are                   programs    array: of cp, sqlite, git, exerciser
#   bin         of the build that begins the cluster limit, seed, keep, base   as the scripts' options
# and what it gives them: work (a folder with the logs, and the cluster in `cluster`), mnt, addrs (the metads'), name (of the
# metad that leads, once leader or fail_over has been called).
# shellcheck shell=bash
. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib.sh"

usage() { sed -n '2,/^set -/p' "$0" | sed '$d; s/^# \{0,1\}//'; }
monotonic() { cut -d' ' -f1 /proc/uptime; }
devcluster() { "$repo/scripts/devcluster" "$@" --dir "$work/cluster"; }
between() { awk -v r=$((RANDOM % 1000)) -v p="$1" 'BEGIN {print p * r / 1000}'; } # 0 and SECONDS, by chance

# -- begin and end -----------------------------------------------------------------------------------
pids=()
begin() { # checks programs; sets work
    local p
    for p in "${programs[@]}"; do case $p in cp | sqlite | git | exerciser) ;; *) die "no program '$p'; see --help" ;; esac; done
    [ "$metads" -gt 2 ] || die "with $metads metads nobody can take over: --metad 3"
    work=$(mktemp -d "${base:-${TMPDIR:-/tmp}}/replfs-${0##*/}.XXXXXX")
    mnt=$work/mnt
    trap cleanup EXIT
    trap 'exit 130' INT TERM
    RANDOM=$((seed % 32768))
}
cleanup() {
    local code=$? p
    trap - EXIT ERR
    set +e
    for p in ${pids[@]+"${pids[@]}"}; do kill -- "-$p" 2>/dev/null; done
    if [ $code != 0 ]; then
        mkdir -p "$keep" && cp "$work"/*.log "$keep" 2>/dev/null
        find "$mnt" -xdev -printf '%i %n %s %p\n' >"$keep/files" 2>&1
        find "$mnt" -xdev -type f -name main -exec timeout 20 "$bin/replfsctl" info --json {} + >"$keep/info.json" 2>&1
        devcluster down --keep >/dev/null 2>&1
        rm -rf "$keep/cluster"
        mv "$work/cluster" "$keep"
        say "logs and the daemons' data are in $keep"
    fi
    devcluster down >/dev/null 2>&1 || { devcluster down; code=1; }
    rm -rf "$work"
    exit $code
}
cluster() { # METAD-ARGS MOUNT-OPTIONS: of three chunkds, mounted on $mnt
    devcluster up --metad "$metads" --chunkd 3 --metad-args "$1" >/dev/null
    IFS=, read -r -a addrs <<<"$(devcluster addr)"
    devcluster mount "$mnt" -o "$2"
    "$bin/replfsctl" setrepl "$mnt" 2 >/dev/null
}

# -- programs ----------------------------------------------------------------------------------------
tree=/usr/include/linux # what cp copies
once() { # PROGRAM MOUNT TAG NUMBER: in a folder of its own, which goes when all was right
    local dir=$2/$1$3.$4 scratch=$work/scratch/$1$3 within=(timeout -k 10 $((10 * limit)))
    rm -rf "$scratch"
    mkdir -p "$dir" "$scratch" || return
    case $1 in
    cp)
        "${within[@]}" cp -a "$tree" "$dir/tree" && "${within[@]}" diff -r --no-dereference "$tree" "$dir/tree" &&
            [ "$("${within[@]}" find "$dir/tree" | wc -l)" = "$(find "$tree" | wc -l)" ] ;;
    sqlite | git) APP_DIR=$dir APP_LOCAL=$scratch QUICK=yes "${within[@]}" bash "$repo/tests/apps/$1.sh" ;;
    exerciser) "${within[@]}" "$bin/exerciser" "$dir" --seed=$((seed + $4)) --ops=3000 --require-all ;;
    esac && rm -rf "$dir"
}
works() { # PROGRAM MOUNT TAG: until it is told to end, or fails
    local n=0 code=0 what=$1$3
    while [ ! -e "$work/enough" ]; do
        n=$((n + 1))
        printf -- '--- %s, number %s\n' "$(date +%T)" "$n" >>"$work/$what.log"
        once "$@" "$n" >>"$work/$what.log" 2>&1 </dev/null || code=$?
        if [ $code != 0 ]; then echo "$what, number $n, ended with $code" >>"$work/failed"; return; fi
        echo "$n" >"$work/done.$what"
    done
}
at_work=() # PROGRAM and tag of all
begin_programs() { # MOUNT [TAG]: all of them, which go on until end_programs; without a tag the probe as well
    local p
    set -m # process groups of their own, so that all of a program can be ended
    for p in "${programs[@]}"; do works "$p" "$1" "${2:-}" & pids+=($!); at_work+=("$p${2:-}"); done
    [ -n "${2:-}" ] || { python3 "$repo/tests/faults/probe.py" "$1/probe" "$work" & pids+=($!); }
    set +m
}
end_programs() {
    local p
    touch "$work/enough"
    for p in "${pids[@]}"; do wait "$p" || true; done
    pids=()
}
all_right() { # WHEN
    [ ! -s "$work/failed" ] || { cat "$work/failed"; die "seed $seed: a program failed $1"; }
}
figures() {
    local p
    [ ! -e "$work/took" ] || sort -n "$work/took" | awk '{v[NR] = $1} END {
        printf "%d fail-overs, until another metad said that it led: median %s s, worst %s s\n", NR, v[int((NR + 1) / 2)], v[NR]}'
    # far more than fail-overs: one step-down was asked for again and again
    say "metads began to lead $(cat "$work"/cluster/metad*.log | grep -c ' leading: term ' || true) times"
    for p in "${at_work[@]}"; do say "$p: $(cat "$work/done.$p" 2>/dev/null || echo 0) times right"; done
    awk '{v = $1 > v ? $1 : v} END {printf "longest step of the probe: %.2f s of %d\n", v, NR}' "$work/steps"
}

# -- daemons -----------------------------------------------------------------------------------------
# Without devcluster, which starts dozens of programs for this: the figures are about metads.
metad_name() { if [ "$1" = 1 ]; then echo metad; else echo "metad$1"; fi; } # NUMBER
pid_of() { cat "$work/cluster/$1.pid"; }
ended() { [ ! -e "/proc/$1" ] || grep -q '^State:.Z' "/proc/$1/status"; }
times_ready() { grep -c ' ready' "$work/cluster/$1.log"; }
ready_again() { [ "$(times_ready "$1")" -gt "$2" ]; }
launch() { # NAME COMMAND...: as devcluster does, a child of this shell
    (cd / && exec setsid "${@:2}" >>"$work/cluster/$1.log" 2>&1 </dev/null) &
    echo $! >"$work/cluster/$1.pid"
}
start() { # NAME COMMAND...: until it is ready
    local before
    before=$(times_ready "$1") || true
    launch "$@"
    disown
    wait_for "$limit" "$1 to be ready" ready_again "$1" "$before"
}
leader() { # sets name: of the metad that leads, as one says that is not NAME
    local k i addr
    for k in $(seq 1 "$metads"); do
        name=$(metad_name "$k")
        [ "$name" != "${1:-}" ] || continue
        addr=$(timeout 4 "$bin/replfsctl" metad list --meta "${addrs[k - 1]}" 2>/dev/null |
            awk '$2 == "leader" {print $4}') || continue
        for i in $(seq 1 "$metads"); do
            [ "${addrs[i - 1]}" != "$addr" ] || { name=$(metad_name "$i"); return 0; }
        done
    done
    return 1
}
another_leads() { leader "$1" && [ "$name" != "$1" ]; }
fail_over() { # kill|term|stop|step-down: of the metad that leads; what was killed is started again
    local since was pid argv
    wait_for "$limit" "a metad to lead" leader
    was=$name
    pid=$(pid_of "$was")
    mapfile -d '' argv <"/proc/$pid/cmdline"
    since=$(monotonic)
    case $1 in
    kill) kill -KILL "$pid" ;;
    term) kill -TERM "$pid" ;;
    stop) kill -STOP "$pid" ;;
    step-down) timeout "$limit" "$bin/replfsctl" metad step-down "$mnt" || die "$was does not step down" ;;
    esac
    wait_for "$limit" "another metad than $was to lead" another_leads "$was"
    awk -v a="$since" -v b="$(monotonic)" 'BEGIN {printf "%.2f\n", b - a}' >>"$work/took"
    case $1 in
    kill | term)
        wait_for "$limit" "$was to end" ended "$pid"
        start "$was" "${argv[@]}" ;;
    stop) kill -CONT "$pid" ;;
    esac
}
