/* All locks of all programs, in the order in which one thread may take them: LOCK_CLASS(name, may_wait, what).
 *
 * name: LOCK_name is the class. may_wait: whether it may be held while its holder waits for a peer or for another
 * thread's word. what: what it guards. No include guard: base/lock.h and lock.c include it with macros of their own.
 * ARCHITECTURE.md has the same table for readers; scripts/architecture compares the two. */
/* clang-format off */
/* -- the mount: fuse/ -- */
LOCK_CLASS(SERVE_LOOP, false, "threads that serve the kernel: how many, which are idle")
LOCK_CLASS(CTL_SERVER, false, "answers of control requests that replfsctl has not fetched yet")
LOCK_CLASS(LISTING, true, "one open directory: what was listed, and where the reader is")
LOCK_CLASS(ROOT_NODE, true, "the root's inode number, asked for once")
LOCK_CLASS(OPEN_FILES, false, "handles of open files of the mount")
LOCK_CLASS(RELEASES, false, "how many closes are under way")
LOCK_CLASS(INODE_STRIPE, false, "the kernel's references to inodes, one stripe of the table")
LOCK_CLASS(INTERRUPTS, false, "callers that wait, and are looked after for signals")
LOCK_CLASS(LEADER_FOLLOWER, false, "which thread reads the next request")
LOCK_CLASS(CPU_SCOUT, false, "where the served program runs, as the scout saw it")
/* -- the client: fuse/client -- */
/* -- metad -- */
LOCK_CLASS(CONVERGE_ANSWER, true, "the last answer of how far files are from their goals")
LOCK_CLASS(FSM, false, "the state machine: the log thread writes, others read")
LOCK_CLASS(IDS, false, "ranges of inode and chunk ids")
LOCK_CLASS(LEASE_CONNS, false, "connections of sessions, for recalls")
LOCK_CLASS(LEASES, false, "the table of leases, the changes that wait for them")
LOCK_CLASS(SESSIONS, false, "sessions of the leader, open files, orphans")
LOCK_CLASS(FILE_LOCKS, false, "the table of file locks, who waits for them")
LOCK_CLASS(REGISTRY, false, "chunkds, copies, reports, jobs")
LOCK_CLASS(DRIVER, false, "answered orders, and the driver's wake-up")
LOCK_CLASS(MLOG, false, "proposals for the log thread, the log's phase")
LOCK_CLASS(MLOG_WAIT, false, "one caller that waits for its proposal")
/* -- chunkd -- */
LOCK_CLASS(CHUNKD_SERVICE, false, "capability keys, requests under way")
LOCK_CLASS(ORDER_WAIT, false, "one order that waits for a peer's answer")
LOCK_CLASS(CHUNKD_ADDRESSES, false, "addresses of other chunkds, appends that wait for one")
LOCK_CLASS(HEARTBEAT, false, "the connection to metad, what wakes the heartbeat")
LOCK_CLASS(PEERS, false, "connections to other chunkds")
LOCK_CLASS(WORKERS, false, "jobs of one pool of threads")
LOCK_CLASS(DISKS, false, "which disk has which chunk, moves under way")
LOCK_CLASS(INVENTORY, false, "the chunks of this chunkd, and what metad was told")
LOCK_CLASS(STORE_WAIT, false, "one caller that waits for its operation")
LOCK_CLASS(STORE_MAINT, false, "what the maintenance thread is to do")
LOCK_CLASS(STORE_COPIES, false, "copies of chunks that come in")
LOCK_CLASS(STORE_QUEUE, false, "operations for the writer")
LOCK_CLASS(STORE_SYNC, false, "operations that wait for fdatasync(2)")
LOCK_CLASS(INDEX_STRIPE, false, "recently changed chunks, one stripe of the index")
LOCK_CLASS(INDEX_RESIZE, false, "LMDB's map, which grows")
LOCK_CLASS(SEGMENT_FD, false, "opening and closing of segment files")
LOCK_CLASS(SEGMENTS, false, "the table of segments")
LOCK_CLASS(STORE_ERROR, false, "why a store failed")
/* -- all: proto/rpc, proto/base -- */
LOCK_CLASS(RPC_ADMISSION, false, "who is connected, how often")
LOCK_CLASS(RPC_CONN, false, "one connection: what is sent, its state, its calls")
LOCK_CLASS(RPC_WORKER, false, "timers and connections of one thread of the rpc loop")
LOCK_CLASS(RPC_LOOP, false, "listeners, names being resolved, the TLS context")
LOCK_CLASS(BUF_POOL, false, "free buffers of one size")
/* clang-format on */
