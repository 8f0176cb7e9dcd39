/* The search of Wing and Gong ("Testing and Verifying Concurrent Objects", J. Parallel Distrib. Comput. 17,
 * 1993) with the memory of Lowe ("Testing for Linearizability", Concurrency Computat.: Pract. Exper. 29(4),
 * 2017): depth first, always appending to the order an operation that was asked for before the first
 * answer among those not placed yet; and where the same set of operations led to the same state before,
 * not again.
 *
 * Questions and answers are one doubly linked list in order of time; to place an operation lifts both out of
 * it, to take it back puts them in again (in reverse, so links need no repair). The candidates are the
 * questions before the first answer. A history is fine as soon as all answered operations are placed.
 *
 * Three things keep the search small:
 * - An observation (a read, a failed unlink) that can be placed is placed at once and never taken back alone:
 *   an order that has it later stays one when it comes here. That holds for what can change nothing, not
 *   for what happens to change nothing here: emptying an empty file may have to wait for a write.
 * - Operations without an answer have no end, so they would be candidates for ever. They are a list of their
 *   own ("loose"), tried after all others, only where they change the state, and need not be placed. The peeks
 *   of renames (model.h) are in it, too. Those that cannot explain any answer (a write of what nobody read) are
 *   left out.
 * - A loose step can be put later past a step that has nothing to do with it. So behind one only comes a step
 *   that has, or a loose one further down the list: other orders are the same ones again.
 * - The memory holds whole keys, the set as bits and the state, in a table of open addressing.
 *
 * Histories that are fine are found so almost without taking anything back. One that is not costs all
 * states that can be reached, at most 2 to the power of unknown operations for each set of concurrent
 * ones: hence the limit. No threads. */
#include "wgl.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "model.h"

#define SHOWN 16u /* operations of the order that are printed */

struct frame {
    size_t op;   /* the step */
    size_t at;   /* the candidate that it was */
    bool forced; /* nothing else need be tried here */
};
/* What a step has to do with. */
struct reach {
    uint8_t names; /* a bit for each */
    uint16_t ino;
};
#define ALL_NAMES ((1u << HISTORY_NAMES) - 1)

struct search {
    const struct history *h;
    struct model m;
    /* The list: entry 2i is operation i's question, 2i + 1 its answer, 2n the head. */
    size_t *next, *prev, head;
    size_t *loose,
        nloose; /* steps that need not be placed, in order of time: operations, n + i: peeks */
    size_t nanswered;
    bool *placed;                    /* by step */
    struct reach *reach;             /* of each operation */
    uint64_t *bits;                  /* of placed ones */
    size_t words, left;              /* of bits; answered operations not placed yet */
    uint16_t *state, *trial, *saved; /* now; after the candidate; before each frame */
    struct frame *stack;
    size_t depth, best;
    /* the memory */
    uint8_t *keys, *key;
    size_t key_size, cap;
    uint8_t *used;
    uint64_t states, max_states;
    struct wgl_result *out;
};

static void *take(size_t n, size_t size)
{
    void *p = calloc(n ? n : 1, size);
    if (!p)
        abort();
    return p;
}

/* ---- the list ---- */

/* Whether an operation without answer can be the reason of somebody's answer. */
static bool can_explain(const struct history *h, size_t i)
{
    const struct op *u = &h->ops[i];
    if (!history_shapes[u->kind].changes)
        return false;
    if (history_shapes[u->kind].names)
        return true;
    for (size_t k = 0; k < h->n; k++) {
        const struct op *op = &h->ops[k];
        if (op->unknown || op->error || op->ino != u->ino || op->returned < u->invoked)
            continue;
        if (op->kind == OP_READ ? op->value == u->value
                                : op->kind == OP_FSTAT && !op->size == (u->kind == OP_EMPTY))
            return true;
    }
    return false;
}

static void find_reach(struct search *s)
{
    for (size_t i = 0; i < s->h->n; i++) {
        const struct op *op = &s->h->ops[i];
        struct reach *r = &s->reach[i];
        for (unsigned k = 0; k < history_shapes[op->kind].names; k++)
            r->names |= (uint8_t)(1u << op->name[k]);
        if (!history_shapes[op->kind].file)
            continue;
        r->ino = s->m.ino[i];
        /* links are counted over all names; and a file of a create without answer is known by a name first */
        if (op->kind == OP_FSTAT || op->kind == OP_LINK || !s->m.owner[r->ino])
            r->names = ALL_NAMES;
    }
}

