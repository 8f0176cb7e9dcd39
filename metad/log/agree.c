/* Takes into the log what used to be a metad's own: flags, the file cap.key, the file `replaced`.
 *
 * Each is taken when the state has none yet, so once in the life of a cluster; a file is removed after what it said is
 * in the log, and ignored, and removed, when it is still there later (a crash in between, a copy put back). The key is
 * a secret: log and checkpoints are readable by the owner of the directory alone, as the file was.
 *
 * cap.key: u64 key id, 32 bytes of key. replaced: text, a line for each chunkd whose place was taken, with the id of
 * the one that took it. One that cannot be read is an error for the key, since grants would end, and passed over for
 * the other, which saves a wait.
 *
 * Below feature level 1 nothing can be logged: settings stay flags, keys last until the next start. Only tests start
 * so (feature_begin).
 *
 * Failure modes: codes of files and of the log. Any thread but the log's; no state. */
#include "agree.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/byteorder.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"

#define LOG_MODULE "metad"
#define KEY_FILE_BYTES (8u + FSM_CAP_KEY_LEN)
#define REPLACED_MAX 4096u /* lines of the file */

static int agree_propose(struct mlog *mlog, Replfs__MetaOp *op)
{
    Replfs__Command cmd = REPLFS__COMMAND__INIT;
    struct fsm_result res = {0};

    cmd.op = op;
    int rc = mlog_propose_wait(mlog, &cmd, &res);
    return rc ? rc : -res.code;
}

static int agree_path(char out[PATH_MAX], const char *dir, const char *name)
{
    int n = snprintf(out, PATH_MAX, "%s/%s", dir, name);

    return n > 0 && n < PATH_MAX ? 0 : -ENAMETOOLONG;
}

static void agree_remove(const char *dir, const char *name)
{
    char path[PATH_MAX];

    if (agree_path(path, dir, name) == 0 && unlink(path) == 0)
        log_info("%s: what it said is in the metadata log now; removed", path);
}

/* ---- settings ---- */

static int begin_settings(struct mlog *mlog, struct fsm *fsm)
{
    Replfs__ConfigOp config = REPLFS__CONFIG_OP__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    uint32_t key[SETTINGS_COUNT];
    uint64_t value[SETTINGS_COUNT];
    size_t n = 0;

    fsm_rdlock(fsm);
    for (uint32_t k = 1; k <= SETTINGS_COUNT; k++) {
        if (fsm_setting_told(fsm, (enum setting_key)k))
            continue;
        key[n] = k;
        value[n++] = fsm_setting(fsm, (enum setting_key)k);
    }
    const char *wrong = fsm_settings_wrong(fsm, key, value, n);
    fsm_unlock(fsm);
    if (n == 0)
        return 0;
    if (wrong) {
        log_warn("the times of this metad's options contradict each other (%s): they hold while it "
                 "leads, until "
                 "'replfsctl config set' says what shall hold in the cluster",
                 wrong);
        return 0;
    }
    config.key = key;
    config.value = value;
    config.n_key = config.n_value = n;
    op.op_case = REPLFS__META_OP__OP_CONFIG;
    op.config = &config;
    return agree_propose(mlog, &op);
}

/* ---- the key of capabilities ---- */

/* -ENOENT: there is none. */
static int key_read(const char *path, uint8_t buf[KEY_FILE_BYTES])
{
    CLEANUP(close_fdp) int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    ssize_t got = read(fd, buf, KEY_FILE_BYTES);
    return got == (ssize_t)KEY_FILE_BYTES ? 0 : got < 0 ? -errno : -ERR_CORRUPT;
}

int agree_cap_key(struct mlog *mlog, struct fsm *fsm, const char *dir)
{
    Replfs__CapKeyOp cap = REPLFS__CAP_KEY_OP__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    uint8_t buf[KEY_FILE_BYTES], had[FSM_CAP_KEY_LEN];
    char path[PATH_MAX] = "";

    fsm_rdlock(fsm);
    bool there = fsm_cap_key(fsm, &cap.id, had);
    fsm_unlock(fsm);
    if (there)
        return 0;
    int rc = dir ? agree_path(path, dir, "cap.key") : -ENOENT;
    if (rc == 0)
        rc = key_read(path, buf);
    if (rc == -ENOENT)
        rc = RAND_bytes(buf, sizeof(buf)) == 1 ? 0 : -EIO;
    if (rc != 0) {
        log_error("%s: %s; fix the file's rights or the disk, or remove the file: a new key is "
                  "made then (clients "
                  "refresh their capabilities by themselves)",
                  path, err_str(rc));
        return rc;
    }
    cap.id = le_get64(buf);
    cap.key = (ProtobufCBinaryData){.len = FSM_CAP_KEY_LEN, .data = buf + 8};
    op.op_case = REPLFS__META_OP__OP_CAP_KEY;
    op.cap_key = &cap;
    return agree_propose(mlog, &op);
}

/* ---- chunkds whose place was taken ---- */

static int begin_replaced(struct mlog *mlog, const char *dir)
{
    char path[PATH_MAX];
    Replfs__ReplacedOp replaced = REPLFS__REPLACED_OP__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;

    if (agree_path(path, dir, "replaced") != 0)
        return 0;
    FILE *f = fopen(path, "re");
    if (!f)
        return 0;
    int rc = 0;
    op.op_case = REPLFS__META_OP__OP_REPLACED;
    op.replaced = &replaced;
    for (unsigned k = 0;
         k < REPLACED_MAX && fscanf(f, "%u %u", &replaced.chunkd, &replaced.by) == 2; k++) {
        rc = agree_propose(mlog, &op);
        if (rc != 0 && rc != -ENOENT && rc != -EINVAL) /* removed since: no matter */
            break;
        rc = 0;
    }
    fclose(f);
    return rc;
}

int agree_begin(struct mlog *mlog, struct fsm *fsm, const char *dir)
{
    if (fsm_feature_level(fsm) < 1)
        return 0;
    int rc = begin_settings(mlog, fsm);
    if (rc == 0)
        rc = agree_cap_key(mlog, fsm, dir);
    if (rc == 0 && dir)
        rc = begin_replaced(mlog, dir);
    if (rc != 0) {
        log_error("what all metads must agree on did not get into the metadata log: %s",
                  err_str(rc));
        return rc;
    }
    if (dir) {
        agree_remove(dir, "cap.key");
        agree_remove(dir, "replaced");
    }
    return 0;
}
