# What tests/bench/run measures beyond the table of rows: replfs on slow disks (--sync-delay), and how it scales (--scale) with
# clients, chunkds, file sizes, threads at metad, and files in the namespace. Sourced by run, after rows.sh.
# shellcheck shell=bash
# shellcheck disable=SC2154,SC2034 # work, mib, at, cluster ... are run's

start_metad() { # SYSTEM [--hosts]: no chunkds, not mounted
    cluster[$1]=$work/cluster-$1
    devcluster "$1" up --chunkd 0 "${@:2}" >/dev/null
}
stop_cluster() { # SYSTEM
    devcluster "$1" down >/dev/null
    unset "cluster[$1]" "at[$1]"
}
in_client() { # SYSTEM COMMAND...: where that cluster's clients live
    local NS
    eval "$(devcluster "$1" env)"
    shift
    if [ -n "$NS" ]; then nsenter --net="/run/netns/$NS-client" -- "$@"; else "$@"; fi
}
rate() { value=$(awk -v n="$1" -v s="$value" 'BEGIN {printf "%.2f", n / s}'); } # N: value, seconds, becomes N per second

# -- slow disks: every sync of metad and chunkds takes longer -------------------------------------------
slow_rows="untar rmrf cpa"
expect_slow() { for _ in $(seq 1 "$runs"); do for row in $slow_rows; do for s in replfs slow; do expect_cost slow "$row" "$s"; done; done; done; }
start_slow() {
    start_cluster slow --env "LD_PRELOAD=$bin/bench_slowsync.so SLOWSYNC_MS=$sync_delay SLOWSYNC_COUNT=$work/delays"
}
run_slow() { # RUN
    local row s
    for row in $slow_rows; do for s in replfs slow; do take "run $1" slow "$row" "$s" measure "$row" "$s"; done; done
    tidy "${at[replfs]}"
    tidy "${at[slow]}"
}
delays() { # "syncs synchronous-writes log-writes", of all daemons: what was delayed
    cat "$work"/delays.* | od -A n -v -t u8 -w24 | awk '{a += $1; b += $2; c += $3} END {print a, b, c}'
}
check_slow() { # a delay that does not reach metad's log would make the figures a lie
    slow_delays=$(delays)
    note "delayed by $sync_delay ms: $(echo "$slow_delays" | awk '{print $1 " syncs, " $2 " synchronous writes, " $3 " log writes of metad"}')"
    [ "${slow_delays##* }" -gt 0 ] || { note "no log write of metad was delayed: libraft writes it in a way bench_slowsync.so does not see"; failures=$((failures + 1)); }
}

# -- streams: parallel clients, each a mount of its own -------------------------------------------------
stream_write() { dd if="$work/source" of="$work/stream.$1/s.$1" bs=1M count=$((mib / 4)) conv=fsync; }
stream_read() { dd if="$work/stream.$1/s.$((($1 + 1) % streams))" of=/dev/null bs=1M; } # another client's file
mount_streams() { for i in $(seq 0 $((streams - 1))); do devcluster replfs mount "$work/stream.$i" -o "$opts" >/dev/null; done; }
unmount_streams() { for i in $(seq 0 $((streams - 1))); do devcluster replfs unmount "$work/stream.$i" >/dev/null; done; }
measure_streams() { # write|read
    load "$work/source"
    "$bin/bench_touch" $((mib / 4 * streams * (goal + 1)))
    if [ "$1" = write ]; then
        rm -f "$work"/stream.0/s.*
    else
        unmount_streams
        mount_streams
        drop
    fi
    seconds together "$streams" "stream_$1" && rate $((mib / 4 * streams))
}
scale_streams() {
    local v
    for streams in $stream_list; do
        mount_streams
        for v in write read; do take scale streams "$streams" $v measure_streams $v; done
        rm -f "$work"/stream.0/s.*
        unmount_streams
    done
}

# -- chunkds: the same four streams on 1..6 of them -----------------------------------------------------
measure_chunkds() { # write4|read4 SYSTEM
    measure "$1" "$2" && rate "$mib"
}
scale_chunkds() {
    local n v
    for n in $chunkd_list; do
        chunkds=$n goal=$((n < goal ? n : goal)) start_cluster "n$n"
        for v in write4 read4; do take scale chunkds "$n" "${v%4}" measure_chunkds $v "n$n"; done
        stop_cluster "n$n"
    done
}

