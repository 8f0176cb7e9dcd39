/* Virtual time: the threads of simulated programs are fibers under one scheduler, which takes every decision from
 * the seed. A fiber runs until it waits (or is preempted at a lock); when none can run, time jumps to the next
 * timer. So a run is a function of its seed, and an hour takes milliseconds.
 *
 * A process is a group of fibers with clocks of its own: it can be stopped for a while (SIGSTOP), killed
 * (its fibers never run again, its memory is never looked at again), and have its wall clock stepped.
 *
 * One OS thread. What is not said otherwise is called on a fiber. */
#ifndef REPLFS_TESTS_SIM_FIBER_H
#define REPLFS_TESTS_SIM_FIBER_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fiber;
struct vt_queue { /* fibers that wait for one thing; all zero is empty */
    struct fiber *first;
};
struct vt_proc {
    char name[16];
    unsigned host; /* number of its computer, for the network */
    bool dead, stopped;
    int64_t mono_off, boot_off, wall_off; /* ns, to virtual time */
    int64_t drift_ppm;                    /* its clocks run that much faster */
    void (*on_kill)(struct vt_proc *p);   /* outside: its connections break */
    struct fiber *parked;                 /* private: ready, but stopped */
    unsigned nfibers;
};

/* ---- the seed ---- */
uint64_t vt_rand(void);
uint64_t vt_below(uint64_t n);            /* 0 .. n - 1; n > 0 */
bool vt_chance(unsigned one_in);          /* 0: never */
int64_t vt_between(int64_t a, int64_t b); /* a .. b */

/* ---- time ---- */
int64_t vt_now(void); /* ns since the start; never goes back */
enum vt_clock { VT_MONO, VT_BOOT, VT_WALL };
int64_t vt_clock(const struct vt_proc *p, enum vt_clock c);
int64_t vt_from_clock(const struct vt_proc *p, enum vt_clock c,
                      int64_t t); /* when that clock shows t */

/* ---- running ---- */
struct vt_config {
    uint64_t seed;
    unsigned preempt_one_in; /* at locks; 0: only who waits gives way */
};
void vt_init(const struct vt_config *cfg);
/* Runs fibers until stop() was called or until virtual time `limit`. False: the limit was reached, or nobody can
 * run any more. Not on a fiber. */
bool vt_run(int64_t limit);
void vt_stop(void);
uint64_t vt_steps(void);

struct fiber *vt_spawn(struct vt_proc *p, const char *name, void *(*fn)(void *), void *arg);
struct fiber *vt_self(void);   /* NULL: not on a fiber */
struct vt_proc *vt_proc(void); /* of the running fiber; NULL: none */
void *vt_join(struct fiber *f);
void vt_detach(struct fiber *f);
void vt_name(struct fiber *f, const char *name);
const char *vt_fiber_name(const struct fiber *f);
bool vt_over(const struct fiber *f); /* its function has returned, or its process is dead */

/* Waits in q until woken or until virtual time `until` (INT64_MAX: for ever). False: it was the time. what: for
 * reports. */
bool vt_wait(struct vt_queue *q, int64_t until, const char *what);
void vt_wake_one(struct vt_queue *q); /* any of them; no fiber needed */
void vt_wake_all(struct vt_queue *q);
void vt_yield(void);
void vt_maybe_yield(void); /* by the seed */
void vt_sleep_until(int64_t until);

void vt_stop_proc(struct vt_proc *p, bool stopped);
void vt_kill_proc(struct vt_proc *p); /* may be the caller's own: then it does not return */

/* In a child process that was just made: only the running fiber goes on, and nothing may wait. */
void vt_alone(void);
/* Where each fiber waits, with its stack, to stderr. Not on a fiber. */
void vt_dump(void);
/* What goes wrong in the simulated programs: says so, dumps, and ends the process. */
_Noreturn void vt_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
#define VT_EXIT_FOUND 3
#endif
