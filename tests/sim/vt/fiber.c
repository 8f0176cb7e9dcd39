/* Fibers: a stack each, one of them running. A switch is a longjmp to the scheduler's context and one from there;
 * ucontext only makes the first entry, since it costs a system call. */
#undef _FORTIFY_SOURCE /* its longjmp refuses to leave for another stack */
#include "fiber.h"

#include <execinfo.h>
#include <link.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>
#include "base/lock.h"

#define STACK_BYTES (256u << 10)
#define GUARD_BYTES 4096u
#define STEP_NS 500 /* what a step costs, so that a loop that looks at the clock ends */

enum state { READY, WAITING, OVER };
struct fiber {
    jmp_buf jump;
    ucontext_t first;
    bool started, detached, timed_out;
    enum state state;
    struct vt_proc *proc;
    char name[24];
    void *(*fn)(void *);
    void *arg, *result;
    struct vt_queue *queue; /* WAITING in it, or NULL */
    struct fiber *next;     /* in the queue, or parked */
    struct fiber *all_next;
    void *held;     /* the locks that it holds, for base/lock.h */
    uint64_t timer; /* the one that counts */
    const char *what;
    struct vt_queue joiners;
    uint8_t *stack;
    uint8_t *tls; /* the program's thread-local variables */
};
struct timer {
    int64_t at;
    uint64_t seq;
    struct fiber *f;
    uint64_t gen;
};

static struct {
    struct vt_config cfg;
    uint64_t rng, seq, steps, timer_gen;
    int64_t now;
    jmp_buf jump;
    struct fiber *running, *all;
    struct fiber **ready;
    size_t nready, cap_ready;
    struct timer *heap;
    size_t nheap, cap_heap;
    uint8_t *stacks[64]; /* of fibers that are over */
    size_t nstacks;
    bool stop, dumping;
    uint8_t *tls, *tls_first; /* of the OS thread; what a new thread finds there */
    size_t tls_len;
} vt;

/* ---- the seed ---- */

