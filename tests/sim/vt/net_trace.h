/* What a message says, in a line. */
#ifndef REPLFS_TESTS_SIM_NET_TRACE_H
#define REPLFS_TESTS_SIM_NET_TRACE_H
#include "envelope.pb-c.h"

/* To stderr; dir: "->" as it is sent, "<-" as it arrives. */
void net_trace(const char *at, const char *dir, const char *peer, const Replfs__Envelope *env);
#endif
