/* Any bytes as a checkpoint, as they are and with the checksums put right. What loads must be a
 * state that works: it takes commands, and its own checkpoint gives it back. */
#include "tests/fuzz/ckpt_fix.h"
#include "tests/unit/fsm_rig.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_load(const uint8_t *p, size_t n)
{
    struct fsm_rig r = {.next_ino = 1ull << 30};
    char why[256];
    int fd = memfd_create("ckpt", MFD_CLOEXEC);
    if (fd < 0 || write(fd, p, n) != (ssize_t)n || lseek(fd, 0, SEEK_SET) != 0 || fsm_new(&r.f))
        abort();
    int code = fsm_load(r.f, fd, why);
    close(fd);
    if (code == 0) {
        uint64_t ino = 0;
        fsm_rig_create(&r, FSM_ROOT_INO, "new", S_IFREG | 0644);
        fsm_rig_rename(&r, FSM_ROOT_INO, "a", FSM_ROOT_INO, "z", 0);
        if (fsm_orphan_next(r.f, 0, &ino))
            fsm_rig_reap(&r, ino);
        fsm_free(fsm_rig_reload(r.f));
    } else if (!why[0]) {
        abort(); /* refused without a reason */
    }
    fsm_free(r.f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 1u << 20)
        return 0;
    try_load(data, size);
    uint8_t *copy = malloc(size + 1);
    if (!copy)
        abort();
    memcpy(copy, data, size);
    ckpt_fix(copy, size);
    try_load(copy, size);
    free(copy);
    return 0;
}
