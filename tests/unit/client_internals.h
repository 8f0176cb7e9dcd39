/* What tests see of the client beyond client.h, in one place. */
#ifndef REPLFS_TESTS_CLIENT_INTERNALS_H
#define REPLFS_TESTS_CLIENT_INTERNALS_H
#include "fuse/client/base/client_clock.h"
#include "base/u64map.h"
#include "fuse/client/base/limits.h"
#include "fuse/client/cache/lease_cache_change.h"
#include "fuse/client/cache/lease_cache_give.h"
#include "fuse/client/file/overlay.h"
#include "fuse/client/internal.h"
#include "fuse/client/names/atime.h"
#include "fuse/client/names/attrs.h"
#include "fuse/client/prefetch/dir_pages.h"
#include "fuse/client/queue/queue.h"
#include "fuse/client/session/mutation.h"
#endif
