/* Error codes. Functions return 0 or a negative code: -errno for what Linux already names, or one
 * of the codes below. They cross the wire as positive numbers (Failure.code, MutationResult.code),
 * so a number, once given, never changes. err_to_errno() is the one edge where they collapse to
 * errno. */
#ifndef REPLFS_BASE_ERROR_H
#define REPLFS_BASE_ERROR_H

enum err_code {
    ERR_NOT_LEADER = 10001, /* this metad does not lead; Failure.leader may name who does */
    ERR_SESSION = 10002,    /* session unknown or closed: open a new one */
    ERR_CRC = 10003,        /* a block's checksum is wrong */
    ERR_NO_CHUNK = 10004,   /* the chunkd does not have this chunk */
    ERR_SHORT = 10005,      /* the copy ends before the asked range */
    ERR_OFFSET = 10006,     /* append not at the chunk's end */
    ERR_CHAIN = 10007,      /* a later hop of the chain failed: Failure.chunkd */
    ERR_FEW_COPIES = 10008, /* fewer than min_copies chunkds can take the bytes */
    ERR_VERSION = 10009,    /* unknown newer (or too old) wire or disk format */
    ERR_WRONG_CLUSTER = 10010,
    ERR_ROLE = 10011,           /* the peer's certificate role may not call this */
    ERR_CAP = 10012,            /* capability missing, forged or for another chunk */
    ERR_CAP_EXPIRED = 10013,    /* ask metad for a fresh one */
    ERR_TIMEOUT = 10014,        /* deadline passed; the request may or may not have been executed */
    ERR_PEER_GONE = 10015,      /* connection lost; the request may or may not have been executed */
    ERR_PROTOCOL = 10016,       /* malformed or oversized frame or message */
    ERR_CORRUPT = 10017,        /* own state on disk cannot be trusted */
    ERR_BUSY = 10018,           /* try again shortly */
    ERR_NOT_REGISTERED = 10019, /* metad does not know this chunkd yet */
    ERR_SHUTDOWN = 10020,
    ERR_LOCKED = 10021,   /* data directory in use by another process */
    ERR_OLD_TERM = 10022, /* an order of a metad that does not lead any more */
};

/* The errno (positive) that an application sees for a negative or positive code. Never 0 for a
 * non-zero code. Any thread. */
int err_to_errno(int code);

/* Name for people and logs: "ERR_CRC: bad checksum", or strerror text. Static string or
 * thread-local buffer valid until the next call in this thread. Accepts negative and positive
 * codes. */
const char *err_str(int code);

#endif
