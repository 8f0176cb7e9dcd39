/* Histories as text: the format is told in history.h.
 *
 * A history is input, perhaps cut and edited by somebody: the reader checks every field (a number out of
 * range, a name that is none, a time before the question) and says which line is wrong. What it accepts the
 * writer writes again in the same words. No threads. */
#include "history.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define WORDS 12

const struct history_shape history_shapes[OP_KINDS] = {
#define X(id, w, n, f, v, a, c)                                                                    \
    [OP_##id] = {                                                                                  \
        .word = (w), .names = (n), .file = (f), .value = (v), .changes = (c), .answer = (a)},
    HISTORY_KINDS(X)
#undef X
};
static const struct {
    int error;
    const char *name;
} errors[] = {{ENOENT, "ENOENT"}, {EEXIST, "EEXIST"}, {ESTALE, "ESTALE"}, {EIO, "EIO"},
              {EINVAL, "EINVAL"}, {EACCES, "EACCES"}, {EBUSY, "EBUSY"}};

void history_add(struct history *h, const struct op *op)
{
    if (h->n == h->room) {
        h->room = h->room ? 2 * h->room : 64;
        h->ops = realloc(h->ops, h->room * sizeof *h->ops);
        if (!h->ops)
            abort();
    }
    h->ops[h->n++] = *op;
}

static int by_time(const void *a, const void *b)
{
    const struct op *x = a, *y = b;
    if (x->invoked != y->invoked)
        return x->invoked < y->invoked ? -1 : 1;
    return x->client < y->client ? -1 : x->client > y->client;
}

void history_sort(struct history *h)
{
    if (h->n)
        qsort(h->ops, h->n, sizeof *h->ops, by_time);
}

void history_copy(struct history *to, const struct history *from)
{
    for (size_t i = 0; i < from->n; i++)
        history_add(to, &from->ops[i]);
}

void history_free(struct history *h)
{
    free(h->ops);
    *h = (struct history){0};
}

/* ---- reading ---- */

struct line {
    char *word[WORDS];
    size_t n, at; /* words; next one to be used */
    char *err;
    size_t err_size;
    bool bad;
};

