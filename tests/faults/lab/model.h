/* The model of the fault laboratory: what one worker asked of the file system, and was told.
 *
 * A worker owns a folder alone, with directories d0.. and in each of them names n0..; a name is a file, called by the number
 * of its object, which is never used again. Files are made of units of 512 bytes; each says which object, unit and version
 * (the number of the write) it is, so that whatever is read tells where it comes from. Each operation goes to a journal
 * outside of the file system before it is asked for and again when it was answered; model_apply follows such records, in
 * the worker as in the checker.
 *
 * What may be there:   when nothing died that may forget      the newest of all that was answered
 *                      after a power cut, a killed mount      anything from the last fsync to the newest
 *                      after an operation that failed         the same, for what it concerned
 *
 * Functions end the program when memory does. One thread each. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum { UNIT = 512, DIRS = 4, NAMES = 16, MAX_UNITS = 4096, MAX_WAS = 200 };

enum op { OP_CREATE = 1, OP_WRITE, OP_TRUNCATE, OP_FSYNC, OP_RENAME, OP_UNLINK, OP_SYNCDIR };
enum phase { PHASE_ASKED = 1, PHASE_DONE, PHASE_FAILED };

/* One line of the journal, as it is on disk; fields that an operation has no use for are 0. */
struct record {
    uint8_t op, phase;
    uint8_t dir, name, dir2, name2; /* of the name, and of rename's target */
    uint16_t error;                 /* errno of PHASE_FAILED */
    uint32_t object, version;
    uint32_t unit, units; /* written; TRUNCATE: unit is the new size */
    uint64_t ms;          /* on CLOCK_REALTIME */
};

struct unit {
    uint32_t safe, newest; /* versions; safe: the last that was fsynced, 0: none was */
    uint32_t now;          /* the one that is there, 0: zeros */
    bool zero;             /* zeros are possible, too, if something was forgotten */
    bool doubt;            /* an operation failed here: anything from safe to newest */
};

struct object {
    struct unit *units; /* MAX_UNITS at most, `have` allocated */
    uint32_t have;
    uint32_t size, smallest, largest; /* in units: now, and since the last fsync */
    bool doubt, made;                 /* of the size; made: its create was answered */
};

/* A name: the object that it is now (0: none) and all that it was since its directory was fsynced, `now` among them. */
struct name {
    uint32_t now, was[MAX_WAS];
    int n_was;
    bool doubt;
};

struct model {
    struct name names[DIRS][NAMES];
    struct object *objects;
    uint32_t n_objects; /* numbers from 1 */
    struct record open; /* asked and not answered, op 0: none */
};

void model_apply(struct model *m, const struct record *r);
/* The journal ends here: what was asked and never answered is in doubt. */
void model_end(struct model *m);
void model_free(struct model *m);

/* The object, or NULL when no record mentions it. */
struct object *model_object(const struct model *m, uint32_t number);
/* Unit i of it, also one that was never written. */
struct unit model_unit(const struct object *o, uint32_t i);

/* Fills UNIT bytes. */
void unit_fill(void *buf, uint32_t worker, uint32_t object, uint32_t unit, uint32_t version);
/* The version of UNIT bytes, 0 for zeros, or -1 for what no write put there; `says` then tells what they are. */
int64_t unit_version(const void *buf, uint32_t worker, uint32_t object, uint32_t unit,
                     char says[100]);
