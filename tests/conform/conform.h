/*
 * What the areas of the conformance program share: assertions, users, times and small tools.
 *
 * An area is one file; its cases are void functions that run in a process and a folder of their own (the current
 * folder when they start), as root, with umask 022. Assertions may be made in any process that a case forks: results
 * are kept in shared memory. Each assertion is known by AREA/CASE and its text: the expression, after the words of the
 * last NOTE. tests/conform/differences names by that text those that may come out otherwise on replfs.
 */
#ifndef CONFORM_H
#define CONFORM_H

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

struct conform_case {
    const char *name; // "slow-..": run only with --slow
    void (*run)(void);
};

struct conform_area {
    const char *name; // also the name of its file
    const struct conform_case *cases;
    size_t n;
};

#define AREA(id, ...)                                                                              \
    static const struct conform_case id##_cases[] = {__VA_ARGS__};                                 \
    const struct conform_area conform_##id = {#id, id##_cases,                                     \
                                              sizeof(id##_cases) / sizeof(id##_cases[0])}
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

extern const struct conform_area conform_acl, conform_data, conform_links, conform_listing,
    conform_locks, conform_map, conform_names, conform_nodes, conform_notify, conform_open,
    conform_orphan, conform_owner, conform_paths, conform_perms, conform_ranges, conform_rename,
    conform_space, conform_sparse, conform_times, conform_utimes, conform_xattr, conform_pair;

// -- assertions ----------------------------------------------------------------------------------
// Each returns what its expression returned. Inside loops call NOTE first, so that each turn has a text of its own.

/* The engine behind the macros: counts one assertion and, when !good, keeps and prints it. */
bool conform_check(int line, bool good, const char *text, const char *want, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));
long long conform_ok(int line, long long result, int error, const char *text);
long long conform_err(int line, int want, long long result, int error, const char *text);
long long conform_eq(int line, long long want, long long got, const char *text);
bool conform_str(int line, const char *want, const char *got, const char *text);

/* Words that precede the text of the assertions that follow; NULL: none. */
void conform_note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
#define NOTE(...) conform_note(__VA_ARGS__)
#define NOTE_END() conform_note("%s", "")

