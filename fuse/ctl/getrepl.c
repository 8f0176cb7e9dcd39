/* replfsctl getrepl: how many copies a file, or new entries of a directory, shall have. */
#include <stdio.h>
#include <sys/stat.h>

#include "base/error.h"
#include "ctl.h"
#include "output.h"

static int goal_of(const char *path, uint32_t *goal, bool *dir)
{
    struct transport *t = NULL;
    struct transport_target at;
    Replfs__Envelope *rep = NULL;
    Replfs__GetattrReq ask = REPLFS__GETATTR_REQ__INIT;
    RPC_ENVELOPE(q, GETATTR_REQ, getattr_req, &ask);
    char detail[512];
    int rc = transport_path(path, &t, &at);
    if (rc)
        return rc;
    ask.ino = at.ino;
    rc = transport_call(t, &q, REPLFS__ENVELOPE__BODY_GETATTR_REPLY, &rep, detail, sizeof(detail));
    if (rc)
        rc = transport_failed(t, path, rc, detail);
    else if (!rep->getattr_reply->attr)
        rc = transport_failed(t, path, -ERR_PROTOCOL, "no attributes in the reply");
    else
        *goal = rep->getattr_reply->attr->goal;
    *dir = S_ISDIR(at.mode);
    if (rep)
        replfs__envelope__free_unpacked(rep, NULL);
    transport_free(t);
    return rc;
}

static int getrepl_show(const char *path, struct json *j)
{
    uint32_t goal = 0;
    bool dir = false;
    int rc = goal_of(path, &goal, &dir);
    if (rc)
        return rc;
    if (j) {
        json_object(j, NULL);
        json_str(j, "path", path);
        json_u64(j, "goal", goal);
        json_bool(j, "directory", dir);
        json_close(j);
    } else {
        printf("%u  ", goal);
        output_name(path, stdout);
        puts(dir ? "  (directory: for new entries)" : "");
    }
    return CTL_OK;
}

int verb_getrepl(const struct ctl_opts *o)
{
    return ctl_each_path(o, "getrepl PATH...", "files", getrepl_show);
}
