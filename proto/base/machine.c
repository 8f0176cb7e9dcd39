/* Which computer this is. A host is known by /etc/machine-id, and copies of a chunk never share one: so an
 * id that many computers have is worse than none. systemd writes "uninitialized" into images, whose first boot
 * has not come yet, and an empty file where /etc was read-only then; neither is an id. Two computers made from
 * one image may still have the same; they have different boot ids, by which metad sees it. */
#include "machine.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static int read_line(const char *path, char *out, size_t len)
{
    FILE *f = fopen(path, "re");

    out[0] = '\0';
    if (!f)
        return -errno;
    if (!fgets(out, (int)len, f))
        out[0] = '\0';
    fclose(f);
    out[strcspn(out, "\r\n")] = '\0';
    return out[0] ? 0 : -ENODATA;
}

int machine_id_from(const char *path, char out[static MACHINE_ID_MAX])
{
    int rc = read_line(path, out, MACHINE_ID_MAX);

    if (rc == 0 && (!strcmp(out, "uninitialized") || strspn(out, "0") == strlen(out)))
        rc = -ENODATA;
    if (rc != 0)
        out[0] = '\0';
    return rc;
}

int machine_id(char out[static MACHINE_ID_MAX])
{
    return machine_id_from("/etc/machine-id", out);
}

int machine_boot_id(char out[static MACHINE_ID_MAX])
{
    return read_line("/proc/sys/kernel/random/boot_id", out, MACHINE_ID_MAX);
}
