#!/usr/bin/env bash
# Random operations compared with a model (tests/exerciser, short form), while daemons are killed, stopped and started,
# over a remount, from two mounts in turn (close-to-open), and appends, overwrites and listings from two mounts at once.
# At the end the space of what was overwritten and deleted is given back, although a file stays open for writing.
# only with --all
# --all: also with 3 metads
. "$(dirname "$0")/caselib.sh"
slow=1
case $(ldd "$bin/replfs-metad") in *libasan* | *libtsan*) slow=2 ;; esac # it takes minutes there
ops=${OPS:-$((3000 / slow))} records=${RECORDS:-$((1000 / slow))} seed=${SEED:-1}
devcluster up --chunkd 4
devcluster mount "$mnt" -o timeout=60
devcluster mount "$work/mnt2" -o timeout=60
ctl setrepl "$mnt" 3
exercise() { "$bin/exerciser" "$mnt" --seed="$seed" --require-all "$@" || fail "the exerciser found a difference"; }
do_() { echo "'$cases_repo/scripts/devcluster' $* --dir '$cluster'"; } # a command for the exerciser
at() { echo $((ops * $1 / 100)); }                                     # percent of the run

# a stopped chunkd: longer than a slow append is waited for
exercise --ops="$ops" \
    --at "$(at 10)=$(do_ kill leader) && $(do_ start metads)" \
    --at "$(at 25)=$(do_ kill chunkd2)" \
    --at "$(at 40)=$(do_ start chunkd2)" \
    --at "$(at 55)=$(do_ kill all) && $(do_ start all)" \
    --at "$(at 70)=$(do_ stop chunkd1) && sleep 4 && $(do_ cont chunkd1)" \
    --closed-at "$(at 85)=$(do_ unmount "'$mnt'") && $(do_ mount "'$mnt'" -o timeout=60)"
seed=$((seed + 1))
exercise --ops="$ops" --second "$work/mnt2" \
    --at "$(at 30)=$(do_ kill leader) && $(do_ start metads)" \
    --at "$(at 60)=$(do_ kill chunkd3) && $(do_ start chunkd3)"
for how in append blocks; do # while one daemon after the other dies
    exercise --second "$work/mnt2" --concurrent=$how --records="$records" --writers=4 &
    case_pids=$!
    for one in chunkd1 metad chunkd2 chunkd3; do
        devcluster kill $one
        devcluster start $one
    done
    wait "$case_pids" || fail "the exerciser found a difference"
    case_pids=
done
exercise --second "$work/mnt2" --concurrent=listing --records=10

exec 9>"$work/mnt2/open"
echo x >&9
wait_healthy 60
for _ in 1 2 3 4 5 6; do
    head -c 20M /dev/zero >"$work/mnt2/big"
    rm "$work/mnt2/big"
done
space_is_back() { [ "$(du -sm --total "$cluster"/chunkd*/disk1 | tail -1 | cut -f1)" -lt 200 ]; }
wait_for 30 "space of deleted files to be given back" space_is_back
exec 9>&-
check_sanitizers