#define TRY_(call) (errno = 0, (long long)(call))
/* the call succeeds (its result is not negative) */
#define OK(...)                                                                                    \
    ({                                                                                             \
        long long ok_ = TRY_((__VA_ARGS__));                                                       \
        conform_ok(__LINE__, ok_, errno, #__VA_ARGS__);                                            \
    })
/* the call returns -1 with this errno */
#define ERR(code, ...)                                                                             \
    ({                                                                                             \
        long long err_ = TRY_((__VA_ARGS__));                                                      \
        conform_err(__LINE__, code, err_, errno, #__VA_ARGS__);                                    \
    })
/* like OK or ERR, by code: 0 is success */
#define GIVES(code, ...)                                                                           \
    ({                                                                                             \
        long long gives_ = TRY_((__VA_ARGS__));                                                    \
        int code_ = (code);                                                                        \
        code_ ? conform_err(__LINE__, code_, gives_, errno, #__VA_ARGS__)                          \
              : conform_ok(__LINE__, gives_, errno, #__VA_ARGS__);                                 \
    })
/* like OK; when the call fails the case ends */
#define NEED(...)                                                                                  \
    ({                                                                                             \
        long long need_ = TRY_((__VA_ARGS__));                                                     \
        if (conform_ok(__LINE__, need_, errno, #__VA_ARGS__) < 0)                                  \
            conform_stop();                                                                        \
        need_;                                                                                     \
    })
/* setting the scene: not an assertion unless it fails, and then the case ends */
#define DO(...)                                                                                    \
    ({                                                                                             \
        long long do_ = TRY_((__VA_ARGS__));                                                       \
        if (do_ < 0) {                                                                             \
            conform_ok(__LINE__, do_, errno, #__VA_ARGS__);                                        \
            conform_stop();                                                                        \
        }                                                                                          \
        do_;                                                                                       \
    })
#define EQ(want, ...)                                                                              \
    conform_eq(__LINE__, (long long)(want), (long long)(__VA_ARGS__), #__VA_ARGS__)
#define YES(...) conform_check(__LINE__, (__VA_ARGS__), #__VA_ARGS__, "true", "false")
#define STR(want, ...) conform_str(__LINE__, want, __VA_ARGS__, #__VA_ARGS__)
/* the case cannot go on */
void conform_stop(void) __attribute__((noreturn));

// -- users ---------------------------------------------------------------------------------------

struct conform_user {
    uid_t uid;
    gid_t gid;
    int ngroups;
    gid_t groups[2];
};
enum { TEAM = 70010, OTHERS = 70011 };
extern const struct conform_user ALICE;  // the usual owner
extern const struct conform_user MATE;   // of alice's group, by primary group
extern const struct conform_user MEMBER; // of alice's group and TEAM, by supplementary group
extern const struct conform_user BOB;    // nothing in common

/* Forks: returns true in the child, which has become that user, and false in the parent once the child has ended. */
bool conform_as(int line, const struct conform_user *user);
/* Ends a child made by conform_as or conform_fork. */
void conform_child_end(void) __attribute__((noreturn));
/* AS(BOB) { ... }: the block is run by another process, as that user */
#define AS(user)                                                                                   \
    for (bool as_ = conform_as(__LINE__, &(user)); as_; as_ = false, conform_child_end())
/* CHILD(pid) { ... }: the block is run by a child at the same time; conform_join(pid) waits for it */
pid_t conform_fork(void);
#define CHILD(pid)                                                                                 \
    for (bool child_ = ((pid) = conform_fork()) == 0; child_; child_ = false, conform_child_end())
/* Waits for a child's end; false and one failed assertion when it did not end well. */
bool conform_join(int line, pid_t pid);
#define JOIN(pid) conform_join(__LINE__, pid)

// -- times ---------------------------------------------------------------------------------------

/* Returns once the clock of file times has moved on, so that a time set from now on differs from all earlier ones. */
void conform_tick(void);
int conform_time_cmp(struct timespec a, struct timespec b);
struct conform_times {
    struct {
        char path[64];
        char want[4];
        struct stat before;
    } of[6];
    int n;
};
/* spec: "PATH=CHANGES ..", CHANGES out of a, m and c */
void conform_times_before(struct conform_times *t, const char *spec);
void conform_times_after(int line, const struct conform_times *t, const char *text);
/* the call succeeds and of the times of each path exactly the named ones move on: EFFECT("file=mc .=", write(..)) */
#define EFFECT(spec, ...)                                                                          \
    do {                                                                                           \
        struct conform_times times_;                                                               \
        conform_times_before(&times_, spec);                                                       \
        long long effect_ = TRY_((__VA_ARGS__));                                                   \
        if (conform_ok(__LINE__, effect_, errno, #__VA_ARGS__) >= 0)                               \
            conform_times_after(__LINE__, &times_, #__VA_ARGS__);                                  \
    } while (0)
/* the call fails with this errno and leaves the times of each path as they were: REFUSED("file .", EEXIST, link(..)) */
#define REFUSED(spec, code, ...)                                                                   \
    do {                                                                                           \
        struct conform_times times_;                                                               \
        conform_times_before(&times_, spec);                                                       \
        long long effect_ = TRY_((__VA_ARGS__));                                                   \
        conform_err(__LINE__, code, effect_, errno, #__VA_ARGS__);                                 \
        conform_times_after(__LINE__, &times_, #__VA_ARGS__);                                      \
    } while (0)

// -- tools: most end the case when they fail --------------------------------------------------------

enum conform_kind {
    K_NONE,
    K_FILE,
    K_DIR,
    K_FULL_DIR, // a directory with an entry "in"
    K_LINK,     // a symlink to nothing
    K_FIFO,
    K_SOCKET,
    K_CHAR,
    K_BLOCK,
    K_KINDS
};
extern const char *const conform_kinds[K_KINDS];
void conform_make(enum conform_kind kind, const char *path);
/* What is at path; K_FULL_DIR is told from K_DIR by nothing, so K_DIR is returned for both. */
enum conform_kind conform_kind_at(const char *path);
/* Removes whatever is at path, with all that is below it. */
void conform_remove(const char *path);

void put(const char *path, const char *text); // a file with exactly this text, mode 0644
void put_as(const char *path, mode_t mode, const struct conform_user *owner); // an empty file
void dir_as(const char *path, mode_t mode, const struct conform_user *owner);
struct stat st_of(const char *path); // lstat
struct stat st_fd(int fd);
bool there(const char *path); // by lstat
int shut(int fd);             // close what an open returned; passes on failure
int get(const char *path, char *buffer, size_t size); // reads a file: bytes read, text ended by 0
bool holds(const char *path, const char *text);       // the file has exactly this text
char *filled(size_t length, char with);               // a static text of that many characters
mode_t mode_of(const char *path);                     // permission bits
int nlink_of(const char *path);
long long size_of(const char *path);
/* Goes on in the same folder by the other mount, where --peer names one: what follows is another client. */
void conform_to_peer(void);
const char *conform_elsewhere(void); // a folder on another file system

#endif
