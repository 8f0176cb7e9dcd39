/* The simulated network: rpc.h by virtual time. What is sent is packed as on the wire and unpacked by the receiver;
 * each connection delivers in order after delays from the seed, different connections overtake each other. */
#ifndef REPLFS_TESTS_SIM_NET_H
#define REPLFS_TESTS_SIM_NET_H
#include "fiber.h"

#define NET_HOSTS 20u
struct net_config {
    int64_t delay_min, delay_max; /* ns, of a message */
    unsigned slow_one_in;         /* one of so many takes up to slow_max */
    int64_t slow_max;
    bool trace; /* each message, to stderr */
};
void net_init(const struct net_config *cfg);
void net_set_slow(unsigned one_in); /* from now on; 0: none */
/* Nothing gets from one to the other; connections break when that lasts. */
void net_cut(unsigned host_a, unsigned host_b, bool cut);
void net_cut_way(unsigned from, unsigned to, bool cut); /* in that direction alone */
bool net_is_cut(unsigned from, unsigned to);
void net_heal_all(void);
/* Connections between the two break, and what was under way is lost. Host NET_HOSTS: any. */
void net_reset(unsigned host_a, unsigned host_b);
/* To be a process' on_kill. */
void net_killed(struct vt_proc *p);
uint64_t net_messages(void);
#endif
