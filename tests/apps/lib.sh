# Shared by the programs of this folder, which tests/apps/run starts with
#   APP_DIR    an empty folder on the file system under test        QUICK   yes: less to do
#   APP_LOCAL  an empty scratch folder on the local file system     repo    the project's source
# A program fails by a non-zero exit; the line "RESULT: ..." is shown behind its summary. What is left in the folders is
# removed by run, processes are ended by the program's own EXIT trap.
# shellcheck shell=bash
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib.sh"
trap 'exit 143' TERM INT

step() { echo "$(date +%T) $*"; }
fail() { echo "FAILED: $*"; exit 1; }
expect() { # WHAT WANT GOT
    [ "$2" = "$3" ] || fail "$1: expected '$2', got '$3'"
}
same() { # WHAT FILE FILE: fails with the first differences
    cmp -s "$2" "$3" && return 0
    diff "$2" "$3" | sed -n 1,20p || true
    fail "$1 differ"
}

# need COMMAND...: fails with the packages to install when one is missing
need() {
    local c missing=''
    for c in "$@"; do
        command -v "$c" >/dev/null && continue
        case $c in
        borg) c=borgbackup ;; getfattr | setfattr) c=attr ;; getfacl | setfacl) c=acl ;; pgbench | initdb) c=postgresql ;;
        esac
        missing="$missing $c"
    done
    [ -z "$missing" ] || fail "missing packages:$missing; scripts/install-deps --apps installs them"
}

# some_files DIR: an ordinary tree of real files to back up (tens of MB, thousands of files; less when QUICK)
some_files() {
    local from='include/linux include/c++ share/doc share/perl' want=''
    [ "$QUICK" = yes ] && from='include/linux include/asm-generic'
    for f in $from; do [ -d "/usr/$f" ] && want="$want $f"; done
    mkdir -p "$1"
    # shellcheck disable=SC2086
    tar -C /usr -cf - $want | tar -C "$1" -xf -
}
# change_files DIR: what a day of work does to such a tree
change_files() {
    local f n=0
    while read -r f; do
        n=$((n + 1))
        case $((n % 4)) in
        0) rm "$f" ;; 1) echo "one more line" >>"$f" ;; 2) mv "$f" "$f.moved" ;; 3) truncate -s -1 "$f" 2>/dev/null || true ;;
        esac
    done < <(find "$1" -type f | sort | sed -n '1~37p')
    mkdir -p "$1/new"
    head -c 3000000 /dev/urandom >"$1/new/random"
    truncate -s 20M "$1/new/sparse"
}

# odd_tree DIR: one of everything that a copying program must carry over
odd_tree() (
    mkdir -p "$1" && cd "$1"
    mkdir -p plain deep/a/b/c/d/e/f empty locked
    local i
    for i in $(seq 200); do echo "content $i" >"plain/file$i"; done
    head -c 5000000 /dev/urandom >plain/big
    : >plain/zero
    ln plain/big plain/big.hard
    ln plain/file1 deep/a/hard1
    ln plain/file1 deep/a/b/hard2
    ln -s ../plain/file1 deep/link
    ln -s /nowhere/at/all deep/dangling
    ln -s "$(printf 'x%.0s' {1..1000})" deep/longlink
    ln deep/link deep/hard-of-symlink
    truncate -s 40M sparse
    printf data | dd of=sparse bs=1 seek=20000000 conv=notrunc status=none
    mkfifo fifo
    mknod char c 1 3
    mknod block b 7 200
    chmod 600 char && chown 1234:5678 block
    mkdir 'odd names' && cd 'odd names'
    : >'with space' && : >$'new\nline' && : >-dash && : >'*' && : >$'\xff\xfe not utf8' && : >'ünïcödé' && : >'back\slash'
    : >"quote'\"" && : >'...' && : >"$(printf 'n%.0s' {1..255})" && : >$'tab\there' && : >$'\x01\x7f'
    cd ..
    chown 1000:100 plain/file2 && chown -h 1001:101 deep/dangling
    chmod 4755 plain/file3 && chmod 2755 plain/file4 && chmod 1777 empty && chmod 000 plain/file5 && chmod 2770 deep
    chmod 000 locked
    touch -d '1969-07-20 20:17:40.123456789' plain/file6
    touch -d '2040-01-01 00:00:00.000000001' plain/file7
    touch -h -d '2001-01-01' deep/link
    setfattr -n user.plain -v value plain/file8
    setfattr -n user.empty plain/file8
    setfattr -n user.binary -v 0x00ff00ff0a plain/file9
    setfattr -n trusted.replfs-test -v root-only plain/file9
    setfattr -n user.dir -v "$(printf 'v%.0s' {1..2000})" deep
    setfacl -m u:1500:rw,g:1501:r,m:rwx plain/file10
    setfacl -m d:u:1502:rwx,d:g::rx,u:1503:x deep/a
    setfacl -m u:0:--- plain/file11
    touch -d '2010-10-10 10:10:10.101010101' plain deep empty 'odd names'
)
# age DIR: all was last changed long ago (a change within the same second is none to rsync or tar)
age() { find "$1" -newermt 2015-01-01 -not -newermt '1 hour' -exec touch -h -d '2015-05-05 05:05:05.050505' {} +; }
# fingerprint DIR: all that lstat, readlink, the contents, ACLs and attributes say of a tree, apart from inode numbers and
# change times; hard links are shown by the first name of their group
fingerprint() (
    cd "$1"
    find . -printf '%i %P\0' | sort -z -k2 | tr '\n\0' '\1\n' | awk '{i = $1; sub(/^[^ ]* /, ""); if (!(i in first)) first[i] = $0
        print "same " $0 " " first[i]}'
    find . -not -type d -printf '%P %y %m %U %G %s %n %l %T@\0' | sort -z | tr '\n\0' '\1\n'
    find . -type d -printf '%P %y %m %U %G %T@\0' | sort -z | tr '\n\0' '\1\n'
    find . \( -type b -o -type c \) -exec stat -c '%n %t %T' {} + | sort
    find . -type f -print0 | sort -z | xargs -0 sha256sum
    find . -print0 | sort -z | xargs -0 getfattr -h -d -m - -e hex --absolute-names
    find . -not -type l -print0 | sort -z | xargs -0 getfacl -n --absolute-names
)
same_tree() { # WHAT DIR DIR
    fingerprint "$2" >"$APP_LOCAL/fingerprint1"
    fingerprint "$3" >"$APP_LOCAL/fingerprint2"
    [ "$(wc -l <"$APP_LOCAL/fingerprint1")" -gt 20 ] || fail "$1: the fingerprint of $2 is too short to be true"
    same "$1: $2 and $3" "$APP_LOCAL/fingerprint1" "$APP_LOCAL/fingerprint2"
}