/* Whether step b, directly behind the loose step a, could as well come before it. */
static bool independent(const struct search *s, size_t a, size_t b)
{
    size_t n = s->h->n;
    struct reach x = s->reach[a % n], y = s->reach[b % n];
    if (a % n == b % n)
        return false;
    if (a >= n)
        x = (struct reach){(uint8_t)(1u << s->h->ops[a - n].name[0]), 0};
    if (b >= n)
        y = (struct reach){(uint8_t)(1u << s->h->ops[b - n].name[0]), 0};
    return !(x.names & y.names) && !(x.ino && x.ino == y.ino);
}

struct event {
    uint64_t time;
    size_t entry;
};
static int by_time(const void *a, const void *b)
{
    const struct event *x = a, *y = b;
    if (x->time != y->time)
        return x->time < y->time ? -1 : 1;
    /* at one moment questions first: then the operations overlap, which is the weaker claim */
    if ((x->entry & 1) != (y->entry & 1))
        return x->entry & 1 ? 1 : -1;
    return x->entry < y->entry ? -1 : x->entry > y->entry;
}

static void build_list(struct search *s)
{
    const struct history *h = s->h;
    struct event *e = take(2 * h->n, sizeof *e);
    size_t n = 0, last = s->head;
    for (size_t i = 0; i < h->n; i++) {
        if (h->ops[i].unknown) {
            if (can_explain(h, i))
                s->loose[s->nloose++] = i;
            continue;
        }
        if (s->m.peek[i])
            s->loose[s->nloose++] = h->n + i;
        e[n++] = (struct event){h->ops[i].invoked, 2 * i};
        e[n++] = (struct event){h->ops[i].returned, 2 * i + 1};
        s->left++;
    }
    s->nanswered = s->left;
    qsort(e, n, sizeof *e, by_time);
    for (size_t k = 0; k < n; k++) {
        s->next[last] = e[k].entry;
        s->prev[e[k].entry] = last;
        last = e[k].entry;
    }
    s->next[last] = s->head;
    s->prev[s->head] = last;
    free(e);
}

static void unlink_entry(struct search *s, size_t e)
{
    s->next[s->prev[e]] = s->next[e];
    s->prev[s->next[e]] = s->prev[e];
}
static void relink_entry(struct search *s, size_t e)
{
    s->next[s->prev[e]] = e;
    s->prev[s->next[e]] = e;
}

/* The candidate after `at` (s->head: the first): an entry, or s->head + 1 + the place of a loose step. */
#define NO_CANDIDATE SIZE_MAX
static size_t candidate_next(const struct search *s, size_t at)
{
    size_t u = 0;
    if (at <= s->head) {
        size_t e = s->next[at];
        if (!(e & 1) && e != s->head)
            return e;
    } else {
        u = at - s->head;
    }
    size_t first = s->next[s->head]; /* answer; there is one as long as something is left */
    while (!(first & 1))
        first = s->next[first];
    for (; u < s->nloose; u++) {
        size_t i = s->loose[u] % s->h->n; /* a peek comes before its operation */
        if (!s->placed[s->loose[u]] && !s->placed[i] &&
            s->h->ops[i].invoked <= s->h->ops[first / 2].returned)
            return s->head + 1 + u;
    }
    return NO_CANDIDATE;
}
static size_t step_of(const struct search *s, size_t at)
{
    return at < s->head ? at / 2 : s->loose[at - s->head - 1];
}
/* The last step placed if it is a loose one: its place in the list, from 1. */
static size_t last_loose(const struct search *s)
{
    return s->depth && s->stack[s->depth - 1].at > s->head ? s->stack[s->depth - 1].at - s->head
                                                           : 0;
}

/* ---- the memory ---- */

static uint64_t hash_key(const uint8_t *key, size_t n)
{
    uint64_t v = 0x9e3779b97f4a7c15ull, w;
    for (size_t i = 0; i < n; i += 8) { /* keys are whole words */
        memcpy(&w, key + i, 8);
        v = (v ^ w) * 0xbf58476d1ce4e5b9ull;
        v ^= v >> 29;
    }
    return v;
}

static size_t slot_of(const struct search *s, const uint8_t *key)
{
    size_t i = hash_key(key, s->key_size) & (s->cap - 1);
    while (s->used[i] && memcmp(s->keys + i * s->key_size, key, s->key_size) != 0)
        i = (i + 1) & (s->cap - 1);
    return i;
}

