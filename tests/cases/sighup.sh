#!/usr/bin/env bash
# SIGHUP, which logrotate(8) sends, ends neither daemon nor mount: they go on in a new log file, and the daemons take over
# the log level of their configuration file, mistakes in it included.
# one metad: the log and configuration file are those of one daemon
. "$(dirname "$0")/caselib.sh"
mkdir "$work/logs"
for d in metad chunkd; do
    printf '[replfs-%s]\nlog-file = %s\nlog-level = info\n' $d "$work/logs/$d.log" >"$work/$d.conf"
    : >"$work/logs/$d.log"
done
# devcluster waits for "ready" in its own logs
for d in metad chunkd1; do mkdir -p "$cluster" && ln -s "$work/logs/${d%1}.log" "$cluster/$d.log"; done
devcluster up --chunkd 1 --metad-args "--min-copies=1 --config=$work/metad.conf" --chunkd-args "--config=$work/chunkd.conf"
mkdir -p "$mnt"
(cd "$work/logs" && devcluster mount "$mnt" -o log_file=mount.log)
echo x >"$mnt/x"
pid_of() { cat "$cluster/$1.pid"; }
told() { grep -q "$2" "$work/logs/$1.log"; }
hup() { # NAME PID
    mv "$work/logs/$1.log" "$work/logs/$1.old"
    kill -HUP "$2"
    wait_for 10 "$1 to go on in a new log file" told "$1" SIGHUP
    [ -d "/proc/$2" ] || fail "SIGHUP ended $1"
    expect "rights of the new log of $1" 640 "$(stat -c %a "$work/logs/$1.log")"
}
sed -i 's/log-level = info/log-level = debug/' "$work/metad.conf"
hup metad "$(pid_of metad)"
hup chunkd "$(pid_of chunkd1)"
hup mount "$(pid_of_mount "$mnt")"
echo y >"$mnt/y"
mountpoint -q "$mnt" || fail "SIGHUP unmounted $mnt"
ctl chunkd list --meta "$(devcluster addr)" >/dev/null # a connection that comes and goes
wait_for 10 "debug lines of metad" told metad debug
echo 'log-level = nonsense' >"$work/metad.conf"
hup metad "$(pid_of metad)"
told metad mistake || fail "metad does not say that its configuration file has a mistake"
expect "what was written between" "x y" "$(cat "$mnt/x" "$mnt/y" | xargs)"
check_sanitizers
