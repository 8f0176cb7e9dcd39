#!/usr/bin/env bash
# PostgreSQL with its data directory on the mount: initdb, pgbench, kill -9 of the server and all its backends under load,
# recovery; then the balances agree, every transaction that pgbench counted is there, amcheck and pg_dump find no fault.
. "$(dirname "$0")/lib.sh"
for d in /usr/lib/postgresql/*/bin; do [ -x "$d/initdb" ] && PATH=$d:$PATH; done
need initdb pgbench pg_amcheck
data=$APP_DIR/data sock=$APP_LOCAL/sock
user=postgres
id $user >/dev/null 2>&1 || fail "no user postgres; the package postgresql makes it"
install -d -o $user -m 700 "$data" "$sock"
install -d -o $user "$APP_LOCAL/log"
export PGHOST=$sock PGUSER=$user PGDATABASE=bench
cd "$APP_LOCAL/log" # where that user may be
identity=(setpriv --reuid="$user" --regid="$(id -g $user)" --clear-groups)
as() { "${identity[@]}" "$@"; }
sql() { as psql -qAtX -v ON_ERROR_STOP=1 -c "$@"; }
server='' load=''
kill_server() { # kill -9 of all its processes, and waits until they are gone
    [ -n "$server" ] || return 0
    local p pids
    pids="$server $(pgrep -P "$server" | xargs)"
    # shellcheck disable=SC2086
    kill -9 $pids 2>/dev/null || true
    wait "$server" 2>/dev/null || true
    server=''
    for p in $pids; do wait_for 60 "process $p to end" gone "$p"; done
}
gone() { ! [ -d "/proc/$1" ] || grep '^State:.Z' "/proc/$1/status" >/dev/null; }
trap '[ -z "$load" ] || kill $load 2>/dev/null; kill_server' EXIT
start() { # as a child of this shell, which reaps it: a dead server that nobody waited for still counts as running
    "${identity[@]}" postgres -D "$data" >>"$APP_LOCAL/log/server" 2>&1 &
    server=$!
    local end=$((SECONDS + 120))
    until as pg_isready -q; do
        [ -d "/proc/$server" ] && [ $SECONDS -lt $end ] || { tail -20 "$APP_LOCAL/log/server"; fail "the server did not start"; }
        sleep 0.1
    done
}
transactions() { sed -n 's/^number of transactions actually processed: \([0-9]*\).*/\1/p' "$1"; }

step initdb
as initdb -D "$data" -k -A trust >/dev/null
cat >>"$data/postgresql.conf" <<END
listen_addresses = ''
unix_socket_directories = '$sock'
shared_buffers = 32MB
max_wal_size = 128MB
checkpoint_timeout = 30s
END
start
as createdb bench
step "pgbench -i"
as pgbench -i -q -s 5
step "pgbench, 4 clients"
as pgbench -c 4 -j 2 -T 15 >"$APP_LOCAL/run1"
tps=$(sed -n 's/^tps = \([0-9]*\).*without.*/\1/p' "$APP_LOCAL/run1")
step "$tps transactions a second; kill -9 under load"
as pgbench -n -c 4 -j 2 -T 60 -P 1 >"$APP_LOCAL/run2" 2>"$APP_LOCAL/progress" &
load=$!
progress() { [ "$(grep -c ^progress "$APP_LOCAL/progress")" -ge 4 ]; }
wait_for 60 "pgbench to make progress" progress
kill_server
wait $load || true
load=''
step recovery
start
grep -E 'automatic recovery|redo done' "$APP_LOCAL/log/server" || fail "the server did not recover"
expect "balances" 1 "$(sql "SELECT count(DISTINCT s) FROM (SELECT sum(abalance) s FROM pgbench_accounts UNION ALL
    SELECT sum(tbalance) FROM pgbench_tellers UNION ALL SELECT sum(bbalance) FROM pgbench_branches UNION ALL
    SELECT sum(delta) FROM pgbench_history) x")"
n=$(($(transactions "$APP_LOCAL/run1") + $(transactions "$APP_LOCAL/run2")))
have=$(sql "SELECT count(*) FROM pgbench_history")
[ "$have" -ge "$n" ] || fail "pgbench was told of $n commits, $have are there"
step "amcheck, vacuum, pg_dump, restore"
as pg_amcheck --install-missing --heapallindexed bench
sql "VACUUM FULL ANALYZE"
sql "REINDEX DATABASE bench"
as pg_dump bench >"$APP_LOCAL/dump"
as createdb copy
PGDATABASE=copy as psql -qX -v ON_ERROR_STOP=1 -f - <"$APP_LOCAL/dump" >/dev/null
PGDATABASE=copy as pg_dump >"$APP_LOCAL/dump2"
same "a dump and the dump of its restored copy" <(grep -v '^.restrict\|^.unrestrict' "$APP_LOCAL/dump") <(grep -v '^.restrict\|^.unrestrict' "$APP_LOCAL/dump2")
kill -INT "$server" && wait "$server" || fail "the server did not stop cleanly"
server=''
as pg_checksums -D "$data" --check >/dev/null
echo "RESULT: $tps transactions a second, $have in all"
