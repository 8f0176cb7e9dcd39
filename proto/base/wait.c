/* One hook for the process, set once. */
#include "base/wait.h"
#include <stddef.h>

static void (*hook)(void);

void wait_set_hook(void (*fn)(void))
{
    hook = fn;
}

void wait_begin(void)
{
    if (hook != NULL)
        hook();
}
