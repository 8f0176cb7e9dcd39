/* What the metads of a run execute: every entry that one of them applies (mlog_apply_entry is wrapped) is compared with
 * what others, or itself before it was killed, applied at that index, and now and then their states are compared. */
#ifndef REPLFS_TESTS_SIM_HISTORY_H
#define REPLFS_TESTS_SIM_HISTORY_H
#include <stdbool.h>
#include <stdint.h>
#include "metad/fsm/fsm.h"

/* digest_every: entries; 0: states are not compared on the way. own_time: a planted bug, what a command does depends on
 * who executes it. */
void history_init(unsigned digest_every, bool own_time);
/* Called before an entry is applied, on the log thread. NULL: nobody. */
extern void (*history_hook)(uint64_t index);
/* A fresh state machine that executes all up to `applied` is as fsm: else the run ends. No lock held. */
void history_check(struct fsm *fsm, uint64_t applied);
uint64_t history_last(void);     /* the highest index applied */
uint64_t history_commands(void); /* in all */
uint64_t history_digests(void);  /* compared */
/* Calls fn for each command, in order. */
void history_each(void (*fn)(void *arg, uint64_t index, const Replfs__Command *cmd), void *arg);
#endif
