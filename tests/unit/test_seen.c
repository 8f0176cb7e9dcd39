/* replfs.seen: what a chunkd keeps of what metads told it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>
#include "base/error.h"
#include "chunkd/seen.h"

static void test_text(void **state)
{
    (void)state;
    struct seen s = {.seq = 7,
                     .newest = {0xabc, 99, {1, UINT64_MAX}, 2},
                     .chunk_upto = 1ull << 40,
                     .ino_upto = 12,
                     .chunkd_upto = 3,
                     .term = UINT64_MAX - 1},
                out;
    char text[SEEN_TEXT_MAX];
    for (unsigned k = 0; k < SEEN_ANCESTORS; k++)
        s.astray.before[k] = UINT64_MAX - k;
    s.astray.incarnation = s.astray.position = UINT64_MAX;
    s.astray.nbefore = SEEN_ANCESTORS;
    int len = seen_format(&s, text);
    assert_true(len > 0 && len < (int)SEEN_TEXT_MAX);
    assert_int_equal(seen_parse(text, (size_t)len, &out), 0);
    assert_memory_equal(&out, &s, sizeof s);
    for (int i = 0; i < len; i++) { /* no byte may be another */
        text[i] ^= 1;
        assert_int_not_equal(seen_parse(text, (size_t)len, &out), 0);
        text[i] ^= 1;
        assert_int_equal(seen_parse(text, (size_t)i, &out), -ERR_CORRUPT);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_text)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
