/* A 64-bit mixing function (splitmix64's finalizer, Steele, Lea, Flood 2014) for hash tables and
 * report digests. Part of the wire format: heartbeats carry the XOR of hash_u64(chunk). */
#ifndef REPLFS_BASE_HASH_H
#define REPLFS_BASE_HASH_H
#include <stdint.h>
static inline uint64_t hash_u64(uint64_t x)
{
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9ull;
    x ^= x >> 27;
    x *= 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}
#endif
