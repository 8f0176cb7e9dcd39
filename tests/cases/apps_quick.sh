#!/usr/bin/env bash
# The quick ones of the real programs in tests/apps: sqlite3, git, rsync and tar on a mount.
exec "$(dirname "$0")/../apps/run" --quick
