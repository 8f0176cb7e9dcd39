/* The addresses of metads that the client knows, and what each said last. */
#ifndef REPLFS_FUSE_CLIENT_SESSION_METADS_H
#define REPLFS_FUSE_CLIENT_SESSION_METADS_H
#include <stdbool.h>
#include <stddef.h>

struct client;
#define METADS_MAX 64u
#define METADS_NONE ((size_t)-1)
#define METAD_ADDR 256u
#define METAD_SAID 256u
struct metad_addr {
    char addr[METAD_ADDR];
    char said[METAD_SAID]; /* why it does not serve us; "": nothing yet */
    bool given;            /* by the user: never forgotten */
};

/* ---- session.mu held ---- */

/* Its number; METADS_NONE: it cannot be taken. */
size_t metads_add_locked(struct client *c, const char *addr, bool given);
/* It is said to lead: it is asked first. */
void metads_leader_locked(struct client *c, const char *addr);
void metads_said_locked(struct client *c, const char *addr, const char *what);

/* ---- without it; any thread ---- */

/* All members, as one of them says: others are forgotten. n 0: it does not say. */
void metads_told(struct client *c, char *const *list, size_t n);
/* What each of them said, and more, as errors. */
void metads_log(struct client *c, const char *more);
#endif
