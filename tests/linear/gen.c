/* Made-up histories. Clients are played by turns that a generator of random numbers deals out: a turn asks
 * an operation, lets it happen, or hands out its answer, so that operations of several clients overlap in
 * every way while one client has one at a time. An operation without answer happens in one of its turns,
 * at some later time, or never. Each happens on a directory of this file's own, written without the model
 * that the checker uses: two mistakes would have to be the same one.
 *
 * The fault, if one is wanted, is made once, in the second half, and ends the history: then come the answers
 * still due and, with last_look, every client asks for everything alone. Whether the fault can be seen
 * depends on what overlaps it. */
#include "gen.h"

#include <errno.h>
#include <string.h>

#define FILES 1024u
#define PAST 16u   /* states remembered */
#define HANDLES 3u /* files that a client knows at a time */
#define INO_BASE 1000u

struct world {
    uint64_t changed;             /* how often; a state's age */
    uint16_t name[HISTORY_NAMES]; /* 1 + file */
    uint32_t value[FILES];
};
enum phase { IDLE, ASKED, HAPPENED };
struct client {
    enum phase phase;
    bool never, later; /* an operation without answer: does not happen, happens some time */
    struct op op;
    uint64_t handle[HANDLES];
    unsigned handles;
};
struct gen {
    const struct gen_options *o;
    struct history *h;
    uint64_t rnd, now;
    struct world w, past[PAST], right;  /* right: as it should be, while holding */
    uint64_t asked_at[HISTORY_CLIENTS]; /* w.changed at the question */
    unsigned files, values;
    struct client c[HISTORY_CLIENTS];
    struct op limbo[64]; /* without answer, to happen some time */
    unsigned nlimbo;
    bool told[FILES]; /* to some client */
    bool done;        /* the fault was made */
    struct op held;   /* to happen again, or late */
    bool holding;
    uint64_t held_at; /* now, when it was answered; 0: not yet */
    unsigned held_client;
};

static uint64_t gen_below(struct gen *g, uint64_t n)
{
    g->rnd += 0x9e3779b97f4a7c15ull;
    uint64_t v = g->rnd;
    v = (v ^ (v >> 30)) * 0xbf58476d1ce4e5b9ull;
    v = (v ^ (v >> 27)) * 0x94d049bb133111ebull;
    return (v ^ (v >> 31)) % n;
}

/* ---- the directory ---- */

static uint32_t count_links(const struct world *w, unsigned file)
{
    uint32_t n = 0;
    for (unsigned i = 0; i < HISTORY_NAMES; i++)
        n += w->name[i] == file + 1;
    return n;
}

static void happen_rename(struct world *w, struct op *op)
{
    uint16_t a = w->name[op->name[0]], b = w->name[op->name[1]];
    if (!a || (op->kind == OP_SWAP && !b)) {
        op->error = ENOENT;
    } else if (op->kind == OP_MOVE && b) {
        op->error = EEXIST;
    } else if (op->kind == OP_SWAP) {
        w->name[op->name[0]] = b;
        w->name[op->name[1]] = a;
    } else if (a != b) {
        w->name[op->name[0]] = 0;
        w->name[op->name[1]] = a;
    }
}

static void happen_name(struct gen *g, struct world *w, struct op *op)
{
    uint16_t *n = &w->name[op->name[0]];
    if (op->kind == OP_CREATE) {
        if (*n || g->files == FILES) {
            op->error = EEXIST;
            return;
        }
        *n = (uint16_t)++g->files;
        op->ino = INO_BASE + g->files - 1;
    } else if (!*n) {
        op->error = ENOENT;
    } else if (op->kind == OP_UNLINK) {
        *n = 0;
    } else {
        op->ino = INO_BASE + *n - 1;
    }
}

static void happen_file(struct world *w, struct op *op)
{
    unsigned file = (unsigned)(op->ino - INO_BASE);
    if (op->kind == OP_LINK) {
        uint16_t *n = &w->name[op->name[0]];
        op->error = *n ? EEXIST : !count_links(w, file) ? ENOENT : 0;
        if (!op->error)
            *n = (uint16_t)(file + 1);
    } else if (op->kind == OP_READ) {
        op->value = w->value[file];
    } else if (op->kind == OP_FSTAT) {
        op->nlink = count_links(w, file);
        op->size = w->value[file] ? HISTORY_SIZE : 0;
    } else {
        w->value[file] = op->value;
    }
}

