/* Attributes as values. */
#include "client/base/attr.h"

void attr_copy(Replfs__Attr *dst, const Replfs__Attr *src)
{
    *dst = *src;
    dst->base.n_unknown_fields = 0;
    dst->base.unknown_fields = NULL;
}
