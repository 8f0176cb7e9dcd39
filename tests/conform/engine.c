/*
 * engine: counts assertions, keeps the failed ones, becomes users, watches times.
 *
 * Owns the result table. It lives in shared memory, since cases and the users that they become are processes of their
 * own; counters are atomic and each failure takes its slot by one increment. A failure is printed at once as one
 * write(2), so lines of several processes stay whole. Failure modes: a process that dies by a signal or leaves its
 * block is found by whoever waits for it and counted as a failed assertion.
 */
#include "tests/conform/engine.h"

#include <fnmatch.h>
#include <grp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>

struct conform_results *conform_results;
static char note[256];
static const char *area_name = "", *case_name = "";

const struct conform_user ALICE = {70001, 70001, 0, {0}};
const struct conform_user MATE = {70003, 70001, 0, {0}};
const struct conform_user MEMBER = {70004, 70004, 2, {70001, TEAM}};
const struct conform_user BOB = {70002, 70002, 0, {0}};

// -- results -------------------------------------------------------------------------------------

void conform_results_open(void)
{
    void *p = mmap(NULL, sizeof(*conform_results), PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
        perror("mmap");
        exit(2);
    }
    conform_results = p;
}

void conform_enter(const char *area, const char *name)
{
    area_name = area;
    case_name = name;
    note[0] = 0;
}

void conform_note(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(note, sizeof(note), fmt, ap);
    va_end(ap);
}

/* Whether a listed difference covers this assertion; notes how it came out. */
static bool is_expected(const char *name, bool good)
{
    bool covered = false;
    for (int i = 0; i < conform_results->differences; i++) {
        struct conform_difference *d = &conform_results->difference[i];
        if (fnmatch(d->pattern, name, 0))
            continue;
        atomic_fetch_add(good ? &d->passed : &d->failed, 1);
        covered = true;
    }
    return covered;
}

bool conform_check(int line, bool good, const char *text, const char *want, const char *fmt, ...)
{
    struct conform_results *r = conform_results;
    char name[CONFORM_TEXT];
    snprintf(name, sizeof(name), "%s/%s: %s%s%s", area_name, case_name, note, note[0] ? ": " : "",
             text);
    bool covered = is_expected(name, good);
    atomic_fetch_add(&r->assertions, 1);
    if (good) {
        if (r->verbose)
            dprintf(1, "ok    %s (line %d)\n", name, line);
        return true;
    }
    char got[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(got, sizeof(got), fmt, ap);
    va_end(ap);
    atomic_fetch_add(covered ? &r->expected : &r->failed, 1);
    unsigned slot = atomic_fetch_add(&r->kept, 1);
    if (slot < CONFORM_KEPT) {
        struct conform_failure *f = &r->failure[slot];
        f->line = line;
        f->expected = covered;
        snprintf(f->name, sizeof(f->name), "%s", name);
        snprintf(f->want, sizeof(f->want), "%s", want);
        snprintf(f->got, sizeof(f->got), "%s", got);
    }
    if (!r->quiet && (!covered || r->verbose))
        dprintf(1, "%s  %s (%s.c:%d): expected %s, got %s\n", covered ? "DIFF" : "FAIL", name,
                area_name, line, want, got);
    return false;
}

static const char *error_name(int error)
{
    const char *s = strerrorname_np(error);
    return s ? s : "an unknown errno";
}

long long conform_ok(int line, long long result, int error, const char *text)
{
    if (result >= 0)
        conform_check(line, true, text, "", " ");
    else
        conform_check(line, false, text, "success", "%s", error_name(error));
    return result;
}

long long conform_err(int line, int want, long long result, int error, const char *text)
{
    if (result >= 0)
        conform_check(line, false, text, error_name(want), "success (%lld)", result);
    else
        conform_check(line, error == want, text, error_name(want), "%s", error_name(error));
    return result;
}

long long conform_eq(int line, long long want, long long got, const char *text)
{
    char w[32];
    snprintf(w, sizeof(w), "%lld", want);
    conform_check(line, want == got, text, w, "%lld", got);
    return got;
}

bool conform_str(int line, const char *want, const char *got, const char *text)
{
    char w[128];
    snprintf(w, sizeof(w), "'%.100s'", want);
    return conform_check(line, !strcmp(want, got), text, w, "'%.100s'", got);
}

void conform_stop(void)
{
    fflush(NULL);
    _exit(CONFORM_STOPPED);
}

// -- processes and users ---------------------------------------------------------------------------

void conform_child_end(void)
{
    _exit(0);
}

pid_t conform_fork(void)
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0) {
        conform_check(0, false, "fork", "success", "%s", error_name(errno));
        conform_stop();
    }
    return pid;
}

