/* Opening and closing files: cfile_open, cfile_open_new, cfile_close and cfile_attr of client.h. */
#ifndef REPLFS_FUSE_CLIENT_CALLS_OPENS_H
#define REPLFS_FUSE_CLIENT_CALLS_OPENS_H

struct client;
/* At the end of client_close, when no other thread is left: what is still open or dirty is given up. */
void open_files_free(struct client *c);
#endif
