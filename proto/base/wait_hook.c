/* One hook for the process, set once. */
#include "base/wait_hook.h"
#include <stddef.h>

static void (*hook)(void);

void wait_hook_set(void (*fn)(void))
{
    hook = fn;
}

void wait_hook_call(void)
{
    if (hook)
        hook();
}
