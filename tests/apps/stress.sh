#!/usr/bin/env bash
# stress-ng's file system stressors, one after the other. One that fails here is run on the local file system as well: what
# fails there too is no fault of the mount and only listed.
. "$(dirname "$0")/lib.sh"
need stress-ng
seconds=3
# these do not look at the folder: pipes, /proc, /sys, the process itself
elsewhere=" dup eventfd fd-race ioprio procfs sysfs fanotify "
read -r -a list < <(stress-ng --class filesystem? 2>&1 | sed -n 's/.*stressors: *//p')
[ ${#list[@]} -gt 30 ] || fail "stress-ng names only ${#list[@]} file system stressors: ${list[*]}"
stress() { # NAME DIR: runs one stressor; 0 fine, 2 failed, 3 or 4 not possible here
    timeout -k 10 120 stress-ng "--$1" 2 --timeout ${seconds}s --verify --temp-path "$2" --metrics-brief >"$APP_LOCAL/out.$1" 2>&1
}
fine=0 failed='' skipped='' both=''
for s in "${list[@]}"; do
    [[ $elsewhere == *" $s "* ]] && continue
    code=0
    stress "$s" "$APP_DIR" || code=$?
    rate=$(awk -v s="$s" '/metrc|metrics|info/ && $4 == s {print $9}' "$APP_LOCAL/out.$s" | tail -1)
    case $code in
    0)
        if grep -q 'skipp' "$APP_LOCAL/out.$s"; then skipped="$skipped $s"; else fine=$((fine + 1)); fi
        step "$s: fine, ${rate:-?} operations a second" ;;
    3 | 4) skipped="$skipped $s"; step "$s: not possible here ($code)" ;;
    *)
        grep -E 'fail|error' "$APP_LOCAL/out.$s" | sed -n 1,6p
        code2=0
        stress "$s" "$APP_LOCAL" || code2=$?
        if [ $code2 = 0 ]; then failed="$failed $s"; step "$s: FAILED with $code, only here"
        else both="$both $s"; step "$s: failed with $code, and with $code2 on the local file system"; fi ;;
    esac
    find "$APP_DIR" -mindepth 1 -delete 2>/dev/null || true
done
echo "skipped:$skipped; failing on the local file system too:$both"
[ -z "$failed" ] || fail "stressors that fail here and not on the local file system:$failed"
echo "RESULT: $fine stressors fine${skipped:+, skipped$skipped}${both:+, failing on the local file system too$both}"
