#!/usr/bin/env bash
# Computers made from one image: no machine-id yet, or the same one; two chunkds with copies of one data directory.
. "$(dirname "$0")/caselib.sh"
[ "$(id -u)" = 0 ] || fail "needs root"
devcluster up --chunkd 2 --metad-args "--suspect=1s"
meta=$(devcluster addr)
net=${meta%%:*} net=${net%.*}
no_id() { # TEXT of /etc/machine-id: the chunkd must say what is wrong with it
    printf %b "$1" >"$work/id"
    if timeout 20 unshare -m bash -c "mount --bind '$work/id' /etc/machine-id && exec '$bin/replfs-chunkd' --data='$work/d' --meta='$meta' --listen='$net.20:7100'" >"$work/out" 2>&1
    then fail "a chunkd starts with machine-id '$1'"; fi
    grep -q "systemd-machine-id-setup" "$work/out" || fail "machine-id '$1': $(cat "$work/out")"
}
no_id 'uninitialized\n'
no_id ''
named() { ctl health --meta "$meta" >"$work/health" 2>&1 || true; grep -q "$1" "$work/health"; }
init() { # DIR: said explicitly to be a new disk, where that is asked for
    if "$bin/replfs-chunkd" --help | grep -q -- '--init'; then "$bin/replfs-chunkd" --init --data="$1" >/dev/null 2>&1; fi
}
start() { # NAME DATA PORT HOST-ID
    "$bin/replfs-chunkd" --data="$2" --meta="$meta" --listen="$net.$3:7100" --host-id="$4" --host-name="$1" >"$work/$1.log" 2>&1 &
    case_pids="${case_pids:-} $!"
}
init "$work/d3"
init "$work/d4"
start pc3 "$work/d3" 23 0123456789abcdef0123456789abcdef
start pc4 "$work/d4" 24 0123456789abcdef0123456789abcdef
wait_for 20 "health to name computers with one machine-id: $(cat "$work/health" 2>/dev/null)" named "pc[34].*pc[34].*same host id"
cp -a "$cluster/chunkd1/disk1" "$work/d5"
start clone "$work/d5" 25 clone
wait_for 20 "health to name two daemons of one data directory" named "another daemon (clone, $net.25:7100) says that it is chunkd 1"
check_sanitizers
