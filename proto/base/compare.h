/* The order of 64-bit numbers, for qsort and bsearch. */
#ifndef REPLFS_BASE_COMPARE_H
#define REPLFS_BASE_COMPARE_H
#include <stdint.h>
static inline int compare_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}
#endif
