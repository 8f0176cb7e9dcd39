/* Which opens metad has been told of: files that were opened under a lease, and directories, are told of only
 * when somebody may take them away. Sends without waiting. All take files.mu; none may hold it. */
#ifndef REPLFS_FUSE_CLIENT_FILE_OPEN_TOLD_H
#define REPLFS_FUSE_CLIENT_FILE_OPEN_TOLD_H
#include "client/file/cfile.h"

struct open_dir {
    uint64_t ino;
    unsigned opens;
    bool told; /* metad knows that it is open */
};
/* Tells metad that ino is open, whether it has been told or not. Takes no lock of this client but the session's. */
void cfile_tell(struct client *c, uint64_t ino, bool write);
/* Those that are open unknown to metad are told: that of ino; all opened before a moment (clock_mono); those of some
 * age (flusher). They come before what is told to metad from now on. */
void cfile_tell_open(struct client *c, uint64_t ino);
void cfile_tell_opens(struct client *c, int64_t before);
void cfile_tell_old(struct client *c);
/* All directories that are open, likewise. */
void cfile_tell_dirs(struct client *c);
/* Is this directory open here? */
bool cfile_dir_open(struct client *c, uint64_t ino);
/* Around a change that may remove a name: all that is open is known to metad before. */
void cfile_removing(struct client *c, bool begin);
/* Everything open that metad is told of as the session resumes, malloc'ed; files count as told from now on. NULL
 * with *n 0: memory is out. */
uint64_t *cfile_open_inos(struct client *c, size_t *n);
/* f counts as told from now on. */
void cfile_now_told(struct cfile *f);
/* Opens that metad would not hear of yet are untold again. */
void cfile_take_refused(struct client *c);
/* At the end of the client, when no other thread is left: what is still open is forgotten. */
void cfile_dirs_free(struct client *c);
#endif
