/* replfsctl: options, then the verb. Exit codes are in ctl.h and man/replfsctl.1. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/config.h"
#include "base/log.h"
#include "ctl.h"

struct verb {
    const char *name;
    int (*run)(const struct ctl_opts *o);
    const char *args, *help;
};
static const struct verb verbs[] = {
    {"status", verb_status, "[PATH]", "the cluster at a glance"},
    {"health", verb_health, "[PATH]",
     "what is wrong and what to do; exit code 0 ok, 1 warnings, 2 errors"},
    {"info", verb_info, "FILE...", "goal, extents and every copy of a file's chunks"},
    {"getrepl", verb_getrepl, "PATH...", "copies asked for"},
    {"setrepl", verb_setrepl, "PATH N [-R] [--wait [--timeout TIME]]",
     "ask for N copies (1 to 8); of a directory: for new entries, with -R for all below"},
    {"chunkd", verb_chunkd,
     "list | drain ID | undrain ID | capacity ID[:DISK] SIZE|none | pause ID --for TIME | resume "
     "ID "
     "| remove ID [PATH]",
     "chunk daemons with their disks; empty one; limit a disk; let one be away; remove one that is "
     "empty or gone for good"},
    {"reclaim", verb_reclaim, "ID SIZE|PERCENT% [--now] [--wait [--timeout TIME]] [PATH]",
     "give space back that a chunkd uses, never the last copies; --now: whatever the goal"},
    {"metad", verb_metad, "list | add ID | remove ID | step-down | upgrade [PATH]",
     "metadata daemons with their roles; remove one; let another one lead; use what a new version "
     "of all brings"},
    {"quota", verb_quota,
     "set DIR [--bytes SIZE] [--inodes N] | get PATH... | list [DIR] | remove DIR...",
     "limits of all that is below a directory"},
    {"config", verb_config, "[list] [PATH] | get KEY [PATH] | set KEY VALUE [PATH]",
     "settings of the cluster: times and the copies that fsync needs"},
    {"scrub", verb_scrub, "status [PATH] | start [--fast] [ID...] | pause [ID...] | resume [ID...]",
     "reading and checking all that chunkds store: how far it is; begin now, pause"},
    {"jobs", verb_jobs, "[PATH]", "background work: how far each kind is, and why it waits"},
    {"repair", verb_repair, "resume [PATH]",
     "repair that waits since much is dead goes on, as long as no more is"},
    {"damaged", verb_damaged, "[PATH]", "files with bytes that no copy in reach has, below PATH"},
    {"recover", verb_recover, "[--accept] [PATH]",
     "whether metad runs from an older copy of its directory; --accept goes on from that"},
    {"backup-meta", verb_backup_meta, "FILE [PATH]",
     "all names in one file, from which replfs-metad --restore makes a metad"},
    {"quarantine", verb_quarantine,
     "[list] [PATH] | adopt CHUNK|--all PATH | drop CHUNK|--all [PATH]",
     "chunks that may have been written under another copy of metad: list or delete them"},
};
#define N_VERBS (sizeof(verbs) / sizeof(*verbs))

static void usage(FILE *out)
{
    fputs("usage: replfsctl VERB [ARGUMENTS] [OPTIONS]\n\nVerbs:\n", out);
    for (size_t i = 0; i < N_VERBS; i++)
        fprintf(out, "  %s %s\n        %s\n", verbs[i].name, verbs[i].args, verbs[i].help);
    fputs("\nPATH is any file or directory on a mount; without one, the machine's only replfs "
          "mount or "
          "the one\nof the current directory is meant.\n\nOptions:\n"
          "  --json               machine-readable output with stable keys\n"
          "  --meta HOST[:PORT]   ask this metad directly (verbs about the cluster)\n"
          "  --tls-cert, --tls-key, --tls-ca FILE   certificate with role admin, for --meta\n"
          "  --insecure           allow --meta on another computer without TLS\n"
          "  --help, --version\n\nSee replfsctl(1).\n",
          out);
}

enum {
    OPT_JSON = 256,
    OPT_META,
    OPT_CERT,
    OPT_KEY,
    OPT_CA,
    OPT_INSECURE,
    OPT_WAIT,
    OPT_TIMEOUT,
    OPT_BYTES,
    OPT_INODES,
    OPT_ACCEPT,
    OPT_ALL,
    OPT_FAST,
    OPT_NOW,
    OPT_FOR
};
static const struct option long_opts[] = {{"json", no_argument, NULL, OPT_JSON},
                                          {"meta", required_argument, NULL, OPT_META},
                                          {"tls-cert", required_argument, NULL, OPT_CERT},
                                          {"tls-key", required_argument, NULL, OPT_KEY},
                                          {"tls-ca", required_argument, NULL, OPT_CA},
                                          {"insecure", no_argument, NULL, OPT_INSECURE},
                                          {"wait", no_argument, NULL, OPT_WAIT},
                                          {"timeout", required_argument, NULL, OPT_TIMEOUT},
                                          {"bytes", required_argument, NULL, OPT_BYTES},
                                          {"inodes", required_argument, NULL, OPT_INODES},
                                          {"accept", no_argument, NULL, OPT_ACCEPT},
                                          {"all", no_argument, NULL, OPT_ALL},
                                          {"fast", no_argument, NULL, OPT_FAST},
                                          {"now", no_argument, NULL, OPT_NOW},
                                          {"for", required_argument, NULL, OPT_FOR},
                                          {"recursive", no_argument, NULL, 'R'},
                                          {"help", no_argument, NULL, 'h'},
                                          {"version", no_argument, NULL, 'V'},
                                          {NULL, 0, NULL, 0}};

/* Negative: go on; else the exit code. */
static int parse(struct ctl_opts *o, int argc, char **argv)
{
    int c;
    while ((c = getopt_long(argc, argv, "RhV", long_opts, NULL)) != -1) {
        switch (c) {
        case OPT_JSON:
            o->json = true;
            break;
        case OPT_META:
            o->meta = optarg;
            break;
        case OPT_CERT:
            o->tls.cert = optarg;
            break;
        case OPT_KEY:
            o->tls.key = optarg;
            break;
        case OPT_CA:
            o->tls.ca = optarg;
            break;
        case OPT_INSECURE:
            o->tls.insecure = true;
            break;
        case OPT_BYTES:
            o->bytes = optarg;
            break;
        case OPT_INODES:
            o->inodes = optarg;
            break;
        case OPT_ACCEPT:
            o->accept = true;
            break;
        case OPT_ALL:
            o->all = true;
            break;
        case OPT_FAST:
            o->fast = true;
            break;
        case OPT_NOW:
            o->now = true;
            break;
        case OPT_FOR:
            if (config_parse_msec(optarg, &o->for_ms) || !o->for_ms) {
                ctl_error("--for '%s': give a time such as 30m, 10h or 3d", optarg);
                return CTL_USAGE;
            }
            break;
        case OPT_WAIT:
            o->wait = true;
            break;
        case 'R':
            o->recursive = true;
            break;
        case OPT_TIMEOUT:
            if (config_parse_msec(optarg, &o->timeout_ms) || !o->timeout_ms) {
                ctl_error("--timeout '%s': give a time such as 30s, 5m or 2h", optarg);
                return CTL_USAGE;
            }
            break;
        case 'h':
            usage(stdout);
            return CTL_OK;
        case 'V':
            printf("replfsctl %s\n", REPLFS_VERSION);
            return CTL_OK;
        default:
            fputs("See replfsctl --help\n", stderr);
            return CTL_USAGE;
        }
    }
    return -1;
}

