/* Output of replfsctl: a JSON writer, aligned tables and sizes for people. Not thread-safe. */
#ifndef REPLFS_FUSE_CTL_OUTPUT_H
#define REPLFS_FUSE_CTL_OUTPUT_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* ---- JSON: open containers, put members, close them. key is NULL inside arrays and at the top.
 * ---- */
#define JSON_DEPTH 16
struct json {
    FILE *out;
    int depth;
    bool any[JSON_DEPTH]; /* the container at this depth has a member */
    char close[JSON_DEPTH];
};
void json_begin(struct json *j, FILE *out);
void json_object(struct json *j, const char *key);
void json_array(struct json *j, const char *key);
void json_close(struct json *j); /* the innermost container; a newline after the outermost */
void json_str(struct json *j, const char *key,
              const char *val); /* NULL: null. Bytes that are not UTF-8 become U+FFFD */
void json_u64(struct json *j, const char *key, uint64_t val);
void json_i64(struct json *j, const char *key, int64_t val);
void json_bool(struct json *j, const char *key, bool val);
/* An id as a string of hex digits: numbers beyond 2^53 do not survive JavaScript. */
void json_id(struct json *j, const char *key, uint64_t id);

/* ---- tables: cells are collected, columns aligned, then printed ---- */
#define TABLE_COLS 12
struct table {
    size_t ncols, nrows, cap;
    bool right[TABLE_COLS]; /* numbers */
    char **cells;           /* nrows * ncols, owned */
};
/* heads: column titles separated by '|'; a title that starts with '>' is right-aligned. */
void table_begin(struct table *t, const char *heads);
void table_row(struct table *t); /* starts a row */
void table_cell(struct table *t, size_t col, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));                        /* of the current row */
void table_print(struct table *t, const char *indent, FILE *out); /* prints and frees */

/* "0 B", "1.5 KiB", "64 MiB". buf: at least 16 bytes; returned. */
char *output_size(uint64_t bytes, char *buf);
/* "3 s", "5 min", "2 h 10 min", "4 d 3 h". buf: at least 32 bytes; returned. */
char *output_age(uint64_t seconds, char *buf);
/* Writes s with control characters as \xNN, so that a file name cannot drive the terminal. */
void output_name(const char *s, FILE *out);
#endif
