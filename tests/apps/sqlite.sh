#!/usr/bin/env bash
# sqlite3: every journal mode, four processes that write to one database at once, one more that is killed in the middle of
# its transactions; then the rows are counted and integrity_check has its say.
. "$(dirname "$0")/lib.sh"
need sqlite3
each=150
[ "$QUICK" = yes ] && each=40
modes="delete truncate persist wal"
[ "$QUICK" = yes ] && modes="delete wal"

sql() { sqlite3 -batch -bail -cmd '.timeout 60000' "$@"; }
statements() { # WRITER COUNT: transactions of three rows
    local i
    for i in $(seq "$2"); do
        echo "BEGIN IMMEDIATE;"
        echo "INSERT INTO t SELECT $1, $i, k, randomblob(300) FROM (SELECT 1 AS k UNION SELECT 2 UNION SELECT 3);"
        echo "UPDATE total SET n = n + 3;"
        echo "COMMIT;"
    done
}
killed='' pids=()
trap '[ -z "$killed" ] || kill -9 "$killed" 2>/dev/null; kill "${pids[@]}" 2>/dev/null || true' EXIT
rounds=0
for mode in $modes; do
    step "journal_mode $mode, 4 writers of $each transactions"
    db=$APP_DIR/$mode.db
    expect "journal mode" "$mode" "$(sql "$db" "PRAGMA journal_mode=$mode")"
    sql "$db" "CREATE TABLE t(writer, i, k, data); CREATE INDEX ti ON t(writer, i, k); CREATE TABLE total(n); INSERT INTO total VALUES(0)"
    pids=()
    for w in 1 2 3 4; do
        { [ "$mode" = wal ] || echo "PRAGMA journal_mode=$mode;"; statements $w "$each"; } >"$APP_LOCAL/w$w.sql"
        sql "$db" <"$APP_LOCAL/w$w.sql" >"$APP_LOCAL/w$w.out" 2>&1 &
        pids+=($!)
    done
    # the fifth never ends by itself
    while :; do statements 5 100; done 2>/dev/null | sqlite3 -cmd '.timeout 60000' "$db" >/dev/null 2>&1 &
    killed=$!
    has_row() { [ "$(sql "$db" "SELECT count(*) FROM t WHERE writer = 5")" -gt 0 ]; }
    wait_for 60 "the fifth writer to write" has_row
    kill -9 $killed
    wait $killed 2>/dev/null || true
    killed=''
    for p in "${pids[@]}"; do wait "$p" || fail "a writer failed: $(cat "$APP_LOCAL"/w*.out)"; done
    pids=()
    expect "integrity_check ($mode)" ok "$(sql "$db" "PRAGMA integrity_check")"
    expect "rows of the four writers ($mode)" $((each * 12)) "$(sql "$db" "SELECT count(*) FROM t WHERE writer < 5")"
    expect "rows and the counter kept beside them ($mode)" "$(sql "$db" "SELECT n FROM total")" "$(sql "$db" "SELECT count(*) FROM t")"
    expect "half transactions ($mode)" 0 "$(sql "$db" "SELECT count(*) FROM (SELECT writer, i FROM t WHERE writer < 5 GROUP BY 1, 2 HAVING count(*) <> 3)")"
    sql "$db" "DELETE FROM t WHERE k = 2; VACUUM"
    expect "integrity_check after VACUUM ($mode)" ok "$(sql "$db" "PRAGMA integrity_check")"
    rounds=$((rounds + each * 4))
done
step "a database copied by .backup equals its source"
sql "$APP_DIR/wal.db" ".backup '$APP_DIR/copy.db'"
sql "$APP_DIR/wal.db" "SELECT writer, i, k, hex(data) FROM t ORDER BY 1, 2, 3" >"$APP_LOCAL/a"
sql "$APP_DIR/copy.db" "SELECT writer, i, k, hex(data) FROM t ORDER BY 1, 2, 3" >"$APP_LOCAL/b"
same "database and backup" "$APP_LOCAL/a" "$APP_LOCAL/b"
echo "RESULT: modes $modes, $rounds transactions by 4 writers"
