/* For tests of what a caller can get wrong: a valid struct with one field changed at a time. Each change must
 * be refused by a sentence that names the field. */
#ifndef FMK_TESTS_MISUSE_H
#define FMK_TESTS_MISUSE_H

#include "samples.h"

struct wrong {
    const char *word; /* that the sentence contains */
    size_t offset, size;
    int64_t value;
    fmk_status status, other; /* status 0 = FMK_EINVAL; other: also acceptable */
};

#define FIELD(type, field) #field, offsetof(type, field), sizeof(((type *)0)->field)
#define FIELD_OF(type, field, word) word, offsetof(type, field), sizeof(((type *)0)->field)

/* `with` gives the changed struct to a function. */
static inline void try_fields(const char *what, const void *valid, size_t size, const struct wrong *wrongs,
                              size_t count, fmk_status (*with)(const void *changed)) {
    int failed = 0;
    fmk_status valid_status = with(valid);
    if (valid_status) {
        print_error("%s is refused when it is valid: %s\n", what, fmk_last_error());
        fail();
    }
    for (size_t i = 0; i < count; i++) {
        const struct wrong *wrong = &wrongs[i];
        unsigned char changed[1024];
        assert_true(size <= sizeof changed);
        memcpy(changed, valid, size);
        memcpy(changed + wrong->offset, &wrong->value, wrong->size);
        fmk_status want = wrong->status ? wrong->status : FMK_EINVAL, got = with(changed);
        if ((got != want && (!wrong->other || got != wrong->other)) ||
            !strstr(fmk_last_error(), wrong->word)) {
            print_error("%s with %s %lld answers %s \"%s\", want %s\n", what, wrong->word,
                        (long long)wrong->value, fmk_status_name(got), got ? fmk_last_error() : "",
                        fmk_status_name(want));
            failed++;
        }
    }
    assert_int_equal(failed, 0);
}
#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* A handle that a failed call must replace by NULL. */
#define RUBBISH ((void *)(uintptr_t)64)

#endif
