#!/usr/bin/env bash
# fio with verification: random mixed reads and writes of many sizes, through the page cache, O_DIRECT and mmap; each block
# carries a crc32c that is checked, at once and again at the end with the page cache dropped.
. "$(dirname "$0")/lib.sh"
need fio
size=128M
check() { # NAME ARGS...
    step "$1"
    local name=$1
    shift
    fio --name="$name" --directory="$APP_DIR" --size=$size --verify=crc32c --verify_fatal=1 --verify_dump=0 --verify_state_save=0 \
        --randrepeat=1 --output="$APP_LOCAL/$name.out" "$@" || { tail -30 "$APP_LOCAL/$name.out"; fail "$name"; }
    ! grep -E 'verify:|err=[^ ]*[1-9]' "$APP_LOCAL/$name.out" | grep -v 'err= 0' || fail "$name"
}
drop() { sync -f "$APP_DIR"; echo 3 >/proc/sys/vm/drop_caches || true; }
rw=(--rw=randrw --rwmixread=30 --verify_backlog=512)
check buffered "${rw[@]}" --ioengine=psync --bsrange=512-64k --bs_unaligned=0 --fsync=200 --numjobs=2
check direct "${rw[@]}" --ioengine=libaio --iodepth=16 --direct=1 --bsrange=4k-128k
check mmap "${rw[@]}" --ioengine=mmap --bs=4k
later=(--rw=randwrite --ioengine=psync --bs=8k --fdatasync=64)
check later "${later[@]}" --do_verify=0
drop
check later "${later[@]}" --verify_only
step "one file, written through the page cache by one job and read with O_DIRECT by the next"
check mixed --rw=write --ioengine=psync --bs=256k --filename=shared --do_verify=0
check mixed --rw=read --ioengine=libaio --iodepth=8 --direct=1 --bs=256k --filename=shared --do_verify=1
echo "RESULT: 5 patterns of $size"
