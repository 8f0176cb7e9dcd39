/* Any bytes as log commands: a list of {length of two bytes, packed Command}, each unpacked and applied to
 * a small tree. No command may crash the state machine, and its state must survive a checkpoint
 * afterwards. */
#include "base/posix_acl.h"
#include "tests/unit/fsm_rig.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* u::rwx u:10:rw- g::r-x m::rwx o::--- */
static const uint8_t acl[] = {2, 0,  0,   0,   1,   0,   7,  0, 255, 255, 255, 255, 2,   0,  6,
                              0, 10, 0,   0,   0,   4,   0,  5, 0,   255, 255, 255, 255, 16, 0,
                              7, 0,  255, 255, 255, 255, 32, 0, 0,   0,   255, 255, 255, 255};

static void fill(struct fsm_rig *r)
{
    fsm_rig_open(r);
    int64_t d = fsm_rig_create(r, FSM_ROOT_INO, "d", S_IFDIR | 02755); /* inode 2 */
    int64_t f = fsm_rig_create(r, (uint64_t)d, "f", S_IFREG | 06755);  /* inode 3 */
    int code = fsm_rig_commit(r, (uint64_t)f, 0, 4096, 1, 0);
    code |= fsm_rig_commit(r, (uint64_t)f, 16384, 4096, 2, 0);
    int64_t g = fsm_rig_create(r, FSM_ROOT_INO, "g", S_IFREG | 0644); /* inode 4, an orphan */
    code |= fsm_rig_commit(r, (uint64_t)g, 0, 4096, 3, 0);
    code |= fsm_rig_unlink(r, FSM_ROOT_INO, "g", false);
    int64_t a = fsm_rig_create(r, FSM_ROOT_INO, "a", S_IFDIR | 0755); /* inode 5 */
    code |= fsm_rig_setxattr(r, (uint64_t)a, "system.posix_acl_default", acl, sizeof acl, 0);
    int64_t h =
        fsm_rig_create(r, (uint64_t)a, "h", S_IFREG | 0664); /* inode 6, with an access ACL */
    code |= fsm_rig_setxattr(r, (uint64_t)h, "user.x", "value", 5, 0);
    int64_t t = fsm_rig_tmpfile(r, (uint64_t)d, S_IFREG | 0600, 0); /* inode 7 */
    if (code || d != 2 || f != 3 || g != 4 || a != 5 || h != 6 || t != 7)
        abort();
}

/* A file's own ACL and its mode say the same, whatever was done to either. */
static void check_acl(struct fsm_rig *r, uint64_t ino)
{
    const uint8_t *v;
    int n = fsm_rig_getxattr(r, ino, "system.posix_acl_access", &v);
    uint16_t mode = (uint16_t)fsm_rig_attr(r, ino).mode, same = mode;
    if (n >= 0 && (posix_acl_check(v, (size_t)n) <= 0 || posix_acl_to_mode(v, (size_t)n, &same) ||
                   same != mode))
        abort();
}

static bool find_names(void *arg, const struct fsm_dirent *list, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint64_t found = 0;
        if (fsm_lookup(arg, FSM_ROOT_INO, list[i].name, list[i].len, &found) != 0 ||
            found != list[i].ino)
            abort();
    }
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fsm_rig r;
    fill(&r);
    for (size_t at = 0, len; at + 1 < size; at += len) {
        len = (size_t)(data[at] | data[at + 1] << 8);
        at += 2;
        if (len > size - at)
            len = size - at;
        Replfs__Command *cmd = replfs__command__unpack(NULL, len, data + at);
        if (!cmd)
            continue;
        if (cmd->session)
            cmd->session = cmd->session & 1 ? 7 : cmd->session;
        fsm_apply(r.f, ++r.index, cmd, &r.res);
        if (r.res.code < 0)
            abort();
        replfs__command__free_unpacked(cmd, NULL);
    }
    fsm_readdir(r.f, FSM_ROOT_INO, 0, find_names, r.f);
    for (uint64_t ino = 1; ino < 64; ino++)
        check_acl(&r, ino);
    fsm_free(fsm_rig_reload(r.f));
    fsm_rig_close(&r);
    return 0;
}