bool conform_join(int line, pid_t pid)
{
    int status = 0;
    pid_t got;
    do
        got = waitpid(pid, &status, 0);
    while (got < 0 && errno == EINTR);
    if (got == pid && WIFEXITED(status) &&
        (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == CONFORM_STOPPED))
        return true;
    if (got == pid && WIFSIGNALED(status))
        return conform_check(line, false, "child process", "its end", "signal %d",
                             WTERMSIG(status));
    return conform_check(line, false, "child process", "its end", "status %#x", status);
}

bool conform_as(int line, const struct conform_user *user)
{
    pid_t pid = conform_fork();
    if (pid) {
        conform_join(line, pid);
        return false;
    }
    if (setgroups((size_t)user->ngroups, user->groups) ||
        setresgid(user->gid, user->gid, user->gid) || setresuid(user->uid, user->uid, user->uid)) {
        conform_check(line, false, "becoming another user", "success", "%s", error_name(errno));
        conform_stop();
    }
    return true;
}

// -- times ---------------------------------------------------------------------------------------

int conform_time_cmp(struct timespec a, struct timespec b)
{
    if (a.tv_sec != b.tv_sec)
        return a.tv_sec < b.tv_sec ? -1 : 1;
    return a.tv_nsec == b.tv_nsec ? 0 : a.tv_nsec < b.tv_nsec ? -1 : 1;
}

void conform_tick(void)
{
    struct timespec start, now, pause = {0, 500000};
    for (int i = 0; i < 2; i++) {
        clock_gettime(CLOCK_REALTIME_COARSE, &start);
        do {
            nanosleep(&pause, NULL);
            clock_gettime(CLOCK_REALTIME_COARSE, &now);
        } while (conform_time_cmp(now, start) == 0);
    }
}

void conform_times_before(struct conform_times *t, const char *spec)
{
    char copy[256], *rest = copy, *word;
    snprintf(copy, sizeof(copy), "%s", spec);
    t->n = 0;
    while ((word = strsep(&rest, " ")) && t->n < (int)COUNT(t->of)) {
        char *changes = strchr(word, '=');
        if (changes)
            *changes++ = 0;
        snprintf(t->of[t->n].path, sizeof(t->of[0].path), "%s", word);
        snprintf(t->of[t->n].want, sizeof(t->of[0].want), "%s", changes ? changes : "");
        t->of[t->n].before = st_of(word);
        t->n++;
    }
    conform_tick();
}

void conform_times_after(int line, const struct conform_times *t, const char *text)
{
    for (int i = 0; i < t->n; i++) {
        struct stat b = t->of[i].before, a;
        char changed[8], name[400], *c = changed;
        if (lstat(t->of[i].path, &a)) {
            conform_check(line, false, text, "times", "%s", error_name(errno));
            continue;
        }
        if (conform_time_cmp(a.st_atim, b.st_atim))
            *c++ = 'a';
        if (conform_time_cmp(a.st_mtim, b.st_mtim))
            *c++ = 'm';
        if (conform_time_cmp(a.st_ctim, b.st_ctim))
            *c++ = 'c';
        *c = 0;
        snprintf(name, sizeof(name), "%s: times changed of %s", text, t->of[i].path);
        conform_str(line, t->of[i].want, changed, name);
    }
}