static void memory_grow(struct search *s)
{
    uint8_t *keys = s->keys, *used = s->used;
    size_t cap = s->cap;
    s->cap = cap ? 2 * cap : 1024;
    s->keys = take(s->cap, s->key_size);
    s->used = take(s->cap, 1);
    for (size_t i = 0; i < cap; i++) {
        if (!used[i])
            continue;
        size_t to = slot_of(s, keys + i * s->key_size);
        memcpy(s->keys + to * s->key_size, keys + i * s->key_size, s->key_size);
        s->used[to] = 1;
    }
    free(keys);
    free(used);
}

/* Whether a candidate leads from here to something new: the set with it, the state on trial, and which loose
 * step came last, as that says what may come next. */
static bool memory_add(struct search *s, size_t candidate)
{
    size_t i = step_of(s, candidate);
    uint64_t last = candidate > s->head ? candidate - s->head : 0, none = 0;
    if (2 * (s->states + 1) > s->cap)
        memory_grow(s);
    memset(s->key, 0, s->key_size);
    memcpy(s->key, s->bits, s->words * 8);
    if (i < s->h->n)
        ((uint64_t *)(void *)s->key)[i / 64] |= 1ull << (i % 64);
    memcpy(s->key + s->words * 8, s->trial, s->m.width * sizeof *s->trial);
    if (last && s->used[slot_of(s, s->key)])
        return false; /* reached so that everything could come next */
    memcpy(s->key + s->key_size - sizeof last, last ? &last : &none, sizeof last);
    size_t at = slot_of(s, s->key);
    if (s->used[at])
        return false;
    memcpy(s->keys + at * s->key_size, s->key, s->key_size);
    s->used[at] = 1;
    s->states++;
    return true;
}

/* ---- the search ---- */

static enum model_effect try_op(struct search *s, size_t i)
{
    memcpy(s->trial, s->state, s->m.width * sizeof *s->state);
    return i < s->h->n ? model_step(&s->m, i, s->trial) : model_peek(&s->m, i - s->h->n, s->trial);
}

static void keep_best(struct search *s)
{
    size_t answered = s->nanswered - s->left;
    if (s->depth && answered <= s->best)
        return;
    s->best = answered;
    s->out->ordered = s->depth;
    s->out->operations = 0;
    for (size_t k = 0; k < s->depth; k++) {
        s->out->order[k] = s->stack[k].op;
        s->out->operations += s->stack[k].op < s->h->n;
    }
    s->out->nstuck = 0;
    for (size_t e = s->next[s->head]; e != s->head && !(e & 1); e = s->next[e])
        s->out->stuck[s->out->nstuck++] = e / 2;
}

static void place(struct search *s, size_t at, bool forced)
{
    size_t i = step_of(s, at);
    memcpy(s->saved + s->depth * s->m.width, s->state, s->m.width * sizeof *s->state);
    if (!forced)
        memcpy(s->state, s->trial, s->m.width * sizeof *s->state);
    s->stack[s->depth++] = (struct frame){i, at, forced};
    s->placed[i] = true;
    if (i < s->h->n)
        s->bits[i / 64] |= 1ull << (i % 64);
    if (at < s->head) {
        unlink_entry(s, 2 * i);
        unlink_entry(s, 2 * i + 1);
        s->left--;
        keep_best(s);
    }
}

static struct frame take_back(struct search *s)
{
    struct frame f = s->stack[--s->depth];
    memcpy(s->state, s->saved + s->depth * s->m.width, s->m.width * sizeof *s->state);
    s->placed[f.op] = false;
    if (f.op < s->h->n)
        s->bits[f.op / 64] &= ~(1ull << (f.op % 64));
    if (f.at < s->head) {
        relink_entry(s, 2 * f.op + 1);
        relink_entry(s, 2 * f.op);
        s->left++;
    }
    return f;
}

static bool observes(const struct op *op)
{
    return op->error || !history_shapes[op->kind].changes;
}

/* The first candidate that can be placed and could never change anything. */
static size_t find_observation(struct search *s)
{
    for (size_t e = s->next[s->head]; e != s->head && !(e & 1); e = s->next[e])
        if (observes(&s->h->ops[e / 2]) && try_op(s, e / 2) == MODEL_NOTHING)
            return e;
    return NO_CANDIDATE;
}

