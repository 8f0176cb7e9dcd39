/* Which computers do not hear each other: see net.h. */
#include "net.h"

#include <string.h>

static bool is_cut[NET_HOSTS][NET_HOSTS]; /* from, to */

void net_cut(unsigned a, unsigned b, bool cut)
{
    net_cut_way(a, b, cut);
    net_cut_way(b, a, cut);
}

void net_cut_way(unsigned from, unsigned to, bool cut)
{
    is_cut[from][to] = cut;
}

void net_heal_all(void)
{
    memset(is_cut, 0, sizeof(is_cut));
}

bool net_is_cut(unsigned from, unsigned to)
{
    return is_cut[from % NET_HOSTS][to % NET_HOSTS];
}
