# The faults of the laboratory (run), one function each: fault_KIND makes it, lets it last, and undoes it or leaves that to
# all_back. It calls `fired KIND WHAT` only when it has seen the fault at work. Uses of run: bin, work, cluster, net, ns,
# daemons, chunkd_names, metad_names, roll, subset, hold, forgets, note, start_load, mounts.
# shellcheck shell=bash disable=SC2154

# -- what runs ---------------------------------------------------------------------------------------
pid_of() { cat "$cluster/$1.pid" 2>/dev/null || true; }
in_host() { nsenter --net="/run/netns/$ns-$1" -- "${@:2}"; }
ip_of() { devcluster_says addr "$1" | cut -d: -f1; }
state_of() { sed -n 's/^State:[[:space:]]*\(.\).*/\1/p' "/proc/$1/status" 2>/dev/null || true; }
dead() { local s; s=$(state_of "$1"); [ -z "$s" ] || [ "$s" = Z ]; }
pids_of() { local n; for n in "$@"; do pid_of "$n"; done; }

all_back() { # every daemon runs, every packet passes
    local n p down=()
    for n in "${daemons[@]}"; do
        p=$(pid_of "$n")
        if [ -z "$p" ] || dead "$p"; then down+=("$n"); else kill -CONT "$p"; fi
        tc -n "$ns-$n" qdisc del dev v root 2>/dev/null || true
    done
    tc -n "$ns-client" qdisc del dev v root 2>/dev/null || true
    devcluster heal >/dev/null
    [ ${#down[@]} = 0 ] || devcluster start "${down[@]}" >/dev/null
}

# -- processes ---------------------------------------------------------------------------------------
fault_kill() { # kill -9 of some, each when it comes
    local p
    subset "${daemons[@]}"
    p=$(pids_of "${subset[@]}")
    devcluster kill "${subset[@]}"
    for p in $p; do dead "$p" || return 0; done
    fired kill "${subset[*]}"
    hold 4
    devcluster start "${subset[@]}"
}
fault_killall() { # of all at one moment
    local p pids
    pids=$(pids_of "${daemons[@]}")
    # shellcheck disable=SC2086
    kill -KILL $pids
    for p in $pids; do wait_for 30 "$p to be dead" dead "$p"; done
    fired killall "all"
    devcluster start all
}
fault_term() { # a clean stop
    local p
    subset "${daemons[@]}"
    p=$(pids_of "${subset[@]}")
    devcluster term "${subset[@]}"
    for p in $p; do dead "$p" || return 0; done
    fired term "${subset[*]}"
    hold 2
    devcluster start "${subset[@]}"
}
fault_stop() { # SIGSTOP, also for longer than `dead`
    local n
    subset "${daemons[@]}"
    devcluster stop "${subset[@]}"
    hold 8
    for n in "${subset[@]}"; do [ "$(state_of "$(pid_of "$n")")" = T ] || return 0; done
    fired stop "${subset[*]}"
    devcluster cont "${subset[@]}"
}
fault_client() { # kill -9 of a mount, and of the programs on it
    local m p
    roll ${#mounts[@]}
    m=${mounts[R]}
    p=$(mount_pids "$work/$m")
    forgets "$m" "ENOTCONN|ECONNABORTED"
    # shellcheck disable=SC2086
    kill -KILL $p "${load_pid[$m]}"
    # -f: a thread of the mount may wait in the kernel for a page that only the mount could have unlocked
    umount -f -l "$work/$m"
    wait "${load_pid[$m]}" 2>/dev/null || true
    for p in $p; do wait_for 30 "the mount to be dead" dead "$p"; done
    fired client "mount $m"
    hold 2
    mount_it "$m"
    start_load "$m"
}
fault_mountstop() { # a mount sleeps, for less than its session
    local m p
    roll ${#mounts[@]}
    m=${mounts[R]}
    p=$(mount_pids "$work/$m" | tail -1)
    parted
    kill -STOP "$p"
    hold 8
    [ "$(state_of "$p")" != T ] || fired mountstop "mount $m"
    kill -CONT "$p"
}

fault_clock() { # the wall clock of a computer jumps, up to 20 days
    local n offset conf=$cluster/devcluster.conf
    roll ${#daemons[@]}
    n=${daemons[R]}
    roll 40
    offset=$(((R - 20) * 86400))
    devcluster kill "$n"
    cp "$conf" "$work/conf"
    printf 'daemon_env=%q\n' "LD_PRELOAD=$bin/fault_wallclock.so WALLCLOCK_OFFSET=$offset" >>"$conf"
    devcluster start "$n"
    cp "$work/conf" "$conf"
    hold 6
    ! grep -q fault_wallclock "/proc/$(pid_of "$n")/maps" || fired clock "$n by $((offset / 86400)) days"
    devcluster kill "$n" # the clock is right again
    devcluster start "$n"
}

# -- network -----------------------------------------------------------------------------------------
connects() { timeout 1 nsenter --net="/run/netns/$ns-$1" -- bash -c ": </dev/tcp/$2/$3" 2>/dev/null; } # FROM IP PORT
port_of() { if [[ $1 == metad* ]]; then echo 7000; else echo 7100; fi; }
resent() { awk '/^Tcp:/ {if (n++) print $13}' <(in_host "$1" cat /proc/net/snmp); } # segments, by a computer
two_groups() { # sets group1 and group2, neither is empty; the client is in one
    local n
    group1=() group2=()
    for n in "${daemons[@]}" client; do
        roll 2
        if [ "$R" = 0 ]; then group1+=("$n"); else group2+=("$n"); fi
    done
    [ ${#group1[@]} != 0 ] || { group1=("${group2[0]}") group2=("${group2[@]:1}"); }
    [ ${#group2[@]} != 0 ] || { group2=("${group1[0]}") group1=("${group1[@]:1}"); }
}
commas() { local IFS=,; echo "$*"; }
fault_partition() { # nothing passes between two groups
    local to a b
    two_groups
    parted
    devcluster partition "$(commas "${group1[@]}")" "$(commas "${group2[@]}")"
    a=${group1[0]} b=${group2[0]}
    [ "$b" != client ] || { b=$a a=client; }
    to=$(ip_of "$b")
    hold 8
    connects "$a" "$to" "$(port_of "$b")" || fired partition "${group1[*]} | ${group2[*]}"
    devcluster heal
}
fault_isolate() { # links that are down
    subset "${daemons[@]}"
    parted
    devcluster isolate "${subset[@]}"
    hold 8
    connects client "$(ip_of "${subset[0]}")" "$(port_of "${subset[0]}")" || fired isolate "${subset[*]}"
    devcluster heal
}
fault_oneway() { # what some send to some does not arrive, the other way all does
    local a b before after=0
    two_groups
    parted
    before=$(for a in "${group1[@]}"; do resent "$a"; done | paste -sd+ | bc)
    for a in "${group1[@]}"; do for b in "${group2[@]}"; do
        ip -n "$ns-$a" neigh replace "$(address "$b")" lladdr 02:00:00:00:00:01 dev v nud permanent
    done; done
    hold 8
    after=$(for a in "${group1[@]}"; do resent "$a"; done | paste -sd+ | bc)
    [ "$after" -le "$before" ] || fired oneway "${group1[*]} -> ${group2[*]}"
    devcluster heal
}
address() { if [ "$1" = client ]; then echo "$net.200"; else ip_of "$1"; fi; }
fault_slowlink() { # 2 Mbit/s and what does not fit in 100 ms of it is dropped
    local n over=0 some
    subset "${daemons[@]}" client
    parted
    for n in "${subset[@]}"; do tc -n "$ns-$n" qdisc replace dev v root tbf rate 2mbit burst 16k latency 100ms; done
    hold 8
    for n in "${subset[@]}"; do
        some=$(tc -n "$ns-$n" -s qdisc show dev v | sed -n 's/.*overlimits \([0-9]*\).*/\1/p')
        over=$((over + some))
    done
    for n in "${subset[@]}"; do tc -n "$ns-$n" qdisc del dev v root; done
    [ "$over" = 0 ] || fired slowlink "${subset[*]}, $over packets waited or were dropped"
}
fault_reset() { # every connection of some computers
    local n killed=0 i
    subset "${daemons[@]}" client
    for i in 1 2 3; do
        for n in "${subset[@]}"; do
            killed=$((killed + $(in_host "$n" ss -HtK state established 2>/dev/null | wc -l)))
        done
        hold 1
    done
    [ "$killed" = 0 ] || fired reset "${subset[*]}, $killed connections"
}

# -- power -------------------------------------------------------------------------------------------
# The kernel says that it shut the file systems down, and an unsynced file on each often loses its bytes (a sync of the daemon's
# that comes between may save them).
cuts() { dmesg | grep -c 'EXT4-fs (loop[0-9]*): shut down requested' || true; }
cut_power() { # NAME..., or all
    local n before lost=0 list=("$@")
    [ "$1" != all ] || list=("${daemons[@]}")
    before=$(cuts)
    for n in "${list[@]}"; do echo unsynced >"$cluster/$n/marker"; done
    devcluster powercut "$@"
    for n in "${list[@]}"; do
        [ -s "$cluster/$n/marker" ] || lost=$((lost + 1))
        rm -f "$cluster/$n/marker"
    done
    cut="${list[*]}; $lost of ${#list[@]} unsynced files lost"
    [ $(($(cuts) - before)) -ge ${#list[@]} ]
}
fault_power() { # of some computers, not the client's
    subset "${daemons[@]}"
    forgets a EIO
    forgets b EIO
    if cut_power "${subset[@]}"; then fired power "$cut"; fi
    hold 3
    devcluster start "${subset[@]}"
}
fault_powerall() { # of all, the client's too
    local m
    for m in "${mounts[@]}"; do forgets "$m" "ENOTCONN|ECONNABORTED|EIO"; done
    if cut_power all; then fired powerall "$cut"; fi
    for m in "${mounts[@]}"; do
        kill -KILL "${load_pid[$m]}" 2>/dev/null || true
        wait "${load_pid[$m]}" 2>/dev/null || true
    done
    rm -f "$board/witness"
    devcluster start all
    for m in "${mounts[@]}"; do mount_it "$m"; start_load "$m"; done
}
