/* Memory and speed of the metadata state machine: N empty files, then N files of one extent, in
 * directories of 1000, names as cp -a of a source tree would give. Prints one JSON object. Usage:
 * bench_fsm_memory [N, default 1000000] */
#include <inttypes.h>
#include <malloc.h>
#include <sys/wait.h>
#include "base/clock.h"
#include "tests/unit/fsm_rig.h"

#define PER_DIR 1000u

static uint64_t rss(void)
{
    FILE *fp = fopen("/proc/self/statm", "r");
    unsigned long size, pages = 0;
    if (fp) {
        if (fscanf(fp, "%lu %lu", &size, &pages) != 2)
            pages = 0;
        fclose(fp);
    }
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void file_name(char out[32], uint64_t k)
{
    snprintf(out, 32, "file-%06u.txt", (unsigned)(k % 1000000));
}

/* Seconds that n creates took. */
static double create(struct fsm_rig *r, uint64_t n, bool extents, uint64_t dirs[])
{
    char name[32];
    int64_t t0 = clock_mono();
    for (uint64_t k = 0; k < n; k++) {
        if (k % PER_DIR == 0) {
            snprintf(name, sizeof name, "%s-%" PRIu64, extents ? "one" : "empty", k / PER_DIR);
            dirs[k / PER_DIR] = (uint64_t)fsm_rig_create(r, FSM_ROOT_INO, name, S_IFDIR | 0755);
        }
        file_name(name, k);
        int64_t ino = fsm_rig_create(r, dirs[k / PER_DIR], name, S_IFREG | 0644);
        assert(ino > 0);
        if (extents) {
            int code = fsm_rig_commit(r, (uint64_t)ino, 0, 4096, r->next_chunk++, 0);
            assert(code == 0);
        }
    }
    return (double)(clock_mono() - t0) / 1e9;
}

static double lookups(struct fsm_rig *r, uint64_t n, const uint64_t dirs[])
{
    char name[32];
    uint64_t x = 1, found = 0;
    int64_t t0 = clock_mono();
    for (uint64_t k = 0; k < n; k++) {
        x = x * 6364136223846793005ull + 1442695040888963407ull;
        uint64_t pick = (x >> 20) % n;
        file_name(name, pick);
        found += fsm_rig_lookup(r, dirs[pick / PER_DIR], name) != 0;
    }
    assert(found == n);
    return (double)(clock_mono() - t0) / 1e9;
}

/* How long everything stands still when a checkpoint begins: the best of three. */
static double fork_ms(void)
{
    int64_t best = INT64_MAX;
    for (int i = 0; i < 3; i++) {
        int64_t t0 = clock_mono();
        pid_t p = fork();
        if (p == 0)
            _exit(0);
        assert(p > 0);
        int64_t t = clock_mono() - t0;
        best = t < best ? t : best;
        waitpid(p, NULL, 0);
    }
    return (double)best / 1e6;
}

int main(int argc, char **argv)
{
    uint64_t n = argc > 1 ? strtoull(argv[1], NULL, 10) : 1000000;
    uint64_t *dirs = calloc(n / PER_DIR + 1, sizeof *dirs);
    struct fsm_rig r;
    char why[256] = "";
    assert(dirs && n);
    fsm_rig_open(&r);

    uint64_t m0 = fsm_memory(r.f), r0 = rss();
    double t_empty = create(&r, n, false, dirs);
    double t_look = lookups(&r, n, dirs);
    uint64_t m1 = fsm_memory(r.f), r1 = rss();
    double t_one = create(&r, n, true, dirs);
    uint64_t m2 = fsm_memory(r.f), r2 = rss();

    double t_fork = fork_ms();
    int fd = memfd_create("checkpoint", MFD_CLOEXEC);
    int64_t t0 = clock_mono();
    int code = fsm_save(r.f, fd);
    assert(code == 0);
    double t_save = (double)(clock_mono() - t0) / 1e9;
    off_t bytes = lseek(fd, 0, SEEK_END);
    lseek(fd, 0, SEEK_SET);
    t0 = clock_mono();
    uint64_t digest = fsm_digest(r.f);
    double t_digest = (double)(clock_mono() - t0) / 1e9;
    fsm_rig_close(&r);
    code = fsm_new(&r.f);
    assert(code == 0);
    t0 = clock_mono();
    code = fsm_load(r.f, fd, why);
    double t_load = (double)(clock_mono() - t0) / 1e9;
    if (code || fsm_digest(r.f) != digest) {
        fprintf(stderr, "loading the checkpoint again: %s %s\n", err_str(code), why);
        return 1;
    }
    double d = (double)n;
    printf(
        "{\"files_each\": %" PRIu64 ", \"bytes_per_empty_file\": %.1f, "
        "\"bytes_per_one_extent_file\": %.1f, \"rss_per_empty_file\": %.1f, "
        "\"rss_per_one_extent_file\": %.1f, \"creates_per_s\": %.0f, "
        "\"create_commit_pairs_per_s\": %.0f, \"lookups_per_s\": %.0f, \"checkpoint_bytes\": %lld, "
        "\"rss_mib\": %.0f, \"fork_ms\": %.1f, \"save_s\": %.2f, \"load_s\": %.2f, \"digest_s\": "
        "%.2f}\n",
        n, (double)(m1 - m0) / d, (double)(m2 - m1) / d, (double)(r1 - r0) / d,
        (double)(r2 - r1) / d, d / t_empty, d / t_one, d / t_look, (long long)bytes,
        (double)r2 / 1048576, t_fork, t_save, t_load, t_digest);
    fsm_rig_close(&r);
    free(dirs);
    return 0;
}
