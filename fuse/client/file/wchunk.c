/* Chunks that files write to. The list of all that metad granted is in order of id, since ids that metad hands to a
 * session only grow: its head is the oldest grant that the keepalive reports, and what is older and unknown to metad
 * is garbage. */
#include "client/file/wchunk.h"
#include <assert.h>
#include <stdlib.h>
#include "client/internal.h"
#include "base/lock.h"

void wchunk_hold(struct client *c, struct wchunk *wc)
{
    struct wchunk *at = c->grants.newest;
    while (at && at->loc.chunk > wc->loc.chunk)
        at = at->prev;
    wc->prev = at;
    wc->next = at ? at->next : c->grants.oldest;
    *(wc->next ? &wc->next->prev : &c->grants.newest) = wc;
    *(at ? &at->next : &c->grants.oldest) = wc;
}

static void wchunk_unlist(struct client *c, struct wchunk *wc)
{
    *(wc->prev ? &wc->prev->next : &c->grants.oldest) = wc->next;
    *(wc->next ? &wc->next->prev : &c->grants.newest) = wc->prev;
}

void wchunk_drop(struct client *c, struct wchunk *wc)
{
    wchunk_unlist(c, wc);
    free(wc);
}

void wchunk_unref(struct client *c, struct wchunk *wc)
{
    if (!wc)
        return;
    assert(wc->refs);
    if (--wc->refs)
        return;
    if (!wc->borrowed) {
        lock_acquire(&c->grants.mu);
        wchunk_unlist(c, wc);
        lock_release(&c->grants.mu);
    }
    free(wc);
}
