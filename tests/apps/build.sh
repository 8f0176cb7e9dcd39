#!/usr/bin/env bash
# A build of this project inside the mount: source, objects and programs live there; then some of its unit tests run from there
# with their scratch files there too (segment logs, LMDB, the metad's log).
. "$(dirname "$0")/lib.sh"
need cmake make gcc
tests='extmap|record|table|checkpoint|store|mlog'
step "copy the source"
mkdir "$APP_DIR/src" "$APP_DIR/tmp"
tar -C "$repo" --exclude=./build --exclude='./build-*' --exclude=./.git --exclude=./.devcluster -cf - . | tar -C "$APP_DIR/src" -xf -
cd "$APP_DIR"
step cmake
cmake -S src -B build -DCMAKE_BUILD_TYPE=RelWithDebInfo >"$APP_LOCAL/cmake.log" 2>&1 || { tail -20 "$APP_LOCAL/cmake.log"; fail "cmake"; }
step "make -j4"
start=$SECONDS
make -C build -j4 >"$APP_LOCAL/make.log" 2>&1 || { grep -E -A3 "error:|Error |cannot" "$APP_LOCAL/make.log" | sed -n 1,60p; fail "make"; }
took=$((SECONDS - start))
step "make again has nothing to do"
make -C build >"$APP_LOCAL/again.log" 2>&1
! grep -E 'Building|Linking' "$APP_LOCAL/again.log" || fail "a second make built something anew"
step "unit tests"
TMPDIR=$APP_DIR/tmp ctest --test-dir build -R "$tests" --output-on-failure >"$APP_LOCAL/ctest.log" 2>&1 || { tail -60 "$APP_LOCAL/ctest.log"; fail "unit tests"; }
n=$(sed -n 's/.*tests passed.* out of \([0-9]*\)/\1/p' "$APP_LOCAL/ctest.log")
[ "${n:-0}" -gt 5 ] || fail "only ${n:-0} unit tests were run"
echo "RESULT: make took $took s, $n unit tests"