static void happen(struct gen *g, struct world *w, struct op *op)
{
    switch (op->kind) {
    case OP_CREATE:
    case OP_OPEN:
    case OP_STAT:
    case OP_UNLINK:
        happen_name(g, w, op);
        break;
    case OP_RENAME:
    case OP_MOVE:
    case OP_SWAP:
        happen_rename(w, op);
        break;
    case OP_LINK:
    case OP_WRITE:
    case OP_SYNCED:
    case OP_EMPTY:
    case OP_READ:
    case OP_FSTAT:
        happen_file(w, op);
        break;
    case OP_KINDS:
        break;
    }
}

static bool world_differs(const struct world *a, const struct world *b)
{
    return memcmp(a->name, b->name, sizeof a->name) != 0 ||
           memcmp(a->value, b->value, sizeof a->value) != 0;
}

static bool same_answer(const struct op *a, const struct op *b)
{
    return a->error == b->error && a->ino == b->ino && a->value == b->value &&
           a->nlink == b->nlink && a->size == b->size;
}

/* It happens; every state that was is remembered for a while. */
static void happen_now(struct gen *g, struct op *op)
{
    struct world before = g->w;
    struct op twin = *op;
    unsigned files = g->files;
    if (g->holding)
        happen(g, &g->right, &twin);
    g->files = files; /* the file that it makes is the same */
    happen(g, &g->w, op);
    if (world_differs(&before, &g->w)) {
        g->past[before.changed % PAST] = before;
        g->w.changed++;
    }
}

/* ---- faults ---- */

static bool fault_due(const struct gen *g)
{
    return g->o->fault != GEN_FINE && !g->done && !g->holding && g->h->n * 2 > g->o->ops;
}

/* The answer of a state that was over before the question: true when it differs from all that were since. */
static bool fault_stale(struct gen *g, unsigned client, struct op *op)
{
    uint64_t asked = g->asked_at[client];
    if (history_shapes[op->kind].changes || !asked || g->w.changed - asked > PAST - 2)
        return false;
    struct op old = *op, other;
    happen(g, &g->past[(asked - 1) % PAST], &old);
    for (uint64_t k = asked; k <= g->w.changed; k++) {
        other = *op;
        happen(g, k == g->w.changed ? &g->w : &g->past[k % PAST], &other);
        if (same_answer(&old, &other))
            return false;
    }
    *op = old;
    return true;
}

/* Whether op happens now as it should; else it did as the fault has it. */
static bool fault_made(struct gen *g, unsigned client, struct op *op)
{
    if (!fault_due(g) || op->unknown)
        return false;
    if (g->o->fault == GEN_STALE)
        return g->done = fault_stale(g, client, op);
    if (!history_shapes[op->kind].changes || op->kind == OP_CREATE)
        return false;
    struct world as_if = g->w;
    struct op tried = *op;
    happen(g, &as_if, &tried);
    if (tried.error || !world_differs(&as_if, &g->w))
        return false;
    if (g->o->fault == GEN_LOST) {
        *op = tried;
        return g->done = true;
    }
    g->held = tried;
    g->holding = true;
    g->held_at = 0;
    g->held_client = client;
    g->right = g->o->fault == GEN_DOUBLED ? g->w : as_if; /* the doubled one happens now */
    if (g->o->fault == GEN_DOUBLED)
        return false;
    *op = tried; /* answered, and made only later */
    return true;
}

/* Something was made to happen: what is held back comes behind it, if its question came after the answer. */
static void fault_after(struct gen *g, const struct op *op)
{
    if (!g->holding || !g->held_at || op->invoked <= g->held_at || op->error ||
        !history_shapes[op->kind].changes)
        return;
    g->holding = false;
    g->held.error = 0;
    happen_now(g, &g->held);
    g->done = world_differs(&g->right, &g->w);
}

/* ---- clients ---- */