static int ctl_check(const struct ctl_opts *o, const struct verb *v)
{
    bool setrepl = v->run == verb_setrepl, waits = setrepl || v->run == verb_reclaim;
    if (v->run == verb_chunkd)
        waits = o->nargs && !strcmp(o->args[0], "drain");
    if ((!setrepl && o->recursive) || (!waits && (o->wait || o->timeout_ms))) {
        ctl_error("-R belongs to setrepl, --wait and --timeout to setrepl, chunkd drain and "
                  "reclaim, not to %s",
                  v->name);
        return CTL_USAGE;
    }
    bool pauses = v->run == verb_chunkd && o->nargs && !strcmp(o->args[0], "pause");
    if ((o->now && v->run != verb_reclaim) || (o->for_ms && !pauses)) {
        ctl_error("--now belongs to reclaim, --for to chunkd pause, not to %s", v->name);
        return CTL_USAGE;
    }
    if ((o->bytes || o->inodes) && v->run != verb_quota) {
        ctl_error("--bytes and --inodes belong to quota set, not to %s", v->name);
        return CTL_USAGE;
    }
    if ((o->accept && v->run != verb_recover) || (o->all && v->run != verb_quarantine)) {
        ctl_error("--accept belongs to recover, --all to quarantine adopt and drop, not to %s",
                  v->name);
        return CTL_USAGE;
    }
    if (o->fast && v->run != verb_scrub) {
        ctl_error("--fast belongs to scrub start, not to %s", v->name);
        return CTL_USAGE;
    }
    if (o->timeout_ms && !o->wait) {
        ctl_error("--timeout needs --wait");
        return CTL_USAGE;
    }
    int tls = !!o->tls.cert + !!o->tls.key + !!o->tls.ca;
    if (tls % 3 || ((tls || o->tls.insecure) && !o->meta)) {
        ctl_error("--tls-cert, --tls-key and --tls-ca go together and with --meta");
        return CTL_USAGE;
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct ctl_opts o = {.tls.timeout_ms = 10000};
    int rc = parse(&o, argc, argv);
    if (rc >= 0)
        return rc;
    if (optind == argc) {
        usage(stderr);
        return CTL_USAGE;
    }
    log_init("replfsctl", LOG_LVL_WARN, NULL);
    const char *name = argv[optind++];
    o.args = argv + optind;
    o.nargs = argc - optind;
    for (size_t i = 0; i < N_VERBS; i++) {
        if (strcmp(verbs[i].name, name))
            continue;
        rc = ctl_check(&o, &verbs[i]);
        if (!rc)
            rc = verbs[i].run(&o);
        if (fflush(stdout) || ferror(stdout)) {
            ctl_error("standard output: write failed");
            return CTL_INTERNAL;
        }
        return rc;
    }
    ctl_error("unknown verb '%s'; verbs are status, health, info, getrepl, setrepl, chunkd, "
              "reclaim, quota, config, metad, scrub, jobs, repair, damaged, recover, quarantine",
              name);
    return CTL_USAGE;
}
