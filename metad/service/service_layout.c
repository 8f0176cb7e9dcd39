/* Where the bytes are and where new ones go: layouts, opens, grants.
 *
 * A layout names extents, and for each chunk among them the chunkds worth asking and a capability
 * to read it. Copies known to be bad, short or about to go are left out unless there is nothing
 * else (the client checks every byte anyway). A grant is a fresh chunk id with a placement and the
 * right to append; it is not logged: a chunk exists from the first commit that names it. Runs on
 * rpc threads; the fsm's read lock is taken here. */
#include "service_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "base/hash.h"

#define LOG_MODULE "service"
#define EXTENTS_MAX 4096u
#define EXTENTS_AT_OPEN 512u
#define GRANTS_MAX 64u
#define LAYOUTS_MAX 64u

/* ---- chunk locations ---- */

static void put_cap(struct service *s, struct reply_arena *arena, Replfs__ChunkLoc *loc,
                    uint64_t session, uint64_t writer, uint32_t rights)
{
    loc->cap.data = reply_arena_alloc(arena, CAP_LEN);
    loc->cap.len = CAP_LEN;
    nodes_cap(s->cfg.nodes, loc->chunk, session, writer, rights, loc->cap.data);
}

/* Good copies first, then those being looked at; the rest only when there is nothing better. */
static int usefulness(const struct fsm_loc *l)
{
    switch (l->state) {
    case COPY_OK:
        return 0;
    case COPY_CHECKING:
        return 1;
    default:
        return 2;
    }
}

static Replfs__ChunkLoc *chunk_loc(struct service *s, struct reply_arena *arena, uint64_t chunk,
                                   uint64_t session)
{
    Replfs__ChunkLoc *out = reply_arena_alloc(arena, sizeof(*out));
    struct fsm_chunk *c = fsm_chunk_find(s->cfg.fsm, chunk);

    replfs__chunk_loc__init(out);
    out->chunk = chunk;
    put_cap(s, arena, out, session, c ? c->session : session, CAP_READ);
    if (!c || c->nloc == 0) {
        out->len = c ? c->len : 0;
        out->lost = nodes_all_reported(s->cfg.nodes);
        return out;
    }
    const struct fsm_loc *locs = fsm_chunk_locs(c);
    out->len = c->len;
    out->chunkds = reply_arena_alloc(arena, c->nloc * sizeof(*out->chunkds));
    for (int rank = 0; rank <= 2; rank++) {
        if (rank == 2 && out->n_chunkds > 0 && !nodes_damaged(s->cfg.nodes, c))
            break;
        for (unsigned i = 0; i < c->nloc; i++)
            if (usefulness(&locs[i]) == rank)
                out->chunkds[out->n_chunkds++] = locs[i].chunkd;
    }
    return out;
}

/* ---- layouts ---- */

/* Remembers which chunks a reply already names. */
struct seen {
    uint64_t *slots;
    size_t mask;
};

static bool first_time(struct seen *seen, uint64_t chunk)
{
    size_t i = hash_u64(chunk) & seen->mask;

    while (seen->slots[i] != 0 && seen->slots[i] != chunk)
        i = (i + 1) & seen->mask;
    if (seen->slots[i] == chunk)
        return false;
    seen->slots[i] = chunk;
    return true;
}

static size_t table_size(size_t n)
{
    size_t size = 16;

    while (size < 2 * n)
        size *= 2;
    return size;
}

/* How many extents the reply could hold: no more than the file has. */
static size_t room_for(const struct extmap *map, uint32_t asked)
{
    size_t n = extmap_count(map), max = asked == 0 || asked > EXTENTS_MAX ? EXTENTS_MAX : asked;

    return n < max ? n : max;
}

static void put_extent(struct reply_arena *arena, Replfs__LayoutReply *rep, const struct ext *e)
{
    Replfs__Extent *x = reply_arena_alloc(arena, sizeof(*x));

    replfs__extent__init(x);
    x->file_off = e->file_off;
    x->len = e->len;
    x->chunk = e->chunk;
    x->chunk_off = e->chunk_off;
    rep->extents[rep->n_extents++] = x;
}

