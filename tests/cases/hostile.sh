#!/usr/bin/env bash
# One client against all: tests/hostile does what no honest client does, while an honest mount is used beside it. Each
# attack is refused or bounded, and the figures are printed. HOSTILE_SCALE=10: more of everything.
. "$(dirname "${BASH_SOURCE[0]}")/caselib.sh"
devcluster up --chunkd 2 >/dev/null
devcluster mount "$mnt"
metad=$(devcluster leader)
addr=$(devcluster addr "$metad")
pid=$(cat "$cluster/$metad.pid")
echo before >"$mnt/f"
before=$(awk '/^VmRSS/ {print $2}' "/proc/$pid/status")
"$bin/hostile" "$addr" "$pid" "${HOSTILE_SCALE:-1}" || fail "an attack was not bounded"
expect "metad" "$pid" "$(cat "$cluster/$metad.pid")"
kill -0 "$pid" || fail "metad is gone"
SECONDS=0
echo after >"$mnt/g" && sync "$mnt/g"
expect "the honest mount" "before after" "$(cat "$mnt/f" "$mnt/g" | paste -sd' ')"
[ $SECONDS -lt 10 ] || fail "the honest mount waited ${SECONDS} s"
echo "metad: $before KiB before, $(awk '/^VmRSS/ {print $2}' "/proc/$pid/status") KiB after"
check_sanitizers
