/* CRC32C by ISA-L, which picks the best instructions of the processor at run time. ISA-L computes
 * the bare register: the inversions before and after that the standard asks for are done here.
 * Pure; any thread. */
#include "crc32c.h"

#include <isa-l/crc.h>
#include "base/byteorder.h"

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
        le_put32(out + 4 * i, block_crc(data, len, i));
    }
}

long crc_blocks_check(const void *data, size_t len, const uint8_t *crcs)
{
    for (size_t i = 0, n = crc_blocks(len); i < n; i++) {
        if (block_crc(data, len, i) != le_get32(crcs + 4 * i))
            return (long)i;
    }
    return -1;
}
