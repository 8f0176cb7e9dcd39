#!/usr/bin/env bash
# The rest of the benchmark still works: the delay of slow disks reaches metad's log and the chunkds' syncs, and each scaling
# row, tiny and once, gives its figures.
# only with --all
# not under sanitizers: it tries the benchmark, not the product.
# one metad: it tries the benchmark, not the product
. "$(dirname "$0")/caselib.sh"
slow=1
case $(ldd "$bin/replfs-metad") in *libasan* | *libtsan*) slow=0 ;; esac # sanitizers want to be preloaded first
"$cases_repo/tests/bench/run" --runs 1 --mib 4 --rows "" --tree /usr/include/linux/netfilter --dir "$work" --sync-delay $slow \
    --scale --files 200,1000 --quick --json "$work/bench.json" >"$work/table" 2>"$work/progress" ||
    { cat "$work/progress"; fail "tests/bench/run failed"; }
cat "$work/progress" "$work/table"
python3 - "$work/bench.json" $slow <<'P'
import json, sys
whole = json.load(open(sys.argv[1]))
kinds = {"streams": 2, "chunkds": 1, "sizes_write": 2, "sizes_read": 2, "metad": 2, "grow": 8}
if sys.argv[2] != "0":
    kinds["slow"] = 3
    syncs, writes, log_writes = (int(x) for x in whole["settings"]["delays"].split())
    assert syncs > 0 and log_writes > 0, whole["settings"]
assert {k: len(v) for k, v in whole["figures"].items()} == kinds, whole["figures"]
for kind, cells in whole["figures"].items():
    for row, systems in cells.items():
        assert all(len(f) == 1 and f[0] and f[0] > 0 for f in systems.values()), (kind, row, systems)
P
expect "what it leaves behind" "" "$(find "$work" -maxdepth 1 -name '*bench*' ! -name bench.json)"
