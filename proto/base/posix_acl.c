/* POSIX ACLs: checking, and the arithmetic between a list and a file's permission bits, as Linux'
 * own file systems do it (POSIX.1e draft 17).
 *
 * A list is worked on where it lies, in the bytes of its attribute: no second form, nothing to
 * allocate. One pass over the entries with the order of tags as a small automaton is the whole
 * check; whatever passed it has exactly one USER_OBJ, GROUP_OBJ and OTHER and at most one MASK, so
 * the functions below look for them without further ado.
 *
 * Failure modes: posix_acl_check's codes. Thread context: pure. */
#include "base/posix_acl.h"
#include <assert.h>
#include <errno.h>
#include "base/byteorder.h"

#define VERSION 2u
#define NO_ID UINT32_MAX

enum tag {
    USER_OBJ = 0x01,
    USER = 0x02,
    GROUP_OBJ = 0x04,
    GROUP = 0x08,
    MASK = 0x10,
    OTHER = 0x20,
};

static unsigned tag_of(const uint8_t *e)
{
    return le_get16(e);
}

static unsigned perm_of(const uint8_t *e)
{
    return le_get16(e + 2);
}

static void set_perm(uint8_t *e, unsigned perm)
{
    le_put16(e + 2, (uint16_t)perm);
}

int posix_acl_count(const uint8_t *acl, size_t len)
{
    if (len < POSIX_ACL_HEADER)
        return -EINVAL;
    if (le_get32(acl) != VERSION)
        return -EOPNOTSUPP;
    if ((len - POSIX_ACL_HEADER) % POSIX_ACL_ENTRY || len > INT32_MAX)
        return -EINVAL;
    for (const uint8_t *e = acl + POSIX_ACL_HEADER; e < acl + len; e += POSIX_ACL_ENTRY) {
        unsigned tag = tag_of(e);
        if ((tag == USER || tag == GROUP) && le_get32(e + 4) == NO_ID)
            return -EINVAL;
        if (tag == 0 || tag > OTHER || (tag & (tag - 1)))
            return -EINVAL;
    }
    return (int)((len - POSIX_ACL_HEADER) / POSIX_ACL_ENTRY);
}

/* Whether an entry with this tag may follow one with the tag last (0: none). */
static bool may_follow(unsigned tag, unsigned last, bool named)
{
    switch (tag) {
    case USER_OBJ:
        return last == 0;
    case USER:
    case GROUP_OBJ:
        return last == USER_OBJ || last == USER;
    case GROUP:
    case MASK:
        return last == GROUP_OBJ || last == GROUP;
    default: /* OTHER */
        return last == MASK || (last == GROUP_OBJ && !named);
    }
}

int posix_acl_check(const uint8_t *acl, size_t len)
{
    int n = posix_acl_count(acl, len);
    unsigned last = 0;
    bool named = false; /* so it needs a mask: OTHER may follow that alone */

    if (n <= 0)
        return n;
    for (const uint8_t *e = acl + POSIX_ACL_HEADER; e < acl + len; e += POSIX_ACL_ENTRY) {
        unsigned tag = tag_of(e);
        if (perm_of(e) > 7 || !may_follow(tag, last, named))
            return -EINVAL;
        named |= tag == USER || tag == GROUP;
        last = tag;
    }
    return last == OTHER ? n : -EINVAL;
}

void posix_acl_tidy(uint8_t *acl, size_t len)
{
    for (uint8_t *e = acl + POSIX_ACL_HEADER; e < acl + len; e += POSIX_ACL_ENTRY) {
        if (tag_of(e) != USER && tag_of(e) != GROUP)
            le_put32(e + 4, NO_ID);
    }
}

/* The entry with a tag that occurs at most once; NULL when it does not. */
static const uint8_t *acl_find(const uint8_t *acl, size_t len, unsigned tag)
{
    for (const uint8_t *e = acl + POSIX_ACL_HEADER; e < acl + len; e += POSIX_ACL_ENTRY) {
        if (tag_of(e) == tag)
            return e;
    }
    return NULL;
}

/* The three entries that a mode's three digits stand for. */
static void classes(const uint8_t *acl, size_t len, const uint8_t *e[3])
{
    e[0] = acl_find(acl, len, USER_OBJ);
    e[1] = acl_find(acl, len, MASK);
    if (!e[1])
        e[1] = acl_find(acl, len, GROUP_OBJ);
    e[2] = acl_find(acl, len, OTHER);
    assert(e[0] && e[1] && e[2]);
}

/* Without named entries and mask a list has three entries, and they are the mode. */
static bool is_minimal(size_t len)
{
    return len == POSIX_ACL_HEADER + 3 * POSIX_ACL_ENTRY;
}

bool posix_acl_to_mode(const uint8_t *acl, size_t len, uint16_t *mode)
{
    const uint8_t *e[3];

    classes(acl, len, e);
    *mode = (uint16_t)((*mode & ~0777u) | perm_of(e[0]) << 6 | perm_of(e[1]) << 3 | perm_of(e[2]));
    return is_minimal(len);
}

void posix_acl_chmod(uint8_t *acl, size_t len, uint16_t mode)
{
    const uint8_t *e[3];

    classes(acl, len, e);
    for (unsigned k = 0; k < 3; k++)
        set_perm(acl + (e[k] - acl), mode >> (6 - 3 * k) & 7u);
}

bool posix_acl_inherit(uint8_t *acl, size_t len, uint16_t *mode)
{
    const uint8_t *e[3];

    classes(acl, len, e);
    for (unsigned k = 0; k < 3; k++)
        set_perm(acl + (e[k] - acl), perm_of(e[k]) & (*mode >> (6 - 3 * k) & 7u));
    return posix_acl_to_mode(acl, len, mode);
}