/* Whether the candidate leads on from here. */
static bool leads_on(struct search *s, size_t at)
{
    size_t i = step_of(s, at), last = last_loose(s);
    if (last && at <= s->head + last && independent(s, s->loose[last - 1], i))
        return false;
    enum model_effect effect = try_op(s, i);
    return effect != MODEL_WRONG && (effect == MODEL_CHANGED || at < s->head) && memory_add(s, at);
}

static enum wgl_verdict search_run(struct search *s)
{
    size_t from = s->head, at;
    while (s->left) {
        at = from == s->head ? find_observation(s) : NO_CANDIDATE;
        if (at != NO_CANDIDATE) {
            place(s, at, true);
            continue;
        }
        for (at = candidate_next(s, from); at != NO_CANDIDATE; at = candidate_next(s, at))
            if (leads_on(s, at))
                break;
        if (s->states > s->max_states)
            return WGL_UNDECIDED;
        if (at != NO_CANDIDATE) {
            place(s, at, false);
            from = s->head;
            continue;
        }
        struct frame f;
        do {
            if (!s->depth)
                return WGL_VIOLATION;
            f = take_back(s);
        } while (f.forced);
        from = f.at;
    }
    return WGL_FINE;
}

void wgl_check(const struct history *h, uint64_t max_states, struct wgl_result *out)
{
    size_t n = h->n;
    struct search s = {.h = h, .head = 2 * n, .words = (n + 63) / 64, .max_states = max_states};
    model_open(&s.m, h);
    s.next = take(2 * n + 1, sizeof *s.next);
    s.prev = take(2 * n + 1, sizeof *s.prev);
    s.loose = take(n, sizeof *s.loose);
    s.placed = take(2 * n, sizeof *s.placed);
    s.reach = take(n, sizeof *s.reach);
    s.bits = take(s.words, sizeof *s.bits);
    s.state = take(s.m.width, sizeof *s.state);
    s.trial = take(s.m.width, sizeof *s.trial);
    s.saved = take((2 * n + 1) * s.m.width, sizeof *s.saved);
    s.stack = take(2 * n + 1, sizeof *s.stack);
    s.key_size = s.words * 8 + (s.m.width * sizeof *s.state + 7) / 8 * 8 + 8;
    s.key = take(1, s.key_size);
    *out = (struct wgl_result){.order = take(2 * n, sizeof *out->order),
                               .stuck = take(n, sizeof *out->stuck)};
    s.out = out;
    model_start(&s.m, s.state);
    find_reach(&s);
    memory_grow(&s);
    build_list(&s);
    keep_best(&s);
    out->verdict = search_run(&s);
    out->states = s.states;
    model_close(&s.m);
    free(s.next);
    free(s.prev);
    free(s.loose);
    free(s.reach);
    free(s.placed);
    free(s.bits);
    free(s.state);
    free(s.trial);
    free(s.saved);
    free(s.stack);
    free(s.key);
    free(s.keys);
    free(s.used);
}

void wgl_result_free(struct wgl_result *r)
{
    free(r->order);
    free(r->stuck);
    *r = (struct wgl_result){0};
}

/* ---- for people ---- */

void wgl_print(const struct history *h, const struct wgl_result *r, FILE *out)
{
    struct model m;
    if (r->verdict == WGL_FINE) {
        fprintf(out, "linearizable: %zu operations, %" PRIu64 " states\n", h->n, r->states);
        return;
    }
    fprintf(out, "%s: %zu of %zu operations can be put in order, %" PRIu64 " states\n",
            r->verdict == WGL_VIOLATION ? "not linearizable" : "undecided, too many states",
            r->operations, h->n, r->states);
    model_open(&m, h);
    uint16_t *state = take(m.width, sizeof *state);
    model_start(&m, state);
    fprintf(out, "the end of that order:\n");
    for (size_t k = 0; k < r->ordered; k++) {
        bool peek = r->order[k] >= h->n;
        if (peek)
            model_peek(&m, r->order[k] - h->n, state);
        else
            model_step(&m, r->order[k], state);
        if (k + SHOWN < r->ordered)
            continue;
        fprintf(out, "    ");
        history_write_op(&h->ops[r->order[k] % h->n], out);
        fputs(peek ? " (the look at its first name)\n" : "\n", out);
    }
    fprintf(out, "then the state is\n    ");
    model_print(&m, state, out);
    fprintf(out, "and none of these can come next:\n");
    for (size_t k = 0; k < r->nstuck; k++) {
        fprintf(out, "    ");
        history_write_op(&h->ops[r->stuck[k]], out);
        fputc('\n', out);
    }
    free(state);
    model_close(&m);
}
