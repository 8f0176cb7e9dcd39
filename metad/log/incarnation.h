/* The name of a start of metad: see fsm_past.c. */
#ifndef REPLFS_METAD_LOG_INCARNATION_H
#define REPLFS_METAD_LOG_INCARNATION_H
#include "mlog.h"

/* Logs a fresh random incarnation, once this metad leads and before it serves anybody (waits; not on
 * the log thread). 0 or a negative code. */
int incarnation_begin(struct mlog *mlog);
#endif
