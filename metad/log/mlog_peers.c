/* Where the other metads are, in a file beside the log.
 *
 * Addresses are part of the state, and a metad that starts does not know how much of its log was committed: its state
 * is that of its newest checkpoint until a leader tells. When all metads start at once there is no leader, and nobody
 * could be dialled to elect one. So the last known addresses of the members are kept in DIR/metads:
 *
 *   replfs metads
 *   format 1
 *   ID HOST:PORT      one line for each
 *   crc32c XXXXXXXX
 *
 * Written again whenever a member or an address is another one, on the log thread: that is rare. What the state, or a
 * metad's own messages say counts more (mlog_net.c).
 *
 * Failure modes: a file that cannot be read or written is told in the log; addresses then come from the state. */
#include "mlog_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/crc32c.h"
#include "base/error.h"
#include "base/log.h"
#include "base/private.h"

#define LOG_MODULE "mlog"
#define HEAD "replfs metads\nformat 1\n"
#define LINE_MAX_LEN (sizeof(((struct mlog_peer *)0)->told) + 32)

/* Whether it is whole: the part before its checksum; NULL: damaged, or of another version. */
static char *peers_open(char *text)
{
    char *end = strstr(text, "\ncrc32c ");
    unsigned crc;

    if (strncmp(text, HEAD, strlen(HEAD)) != 0 || !end || sscanf(end + 1, "crc32c %x", &crc) != 1 ||
        crc != crc32c(0, text, (size_t)(end + 1 - text)))
        return NULL;
    end[1] = 0;
    return text + strlen(HEAD);
}

void mlog_peers_load(struct mlog *m)
{
    char path[MLOG_PATH];
    CLEANUP(free_ptr) uint8_t *data = NULL;
    struct mlog_in said = {0};
    size_t len;

    if (!m->net || mlog_dir_path(path, m->dir, "metads") != 0)
        return;
    int rc = mlog_dir_read(path, &data, &len);
    char *line = rc == 0 && strlen((char *)data) == len ? peers_open((char *)data) : NULL;
    if (!line) {
        if (rc != -ENOENT)
            log_warn("%s: addresses of other metads cannot be read: %s", path,
                     rc != 0 ? err_str(rc) : "damaged, or of a newer version");
        return;
    }
    for (; line && sscanf(line, "%" SCNu64 " %255s", &said.from, said.addr) == 2;
         line = (line = strchr(line, '\n')) ? line + 1 : NULL)
        if (said.from != m->id)
            mlog_net_told(m, &said);
}

bool mlog_elsewhere(const char *dir, uint64_t *id, char addr[256])
{
    char path[MLOG_PATH], uuid[37];
    CLEANUP(free_ptr) uint8_t *data = NULL;
    uint64_t other;
    size_t len;

    if (mlog_dir_read_id(dir, uuid, id) != 0 || mlog_dir_path(path, dir, "metads") != 0 ||
        mlog_dir_read(path, &data, &len) != 0 || strlen((char *)data) != len)
        return false;
    char *line = peers_open((char *)data);
    return line && sscanf(line, "%" SCNu64 " %255s", &other, addr) == 2;
}

/* The members' addresses as far as they are known; malloc'ed. */
static char *peers_text(struct mlog *m)
{
    const struct raft_configuration *c = &m->raft.configuration;
    size_t size = strlen(HEAD) + c->n * LINE_MAX_LEN + 32, n;
    char *text = malloc(size), addr[256];

    if (!text)
        abort();
    n = (size_t)snprintf(text, size, HEAD);
    for (unsigned i = 0; i < c->n; i++)
        if (c->servers[i].id != m->id && mlog_net_addr(m, c->servers[i].id, addr))
            n += (size_t)snprintf(text + n, size - n, "%" PRIu64 " %s\n",
                                  (uint64_t)c->servers[i].id, addr);
    snprintf(text + n, size - n, "crc32c %08x\n", crc32c(0, text, n));
    return text;
}

void mlog_peers_save(struct mlog *m)
{
    if (!m->net || m->raft.configuration.n <= 1)
        return;
    CLEANUP(free_ptr) char *text = peers_text(m);
    if (m->net->saved && strcmp(m->net->saved, text) == 0)
        return;
    int rc = private_replace(m->dir, "metads", text, strlen(text));
    if (rc != 0) {
        log_warn("%s/metads cannot be written: %s", m->dir, err_str(rc));
        return; /* tried again */
    }
    free(m->net->saved);
    m->net->saved = text;
    text = NULL;
}
