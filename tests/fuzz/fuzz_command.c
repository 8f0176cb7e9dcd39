/* Any bytes as log commands: a list of {length byte, packed Command}, each unpacked and applied to
 * a small tree. No command may crash the state machine, and its state must survive a checkpoint
 * afterwards. */
#include "tests/unit/fsm_rig.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fill(struct rig *r)
{
    rig_open(r);
    int64_t d = rig_create(r, FSM_ROOT_INO, "d", S_IFDIR | 02755); /* inode 2 */
    int64_t f = rig_create(r, (uint64_t)d, "f", S_IFREG | 06755);  /* inode 3 */
    int code = rig_commit(r, (uint64_t)f, 0, 4096, 1, 0);
    code |= rig_commit(r, (uint64_t)f, 16384, 4096, 2, 0);
    int64_t g = rig_create(r, FSM_ROOT_INO, "g", S_IFREG | 0644); /* inode 4, an orphan */
    code |= rig_commit(r, (uint64_t)g, 0, 4096, 3, 0);
    code |= rig_unlink(r, FSM_ROOT_INO, "g", false);
    if (code || d != 2 || f != 3 || g != 4)
        abort();
}

static bool keep_name(void *arg, const uint8_t *name, size_t len, uint64_t ino, uint32_t mode,
                      uint64_t cookie)
{
    uint64_t found = 0;
    (void)mode;
    (void)cookie;
    if (fsm_lookup(arg, FSM_ROOT_INO, name, len, &found) != 0 || found != ino)
        abort();
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct rig r;
    fill(&r);
    for (size_t at = 0, len; at < size; at += len) {
        len = data[at++];
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
    fsm_readdir(r.f, FSM_ROOT_INO, 0, keep_name, r.f);
    fsm_free(rig_reload(r.f));
    rig_close(&r);
    return 0;
}
