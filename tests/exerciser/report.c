/* The log of operations, and what is printed when something is wrong: the difference with its
 * origin, the last operations, and the command that repeats the run up to the failure. */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "exerciser.h"
#include "pattern.h"

#define DUMP_BYTES 64u

void note(struct exerciser *x, const struct xfile *f, const char *what, uint64_t a, uint64_t b,
          uint64_t c)
{
    if (!x->log)
        return;
    x->log[x->op % x->o.log] = (struct record){.op = x->op,
                                               .what = what,
                                               .file = (unsigned)(f - x->file),
                                               .mount = x->mount,
                                               .a = a,
                                               .b = b,
                                               .c = c,
                                               .before = f->size};
}

static void print_log(const struct exerciser *x)
{
    uint64_t first = x->op > x->o.log ? x->op - x->o.log + 1 : 1;
    fprintf(stderr, "the last operations (file, mount, offset, length, other offset; size before, "
                    "after):\n");
    for (uint64_t i = first; i <= x->op; i++) {
        const struct record *r = &x->log[i % x->o.log];
        if (r->op != i)
            continue;
        fprintf(stderr, "  %8llu %-12s %c %u  %#9llx %#9llx %#9llx  %#9llx", (unsigned long long)i,
                r->what, 'a' + (int)r->file, r->mount, (unsigned long long)r->a,
                (unsigned long long)r->b, (unsigned long long)r->c, (unsigned long long)r->before);
        if (i < x->op)
            fprintf(stderr, " %#9llx", (unsigned long long)r->after);
        fputc('\n', stderr);
    }
}

static void print_repeat(const struct exerciser *x)
{
    fprintf(stderr, "repeat with:\n ");
    for (int i = 0; i < x->o.argc; i++) {
        const char *s = x->o.argv[i];
        if (!strncmp(s, "--replay", 8)) {
            i += s[8] != '=';
            continue;
        }
        fprintf(stderr, strpbrk(s, " '\"$;&|<>()*?") ? " \"%s\"" : " %s", s);
        if (!i)
            fprintf(stderr, " --replay=%llu", (unsigned long long)x->op);
    }
    fputc('\n', stderr);
}

void fail(struct exerciser *x, const char *fmt, ...)
{
    va_list ap;
    fflush(stdout);
    fprintf(stderr, "exerciser: FAILED at operation %llu of seed %llu: ", (unsigned long long)x->op,
            (unsigned long long)x->o.seed);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    if (x->log)
        print_log(x);
    print_repeat(x);
    exit(1);
}

void fail_errno(struct exerciser *x, const struct xfile *f, const char *call)
{
    fail(x, "%s: %s: %s", f->name[0] ? f->name : "unlinked file", call, strerror(errno));
}

static void print_bytes(const char *who, const uint8_t *p, uint64_t n)
{
    fprintf(stderr, "  %-5s", who);
    for (uint64_t i = 0; i < n; i++)
        fprintf(stderr, "%s%02x", i % 8 ? "" : " ", p[i]);
    fputc('\n', stderr);
}

/* Whose bytes begin at p, which is at position off (a multiple of 8). */
static void print_origin(const char *who, const uint8_t *p, uint64_t off)
{
    uint64_t word, op, index;
    memcpy(&word, p, sizeof word);
    pattern_origin(word, &op, &index);
    if (!word)
        fprintf(stderr, "  %s zeros", who);
    else if (op < 1u << 31 && index < 1u << 28)
        fprintf(stderr, "  %s bytes that operation %llu wrote at %#llx%s", who,
                (unsigned long long)op, (unsigned long long)index * 8,
                index * 8 == off ? "" : " (elsewhere)");
    else
        fprintf(stderr, "  %s a mixture", who);
}

void show_difference(const uint8_t *got, const uint8_t *want, uint64_t off, uint64_t n)
{
    uint64_t at = 0, last = n, differ = 0;
    while (at < n && got[at] == want[at])
        at++;
    while (last > at && got[last - 1] == want[last - 1])
        last--;
    for (uint64_t i = at; i < last; i++)
        differ += got[i] != want[i];
    fprintf(stderr, "exerciser: %llu bytes differ, the first at %#llx, the last at %#llx\n",
            (unsigned long long)differ, (unsigned long long)(off + at),
            (unsigned long long)(off + last - 1));
    uint64_t show = n - at < DUMP_BYTES ? n - at : DUMP_BYTES;
    print_bytes("got", got + at, show);
    print_bytes("want", want + at, show);
    uint64_t word = (off + at + 7) / 8 * 8 - off; /* the first whole word that differs */
    if (word + 8 <= n) {
        print_origin("got:", got + word, off + word);
        print_origin("want:", want + word, off + word);
        fputc('\n', stderr);
    }
}