/* Fills rep for [off, off + len) of ino; len 0: to the end. Read lock held. 0 or -errno. */
static int build_layout(struct service *s, struct reply_arena *arena, uint64_t session,
                        const Replfs__LayoutReq *r, Replfs__LayoutReply *rep)
{
    Replfs__Attr *attr = reply_arena_alloc(arena, sizeof(*attr));
    const struct extmap *map;
    struct ext e;

    replfs__attr__init(attr);
    int rc = fsm_getattr(s->cfg.fsm, r->ino, attr);
    if (rc != 0)
        return rc;
    rep->attr = attr;
    rep->nodes_epoch = nodes_epoch(s->cfg.nodes);
    rep->covered_to = UINT64_MAX;
    rc = fsm_extents(s->cfg.fsm, r->ino, &map);
    if (rc != 0)
        return rc;
    size_t max = room_for(map, r->max_extents);
    uint64_t end = r->len == 0 || r->len > UINT64_MAX - r->off ? UINT64_MAX : r->off + r->len;
    struct seen seen = {.mask = table_size(max) - 1};
    seen.slots = reply_arena_alloc(arena, (seen.mask + 1) * sizeof(*seen.slots));
    rep->extents = reply_arena_alloc(arena, max * sizeof(*rep->extents));
    rep->chunks = reply_arena_alloc(arena, max * sizeof(*rep->chunks));
    for (uint64_t at = r->off; extmap_find(map, at, &e); at = e.file_off + e.len) {
        if (e.file_off >= end || rep->n_extents == max) {
            rep->covered_to = e.file_off;
            break;
        }
        put_extent(arena, rep, &e);
        if (e.chunk && first_time(&seen, e.chunk))
            rep->chunks[rep->n_chunks++] = chunk_loc(s, arena, e.chunk, session);
    }
    return 0;
}

void service_layout(struct service *s, struct rpc_req *req)
{
    const Replfs__LayoutReq *r = req->env->layout_req;
    Replfs__LayoutReply rep = REPLFS__LAYOUT_REPLY__INIT;
    CLEANUP(reply_arena_free) struct reply_arena arena = {0};

    if (!service_session_ok(s, req, r->session, false))
        return;
    fsm_rdlock(s->cfg.fsm);
    enum lease_mode on = leases_grant(s->leases, r->session, r->ino, LEASE_NONE, NULL);
    int rc = on == LEASE_ELSEWHERE ? 0 : build_layout(s, &arena, r->session, r, &rep);
    fsm_unlock(s->cfg.fsm);
    if (on == LEASE_ELSEWHERE) {
        service_again(s, req, r->session, r->ino, service_layout);
        return;
    }
    if (rc != 0) {
        rpc_fail(req, rc, "inode %llu", (unsigned long long)r->ino);
        return;
    }
    RPC_ENVELOPE(env, LAYOUT_REPLY, layout_reply, &rep);
    rpc_reply(req, &env, NULL);
}

/* What cannot be told is left empty: a client that reads ahead can do without. */
void service_layouts(struct service *s, struct rpc_req *req)
{
    const Replfs__LayoutsReq *r = req->env->layouts_req;
    Replfs__LayoutsReply rep = REPLFS__LAYOUTS_REPLY__INIT;
    CLEANUP(reply_arena_free) struct reply_arena arena = {0};

    if (!service_session_ok(s, req, r->session, false))
        return;
    if (r->n_ino > LAYOUTS_MAX) {
        rpc_fail(req, EINVAL, "layouts of %zu files: %u at most", r->n_ino, LAYOUTS_MAX);
        return;
    }
    rep.files = reply_arena_alloc(&arena, LAYOUTS_MAX * sizeof(*rep.files));
    fsm_rdlock(s->cfg.fsm);
    for (size_t i = 0; i < r->n_ino; i++) {
        Replfs__LayoutReq want = REPLFS__LAYOUT_REQ__INIT;
        Replfs__LayoutReply *file = rep.files[rep.n_files++] =
            reply_arena_alloc(&arena, sizeof(*file));
        want.ino = r->ino[i];
        want.max_extents = r->max_extents;
        replfs__layout_reply__init(file);
        if (leases_grant(s->leases, r->session, want.ino, LEASE_NONE, NULL) == LEASE_ELSEWHERE ||
            build_layout(s, &arena, r->session, &want, file) != 0)
            replfs__layout_reply__init(file);
    }
    fsm_unlock(s->cfg.fsm);
    RPC_ENVELOPE(env, LAYOUTS_REPLY, layouts_reply, &rep);
    rpc_reply(req, &env, NULL);
}

