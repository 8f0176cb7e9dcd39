/* What a local file system would have answered, as far as that can be told from outside.
 *
 * Everything that is read or written is a register: a name in a directory (its value: the inode, 0: none), and a
 * block of a file (its value: the stamp of the write that filled it, 0: zeros or beyond the end). A write has a time
 * from which it may count and one by which it does; in between others may see it or not. A read of a value is
 * right when some write of that value may have counted when it was read, and no write that surely came later had
 * surely counted before the read began. Answers are reads, too: EEXIST says that the name was there.
 *
 * A write is `open` while its call runs; `sure` when it surely counts. An answered write is `soft` while only its
 * client has it (write-behind): when the client dies, or was out of reach for longer than its leases, it may be lost
 * or count later. It is hard once it was synced or somebody else saw it.
 *
 * Not thread-safe (there is one thread); memory is not given back. */
#ifndef REPLFS_TESTS_SIM_MODEL_H
#define REPLFS_TESTS_SIM_MODEL_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MODEL_ANY UINT64_MAX /* the value is not known yet: the first that is seen there */
#define MODEL_NEVER INT64_MAX

struct model_write {
    uint64_t value;
    int64_t start, end;      /* counts from .. by; end MODEL_NEVER: perhaps never */
    int64_t done;            /* its call returned; 0: not yet */
    bool synced;             /* a power cut does not matter */
    bool sure, soft, broken; /* broken: may be lost for good, whatever is said later */
    unsigned client;
    uint64_t op;    /* the call that made it */
    uint64_t group; /* what an fsync covers: the inode, or the directory */
};
struct model_reg {
    bool bytes; /* of a file: on chunkds, the rest is in metad's log */
    char name[32];
    struct model_write *v;
    size_t n, cap;
};

/* A register that has been `value` from the beginning. */
struct model_reg *model_reg_new(const char *name, uint64_t value);
/* A call began; returns its number. */
uint64_t model_op(void);
void model_begin(struct model_reg *r, uint64_t op, unsigned client, uint64_t group, uint64_t value);
enum model_outcome { MODEL_DONE, MODEL_NOT_DONE, MODEL_UNKNOWN };
/* All writes of the call; value: of those whose value was not known, 0: still not. */
void model_end(struct model_reg *r, uint64_t op, enum model_outcome o, bool soft, uint64_t value);
/* `value` was read between t0 and now by a call (whose own writes do not explain it). False: a local file system
 * could not have said so; why is filled in. A change that the client still waits for does not count for its own reads:
 * what it caches is older until it is answered, even when others have seen the change. */
bool model_read(struct model_reg *r, uint64_t op, unsigned client, uint64_t value, int64_t t0,
                char why[static 400]);
/* Something else than 0 was there. */
bool model_read_some(struct model_reg *r, uint64_t op, unsigned client, int64_t t0,
                     char why[static 400]);
/* The client's writes of the group (0: all) that were answered before t0 are where neither its death nor a power cut
 * matters. Not those of a time when its leases may have run out: their loss may have been told to whoever asked first,
 * or, when nobody had the file open, to the log alone. */
void model_hard(unsigned client, uint64_t group, int64_t t0);
/* They may be lost: an error was told. */
void model_broken(unsigned client, uint64_t group);
/* The client is dead: what is soft counts by now, or never. */
void model_dead(unsigned client);
/* The power of all computers fails: bytes that were not synced may be gone, and cannot be read then. */
void model_power_cut(void);
/* An error cannot be the answer to a read: what is there was synced. */
bool model_must_be_there(const struct model_reg *r);
/* Leases of the client may run out until it is back: what is soft, or becomes so meanwhile, may be lost, or count
 * whenever. */
void model_cut_off(unsigned client, bool cut);
/* The value was there at t, and nothing can have changed that by then. */
bool model_surely(const struct model_reg *r, uint64_t value, int64_t t);
void model_print(const struct model_reg *r);
uint64_t model_reads(void);
#endif
