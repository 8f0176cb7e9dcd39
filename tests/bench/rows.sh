# What tests/bench/run measures on every file system: the rows, how caches are emptied before the cold ones, and the book in
# which each figure is written down ($results: kind, row, system, figure; "failed" when the command failed). Sourced by run.
# shellcheck shell=bash
# shellcheck disable=SC2154 # work, mib, at, cluster ... are run's

failures=0
note() { printf '%s\n' "bench: $*" >&2; }
devcluster() { # SYSTEM VERB...: of that system's cluster
    local s=$1
    shift
    "$repo/scripts/devcluster" "$@" --dir "${cluster[$s]}"
}

# -- the file systems ------------------------------------------------------------------------------
start_cluster() { # SYSTEM [DEVCLUSTER ARGUMENTS]: mounted on $work/SYSTEM
    local s=$1 net=()
    shift
    [ "$hosts" = yes ] && net=(--hosts)
    cluster[$s]=$work/cluster-$s
    at[$s]=$work/$s
    devcluster "$s" up --chunkd "$chunkds" ${net[@]+"${net[@]}"} "$@" >/dev/null
    devcluster "$s" mount "${at[$s]}" -o "$opts" >/dev/null
    "$bin/replfsctl" setrepl "${at[$s]}" "$goal" >/dev/null
}
start_pass() { "$bin/bench_passthrough" "$work/under" "$work/pass" -o allow_other,default_permissions; }
remount() { # SYSTEM: nothing of it stays in a client's cache
    if [ -n "${cluster[$1]:-}" ]; then
        devcluster "$1" unmount "${at[$1]}" >/dev/null
        devcluster "$1" mount "${at[$1]}" -o "$opts" >/dev/null
    elif [ "$1" = fuse ]; then
        umount "$work/pass"
        start_pass
    elif [ -n "${again[$1]:-}" ]; then
        sync
        sh -c "${again[$1]}" >"$work/err" 2>&1 || { note "--remount $1 failed: $(tail -3 "$work/err")"; return 1; }
        wait_for 30 "$1 to be mounted again" test -d "${at[$1]}"
    fi
}
make_sources() { # the large file, the tree as an archive and as files
    head -c "${mib}M" /dev/zero | openssl enc -aes-128-ctr -nosalt -pass pass:bench 2>/dev/null >"$work/source"
    mkdir "$work/tree"
    cp -a "$tree/." "$work/tree/include"
    tar -C "$work/tree" -cf "$work/tree.tar" include
}
warm_up() { # disk blocks and memory as far as the rows will use them
    note "warming up with $((mib * 8)) MiB"
    "$bin/bench_touch" $((mib * 8))
    head -c "$((mib * 2))M" /dev/zero >"$work/warm"
    sync
    rm "$work/warm"
}
warm_memory() { # SYSTEM: what one large file needs there, in each copy's page cache and the mount's
    case $1 in
    local) "$bin/bench_touch" "$mib" ;;
    fuse) "$bin/bench_touch" $((mib * 2)) ;;
    *) "$bin/bench_touch" $((mib * (goal + 1))) ;;
    esac
}
drop() { sync; echo 3 >/proc/sys/vm/drop_caches; }
load() { cat "$@" >/dev/null; } # into the page cache: the source's disk is nobody's cost
tidy() { rm -rf "${1:?}"/{w,c,w4.0,w4.1,w4.2,w4.3,include,copy,rr,fw}; }

# -- measuring -------------------------------------------------------------------------------------
seconds() { # COMMAND...: sets value to its wall seconds; fails as it does
    local t0 t1
    t0=$(date +%s%N)
    "$@" >/dev/null 2>"$work/err" || { note "'$*' failed: $(head -3 "$work/err")"; return 1; }
    t1=$(date +%s%N)
    value=$(awk -v d=$((t1 - t0)) 'BEGIN {printf "%.4f", d / 1e9}')
}
iops() { # DIR ARGS: sets value to fio's IOPS
    local d=$1 size=256
    shift
    [ "$mib" -ge 256 ] || size=$mib
    fio --name=b --directory="$d" --size=${size}M --bs=4k --runtime="$(awk -v s="$secs" 'BEGIN {print int(s * 1000)}')ms" --time_based --group_reporting \
        --output-format=terse --terse-version=3 "$@" >"$work/fio" 2>"$work/err" || { note "fio failed: $(head -3 "$work/err")"; return 1; }
    value=$(awk -F';' '/^3;/ {print $8 + $49}' "$work/fio")
    [ -n "$value" ]
}
together() { # N COMMAND: COMMAND 0 .. COMMAND N-1 at the same time; fails when one does
    local n=$1 i pids=() bad=0
    shift
    for i in $(seq 0 $((n - 1))); do "$@" "$i" & pids+=($!); done
    for i in "${pids[@]}"; do wait "$i" || bad=1; done
    return $bad
}
write_part() { dd if="$work/source" of="$1/w4.$2" bs=1M count=$((mib / 4)) skip=$((mib / 4 * $2)) conv=fsync; }
read_part() { dd if="$1/w4.$2" of=/dev/null bs=1M; }
need_file() { [ -e "$1/w" ] || dd if="$work/source" of="$1/w" bs=1M conv=fsync status=none; }
need_parts() { [ -e "$1/w4.3" ] || together 4 write_part "$1" 2>/dev/null; }
need_tree() { [ -d "$1/include" ] || tar -C "$1" -xf "$work/tree.tar"; }
cold() { remount "$1" && drop; }
read_tree() { tar -C "$1" -cf - include | cat; }

