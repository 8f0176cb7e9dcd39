/* Which computer this is. A host is known by /etc/machine-id, and copies of a chunk never share one: so an
 * id that many computers have is worse than none. systemd writes "uninitialized" into images, whose first boot
 * has not come yet, and an empty file where /etc was read-only then; neither is an id. Two computers made from
 * one image may still have the same; they have different boot ids, by which metad sees it. */
#include "machine.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

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

uint64_t machine_memory_from(const char *own, const char *root)
{
    char line[PATH_MAX], path[PATH_MAX], file[2 * PATH_MAX + 16];
    uint64_t lowest = UINT64_MAX;
    unsigned long long limit;
    FILE *f = fopen(own, "re");

    if (!f)
        return lowest;
    path[0] = '\0';
    while (fgets(line, sizeof(line), f))
        if (!strncmp(line, "0::/", 4))
            snprintf(path, sizeof(path), "%s", line + 3);
    fclose(f);
    path[strcspn(path, "\n")] = '\0';
    /* from the process's own group up to the root, where a container sees its own limit */
    for (char *end = path + strlen(path); path[0]; end = strrchr(path, '/')) {
        *end = '\0';
        snprintf(file, sizeof(file), "%s%s/memory.max", root, path);
        f = fopen(file, "re");
        if (f && fscanf(f, "%llu", &limit) == 1 && limit < lowest) /* "max" is no number */
            lowest = limit;
        if (f)
            fclose(f);
    }
    return lowest;
}

uint64_t machine_memory(void)
{
    uint64_t all = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t limit = machine_memory_from("/proc/self/cgroup", "/sys/fs/cgroup");

    return limit < all ? limit : all;
}
