/* The handler of SIGBUS. It is called on the thread that touched the page, while that thread executes the
 * instruction that did, so jumping out of it is as safe as out of the function that holds the
 * instruction. SIGBUS stays unblocked (SA_NODEFER), since the jump skips the return from the handler.
 *
 * A SIGBUS outside of any guard, or one that was sent (kill) or is of another kind (alignment), is a bug or
 * somebody's wish: the default action follows. */
#include "map_guard.h"

#include <signal.h>
#include <stddef.h>

static _Thread_local struct map_guard *volatile current;

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
    (void)context;
    struct map_guard *g = current;
    if (!g || (info->si_code != BUS_ADRERR && info->si_code != BUS_OBJERR &&
               info->si_code != BUS_MCEERR_AR)) {
        signal(sig, SIG_DFL); /* the instruction comes again, or the one who sent it does */
        if (info->si_code <= 0)
            raise(sig);
        return;
    }
    current = g->outer;
    siglongjmp(g->env, 1);
}

void map_guard_init(void)
{
    struct sigaction sa = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigemptyset(&sa.sa_mask);
    sigaction(SIGBUS, &sa, NULL);
}

void map_guard_enter(struct map_guard *g)
{
    g->outer = current;
    current = g;
}

void map_guard_leave(struct map_guard *g)
{
    current = g->outer;
}