measure() { # ROW SYSTEM: sets value
    local d=${at[$2]}
    case $1 in
    write) rm -f "$d/w" && load "$work/source" && warm_memory "$2" && seconds dd if="$work/source" of="$d/w" bs=1M conv=fsync ;;
    read) need_file "$d" && cold "$2" && warm_memory "$2" && seconds dd if="$d/w" of=/dev/null bs=1M ;;
    cp) rm -f "$d/c" && load "$work/source" && warm_memory "$2" && seconds cp "$work/source" "$d/c" ;;
    write4) rm -f "$d"/w4.? && load "$work/source" && warm_memory "$2" && seconds together 4 write_part "$d" ;;
    read4) need_parts "$d" && cold "$2" && warm_memory "$2" && seconds together 4 read_part "$d" ;;
    untar) rm -rf "$d/include" && load "$work/tree.tar" && seconds tar -C "$d" -xf "$work/tree.tar" ;;
    cpa) rm -rf "$d/copy" && load "$work/tree.tar" && tar -C "$work/tree" -cf - include | cat >/dev/null && seconds cp -a "$work/tree/include" "$d/copy" ;;
    lslr_cold) need_tree "$d" && cold "$2" && seconds ls -lR "$d/include" ;;
    lslr_warm) need_tree "$d" && ls -lR "$d/include" >/dev/null && seconds ls -lR "$d/include" ;;
    treeread) need_tree "$d" && cold "$2" && seconds read_tree "$d" ;;
    rmrf) need_tree "$d" && seconds rm -rf "$d/include" ;;
    randread) iops "$d" --filename=rr --rw=randread --numjobs=4 --direct=1 --ioengine=psync ;;
    randwrite) iops "$d" --filename=rr --rw=randwrite --numjobs=4 --direct=1 --ioengine=psync ;;
    fsyncwrite) iops "$d" --filename=fw --rw=write --fsync=1 --ioengine=psync ;;
    *) die "no row '$1'; see --help" ;;
    esac
}

# -- the book, and how long it will still take -----------------------------------------------------
declare -A spent=() guess=() left=()
done_ms=0 done_guess=0 # in all: how long it took and how long that was guessed to take
expect_cost() { # KIND ROW SYSTEM [SECONDS]: once more to be measured; a first guess until it was
    local k=$1/$2/$3
    left[$k]=$((${left[$k]:-0} + 1))
    [ $# -lt 4 ] || { guess[$k]=$4; return; }
    case $2 in
    write | cp | write4) guess[$k]=$((2 + mib / 100)) ;;
    read | read4) guess[$k]=$((3 + mib / 100)) ;;
    randread | randwrite | fsyncwrite) guess[$k]=$((${secs%.*} + 2)) ;;
    *) guess[$k]=8 ;;
    esac
}
remaining() { # minutes: what was measured takes as long again, guesses are as wrong as they were
    local k sure=0 unsure=0
    for k in "${!left[@]}"; do
        if [ -n "${spent[$k]:-}" ]; then sure=$((sure + left[$k] * spent[$k])); else unsure=$((unsure + left[$k] * guess[$k])); fi
    done
    echo $(((sure + (done_guess ? unsure * done_ms / done_guess : unsure * 1000) + 59999) / 60000))
}
milliseconds() { date +%s%3N; }
take() { # WHEN KIND ROW SYSTEM COMMAND...: runs it, which sets value, and writes that down
    local when=$1 kind=$2 row=$3 s=$4 t k=$2/$3/$4
    t=$(milliseconds)
    shift 4
    value=''
    sync # what others left unwritten is not this one's cost
    "$@" || value=failed
    [ "$value" != failed ] || failures=$((failures + 1))
    printf '%s\t%s\t%s\t%s\n' "$kind" "$row" "$s" "$value" >>"$results"
    spent[$k]=$(($(milliseconds) - t))
    done_ms=$((done_ms + spent[$k])) done_guess=$((done_guess + ${guess[$k]:-0}))
    left[$k]=$((${left[$k]:-1} - 1))
    [ "$kind" = table ] || row="$kind $row"
    printf '%-6s %-26s %-10s %12s   about %s min left\n' "$when" "$row" "$s" "$value" "$(remaining)" >&2
}
report() { # the tables on stdout, JSON where asked
    "$here/report" "$results" --runs "$runs" --mib "$mib" --goal "$goal" --chunkds "$chunkds" --hosts "$hosts" --opts "$opts" \
        --tree "$tree" --files "$files" --sync_delay "$sync_delay" --delays "$slow_delays" --commit "$(git -C "$repo" describe --always --dirty 2>/dev/null || echo unknown)" ${json:+--json "$json"}
}
