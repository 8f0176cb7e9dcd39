/* Inode and chunk ids that are never given twice: handed out from ranges that the log has reserved.
 */
#ifndef REPLFS_METAD_LOG_IDS_H
#define REPLFS_METAD_LOG_IDS_H
#include <stdbool.h>
#include <stdint.h>
#include "metad/fsm/fsm.h"
#include "mlog.h"

struct ids;
/* Of one leadership: reserves the first ranges through the log (waits; not on the log thread). 0 or a negative
 * code. */
int ids_new(struct fsm *fsm, struct mlog *mlog, struct ids **out);
void ids_free(struct ids *ids); /* waits for the reservation under way; not on the log thread */
/* Any thread. The id, or 0 when the range ran out before the next reservation was durable:
 * ERR_BUSY. Each caller's ids increase; they never repeat, whatever crashes. */
uint64_t ids_ino(struct ids *ids);
uint64_t ids_chunk(struct ids *ids);
/* Gives the session n inode numbers in a row. The first, or 0 as above. */
uint64_t ids_inos(struct ids *ids, uint64_t session, uint32_t n);
/* A chunkd has registered, and knows that chunk ids and inode numbers below these may have been given,
 * by this metad or by another that ran with a copy of its directory: they are not given (again).
 * At first no inode numbers are given before the first such call, or 3 seconds. */
void ids_told(struct ids *ids, uint64_t chunk_upto, uint64_t ino_upto);
/* The number was given to this session, or to some session before this leadership. */
bool ids_is_given(struct ids *ids, uint64_t session, uint64_t ino);
#endif
