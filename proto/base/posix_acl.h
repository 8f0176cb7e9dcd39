/* POSIX ACLs in the form they have as extended attributes (acl(5), <linux/posix_acl_xattr.h>):
 * u32 version 2, then for each entry u16 tag, u16 permissions, u32 id, little-endian. All functions
 * but posix_acl_check() want bytes that it accepted. Pure, any thread. */
#ifndef REPLFS_BASE_POSIX_ACL_H
#define REPLFS_BASE_POSIX_ACL_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define POSIX_ACL_HEADER 4u
#define POSIX_ACL_ENTRY 8u

/* The number of entries, 0 for a list without any (which means: no ACL), -EOPNOTSUPP for another
 * version, -EINVAL for bytes that are not a list. Takes any bytes. */
int posix_acl_count(const uint8_t *acl, size_t len);
/* Likewise, and -EINVAL for a list that is not valid: entries in the order USER_OBJ, USER,
 * GROUP_OBJ, GROUP, MASK, OTHER; the OBJs and OTHER exactly once; MASK when there are named
 * users or groups. Takes any bytes. */
int posix_acl_check(const uint8_t *acl, size_t len);
/* Gives entries that carry no id the one that the kernel shows for them. */
void posix_acl_tidy(uint8_t *acl, size_t len);
/* Puts what the list says to a file's owner, group (or mask) and others into the permission bits of
 * *mode. True when that is all it says: such a list is not stored. */
bool posix_acl_to_mode(const uint8_t *acl, size_t len, uint16_t *mode);
/* After chmod: the list's owner, mask (else group) and others become those of mode. */
void posix_acl_chmod(uint8_t *acl, size_t len, uint16_t mode);
/* A new file in a directory whose default ACL this was: takes from the list what *mode does not
 * give, and from the permission bits of *mode what the list does not give. Returns as
 * posix_acl_to_mode. */
bool posix_acl_inherit(uint8_t *acl, size_t len, uint16_t *mode);
#endif
