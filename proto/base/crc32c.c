/* CRC32C by ISA-L, which picks the best instructions of the processor at run time. ISA-L computes
 * the bare register: the inversions before and after that the standard asks for are done here.
 * Pure; any thread. */
#include "crc32c.h"

#include <isa-l/crc.h>

#define PIECE (1u << 30) /* ISA-L takes int lengths */

uint32_t crc32c(uint32_t seed, const void *data, size_t len)
{
    const unsigned char *p = data;
    uint32_t crc = ~seed;

    while (len > 0) {
        size_t n = len < PIECE ? len : PIECE;
        /* The prototype lacks const; ISA-L only reads. */
        crc = crc32_iscsi((unsigned char *)(uintptr_t)p, (int)n, crc);
        p += n;
        len -= n;
    }
    return ~crc;
}

static uint32_t block_crc(const uint8_t *data, size_t len, size_t i)
{
    size_t off = i * CRC_BLOCK;
    size_t n = len - off < CRC_BLOCK ? len - off : CRC_BLOCK;

    return crc32c(0, data + off, n);
}

void crc_blocks_make(const void *data, size_t len, uint8_t *out)
{
    for (size_t i = 0, n = crc_blocks(len); i < n; i++) {
        uint32_t c = block_crc(data, len, i);
        out[4 * i] = (uint8_t)c;
        out[4 * i + 1] = (uint8_t)(c >> 8);
        out[4 * i + 2] = (uint8_t)(c >> 16);
        out[4 * i + 3] = (uint8_t)(c >> 24);
    }
}

long crc_blocks_check(const void *data, size_t len, const uint8_t *crcs)
{
    for (size_t i = 0, n = crc_blocks(len); i < n; i++) {
        const uint8_t *p = crcs + 4 * i;
        uint32_t want =
            (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
        if (block_crc(data, len, i) != want)
            return (long)i;
    }
    return -1;
}
