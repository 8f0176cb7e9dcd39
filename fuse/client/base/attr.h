/* Attributes as values: scalars only, nothing to free. Any thread, no lock. */
#ifndef REPLFS_FUSE_CLIENT_BASE_ATTR_H
#define REPLFS_FUSE_CLIENT_BASE_ATTR_H
#include "meta.pb-c.h"

/* Copies what src says; unknown fields of a newer metad are left behind, since src owns them. */
void attr_copy(Replfs__Attr *dst, const Replfs__Attr *src);
#endif