/* ---- open, close ---- */

/* What may be given to a session that opens ino for writing and asks for it alone, if nobody else has a lease:
 * while others have it open, each would only take it from the other. fsm read lock held. */
static enum lease_mode open_wish(struct service *s, const Replfs__OpenReq *r)
{
    if (!r->write || !r->exclusive)
        return LEASE_NONE;
    if (!service_is_file(s, r->ino) || sessions_elsewhere(s->cfg.sessions, r->session, r->ino))
        return LEASE_SHARED;
    return LEASE_EXCLUSIVE;
}

/* The inode has been marked as open. false: another session has it to itself. */
static bool open_fill(struct service *s, struct reply_arena *arena, const Replfs__OpenReq *r,
                      const struct lease_wait *in, Replfs__OpenReply *rep, int *code)
{
    Replfs__LayoutReq want = REPLFS__LAYOUT_REQ__INIT;
    Replfs__LayoutReply *layout = reply_arena_alloc(arena, sizeof(*layout));

    replfs__layout_reply__init(layout);
    want.ino = r->ino;
    want.max_extents = EXTENTS_AT_OPEN;
    fsm_rdlock(s->cfg.fsm);
    enum lease_mode on = leases_grant(s->leases, r->session, r->ino, open_wish(s, r), in);
    if (on != LEASE_ELSEWHERE)
        *code = build_layout(s, arena, r->session, &want, layout);
    fsm_unlock(s->cfg.fsm);
    if (on == LEASE_ELSEWHERE)
        return false;
    rep->lease = (uint32_t)on;
    rep->attr = layout->attr;
    if (*code == 0)
        rep->layout = layout;
    else if (layout->attr)
        *code = 0; /* a directory or the like: attributes only */
    return true;
}

static void open_now(struct service *s, struct rpc_req *req, const struct lease_wait *in)
{
    const Replfs__OpenReq *r = req->env->open_req;
    Replfs__OpenReply rep = REPLFS__OPEN_REPLY__INIT;
    CLEANUP(reply_arena_free) struct reply_arena arena = {0};

    /* First the mark, then the look: an inode that is still there now stays. And of two sessions
     * that open it at once, at least one sees the other. */
    int rc = sessions_file_add(s->cfg.sessions, r->session, r->ino);
    if (rc == 0) {
        if (!open_fill(s, &arena, r, in, &rep, &rc)) {
            service_again(s, req, r->session, r->ino, service_open);
            return;
        }
        if (rc != 0)
            sessions_file_del(s->cfg.sessions, r->session, r->ino);
    }
    if (rc != 0) {
        rpc_fail(req, rc, "inode %llu", (unsigned long long)r->ino);
        return;
    }
    RPC_ENVELOPE(env, OPEN_REPLY, open_reply, &rep);
    rpc_reply(req, &env, NULL);
}

void service_open(struct service *s, struct rpc_req *req)
{
    const Replfs__OpenReq *r = req->env->open_req;

    if (!service_session_ok(s, req, r->session, false))
        return;
    if (r->write && r->exclusive && !sessions_elsewhere(s->cfg.sessions, r->session, r->ino))
        service_alone(s, req, r->session, r->ino, open_now);
    else
        open_now(s, req, NULL);
}

void service_close(struct service *s, struct rpc_req *req)
{
    const Replfs__CloseReq *r = req->env->close_req;
    Replfs__CloseReply rep = REPLFS__CLOSE_REPLY__INIT;

    if (!service_session_ok(s, req, r->session, false))
        return;
    for (size_t i = 0; i < r->n_ino; i++)
        sessions_file_del(s->cfg.sessions, r->session, r->ino[i]);
    RPC_ENVELOPE(env, CLOSE_REPLY, close_reply, &rep);
    rpc_reply(req, &env, NULL);
}

/* ---- grants ---- */

struct missing {
    char **names;
    size_t n;
};

static void missing_free(struct missing *m)
{
    for (size_t i = 0; i < m->n; i++)
        free(m->names[i]);
    free(m->names);
}

