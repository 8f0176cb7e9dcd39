/* Gives a mangled checkpoint right checksums again, so that a test gets past them to the decoder.
 */
#ifndef REPLFS_TESTS_CKPT_FIX_H
#define REPLFS_TESTS_CKPT_FIX_H
#include "base/crc32c.h"
#include "base/byteorder.h"
#include "metad/fsm/fsm_format.h"

/* Payload lengths are clipped to what is there; stops where nothing sensible follows. */
static inline void ckpt_fix(uint8_t *p, size_t n)
{
    if (n < CKPT_HEADER)
        return;
    le_put32(p + 28, crc32c(0, p, 28));
    for (size_t at = CKPT_HEADER; n - at > CKPT_SECTION;) {
        size_t left = n - at - CKPT_SECTION, len = le_get32(p + at + 8);
        if (len == 0 || len > left)
            len = left < CKPT_PAYLOAD_MAX ? left : CKPT_PAYLOAD_MAX;
        le_put32(p + at, CKPT_MARK);
        le_put32(p + at + 8, (uint32_t)len);
        le_put32(p + at + 12, crc32c(0, p + at + CKPT_SECTION, len));
        le_put32(p + at + 16, crc32c(0, p + at, 16));
        at += CKPT_SECTION + len;
    }
}

/* Offset of the first section of a type, 0 when there is none; p is well-formed. */
static inline size_t ckpt_section(const uint8_t *p, size_t n, uint32_t type)
{
    for (size_t at = CKPT_HEADER; n - at > CKPT_SECTION;
         at += CKPT_SECTION + le_get32(p + at + 8)) {
        if (le_get32(p + at + 4) == type)
            return at;
    }
    return 0;
}
#endif