# -- sizes: files of 1 KiB to 1 GiB, many of the small ones; files a second -----------------------------
file_sizes() { # "BYTES COUNT" a line
    local kib n most=$((mib < 1000 ? mib * 4 : 4000))
    for kib in $kib_list; do
        [ "$kib" -le $((mib * 1024)) ] || break
        n=$((mib * 1024 / kib))
        echo "$((kib * 1024)) $((n < most ? n : most))"
    done
}
measure_sizes() { # write|read SYSTEM BYTES COUNT
    local d=${at[$2]}/many
    if [ "$1" = write ]; then
        rm -rf "$d"
        mkdir "$d" && sync && seconds "$bin/bench_many" "$d" "$4" 1 "$3" && rate "$4"
    else
        cold "$2" && seconds "$bin/bench_many" "$d" "$4" 1 "$3" read && rate "$4"
    fi
}
scale_sizes() {
    local bytes n v s
    while read -r bytes n; do
        for v in write read; do
            for s in local fuse replfs; do take scale "sizes_$v" "$bytes.$n" "$s" measure_sizes $v "$s" "$bytes" "$n"; done
        done
        for s in local fuse replfs; do rm -rf "${at[$s]}/many"; done
    done < <(file_sizes)
}

# -- metad: operations a second from many threads, without FUSE -----------------------------------------
measure_meta() { # VERB THREADS
    local ops=$(($2 * thread_ops)) sessions=$(($2 < 4 ? $2 : 4))
    case $1 in getattr) ops=$((ops * 2)) ;; behind | stat) ops=$((40 * thread_ops)) ;; esac
    in_client meta "$bin/bench_meta_load" "$(devcluster meta addr)" "$1" "$ops" "$2" 0 "$1$2" "$sessions" >"$work/meta.out" 2>"$work/err" ||
        { note "bench_meta_load $1 failed: $(head -3 "$work/err")"; return 1; }
    value=$(sed -n 's/.*"per_second": \([0-9.]*\).*/\1/p' "$work/meta.out")
}
scale_metad() {
    local t v
    if [ "$hosts" = yes ]; then start_metad meta --hosts; else start_metad meta; fi
    for t in $thread_list; do for v in getattr stat create behind; do take scale metad $t $v measure_meta $v $t; done; done
    stop_cluster meta
}

# -- grow: what an operation costs metad in a larger namespace ------------------------------------------
grow_here() { # both metads on loopback, whatever --hosts says: one program talks to both
    "$bin/bench_meta_grow" "$(devcluster stays addr)" "$(devcluster grows addr)" "$files" "$rounds" >"$work/grow.out" 2>"$work/err" ||
        { note "bench_meta_grow failed: $(head -3 "$work/err")"; return 1; }
}
scale_grow() {
    local n verb a b
    start_metad stays
    start_metad grows
    note "growing a namespace to $files files"
    if grow_here; then
        while read -r n verb a b; do
            printf 'grow\t%s.%s\tstays\t%s\ngrow\t%s.%s\tgrows\t%s\n' "$n" "$verb" "$a" "$n" "$verb" "$b" >>"$results"
            printf '%-6s %-26s %-10s %12s   microseconds; %s in the one that stays small\n' scale "grow $n" "$verb" "$b" "$a" >&2
        done <"$work/grow.out"
    else
        failures=$((failures + 1))
    fi
    left[grow/all/replfs]=0
    stop_cluster stays
    stop_cluster grows
}

expect_scale() {
    local n v s b
    for v in $scale_rows; do
        case $v in
        streams) for n in $stream_list; do for s in write read; do expect_cost streams $n $s $((5 + n * mib / 400)); done; done ;;
        chunkds) for n in $chunkd_list; do for s in write read; do expect_cost chunkds $n $s $((5 + mib / 100)); done; done ;;
        sizes) while read -r b n; do for s in local fuse replfs; do
            expect_cost sizes_write "$b.$n" $s $((3 + mib / 100)); expect_cost sizes_read "$b.$n" $s $((3 + mib / 100)); done; done < <(file_sizes) ;;
        metad) for n in $thread_list; do for s in getattr stat create behind; do expect_cost metad $n $s $((3 + n / 4)); done; done ;;
        grow) expect_cost grow all replfs $((20 + ${files##*,} / 10000)) ;;
        *) die "no scaling row '$v'; there are: streams chunkds sizes metad grow" ;;
        esac
    done
}
run_scale() { for v in $scale_rows; do "scale_$v"; done; }
