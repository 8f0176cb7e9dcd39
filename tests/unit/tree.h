/* Removes what a test or bench made on disk. */
#ifndef REPLFS_TESTS_TREE_H
#define REPLFS_TESTS_TREE_H
#include <ftw.h>
#include <stdio.h>
#include <sys/stat.h>

static inline int tree_remove_one(const char *path, const struct stat *st, int flag, struct FTW *at)
{
    (void)st;
    (void)flag;
    (void)at;
    return remove(path);
}

/* A file, or a directory with all in it; symbolic links are not followed, what is missing is fine. */
static inline void tree_remove(const char *path)
{
    nftw(path, tree_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}
#endif
