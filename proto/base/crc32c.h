/* CRC32C (Castagnoli, RFC 3720 appendix B.4) by ISA-L. Any thread. */
#ifndef REPLFS_BASE_CRC32C_H
#define REPLFS_BASE_CRC32C_H
#include <stddef.h>
#include <stdint.h>

#define CRC_BLOCK 4096u /* one checksum per so many bytes of an append */

/* Standard CRC32C of len bytes; seed 0 starts, a former result continues. crc32c("123456789") is
 * 0xE3069283. */
uint32_t crc32c(uint32_t seed, const void *data, size_t len);
/* Blocks that len bytes fill. */
static inline size_t crc_blocks(size_t len)
{
    return (len + CRC_BLOCK - 1) / CRC_BLOCK;
}
/* Writes crc_blocks(len) little-endian u32 to out. */
void crc_blocks_make(const void *data, size_t len, uint8_t *out);
/* Index of the first wrong block, or -1 when all match. */
long crc_blocks_check(const void *data, size_t len, const uint8_t *crcs);
#endif
