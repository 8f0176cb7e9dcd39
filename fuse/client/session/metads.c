/* Which metads there are: those that the user named stay for ever, others come and go as metads tell (SessionReply,
 * KeepaliveReply), or are named by one of them as the leader. Each has what it said last, for people.
 *
 * The list is short (METADS_MAX), and under session.mu. `cur` is where the leader is, as far as we know. */
#include "client/session/metads.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/error.h"
#include "base/lock.h"
#include "base/log.h"
#include "client/internal.h"

#define LOG_MODULE "session"

static size_t metad_find(const struct client *c, const char *addr)
{
    size_t i = 0;
    while (i < c->session.nmetads && strcmp(c->session.metads[i].addr, addr) != 0)
        i++;
    return i;
}

size_t metads_add_locked(struct client *c, const char *addr, bool given)
{
    lock_assert_held(&c->session.mu);
    size_t i = metad_find(c, addr), n = c->session.nmetads;
    if (i < n) {
        c->session.metads[i].given |= given;
        return i;
    }
    if (n >= METADS_MAX || !*addr || strlen(addr) >= METAD_ADDR)
        return METADS_NONE;
    struct metad_addr *v = realloc(c->session.metads, (n + 1) * sizeof(*v));
    if (!v)
        abort();
    c->session.metads = v;
    v[n] = (struct metad_addr){.given = given};
    snprintf(v[n].addr, sizeof(v[n].addr), "%s", addr);
    return c->session.nmetads++;
}

void metads_leader_locked(struct client *c, const char *addr)
{
    size_t i = metads_add_locked(c, addr, false);
    if (i != METADS_NONE)
        c->session.cur = i;
}

static bool is_told(char *const *list, size_t n, const char *addr)
{
    for (size_t i = 0; i < n; i++)
        if (!strcmp(list[i], addr))
            return true;
    return false;
}

void metads_told(struct client *c, char *const *list, size_t n)
{
    if (!n)
        return; /* a metad that does not tell */
    LOCK_SCOPE(&c->session.mu);
    char cur[METAD_ADDR] = "";
    if (c->session.nmetads)
        snprintf(cur, sizeof(cur), "%s", c->session.metads[c->session.cur].addr);
    size_t kept = 0;
    for (size_t i = 0; i < c->session.nmetads; i++) {
        struct metad_addr *m = &c->session.metads[i];
        if (m->given || !strcmp(m->addr, cur) || is_told(list, n, m->addr))
            c->session.metads[kept++] = *m;
        else
            log_info("metad %s is no member any more", m->addr);
    }
    c->session.nmetads = kept;
    for (size_t i = 0; i < n; i++) {
        kept = c->session.nmetads;
        metads_add_locked(c, list[i], false);
        if (c->session.nmetads > kept)
            log_info("metad %s is a member, too", list[i]);
    }
    c->session.cur = metad_find(c, cur);
    if (c->session.cur == c->session.nmetads)
        c->session.cur = 0;
}

void metads_said_locked(struct client *c, const char *addr, const char *what)
{
    lock_assert_held(&c->session.mu);
    size_t i = metad_find(c, addr);
    if (i < c->session.nmetads)
        snprintf(c->session.metads[i].said, METAD_SAID, "%s", what);
}

void metads_log(struct client *c, const char *more)
{
    LOCK_SCOPE(&c->session.mu);
    for (size_t i = 0; i < c->session.nmetads; i++) {
        const struct metad_addr *m = &c->session.metads[i];
        log_error("metad %s does not serve us: %s%s", m->addr, *m->said ? m->said : "no answer yet",
                  more);
    }
}
