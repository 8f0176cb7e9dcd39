/* A word from a thread that is about to wait for another thread or machine, for the one that has to go on meanwhile:
 * a thread that alone takes in requests lets another do that. Any thread. */
#ifndef REPLFS_BASE_WAIT_HOOK_H
#define REPLFS_BASE_WAIT_HOOK_H

/* fn is called on each thread that is about to wait; quick, and with locks of the caller held. Before
 * other threads start. */
void wait_hook_set(void (*fn)(void));
void wait_hook_call(void);
#endif
