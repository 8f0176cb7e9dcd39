#!/usr/bin/env bash
# What was written asynchronously with O_DIRECT is read back buffered, while others read the file. AIO_S: seconds (3).
. "$(dirname "$0")/caselib.sh"
devcluster up --chunkd 2
devcluster mount "$mnt"
timeout 100 python3 "$(dirname "$0")/direct_aio.py" "$mnt/f" "${AIO_S:-3}" || fail "a buffered read is older than the write before it"
check_sanitizers
echo ok
