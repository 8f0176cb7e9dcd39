/* The pace of a scrub.
 *
 * Spread over the cycle, it reads what is left in the time that is left, anew after each piece: what was lost while
 * clients were served, the disk was paused or the computer was off is made up for, since each piece makes the
 * next a little faster. A pass is to end when MARGIN of the cycle is over, and the next begins at once, in the same
 * order: so the time between two readings of a byte is about MARGIN of the cycle, and what is late has the rest of
 * it. A limit, which the administrator sets, is never exceeded, but by a pass that was asked for without one.
 *
 * While clients use the disk, a share of that is left; a pass without limit falls back to the limit.
 *
 * Failure modes: a disk that holds more than limit x cycle is never done in time: the age shows it, and health. */
#include "scrub_pace.h"

#include "base/clock.h"

#define MARGIN_NUM 9
#define MARGIN_DEN 10

static uint64_t even_rate(const struct scrub_pace *p)
{
    int64_t time = p->cycle / MARGIN_DEN * MARGIN_NUM - p->elapsed;
    if (time <= 0)
        return p->limit;
    double rate = (double)p->left * (double)NSEC_PER_SEC / (double)time;
    return rate < (double)p->limit ? (uint64_t)rate : p->limit;
}

uint64_t scrub_pace_rate(const struct scrub_pace *p)
{
    uint64_t rate = p->limit;
    switch (p->mode) {
    case SCRUB_EVEN:
        rate = even_rate(p);
        break;
    case SCRUB_SOON:
        break;
    case SCRUB_FAST:
        return p->busy ? p->limit : UINT64_MAX;
    }
    /* what the cycle needs is little enough; it is the limit that hurts */
    if (p->busy && rate > p->limit / SCRUB_BUSY_SHARE)
        rate = p->limit / SCRUB_BUSY_SHARE;
    return rate ? rate : 1;
}

int64_t scrub_pace_wait(uint64_t rate, uint64_t bytes, int64_t took)
{
    double due = (double)bytes * (double)NSEC_PER_SEC / (double)rate;
    double wait = due - (double)took;
    if (wait <= 0 || rate == UINT64_MAX)
        return 0;
    return wait < (double)(INT64_MAX / 2) ? (int64_t)wait : INT64_MAX / 2;
}
