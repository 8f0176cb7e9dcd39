/* The words that operations write: (operation, position / 8), mixed so that no two look alike and
 * nothing compresses, but invertible. */
#ifndef EXERCISER_PATTERN_H
#define EXERCISER_PATTERN_H
#include <stdint.h>

#define PATTERN_MUL 0x9e3779b97f4a7c15ull /* odd, so it has an inverse modulo 2^64 */

static inline uint64_t pattern_word(uint64_t op, uint64_t index)
{
    return ((op << 32) | (index & 0xffffffffu)) * PATTERN_MUL;
}

/* The inverse; any word gives some answer, only a plausible one means anything. */
static inline void pattern_origin(uint64_t word, uint64_t *op, uint64_t *index)
{
    uint64_t inverse = PATTERN_MUL; /* Newton: each step doubles the number of right bits */
    for (int i = 0; i < 5; i++)
        inverse *= 2 - PATTERN_MUL * inverse;
    word *= inverse;
    *op = word >> 32;
    *index = word & 0xffffffffu;
}
#endif
