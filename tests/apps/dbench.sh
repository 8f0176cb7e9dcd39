#!/usr/bin/env bash
# dbench: four clients with the load of an office file server.
. "$(dirname "$0")/lib.sh"
need dbench
step "dbench 4"
dbench -D "$APP_DIR" -t 20 4 >"$APP_LOCAL/out" 2>&1 || { tail -20 "$APP_LOCAL/out"; fail "dbench ended with an error"; }
tail -25 "$APP_LOCAL/out"
! grep -v 'barrier semaphore' "$APP_LOCAL/out" | grep -iE 'error|failed|unable' || fail "dbench reports errors"
echo "RESULT: $(grep ^Throughput "$APP_LOCAL/out" | tr -s ' ')"
