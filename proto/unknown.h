/* Fields of a message that this version's .proto files do not have: a newer sender's. protobuf-c keeps them and packs
 * them again, so that what one passes on may mean something to the next one that it did not know itself. What goes
 * into metad's log must not: all metads do with it what the leader would.
 *
 * No state, any thread; the caller owns the message. Nesting is as deep as the .proto files make it. */
#ifndef REPLFS_UNKNOWN_H
#define REPLFS_UNKNOWN_H
#include <protobuf-c/protobuf-c.h>
#include <stddef.h>

/* In m and all messages in it: how many of these have some. */
size_t unknown_fields(const ProtobufCMessage *m);

/* Hides all of them, until unknown_show, from what packs m. NULL: there are none. What is hidden stays where it is, so
 * m must not be freed meanwhile. */
struct unknown;
struct unknown *unknown_hide(ProtobufCMessage *m);
void unknown_show(struct unknown *u); /* and frees it; NULL is fine */
#endif
