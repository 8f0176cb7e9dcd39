/* Whether a history is linearizable: whether its operations can be put in one order that the model accepts,
 * in which each stands somewhere between its question and its answer. */
#ifndef LINEAR_WGL_H
#define LINEAR_WGL_H
#include "history.h"

enum wgl_verdict {
    WGL_FINE,
    WGL_VIOLATION,
    WGL_UNDECIDED, /* more states than were allowed */
};
struct wgl_result {
    enum wgl_verdict verdict;
    uint64_t states; /* that were remembered */
    /* The longest order found: all of the history when it is fine (unknown operations only as far as they
     * must have happened). Indexes of operations; index + h->n is an operation's peek (model.h). */
    size_t *order, ordered, operations; /* operations: without the peeks */
    /* Operations of which each could come next by its time, and none can by the model. */
    size_t *stuck, nstuck;
};
#define WGL_STATES 2000000u /* a good limit: a few hundred bytes each */

/* h is sorted (history_sort). */
void wgl_check(const struct history *h, uint64_t max_states, struct wgl_result *out);
/* The end of the order, the state there, and what cannot be placed; for WGL_FINE one line. */
void wgl_print(const struct history *h, const struct wgl_result *r, FILE *out);
void wgl_result_free(struct wgl_result *r);
#endif