static void choose(struct gen *g, struct client *c)
{
    struct op *op = &c->op;
    uint64_t ino = c->handles ? c->handle[gen_below(g, c->handles)] : 0;
    *op = (struct op){.client = (uint8_t)(c - g->c), .invoked = g->now, .returned = HISTORY_NEVER};
    do
        op->kind = (enum history_kind)gen_below(g, OP_KINDS);
    while (history_shapes[op->kind].file && !ino);
    if (history_shapes[op->kind].file)
        op->ino = ino;
    if (history_shapes[op->kind].value)
        op->value = ++g->values;
    if (history_shapes[op->kind].names)
        op->name[0] = (uint8_t)gen_below(g, HISTORY_NAMES);
    if (history_shapes[op->kind].names == 2)
        op->name[1] =
            (uint8_t)((op->name[0] + 1 + gen_below(g, HISTORY_NAMES - 1)) % HISTORY_NAMES);
    c->never = c->later = false;
    op->unknown = gen_below(g, 1000) < g->o->unknown;
    if (op->unknown) {
        c->never = gen_below(g, 3) == 0;
        c->later = !c->never && gen_below(g, 2) == 0;
    }
}

static void learn(struct gen *g, struct client *c, const struct op *op)
{
    if (op->error || op->unknown || history_shapes[op->kind].answer != ANSWER_INO)
        return;
    g->told[op->ino - INO_BASE] = true;
    if (c->handles < HANDLES)
        c->handle[c->handles++] = op->ino;
    else
        c->handle[gen_below(g, HANDLES)] = op->ino;
}

static void answer(struct gen *g, struct client *c)
{
    if (c->op.unknown) {
        c->op.error = 0;
        if (!history_shapes[c->op.kind].file)
            c->op.ino = 0;
        if (!history_shapes[c->op.kind].value)
            c->op.value = 0;
        c->op.nlink = c->op.size = 0;
    } else {
        c->op.returned = g->now;
        if (g->holding && !g->held_at && g->held_client == c->op.client)
            g->held_at = g->now;
    }
    history_add(g->h, &c->op);
    learn(g, c, &c->op);
    c->phase = IDLE;
}

static void turn(struct gen *g)
{
    struct client *c = &g->c[gen_below(g, g->o->clients)];
    g->now++;
    if (g->nlimbo && gen_below(g, 20) == 0) {
        struct op op = g->limbo[--g->nlimbo];
        happen_now(g, &op);
        return;
    }
    switch (c->phase) {
    case IDLE:
        choose(g, c);
        g->asked_at[c - g->c] = g->w.changed;
        c->phase = ASKED;
        break;
    case ASKED:
        if (c->later && g->nlimbo < sizeof g->limbo / sizeof *g->limbo) {
            g->limbo[g->nlimbo++] = c->op;
        } else if (!c->never && !fault_made(g, c->op.client, &c->op)) {
            happen_now(g, &c->op);
            fault_after(g, &c->op);
        }
        c->phase = HAPPENED;
        break;
    case HAPPENED:
        answer(g, c);
        break;
    }
}

static void look(struct gen *g, unsigned client, enum history_kind kind, unsigned name,
                 uint64_t ino)
{
    struct op op = {.client = (uint8_t)client,
                    .kind = kind,
                    .name = {(uint8_t)name},
                    .ino = ino,
                    .invoked = ++g->now};
    happen(g, &g->w, &op);
    op.returned = ++g->now;
    history_add(g->h, &op);
}

bool gen_history(const struct gen_options *o, struct history *h)
{
    static struct gen g; /* of this thread of tests: it is large */
    memset(&g, 0, sizeof g);
    g.o = o;
    g.h = h;
    g.rnd = o->seed * 0x2545f4914f6cdd1dull + 1;
    while (h->n < o->ops && !g.done)
        turn(&g);
    for (unsigned i = 0; i < o->clients; i++) {
        for (; g.c[i].phase == ASKED || g.c[i].phase == HAPPENED; g.now++) {
            if (g.c[i].phase == ASKED && !g.c[i].never)
                happen_now(&g, &g.c[i].op);
            g.c[i].phase = HAPPENED;
            answer(&g, &g.c[i]);
        }
    }
    for (unsigned i = 0; o->last_look && i < o->clients; i++) {
        for (unsigned n = 0; n < HISTORY_NAMES; n++)
            look(&g, i, OP_STAT, n, 0);
        for (unsigned f = 0; f < g.files; f++)
            if ((i == 0 && g.told[f]) || count_links(&g.w, f))
                look(&g, i, OP_READ, 0, INO_BASE + f);
    }
    history_sort(h);
    return o->fault == GEN_FINE || g.done;
}
