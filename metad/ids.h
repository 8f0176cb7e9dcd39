/* Inode and chunk ids that are never given twice: handed out from ranges that the log has reserved.
 */
#ifndef REPLFS_METAD_IDS_H
#define REPLFS_METAD_IDS_H
#include <stdint.h>
#include "fsm.h"
#include "mlog.h"

struct ids;
/* Reserves the first ranges through the log (waits; not on the log thread). 0 or a negative code.
 */
int ids_new(struct fsm *fsm, struct mlog *mlog, struct ids **out);
void ids_free(struct ids *ids); /* after mlog_close */
/* Any thread. The id, or 0 when the range ran out before the next reservation was durable:
 * ERR_BUSY. Each caller's ids increase; they never repeat, whatever crashes. */
uint64_t ids_ino(struct ids *ids);
uint64_t ids_chunk(struct ids *ids);
#endif
