/* How often clients may have copies of chunks checked. Pure: time comes as an argument. Not
 * thread-safe. All zero is the beginning. */
#ifndef REPLFS_METAD_PLAN_DOUBTS_H
#define REPLFS_METAD_PLAN_DOUBTS_H
#include <stdbool.h>
#include <stdint.h>

#define DOUBTS_SESSIONS 256u   /* that are counted at one time */
#define DOUBTS_PER_SESSION 64u /* at once, then one every DOUBTS_SESSION_MS */
#define DOUBTS_SESSION_MS 500u
#define DOUBTS_IN_ALL 1024u /* likewise, of all sessions */
#define DOUBTS_ALL_MS 50u

struct doubts {
    int64_t all;
    struct {
        uint64_t session;
        int64_t due;
    } v[DOUBTS_SESSIONS];
};
/* Whether the session may have one more copy checked now; counts it. */
bool doubts_take(struct doubts *d, uint64_t session, int64_t now);
#endif