static void too_few(struct service *s, struct rpc_req *req, unsigned found, unsigned need)
{
    CLEANUP(missing_free) struct missing m = {0};
    char text[512] = "";
    size_t len = 0;

    if (nodes_full(s->cfg.nodes, need)) {
        rpc_fail(req, ENOSPC,
                 "%u of at least %u chunkds have room: add disks or chunkds, or delete", found,
                 need);
        return;
    }
    m.n = nodes_missing(s->cfg.nodes, &m.names);
    for (size_t i = 0; i < m.n && len < sizeof(text) - 1; i++) {
        int k = snprintf(text + len, sizeof(text) - len, "%s%s", i > 0 ? ", " : "", m.names[i]);
        if (k < 0)
            break;
        len += (size_t)k;
    }
    rpc_fail(req, ERR_FEW_COPIES, "%u of at least %u chunkds can take new data; %s%s", found, need,
             m.n > 0 ? "missing: "
                     : "none is known to be missing: start more chunkds or free space",
             text);
}

static Replfs__ChunkLoc *grant_one(struct service *s, struct reply_arena *arena,
                                   const Replfs__GrantReq *r, unsigned goal, unsigned need,
                                   unsigned *found)
{
    uint32_t ids[FSM_GOAL_MAX];

    *found = nodes_place(s->cfg.nodes, goal, r->exclude, r->n_exclude, ids);
    if (*found < need)
        return NULL;
    Replfs__ChunkLoc *loc = reply_arena_alloc(arena, sizeof(*loc));
    replfs__chunk_loc__init(loc);
    loc->chunk = ids_chunk(s->cfg.ids);
    if (loc->chunk == 0)
        return NULL;
    loc->chunkds = reply_arena_copy(arena, ids, *found * sizeof(ids[0]));
    loc->n_chunkds = *found;
    put_cap(s, arena, loc, r->session, r->session, CAP_READ | CAP_APPEND);
    nodes_granted(s->cfg.nodes, r->session, loc->chunk, ids, *found);
    return loc;
}

void service_grant(struct service *s, struct rpc_req *req)
{
    const Replfs__GrantReq *r = req->env->grant_req;
    Replfs__GrantReply rep = REPLFS__GRANT_REPLY__INIT;
    CLEANUP(reply_arena_free) struct reply_arena arena = {0};
    CLEANUP(missing_free) struct missing m = {0};

    rep.cap_life_s = CAP_LIFE_S;
    if (!service_session_ok(s, req, r->session, false))
        return;
    if (r->goal < 1 || r->goal > FSM_GOAL_MAX || r->count < 1 || r->n_exclude > 1024) {
        rpc_fail(req, EINVAL, "goal %u, count %u: 1 to %d copies, at least one chunk", r->goal,
                 r->count, FSM_GOAL_MAX);
        return;
    }
    unsigned count = r->count < GRANTS_MAX ? r->count : GRANTS_MAX, found = 0, least = FSM_GOAL_MAX;
    unsigned floor = service_min_copies(s), need = floor < r->goal ? floor : r->goal;
    rep.grants = reply_arena_alloc(&arena, count * sizeof(*rep.grants));
    while (rep.n_grants < count) {
        Replfs__ChunkLoc *loc = grant_one(s, &arena, r, r->goal, need, &found);
        if (!loc)
            break;
        least = found < least ? found : least;
        rep.grants[rep.n_grants++] = loc;
    }
    if (rep.n_grants == 0) {
        if (found < need)
            too_few(s, req, found, need);
        else
            rpc_fail(req, ERR_BUSY, "chunk ids are being reserved");
        return;
    }
    if (least < r->goal)
        m.n = nodes_missing(s->cfg.nodes, &m.names);
    rep.missing = m.names;
    rep.n_missing = m.n;
    rep.nodes_epoch = nodes_epoch(s->cfg.nodes);
    fsm_rdlock(s->cfg.fsm);
    rep.position = fsm_applied(s->cfg.fsm);
    fsm_unlock(s->cfg.fsm);
    RPC_ENVELOPE(env, GRANT_REPLY, grant_reply, &rep);
    rpc_reply(req, &env, NULL);
}
