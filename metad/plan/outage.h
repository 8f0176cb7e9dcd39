/* How much may be dead before repair asks a person: a pure decision. One dead computer is repaired by itself, whatever it
 * holds. Many at once are rather a switch, a power strip or a room than so many broken disks: copying all that they have
 * would fill the others, for nothing when they come back, or with the copies that were to be kept apart. Any thread. */
#ifndef REPLFS_METAD_PLAN_OUTAGE_H
#define REPLFS_METAD_PLAN_OUTAGE_H
#include <stdbool.h>
#include <stdint.h>

/* Down: dead, or silent and so perhaps about to be. Without those whose place another one took, or whose chunks have copies
 * elsewhere. */
struct outage {
    unsigned hosts, down_hosts; /* computers with chunkds; those of which all are down */
    unsigned down_chunkds, dead_chunkds;
    uint64_t bytes, down_bytes; /* that they held when they were last heard */
};
/* Whether repair waits, as soon as any is dead. max_dead: percent of the computers or of the bytes that may be down, but for one computer, which always may.
 * accepted: so many dead chunkds a person knows of (replfsctl repair resume); more than these are asked about again. */
bool outage_holds(const struct outage *o, unsigned max_dead, uint64_t accepted);
#endif
