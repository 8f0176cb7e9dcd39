#!/usr/bin/env bash
# The benchmark still works: every row of tests/bench/run, tiny and once, gives a figure on every file system. The peer here is
# a plain directory whose --remount fails: its cold rows, and only those, are reported as failed.
# only with --all
# not under sanitizers: it tries the benchmark, not the product.
# one metad: it tries the benchmark, not the product
. "$(dirname "$0")/caselib.sh"
mkdir "$work/peer"
code=0
"$cases_repo/tests/bench/run" --runs 1 --mib 8 --seconds 0.2 --tree /usr/include/linux/netfilter --dir "$work" \
    --peer "beside=$work/peer" --remount beside=false --json "$work/bench.json" >"$work/table" 2>"$work/progress" || code=$?
cat "$work/progress" "$work/table"
expect "exit code with failed rows" 1 $code
python3 - "$work/bench.json" <<'P'
import json, sys
whole = json.load(open(sys.argv[1]))
rows = "write read cp write4 read4 untar lslr_cold lslr_warm treeread rmrf randread randwrite fsyncwrite".split()
cold = {"read", "read4", "lslr_cold", "treeread"}
table = whole["figures"]["table"]
assert list(table) == rows, list(table)
for row, cells in table.items():
    assert list(cells) == ["local", "fuse", "replfs", "beside"], (row, cells)
    for system, figures in cells.items():
        assert len(figures) == 1, (row, system, figures)
        assert (figures[0] is None) == (system == "beside" and row in cold), (row, system, figures)
P
expect "what it leaves behind" "" "$(find "$work" "$work/peer" -maxdepth 1 -name '*bench*' ! -name bench.json)"
