/* Encoding and decoding of metadata log entries; the layout is in entry.h.
 *
 * The log engine has a checksum of its own around every write, but it only protects what it wrote;
 * ours goes from the proposing leader to the applying metad, and its index ties an entry to its
 * place in the log. Decoding checks everything before anything is used: magic, version, the lengths
 * of all commands adding up to exactly the length in the header, zeros behind. The bytes come from
 * disks and peers, so every failure is an answer, never an assertion. Pure functions, any thread.
 */
#include "entry.h"

#include <assert.h>

#include "base/crc32c.h"
#include "base/error.h"
#include "base/byteorder.h"

#define PREFIX 4u /* length in front of every command */

static size_t pad8(size_t n)
{
    return (n + 7u) & ~(size_t)7u;
}

size_t entry_size(unsigned count, size_t bytes)
{
    return pad8(ENTRY_HEADER + (size_t)count * PREFIX + bytes);
}

size_t entry_put(uint8_t *buf, size_t pos, const void *cmd, size_t len)
{
    assert(len <= ENTRY_MAX_BYTES);
    le_put32(buf + pos, (uint32_t)len);
    memcpy(buf + pos + PREFIX, cmd, len);
    return pos + PREFIX + len;
}

static uint32_t entry_crc(const uint8_t *buf, size_t length)
{
    return crc32c(crc32c(0, buf, 20), buf + ENTRY_HEADER, length);
}

size_t entry_finish(uint8_t *buf, size_t pos, unsigned count, uint64_t index, unsigned version)
{
    size_t size = pad8(pos);

    assert(count >= 1 && count <= ENTRY_MAX_COMMANDS && size <= ENTRY_MAX_BYTES);
    le_put32(buf, ENTRY_MAGIC);
    le_put16(buf + 4, (uint16_t)version);
    le_put16(buf + 6, (uint16_t)count);
    le_put64(buf + 8, index);
    le_put32(buf + 16, (uint32_t)(pos - ENTRY_HEADER));
    le_put32(buf + 20, entry_crc(buf, pos - ENTRY_HEADER));
    memset(buf + pos, 0, size - pos);
    return size;
}

static const char *check_commands(const uint8_t *p, size_t length, unsigned count)
{
    size_t pos = 0;

    for (unsigned i = 0; i < count; i++) {
        if (length - pos < PREFIX)
            return "commands run past the entry's end";
        size_t len = le_get32(p + pos);
        pos += PREFIX;
        if (len > length - pos)
            return "a command runs past the entry's end";
        pos += len;
    }
    return pos == length ? NULL : "bytes behind the last command";
}

int entry_open(const void *buf, size_t len, struct entry *e, const char **why)
{
    const uint8_t *p = buf;

    *why = NULL;
    if (len < ENTRY_HEADER || len > ENTRY_MAX_BYTES || len % 8 != 0)
        *why = "impossible entry size";
    else if (le_get32(p) != ENTRY_MAGIC)
        *why = "wrong magic";
    if (*why)
        return -ERR_CORRUPT;
    if (le_get16(p + 4) < ENTRY_VERSION_MIN || le_get16(p + 4) > ENTRY_VERSION) {
        *why = "entry version unknown to this program";
        return -ERR_VERSION;
    }
    size_t length = le_get32(p + 16);
    unsigned count = le_get16(p + 6);
    if (length > len - ENTRY_HEADER || pad8(ENTRY_HEADER + length) != len)
        *why = "length does not fit the entry";
    else if (entry_crc(p, length) != le_get32(p + 20))
        *why = "checksum mismatch";
    else if (count < 1 || count > ENTRY_MAX_COMMANDS)
        *why = "impossible number of commands";
    else
        *why = check_commands(p + ENTRY_HEADER, length, count);
    for (size_t i = ENTRY_HEADER + length; !*why && i < len; i++)
        if (p[i] != 0)
            *why = "padding is not zero";
    if (*why)
        return -ERR_CORRUPT;
    e->count = count;
    e->left = count;
    e->index = le_get64(p + 8);
    e->next = p + ENTRY_HEADER;
    e->end = p + ENTRY_HEADER + length;
    return 0;
}

bool entry_next(struct entry *e, const uint8_t **cmd, size_t *len)
{
    if (e->left == 0)
        return false;
    *len = le_get32(e->next);
    *cmd = e->next + PREFIX;
    e->next += PREFIX + *len;
    e->left--;
    return true;
}
