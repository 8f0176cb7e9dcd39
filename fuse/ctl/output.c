/* How replfsctl prints. Names come from users and may hold any byte but NUL: JSON strings escape
 * what JSON asks for and replace what is not UTF-8; text output escapes control characters. */
#include "output.h"

#include <assert.h>
#include <ctype.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* ---- JSON ---- */

void json_begin(struct json *j, FILE *out)
{
    *j = (struct json){.out = out};
}

/* Bytes of the valid UTF-8 sequence at s (s is NUL-terminated), or 0. */
static size_t utf8_len(const unsigned char *s)
{
    size_t n = s[0] < 0x80                   ? 1
               : s[0] >= 0xc2 && s[0] < 0xe0 ? 2
               : (s[0] & 0xf0) == 0xe0       ? 3
               : s[0] >= 0xf0 && s[0] < 0xf5 ? 4
                                             : 0;
    for (size_t i = 1; i < n; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) ||
        (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
        return 0;
    return n;
}

static void put_string(FILE *out, const char *str)
{
    const unsigned char *s = (const unsigned char *)str;
    putc('"', out);
    while (*s) {
        size_t n = utf8_len(s);
        if (*s == '"' || *s == '\\')
            fprintf(out, "\\%c", *s);
        else if (*s < 0x20 || *s == 0x7f)
            fprintf(out, "\\u%04x", *s);
        else if (!n)
            fputs("\\ufffd", out);
        else
            fwrite(s, 1, n, out);
        s += n ? n : 1;
    }
    putc('"', out);
}

static void member(struct json *j, const char *key)
{
    if (j->depth > 0) {
        fputs(j->any[j->depth - 1] ? ",\n" : "\n", j->out);
        j->any[j->depth - 1] = true;
        fprintf(j->out, "%*s", 2 * j->depth, "");
    }
    if (key) {
        put_string(j->out, key);
        fputs(": ", j->out);
    }
}

static void open_container(struct json *j, const char *key, char open, char close)
{
    assert(j->depth < JSON_DEPTH);
    member(j, key);
    putc(open, j->out);
    j->any[j->depth] = false;
    j->close[j->depth++] = close;
}

void json_object(struct json *j, const char *key)
{
    open_container(j, key, '{', '}');
}

void json_array(struct json *j, const char *key)
{
    open_container(j, key, '[', ']');
}

void json_close(struct json *j)
{
    assert(j->depth > 0);
    j->depth--;
    if (j->any[j->depth])
        fprintf(j->out, "\n%*s", 2 * j->depth, "");
    putc(j->close[j->depth], j->out);
    if (!j->depth)
        putc('\n', j->out);
}

void json_str(struct json *j, const char *key, const char *val)
{
    member(j, key);
    if (val)
        put_string(j->out, val);
    else
        fputs("null", j->out);
}

void json_u64(struct json *j, const char *key, uint64_t val)
{
    member(j, key);
    fprintf(j->out, "%" PRIu64, val);
}

void json_i64(struct json *j, const char *key, int64_t val)
{
    member(j, key);
    fprintf(j->out, "%" PRId64, val);
}

void json_bool(struct json *j, const char *key, bool val)
{
    member(j, key);
    fputs(val ? "true" : "false", j->out);
}

void json_id(struct json *j, const char *key, uint64_t id)
{
    char hex[24];
    snprintf(hex, sizeof(hex), "%" PRIx64, id);
    json_str(j, key, hex);
}

/* ---- tables ---- */

static void *output_grow(void *p, size_t n)
{
    p = realloc(p, n);
    if (!p)
        abort();
    return p;
}

void table_row(struct table *t)
{
    if (t->nrows == t->cap) {
        t->cap = t->cap ? 2 * t->cap : 16;
        t->cells = output_grow(t->cells, t->cap * t->ncols * sizeof(*t->cells));
    }
    for (size_t c = 0; c < t->ncols; c++)
        t->cells[t->nrows * t->ncols + c] = NULL;
    t->nrows++;
}

void table_cell(struct table *t, size_t col, const char *fmt, ...)
{
    assert(t->nrows > 0 && col < t->ncols);
    char **cell = &t->cells[(t->nrows - 1) * t->ncols + col];
    va_list ap;
    free(*cell);
    va_start(ap, fmt);
    if (vasprintf(cell, fmt, ap) < 0)
        abort();
    va_end(ap);
}

void table_begin(struct table *t, const char *heads)
{
    *t = (struct table){.ncols = 1};
    for (const char *p = heads; *p; p++)
        t->ncols += *p == '|';
    assert(t->ncols <= TABLE_COLS);
    table_row(t);
    const char *p = heads;
    for (size_t c = 0; c < t->ncols; c++) {
        t->right[c] = *p == '>';
        p += t->right[c];
        size_t n = strcspn(p, "|");
        table_cell(t, c, "%.*s", (int)n, p);
        p += n + (p[n] == '|');
    }
}

void table_print(struct table *t, const char *indent, FILE *out)
{
    size_t width[TABLE_COLS] = {0};
    for (size_t i = 0; i < t->nrows * t->ncols; i++) {
        size_t n = t->cells[i] ? strlen(t->cells[i]) : 0;
        if (n > width[i % t->ncols])
            width[i % t->ncols] = n;
    }
    for (size_t r = 0; r < t->nrows; r++) {
        fputs(indent, out);
        for (size_t c = 0; c < t->ncols; c++) {
            char *s = t->cells[r * t->ncols + c];
            int w = (int)width[c];
            const char *gap = c + 1 < t->ncols ? "  " : "";
            if (t->right[c])
                fprintf(out, "%*s%s", w, s ? s : "", gap);
            else
                fprintf(out, "%-*s%s", c + 1 < t->ncols ? w : 0, s ? s : "", gap);
            free(s);
        }
        putc('\n', out);
    }
    free(t->cells);
    *t = (struct table){0};
}

/* ---- for people ---- */

char *output_size(uint64_t bytes, char *buf)
{
    static const char *const unit[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double v = (double)bytes;
    int u = 0;
    for (; v >= 1023.95 && u < 6; u++)
        v /= 1024;
    bool whole = u == 0 || v >= 99.95 || v == (double)(uint64_t)v;
    snprintf(buf, 16, "%.*f %s", whole ? 0 : 1, v, unit[u]);
    return buf;
}

char *output_age(uint64_t s, char *buf)
{
    if (s < 120)
        snprintf(buf, 32, "%" PRIu64 " s", s);
    else if (s < 7200)
        snprintf(buf, 32, "%" PRIu64 " min", s / 60);
    else if (s < 48 * 3600)
        snprintf(buf, 32, "%" PRIu64 " h %" PRIu64 " min", s / 3600, s / 60 % 60);
    else
        snprintf(buf, 32, "%" PRIu64 " d %" PRIu64 " h", s / 86400, s / 3600 % 24);
    return buf;
}

void output_name(const char *s, FILE *out)
{
    for (; *s; s++)
        if (iscntrl((unsigned char)*s))
            fprintf(out, "\\x%02x", (unsigned char)*s);
        else
            putc(*s, out);
}
