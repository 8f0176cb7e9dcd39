/* What the work*.c files share. */
#ifndef REPLFS_TESTS_SIM_WORK_INT_H
#define REPLFS_TESTS_SIM_WORK_INT_H
#include "fuse/client/client.h"
#include "model.h"
#include "work.h"
#include "world.h"

#define WORK_BLOCKS 4u
#define WORK_NAMES 8u
#define WORK_DIRS 2u
#define WORK_HANDLES 2u
#define WORK_CLIENTS_MAX WORLD_CLIENTS
#define WORK_MODE 0644u /* of a new file */

struct work_file {
    uint64_t ino;
    struct model_reg *block[WORK_BLOCKS], *mode;
    struct work_file *next;
};
struct work_dir {
    uint64_t ino;
    struct model_reg *name[WORK_NAMES];
};
struct work_handle {
    struct cfile *f;
    struct work_file *file;
    bool writable;
    int64_t opened; /* when that was answered */
};
struct program { /* a fiber of a client */
    unsigned client, number;
    struct client *c;
    struct fiber *fiber;
    struct work_handle open[WORK_HANDLES];
    uint64_t op; /* the present call: number, name, when it began */
    const char *what;
    int64_t t0;
    struct program *next;
};
struct work_lock { /* as the kernel's of a directory: names in it change one after the other */
    struct vt_queue q;
    bool held;
};
struct work {
    struct work_lock lock[WORK_CLIENTS_MAX][WORK_DIRS];
    struct work_config cfg;
    struct work_dir dir[WORK_DIRS];
    struct work_file *files;
    struct program *programs;
    unsigned running, verifying;
    bool stop, made;
    uint64_t calls, stamp;
};
extern struct work work;

void work_call(struct program *p, const char *what, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* The call is over with rc; true when that is 0. Errors other than those in the list (ending in 0) are findings in
 * a run without faults. */
bool work_over_with(struct program *p, int rc, ...);
struct work_file *work_file(uint64_t ino);
/* rc says that the open file is not there: right only when it may have had no name as it was opened. */
void work_gone(struct program *p, const struct work_handle *h, int rc);
void work_wrong(const struct program *p, const struct model_reg *r, const char *why);
const char *work_name(unsigned i);
/* work_files.c */
void work_open(struct program *p, uint64_t ino);
void work_opened(struct program *p, struct cfile *f, uint64_t ino, bool writable);
void work_close(struct program *p, struct work_handle *h);
void work_on_file(struct program *p);
/* Reads each block: all must be readable. */
void work_verify_blocks(struct program *p, struct work_handle *h);
/* What attributes of a file say, that were asked for since p->t0. */
void work_saw_attr(struct program *p, const Replfs__Attr *a);
/* work_names.c */
void work_on_names(struct program *p);
uint64_t work_lookup(struct program *p, unsigned d, unsigned n);
void work_list(struct program *p, unsigned d);
/* work_locks.c */
void work_on_locks(struct program *p);
#endif
