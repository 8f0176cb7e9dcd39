#!/usr/bin/env bash
# The quick ones of the real programs in tests/apps: sqlite3, git, rsync and tar on a mount.
# only with --all
# not under sanitizers: the exerciser and conform ask the same of the daemons, in less time
exec "$(dirname "$0")/../apps/run" --quick
