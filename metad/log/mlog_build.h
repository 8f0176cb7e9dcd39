/* Makes a data directory for metad of a state file and the log entries behind it, which come from elsewhere: a copy
 * of the names on a chunkd, or a backup. One thread. */
#ifndef REPLFS_METAD_LOG_MLOG_BUILD_H
#define REPLFS_METAD_LOG_MLOG_BUILD_H
#include <stddef.h>
#include <stdint.h>

struct mlog_build;
/* dir is made, or empty: -ENOTEMPTY after a log line that says what is in it. The state file is that of log index
 * `index`. 0 or a negative code after a log line. */
int mlog_build_begin(const char *dir, uint64_t index, struct mlog_build **out);
/* The next bytes of the state file. 0 or -errno. */
int mlog_build_state(struct mlog_build *b, const void *p, size_t len);
/* The next entry (entry.h). 0; -ERR_CORRUPT or -ERR_VERSION with *why: it is none, and was not taken. */
int mlog_build_entry(struct mlog_build *b, uint64_t index, const void *p, size_t len,
                     const char **why);
/* Writes the rest: a log of one voter that begins with this state, in this term; replfs.id last. What is
 * there is checked as at metad's start. 0 or a negative code after a log line. */
int mlog_build_finish(struct mlog_build *b, const char *uuid, uint64_t term);
/* The directory's next start begins a new life of the cluster (names_file.h): chunkds obey it rather than a metad of
 * any other copy of these names. Sets *term to the first of that life. No metad uses the directory. With several metads,
 * one of them is enough: the others follow the higher term. 0 or a negative code after a log line. */
int mlog_new_life(const char *dir, char uuid[static 37], uint64_t *term);
/* Frees; what was not finished stays in dir as it is, and no metad starts on it. NULL is fine. */
void mlog_build_free(struct mlog_build *b);
#endif
