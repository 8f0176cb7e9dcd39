/* The visitors of SETTINGS_TABLE (settings.h), and what the settings must be to each other. Pure functions: no state,
 * no failure modes, any thread. */
#include "settings.h"

#include <string.h>

static const struct setting_info infos[SETTINGS_COUNT + 1] = {
#define ROW(NUMBER, ID, NAME, TYPE, STANDARD, MIN, MAX, HELP)                                      \
    [NUMBER] = {NAME, SETTING_IS_##TYPE, STANDARD, MIN, MAX, HELP},
    SETTINGS_TABLE(ROW)
#undef ROW
};

const struct setting_info *setting_info(unsigned number)
{
    return number >= 1 && number <= SETTINGS_COUNT ? &infos[number] : NULL;
}

unsigned setting_level(unsigned number)
{
    return number <= SETTING_META_COPIES_SYNC ? 1 : number <= SETTING_SCRUB_RATE ? 2 : 3;
}

enum setting_key setting_find(const char *name)
{
    for (unsigned k = 1; k <= SETTINGS_COUNT; k++)
        if (!strcmp(infos[k].name, name))
            return (enum setting_key)k;
    return SETTING_NONE;
}

const char *settings_wrong(const uint64_t v[SETTINGS_COUNT + 1])
{
    for (unsigned k = 1; k <= SETTINGS_COUNT; k++)
        if (v[k] < infos[k].min || v[k] > infos[k].max)
            return "out of range";
    if (v[SETTING_LEASE_TERM] > v[SETTING_SESSION_LEASE])
        return "lease-term must not be longer than session-lease: the session's end ends its "
               "leases";
    if (v[SETTING_HEARTBEAT] > v[SETTING_SUSPECT])
        return "heartbeat must not be longer than suspect: chunkds would be suspected all the time";
    if (v[SETTING_SUSPECT] > v[SETTING_DEAD])
        return "suspect must not be longer than dead";
    if (v[SETTING_META_COPIES_SYNC] && v[SETTING_META_COPIES] == 0)
        return "meta-copies-sync waits for copies: meta-copies must not be 0";
    return NULL;
}