static void wrong(struct line *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void wrong(struct line *l, const char *fmt, ...)
{
    va_list ap;
    if (l->bad)
        return;
    l->bad = true;
    va_start(ap, fmt);
    vsnprintf(l->err, l->err_size, fmt, ap);
    va_end(ap);
}

static const char *word_next(struct line *l, const char *what)
{
    if (l->at < l->n)
        return l->word[l->at++];
    wrong(l, "%s is missing", what);
    return "";
}

static uint64_t number_next(struct line *l, const char *what, uint64_t max)
{
    const char *w = word_next(l, what);
    char *end;
    errno = 0;
    uint64_t n = strtoull(w, &end, 10);
    if (errno || !*w || *end || *w == '-' || n > max)
        wrong(l, "%s: '%s' is not a number up to %" PRIu64, what, w, max);
    return n;
}

static uint32_t value_next(struct line *l)
{
    if (l->at < l->n && !strcmp(l->word[l->at], "torn")) {
        l->at++;
        return HISTORY_TORN;
    }
    return (uint32_t)number_next(l, "content", HISTORY_TORN - 1);
}

static void read_answer(struct line *l, struct op *op)
{
    switch (history_shapes[op->kind].answer) {
    case ANSWER_NOTHING:
        break;
    case ANSWER_INO:
        op->ino = number_next(l, "inode", UINT64_MAX);
        break;
    case ANSWER_VALUE:
        op->value = value_next(l);
        break;
    case ANSWER_ATTRS:
        op->nlink = (uint32_t)number_next(l, "count of names", UINT32_MAX);
        op->size = (uint32_t)number_next(l, "size", UINT32_MAX);
        break;
    }
}

static void read_result(struct line *l, struct op *op)
{
    const char *w;
    if (strcmp(word_next(l, "="), "=") != 0)
        wrong(l, "'=' and the result are missing");
    w = word_next(l, "result");
    if (op->unknown != !strcmp(w, "?"))
        wrong(l, "an unknown result ('?') has no time of return ('-'), any other has one");
    if (op->unknown)
        return;
    if (!strcmp(w, "ok")) {
        read_answer(l, op);
        return;
    }
    if (!strcmp(w, "errno")) {
        op->error = (int)number_next(l, "errno", 4095);
        if (!op->error)
            wrong(l, "errno 0 is no error");
        return;
    }
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        if (!strcmp(w, errors[i].name))
            op->error = errors[i].error;
    if (!op->error)
        wrong(l, "'%s' is no result", w);
}

static void read_op(struct line *l, struct op *op)
{
    const char *w;
    size_t k = 0;
    op->client = (uint8_t)number_next(l, "client", HISTORY_CLIENTS - 1);
    op->invoked = number_next(l, "time of the question", HISTORY_NEVER - 1);
    op->unknown = l->at < l->n && !strcmp(l->word[l->at], "-");
    op->returned = HISTORY_NEVER;
    if (op->unknown)
        l->at++;
    else
        op->returned = number_next(l, "time of the answer", HISTORY_NEVER - 1);
    if (op->returned < op->invoked)
        wrong(l, "answered before it was asked");
    w = word_next(l, "operation");
    while (k < OP_KINDS && strcmp(w, history_shapes[k].word) != 0)
        k++;
    if (k == OP_KINDS) {
        wrong(l, "'%s' is no operation", w);
        return;
    }
    op->kind = (enum history_kind)k;
    if (history_shapes[k].file)
        op->ino = number_next(l, "inode", UINT64_MAX);
    for (unsigned i = 0; i < history_shapes[k].names; i++) {
        w = word_next(l, "name");
        if (*w < 'a' || *w >= 'a' + (int)HISTORY_NAMES || w[1])
            wrong(l, "'%s' is no name", w);
        op->name[i] = (uint8_t)(*w - 'a');
    }
    if (history_shapes[k].value)
        op->value = (uint32_t)number_next(l, "content", HISTORY_TORN - 1);
    read_result(l, op);
    if (l->at < l->n)
        wrong(l, "'%s' is too much", l->word[l->at]);
}

bool history_read(struct history *h, FILE *in, char *err, size_t size)
{
    char *text = NULL, *save;
    size_t room = 0, number = 0;
    bool fine = true;
    while (fine && getline(&text, &room, in) >= 0) {
        char what[160] = "";
        struct line l = {.err = what, .err_size = sizeof what};
        struct op op = {0};
        number++;
        for (char *w = strtok_r(text, " \t\r\n", &save); w && l.n < WORDS;
             w = strtok_r(NULL, " \t\r\n", &save))
            l.word[l.n++] = w;
        if (!l.n || l.word[0][0] == '#')
            continue;
        read_op(&l, &op);
        if (h->n == HISTORY_OPS)
            wrong(&l, "more than %u operations", HISTORY_OPS);
        fine = !l.bad;
        if (fine)
            history_add(h, &op);
        else
            snprintf(err, size, "line %zu: %s", number, what);
    }
    if (fine && ferror(in)) {
        snprintf(err, size, "it cannot be read: %s", strerror(errno));
        fine = false;
    }
    free(text);
    history_sort(h);
    return fine;
}

/* ---- writing ---- */

static void write_value(uint32_t v, FILE *out)
{
    if (v == HISTORY_TORN)
        fprintf(out, " torn");
    else
        fprintf(out, " %" PRIu32, v);
}

static void write_result(const struct op *op, FILE *out)
{
    if (op->unknown) {
        fprintf(out, " = ?");
        return;
    }
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        if (op->error == errors[i].error) {
            fprintf(out, " = %s", errors[i].name);
            return;
        }
    }
    if (op->error) {
        fprintf(out, " = errno %d", op->error);
        return;
    }
    fprintf(out, " = ok");
    switch (history_shapes[op->kind].answer) {
    case ANSWER_NOTHING:
        break;
    case ANSWER_INO:
        fprintf(out, " %" PRIu64, op->ino);
        break;
    case ANSWER_VALUE:
        write_value(op->value, out);
        break;
    case ANSWER_ATTRS:
        fprintf(out, " %" PRIu32 " %" PRIu32, op->nlink, op->size);
        break;
    }
}

void history_write_op(const struct op *op, FILE *out)
{
    const struct history_shape *s = &history_shapes[op->kind];
    fprintf(out, "%u %" PRIu64, op->client, op->invoked);
    if (op->unknown)
        fprintf(out, " -");
    else
        fprintf(out, " %" PRIu64, op->returned);
    fprintf(out, " %s", s->word);
    if (s->file)
        fprintf(out, " %" PRIu64, op->ino);
    for (unsigned i = 0; i < s->names; i++)
        fprintf(out, " %c", 'a' + op->name[i]);
    if (s->value)
        write_value(op->value, out);
    write_result(op, out);
}

void history_write(const struct history *h, FILE *out)
{
    for (size_t i = 0; i < h->n; i++) {
        history_write_op(&h->ops[i], out);
        fputc('\n', out);
    }
}
