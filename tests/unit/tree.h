/* Removes what a test or bench made on disk. */
#ifndef REPLFS_TESTS_TREE_H
#define REPLFS_TESTS_TREE_H
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

/* A new folder NAME.xxxxxx in $TMPDIR or else in `where`; false when it cannot be made, or `dir` of
 * `n` bytes is too small. */
static inline int tree_make(char *dir, size_t n, const char *where, const char *name)
{
    const char *tmp = getenv("TMPDIR");
    int len = snprintf(dir, n, "%s/%s.XXXXXX", tmp ? tmp : where, name);
    return len > 0 && (size_t)len < n && mkdtemp(dir) != NULL;
}

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