uint64_t vt_rand(void)
{
    uint64_t z = vt.rng += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

uint64_t vt_below(uint64_t n)
{
    return vt_rand() % n;
}

bool vt_chance(unsigned one_in)
{
    return one_in && vt_below(one_in) == 0;
}

int64_t vt_between(int64_t a, int64_t b)
{
    return a + (int64_t)vt_below((uint64_t)(b - a) + 1);
}

/* ---- time ---- */

int64_t vt_now(void)
{
    return vt.now;
}

static int64_t offset(const struct vt_proc *p, enum vt_clock c)
{
    return c == VT_MONO ? p->mono_off : c == VT_BOOT ? p->boot_off : p->wall_off;
}

int64_t vt_clock(const struct vt_proc *p, enum vt_clock c)
{
    return p ? vt.now + vt.now / 1000000 * p->drift_ppm + offset(p, c) : vt.now;
}

int64_t vt_from_clock(const struct vt_proc *p, enum vt_clock c, int64_t t)
{
    if (!p)
        return t;
    t -= offset(p, c);
    return p->drift_ppm ? t - t / (1000000 + p->drift_ppm) * p->drift_ppm : t;
}

/* ---- timers: a binary heap; one that was overtaken stays until it is due ---- */

static bool sooner(const struct timer *a, const struct timer *b)
{
    return a->at != b->at ? a->at < b->at : a->seq < b->seq;
}

static void timer_add(struct fiber *f, int64_t at)
{
    if (vt.nheap == vt.cap_heap) {
        vt.cap_heap = vt.cap_heap ? 2 * vt.cap_heap : 256;
        vt.heap = realloc(vt.heap, vt.cap_heap * sizeof(*vt.heap));
        if (!vt.heap)
            abort();
    }
    struct timer t = {at, ++vt.seq, f, f->timer = ++vt.timer_gen};
    size_t i = vt.nheap++;
    for (; i && sooner(&t, &vt.heap[(i - 1) / 2]); i = (i - 1) / 2)
        vt.heap[i] = vt.heap[(i - 1) / 2];
    vt.heap[i] = t;
}

static struct timer timer_pop(void)
{
    struct timer top = vt.heap[0], t = vt.heap[--vt.nheap];
    size_t i = 0;
    for (size_t k; (k = 2 * i + 1) < vt.nheap; i = k) {
        if (k + 1 < vt.nheap && sooner(&vt.heap[k + 1], &vt.heap[k]))
            k++;
        if (!sooner(&vt.heap[k], &t))
            break;
        vt.heap[i] = vt.heap[k];
    }
    vt.heap[i] = t;
    return top;
}

/* ---- ready ---- */

static void make_ready(struct fiber *f)
{
    f->state = READY;
    f->queue = NULL;
    f->timer = 0;
    if (vt.nready == vt.cap_ready) {
        vt.cap_ready = vt.cap_ready ? 2 * vt.cap_ready : 256;
        vt.ready = realloc(vt.ready, vt.cap_ready * sizeof(struct fiber *));
        if (!vt.ready)
            abort();
    }
    vt.ready[vt.nready++] = f;
}

static void unqueue(struct fiber *f)
{
    if (!f->queue)
        return;
    struct fiber **p = &f->queue->first;
    while (*p != f)
        p = &(*p)->next;
    *p = f->next;
}

void vt_wake_one(struct vt_queue *q)
{
    size_t n = 0;
    for (struct fiber *f = q->first; f; f = f->next)
        n++;
    if (!n)
        return;
    struct fiber *f = q->first;
    for (size_t k = n > 1 ? vt_below(n) : 0; k; k--)
        f = f->next;
    unqueue(f);
    make_ready(f);
}

void vt_wake_all(struct vt_queue *q)
{
    struct fiber *f = q->first;
    q->first = NULL;
    while (f) {
        struct fiber *next = f->next;
        make_ready(f);
        f = next;
    }
}

/* ---- switching ---- */

static void to_scheduler(void)
{
    struct fiber *f = vt.running;
    while (!_setjmp(f->jump)) {
        vt.running = NULL;
        _longjmp(vt.jump, 1);
    }
    vt.running = f;
    while (vt.dumping) { /* woken only to show where it is */
        void *at[48];
        int n = backtrace(at, 48);
        backtrace_symbols_fd(at + 1, n - 1, STDERR_FILENO);
        if (!_setjmp(f->jump)) {
            vt.running = NULL;
            _longjmp(vt.jump, 1);
        }
        vt.running = f;
    }
}

bool vt_wait(struct vt_queue *q, int64_t until, const char *what)
{
    struct fiber *f = vt.running;
    if (!f)
        vt_fail("a wait for %s outside of all fibers", what);
    f->state = WAITING;
    f->what = what;
    f->timed_out = false;
    f->queue = q;
    f->next = NULL;
    if (q) {
        struct fiber **p = &q->first;
        while (*p)
            p = &(*p)->next;
        *p = f;
    }
    if (until != INT64_MAX)
        timer_add(f, until > vt.now ? until : vt.now);
    to_scheduler();
    f->what = "nothing";
    return !f->timed_out;
}

void vt_yield(void)
{
    struct fiber *f = vt.running;
    make_ready(f);
    to_scheduler();
}

void vt_maybe_yield(void)
{
    if (vt.running && vt_chance(vt.cfg.preempt_one_in))
        vt_yield();
}

void vt_sleep_until(int64_t until)
{
    while (vt.now < until)
        vt_wait(NULL, until, "time");
}

/* ---- thread-local variables: those of the program itself, as each fiber is a thread of it ---- */

static int find_tls(struct dl_phdr_info *info, size_t size, void *arg)
{
    (void)size, (void)arg;
    for (int i = 0; i < info->dlpi_phnum; i++)
        if (info->dlpi_phdr[i].p_type == PT_TLS) {
            vt.tls = info->dlpi_tls_data;
            vt.tls_len = info->dlpi_phdr[i].p_memsz;
        }
    return 1; /* the program comes first */
}

static uint8_t *tls_copy(const uint8_t *from)
{
    uint8_t *p = malloc(vt.tls_len + 1);
    if (!p)
        abort();
    memcpy(p, from, vt.tls_len);
    return p;
}

static void tls_init(void)
{
    static uint8_t none;
    vt.tls = &none;
    dl_iterate_phdr(find_tls, NULL);
    vt.tls_first = tls_copy(vt.tls);
}

/* ---- fibers ---- */

static void fiber_over(struct fiber *f)
{
    f->state = OVER;
    vt_wake_all(&f->joiners);
    vt.running = NULL;
    _longjmp(vt.jump, 1);
}

static void fiber_main(void)
{
    struct fiber *f = vt.running;
    f->result = f->fn(f->arg);
    fiber_over(f);
}

static uint8_t *stack_new(void)
{
    if (vt.nstacks)
        return vt.stacks[--vt.nstacks];
    uint8_t *s = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (s == MAP_FAILED || mprotect(s, GUARD_BYTES, PROT_NONE))
        abort();
    return s;
}

struct fiber *vt_spawn(struct vt_proc *p, const char *name, void *(*fn)(void *), void *arg)
{
    struct fiber *f = calloc(1, sizeof(*f));
    if (!f)
        abort();
    f->proc = p;
    f->fn = fn;
    f->arg = arg;
    f->what = "its start";
    vt_name(f, name);
    f->stack = stack_new();
    f->all_next = vt.all;
    vt.all = f;
    p->nfibers++;
    make_ready(f);
    return f;
}

struct fiber *vt_self(void)
{
    return vt.running;
}

struct vt_proc *vt_proc(void)
{
    return vt.running ? vt.running->proc : NULL;
}

void *vt_join(struct fiber *f)
{
    while (f->state != OVER)
        vt_wait(&f->joiners, INT64_MAX, "a thread's end");
    return f->result;
}

void vt_detach(struct fiber *f)
{
    f->detached = true;
}

void vt_name(struct fiber *f, const char *name)
{
    snprintf(f->name, sizeof(f->name), "%s", name);
}

const char *vt_fiber_name(const struct fiber *f)
{
    return f ? f->name : "-";
}

bool vt_over(const struct fiber *f)
{
    return f->state == OVER || f->proc->dead;
}

/* ---- processes ---- */

void vt_stop_proc(struct vt_proc *p, bool stopped)
{
    p->stopped = stopped;
    while (!stopped && p->parked) {
        struct fiber *f = p->parked;
        p->parked = f->next;
        make_ready(f);
    }
}

void vt_kill_proc(struct vt_proc *p)
{
    p->dead = true;
    p->parked = NULL;
    if (p->on_kill)
        p->on_kill(p);
    if (vt.running && vt.running->proc == p) {
        vt.running = NULL;
        _longjmp(vt.jump, 1);
    }
}

/* ---- the scheduler ---- */

void vt_init(const struct vt_config *cfg)
{
    vt.cfg = *cfg;
    vt.rng = cfg->seed;
    for (int i = 0; i < 4; i++)
        vt_rand();
    vt.rng ^= vt_rand();
    if (!vt.tls)
        tls_init();
}

void vt_stop(void)
{
    vt.stop = true;
}

uint64_t vt_steps(void)
{
    return vt.steps;
}

static void enter(struct fiber *f)
{
    vt.running = f;
    if (!f->tls)
        f->tls = tls_copy(vt.tls_first);
    memcpy(vt.tls, f->tls, vt.tls_len);
#if LOCK_CHECK
    if (!f->held)
        f->held = lock_note_list_new();
    lock_note_swap(f->held);
#endif
    if (_setjmp(vt.jump)) {
        memcpy(f->tls, vt.tls, vt.tls_len);
        return;
    }
    if (f->started)
        _longjmp(f->jump, 1);
    f->started = true;
    getcontext(&f->first);
    f->first.uc_stack.ss_sp = f->stack + GUARD_BYTES;
    f->first.uc_stack.ss_size = STACK_BYTES - GUARD_BYTES;
    f->first.uc_link = NULL;
    makecontext(&f->first, fiber_main, 0);
    setcontext(&f->first);
}

static void reclaim(struct fiber *f)
{
    if (f->state != OVER || !f->stack)
        return;
    if (vt.nstacks < sizeof(vt.stacks) / sizeof(vt.stacks[0]))
        vt.stacks[vt.nstacks++] = f->stack;
    else
        munmap(f->stack, STACK_BYTES);
    f->stack = NULL;
    free(f->tls);
    f->tls = NULL;
}

static void fire(struct timer t)
{
    struct fiber *f = t.f;
    if (f->state != WAITING || f->timer != t.gen || f->proc->dead)
        return;
    unqueue(f);
    f->timed_out = true;
    make_ready(f);
}

/* The next to run, or NULL: nobody can before the limit. */
static struct fiber *pick(int64_t limit)
{
    for (;;) {
        while (vt.nheap && vt.heap[0].at <= vt.now)
            fire(timer_pop());
        while (vt.nready) {
            size_t i = vt.nready > 1 ? vt_below(vt.nready) : 0;
            struct fiber *f = vt.ready[i];
            vt.ready[i] = vt.ready[--vt.nready];
            if (f->proc->dead)
                continue;
            if (!f->proc->stopped)
                return f;
            f->next = f->proc->parked;
            f->proc->parked = f;
        }
        if (!vt.nheap || vt.heap[0].at > limit)
            return NULL;
        vt.now = vt.heap[0].at > vt.now ? vt.heap[0].at : vt.now;
    }
}

bool vt_run(int64_t limit)
{
    vt.stop = false;
    while (!vt.stop) {
        struct fiber *f = vt.now < limit ? pick(limit) : NULL;
        if (!f)
            return false;
        vt.steps++;
        vt.now += STEP_NS;
        enter(f);
        reclaim(f);
    }
    return true;
}

void vt_alone(void)
{
    vt.running = NULL;
}

/* ---- reports ---- */

void vt_dump(void)
{
    vt.dumping = true;
    for (struct fiber *f = vt.all; f; f = f->all_next) {
        if (f->state == OVER || f->proc->dead)
            continue;
        fprintf(stderr, "-- %s/%s waits for %s%s\n", f->proc->name, f->name, f->what,
                f->state == READY ? " (ready)" : "");
        if (f->started)
            enter(f);
    }
    vt.dumping = false;
}

void vt_fail(const char *fmt, ...)
{
    va_list ap;
    struct fiber *f = vt.running;
    fprintf(stderr, "FOUND at %.6f s", (double)vt.now / 1e9);
    if (f)
        fprintf(stderr, ", %s/%s", f->proc->name, f->name);
    fprintf(stderr, ": ");
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fprintf(stderr, "\n");
    if (f) {
        void *at[48];
        int n = backtrace(at, 48);
        backtrace_symbols_fd(at + 1, n - 1, STDERR_FILENO);
    }
    if (getenv("SIM_DUMP")) { /* where all others are, too */
        f = vt.running;
        vt.running = NULL;
        vt_dump();
    }
    fflush(NULL);
    _exit(VT_EXIT_FOUND);
}
