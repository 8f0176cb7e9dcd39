#!/usr/bin/env bash
# TLS between all: works with the right certificates, refuses a stranger's, a wrong role's and plaintext; plaintext
# beyond loopback needs --insecure.
. "$(dirname "$0")/caselib.sh"
devcluster up --chunkd 2 --tls
devcluster mount "$mnt"
random_file "$work/f" 8
cp "$work/f" "$mnt/f"
devcluster unmount "$mnt"
devcluster mount "$mnt"
cmp "$work/f" "$mnt/f"
meta=$(devcluster addr)
mkdir "$work/other"
refused() { # WHAT OPTIONS
    if timeout 60 "$bin/mount.replfs" "$meta" "$work/other" -o "timeout=3,$2" >"$work/out" 2>&1; then
        umount "$work/other"
        fail "$1 was let in"
    fi
    [ -s "$work/out" ] || fail "$1: refused without a word"
    echo "$1 refused: $(tail -1 "$work/out")"
}
refused "a client without certificate" "log_file=$work/none.log"
"$cases_repo/scripts/mkpki" "$work/pki2" ca >/dev/null
"$cases_repo/scripts/mkpki" "$work/pki2" client stranger >/dev/null
refused "a stranger's certificate" "tls_cert=$work/pki2/stranger.pem,tls_key=$work/pki2/stranger.key,tls_ca=$cluster/pki/ca.pem"
refused "a chunkd's certificate on a client" "tls_cert=$cluster/pki/chunkd1.pem,tls_key=$cluster/pki/chunkd1.key,tls_ca=$cluster/pki/ca.pem"
"$bin/replfs-metad" --init --data="$work/m2" >/dev/null 2>&1
if timeout 20 "$bin/replfs-metad" --data="$work/m2" --listen=0.0.0.0:0 >"$work/out" 2>&1; then fail "plaintext beyond loopback accepted"; fi
grep -q insecure "$work/out" || fail "the refusal does not name --insecure: $(cat "$work/out")"
check_sanitizers
