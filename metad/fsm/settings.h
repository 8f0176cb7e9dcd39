/* The settings that all metads must agree on: each has a number for ever (ConfigOp.key), a name, a type, a range and a
 * default. They are part of the replicated state (fsm_cluster.h); man/replfsctl.1 explains them to people.
 *
 * The table alone; nothing here has state: any thread. */
#ifndef REPLFS_METAD_FSM_SETTINGS_H
#define REPLFS_METAD_FSM_SETTINGS_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* X(NUMBER, ID, name, type, default, min, max, help)
 *   type  MSEC: a time in milliseconds. NUMBER: a number. ON_OFF: 1 or 0
 * A range is part of what fsm_apply decides: one that changes needs a new feature level. */
/* clang-format off */
#define SETTINGS_TABLE(X)                                                                                           \
    X(1, SESSION_LEASE, "session-lease", MSEC, 60000, 500, 86400000ull,                                             \
      "a client silent for so long loses its session")                                                              \
    X(2, SESSION_KEEP, "session-keep", MSEC, 259200000ull, 1000, 315360000000ull,                                   \
      "how long changes that such a client had answered are still accepted")                                        \
    X(3, LEASE_TERM, "lease-term", MSEC, 2500, 200, 86400000ull,                                                   \
      "how long a client may use its caches without hearing from metad, at most session-lease")                     \
    X(4, HEARTBEAT, "heartbeat", MSEC, 1000, 10, 3600000, "how often chunkds report")                               \
    X(5, SUSPECT, "suspect", MSEC, 5000, 20, 86400000ull,                                                           \
      "a chunkd silent for so long gets no new chunks")                                                             \
    X(6, DEAD, "dead", MSEC, 60000, 50, 2592000000ull,                                                              \
      "a chunkd silent for so long has its chunks copied elsewhere")                                                \
    X(7, MIN_COPIES, "min-copies", NUMBER, 0, 0, 8,                                                                 \
      "copies that fsync needs at least; 0: the smaller of 2 and the goal")                                         \
    X(8, META_COPIES, "meta-copies", NUMBER, 3, 0, 16,                                                              \
      "chunkds, on distinct computers, that keep a copy of all names")                                              \
    X(9, META_COPIES_SYNC, "meta-copies-sync", ON_OFF, 0, 0, 1,                                                     \
      "a change is acknowledged when these copies have it, too")                                                    \
    X(10, SCRUB_CYCLE, "scrub-cycle", MSEC, 1209600000ull, 1000, 315360000000ull,                                   \
      "every byte that chunkds store is read and checked within so long")                                           \
    X(11, SCRUB_RATE, "scrub-rate", NUMBER, 32, 1, 1048576,                                                         \
      "MiB a second that this reads of a disk at most")                                                             \
    X(12, MAX_DEAD, "max-dead", NUMBER, 34, 1, 100,                                                                 \
      "percent of the computers, or of the bytes, that may be dead before repair asks; one always may")             \
    X(13, DEAD_ACCEPTED, "dead-accepted", NUMBER, 0, 0, 1048576,                                                    \
      "dead chunkds that a person knows of (replfsctl repair resume); 0 again once all are back")                   \
    X(14, REPAIR_RATE, "repair-rate", NUMBER, 0, 0, 1048576,                                                        \
      "MiB a second that all copies made by repair, moves and drains take together; 0: no limit")                   \
    X(15, REPAIR_HOST_RATE, "repair-host-rate", NUMBER, 0, 0, 1048576,                                              \
      "the same of each computer, what it sends and what it gets")

#define SETTINGS_ENUM_(NUMBER, ID, ...) SETTING_##ID = NUMBER,
enum setting_key { SETTING_NONE = 0, SETTINGS_TABLE(SETTINGS_ENUM_) };
#undef SETTINGS_ENUM_
#define SETTINGS_ONE_(...) + 1
enum { SETTINGS_COUNT = 0 SETTINGS_TABLE(SETTINGS_ONE_) }; /* numbers are 1 .. SETTINGS_COUNT */
#undef SETTINGS_ONE_
/* clang-format on */

enum setting_type { SETTING_IS_MSEC, SETTING_IS_NUMBER, SETTING_IS_ON_OFF };
struct setting_info {
    const char *name;
    enum setting_type type;
    uint64_t standard, min, max;
    const char *help;
};
/* The feature level that a setting came with: changed only once the state has it, since metads of versions before would
 * not take the change. */
unsigned setting_level(unsigned number);
/* Of a number 1 .. SETTINGS_COUNT; any other: NULL. */
const struct setting_info *setting_info(unsigned number);
/* SETTING_NONE when there is none of that name. */
enum setting_key setting_find(const char *name);
/* Whether all of v[1 .. SETTINGS_COUNT] are within their ranges and fit each other; NULL, or what is wrong (a static
 * string). */
const char *settings_wrong(const uint64_t v[SETTINGS_COUNT + 1]);
#endif
