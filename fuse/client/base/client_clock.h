/* The times that a client reckons with. Any thread; no lock is taken or needed. */
#ifndef REPLFS_FUSE_CLIENT_BASE_CLIENT_CLOCK_H
#define REPLFS_FUSE_CLIENT_BASE_CLIENT_CLOCK_H
#include <stdint.h>

struct client;
/* The time for what is changed now, wall ns: metad's, should this computer's clock be far from it. */
int64_t client_now(struct client *c);
/* What metad's clock said in an answer that has just come, in ms; 0: it does not tell. */
void client_told_time(struct client *c, uint64_t wall_ms);
/* When a call that begins now has to end: the mount's time-out from now, clock_mono ns. */
int64_t client_deadline(const struct client *c);
#endif
