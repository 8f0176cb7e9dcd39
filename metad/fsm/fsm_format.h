/* The checkpoint file: constants shared by fsm_save.c and fsm_load.c (man/replfs-format.7). All
 * numbers are little-endian.
 *
 *   header   u8 magic[8]; u32 version; u32 0; u64 index; u32 0; u32 crc of the 28 bytes before
 *   section  u32 mark; u32 type; u32 length; u32 crc of the payload; u32 crc of the 16 bytes
 *            before; payload
 *   ...      types ascend; a type may take several sections; records never cross sections
 *   END      u64 records in the file (END's not counted); u64 sections before it; then end of file
 *
 * The header's layout and checksum are the same in every version, so that a newer file is told from
 * a damaged one. Records by section type:
 *
 *   META     u64 change; u64 chunk_upto; u64 ino_upto
 *   SESSION  u64 id; u64 acked; str8 name; str8 host id; since version 3: u8 what it may hold (1
 *            leases, 2 locks; before: both), u8 1: it has lapsed, u32 how often, i64 when last, u64
 *            change numbers, from (without) and to, of what others did then
 *   ANSWER   u64 session; u64 seq; u64 ino; u64 parent; u32 code; u64 value
 *            (ascending per session; value since version 2)
 *   MEMBER   u32 chunkd; str8 host id; str8 host name; since version 4: u32 the chunkd that took its place, or 0
 *   INODE    u64 ino; u16 mode; u16 nlink; u32 uid; u32 gid; u8 goal; u64 change; i64 mtime, ctime,
 *            atime; u64 size; u64 next cookie of a directory or rdev of a device, else 0; since
 *            version 2: u8 flags (1: never had a name), u16 quota realm; str16 symlink target
 *   DENTRY   u64 parent; u64 child; u64 cookie; str8 name
 *   CHUNK    u64 id; u64 session; u32 len
 *   EXTENT   u64 ino; u64 file_off; u64 chunk; u32 chunk_off; u32 len  (ascending per inode; since
 *            version 2 several inodes may name one chunk, and chunk 0 is a reserved range)
 *   XATTR    u64 ino; str8 name; u32 length; value of that length (since version 2)
 *   QUOTA    u16 realm; u64 ino of the tree's root; u64 most bytes; u64 most inodes (0: no limit)
 *   INCARNATION  u64 incarnation; u64 position where it began; u64 chunk ids reserved by then
 *            (ascending by position; since version 3)
 *   FUTURE   u64 incarnation; u64 position; i64 time; u8 accepted  (since version 3)
 *   FOREIGN  u64 from; u64 to: chunk ids that other futures may have given  (since version 3)
 *   DOUBT    u64 session that other futures may have gone on with  (since version 3)
 *   CLUSTER  u32 feature level; u32 id of the next metad; u64 longest lease term that may still be in use, or 0; u64
 *            position where it was lowered, or 0; u8 1: there is a key of capabilities; u64 its id; u8 key[32]
 *            (one record; since version 4)
 *   METAD    u32 id; str8 address; str8 name; str8 host id  (ascending; since version 4)
 *   SETTING  u32 number; u64 value  (since version 4)
 *   CHUNKD   u32 chunkd; u8 1: it is being drained; u64 ms that it is to be away, or 0; i64 time from which on, or 0;
 *            u8 n, limits of disks; n times (ascending) u32 disk; u64 bytes; u8 1: at once
 *            (ascending; of members about whom something was decided; since version 5)
 *
 * str8 and str16 are a length of one or two bytes and that many bytes. What follows from the rest
 * (orphans, parents, reference counts, a chunk's goal, a quota's use and nesting) is not stored but
 * computed and checked when loading. */
#ifndef REPLFS_METAD_FSM_FSM_FORMAT_H
#define REPLFS_METAD_FSM_FSM_FORMAT_H

#define CKPT_MAGIC "RPLFSCKP"
#define CKPT_VERSION 5u
#define CKPT_VERSION_LEVEL_0                                                                       \
    3u /* written as long as the feature level is 0, so that the program before can go on */
#define CKPT_VERSION_LEVEL_1 4u /* likewise, 1 */
#define CKPT_VERSION_MIN 1u
#define CKPT_HEADER 32u
#define CKPT_SECTION 20u
#define CKPT_MARK 0x54434553u /* "SECT" */
#define CKPT_PAYLOAD_MAX (256u << 10)
#define CKPT_RECORD_MAX 4400u
#define CKPT_XATTR_RECORD_MAX (13u + 255u + (64u << 10))

enum ckpt_type {
    CKPT_META = 1,
    CKPT_SESSION = 2,
    CKPT_ANSWER = 3,
    CKPT_MEMBER = 4,
    CKPT_INODE = 5,
    CKPT_DENTRY = 6,
    CKPT_CHUNK = 7,
    CKPT_EXTENT = 8,
    CKPT_XATTR = 9,        /* since version 2 */
    CKPT_QUOTA = 10,       /* since version 2 */
    CKPT_INCARNATION = 11, /* since version 3 */
    CKPT_FUTURE = 12,      /* since version 3 */
    CKPT_FOREIGN = 13,     /* since version 3 */
    CKPT_DOUBT = 14,       /* since version 3 */
    CKPT_CLUSTER = 15,     /* since version 4 */
    CKPT_METAD = 16,       /* since version 4 */
    CKPT_SETTING = 17,     /* since version 4 */
    CKPT_CHUNKD = 18,      /* since version 5 */
    CKPT_END = 255,
};
#endif
