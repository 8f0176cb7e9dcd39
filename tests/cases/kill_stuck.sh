#!/usr/bin/env bash
# Programs that wait for chunkds or metad that hang can be killed, at once; what comes after works, also in files that they had open.
# --all: also with 3 metads
. "$(dirname "$0")/caselib.sh"
devcluster up --chunkd 2 --metad-args "--dead=300s"
devcluster mount "$mnt" -o timeout=60s
random_file "$work/f" 40
cp "$work/f" "$mnt/f"
mkdir "$mnt/d"
touch "$mnt/d/x"
sync "$mnt/f"
devcluster unmount "$mnt"
devcluster mount "$mnt" -o timeout=60s
case_pids=
victims=() names=()
victim() { # NAME COMMAND..
    names+=("$1")
    shift
    "$@" >/dev/null 2>&1 &
    victims+=($!)
    case_pids="$case_pids $!"
}
waits() { grep -qE "request_wait|folio_|rwsem|rename|fuse" "/proc/$1/wchan"; } # PID: for the mount
gone() { [ ! -e "/proc/$1" ] || [ "$(sed 's/.*) //' "/proc/$1/stat" | cut -d' ' -f1)" = Z ]; } # PID
kill_all() {
    local i since
    for i in "${!victims[@]}"; do wait_for 20 "${names[i]} to wait" waits "${victims[i]}"; done
    for i in "${!victims[@]}"; do
        if gone "${victims[i]}"; then fail "${names[i]} did not wait"; fi
        since=$(date +%s%N)
        kill -KILL "${victims[i]}"
        wait_for 10 "${names[i]} to go" gone "${victims[i]}"
        echo "${names[i]}: gone after $((($(date +%s%N) - since) / 1000000)) ms"
        [ $((($(date +%s%N) - since) / 1000000)) -lt 3000 ] || fail "${names[i]} went too late"
    done
    victims=() names=()
}
devcluster stop chunkd1 chunkd2
victim reader cat "$mnt/f"
victim writer dd if="$work/f" of="$mnt/g" bs=1M
victim fsync dd if="$work/f" of="$mnt/h" bs=1M count=1 conv=fsync
victim mapped python3 -c "
import mmap, os
m = mmap.mmap(os.open('$mnt/f', os.O_RDONLY), 0, prot=mmap.PROT_READ)
print(m[30000000])"
kill_all
devcluster cont chunkd1 chunkd2
devcluster stop metads
victim lookup python3 -c "
import os
while True: os.lstat('$mnt/d/x') # until the lease on it has run out"
kill_all # a lookup in the directory of a rename that waits waits for that one, in the kernel
victim rename mv "$mnt/f" "$mnt/f2"
kill_all
devcluster cont metads
renamed() { [ -e "$mnt/f" ] || [ -e "$mnt/f2" ]; }
wait_for 60 "metad" renamed
f=$mnt/f
[ -e "$f" ] || f=$mnt/f2
expect "the file" "$(sum_of "$work/f")" "$(sum_of "$f")"
echo x >"$mnt/y"
expect "a new one" x "$(cat "$mnt/y")"
check_sanitizers
echo ok
