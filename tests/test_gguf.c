/* GGUF headers: what a good one holds, and every way in which one can lie. */
#include "files.h"
#include "samples.h"

#include "checkpoint/gguf.h"

struct read {
    struct fmk_tensor_list tensors;
    struct fmk_settings settings;
    struct fmk_strings strings;
};

/* From memory that ends where the file does, so that AddressSanitizer sees a byte too far. */
static fmk_status read_bytes(struct read *r, const uint8_t *data, size_t size) {
    *r = (struct read){0};
    uint8_t *copy = malloc(size ? size : 1);
    must(copy != NULL);
    memcpy(copy, data, size);
    struct fmk_reading reading = {&r->tensors, &r->settings, &r->strings, 0};
    fmk_status status = fmk_gguf_read(copy, size, &reading);
    for (size_t i = 0; !status && i < r->tensors.count; i++) {
        const struct fmk_file_tensor *t = &r->tensors.items[i];
        assert_true(t->data >= copy && t->data + t->size <= copy + size);
    }
    free(copy);
    return status;
}

static void release(struct read *r) {
    free(r->tensors.items);
    free(r->settings.items);
    fmk_strings_free(&r->strings);
}

static void put_array(struct bytes *b, const char *key, int32_t type, uint64_t count, size_t size) {
    put_name(b, key);
    put_u32(b, 9);
    put(b, &type, sizeof type);
    put_u64(b, count);
    put(b, NULL, size);
}

/* Every value type, an array of numbers and one of strings, and three tensors. */
static void make_good(struct bytes *b) {
    put_header(b, 3, 3, 15);
    for (uint32_t type = 0; type < 13; type++) {
        static const uint8_t sizes[13] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
        char key[16];
        snprintf(key, sizeof key, "key.%u", type);
        if (type == 8) {
            put_key_text(b, key, "text");
        } else if (type != 9) {
            put_name(b, key);
            put_u32(b, type);
            uint64_t ones = UINT64_MAX;
            put(b, &ones, sizes[type]);
        }
    }
    put_array(b, "numbers", 4, 5, 20);
    put_array(b, "strings", 8, 2, 16);
    put_key_u32(b, "general.alignment", 64);
    put_tensor(b, "a.weight", 2, (int64_t[]){256, 3}, 12, 0);   /* 432 bytes, padded to 448 */
    put_tensor(b, "b.weight", 3, (int64_t[]){8, 4, 2}, 1, 448); /* 128 bytes */
    put_tensor(b, "c.weight", 1, (int64_t[]){5}, 0, 448 + 128); /* 20 bytes */
    put_data(b, 64, 448 + 128 + 20);
}

static void test_good(void **state) {
    (void)state;
    static struct bytes b;
    struct read r;
    make_good(&b);
    OK(read_bytes(&r, b.data, b.size));
    assert_int_equal(r.tensors.count, 3);
    const struct fmk_file_tensor *t = r.tensors.items;
    assert_string_equal(t[0].name, "a.weight");
    assert_int_equal(t[0].size, 432);
    assert_int_equal(t[0].dims[0], 3);
    assert_int_equal(t[0].dims[1], 256);
    assert_int_equal(t[1].dims[0], 2);
    assert_int_equal(t[1].dims[2], 8);
    assert_int_equal(t[2].size, 20);
    assert_int_equal(fmk_settings_find(&r.settings, "key.1")->integer, -1);
    assert_int_equal(fmk_settings_find(&r.settings, "key.2")->integer, 65535);
    assert_int_equal(fmk_settings_find(&r.settings, "key.7")->integer, 1);
    assert_string_equal(fmk_settings_find(&r.settings, "key.8")->string, "text");
    assert_int_equal(fmk_settings_find(&r.settings, "key.10")->kind, FMK_SETTING_REAL);
    assert_int_equal(fmk_settings_find(&r.settings, "key.11")->integer, -1);
    assert_int_equal(fmk_settings_find(&r.settings, "numbers")->kind, FMK_SETTING_OTHER);
    assert_null(fmk_settings_find(&r.settings, "absent"));
    release(&r);
}

static void test_truncated_anywhere(void **state) {
    (void)state;
    static struct bytes b;
    make_good(&b);
    for (size_t size = 0; size < b.size; size++) {
        struct read r;
        if (read_bytes(&r, b.data, size) != FMK_EFORMAT)
            fail_msg("cut to %zu of %zu bytes it is not refused", size, b.size);
        release(&r);
    }
}

static void test_any_byte_changed(void **state) {
    (void)state;
    static struct bytes b;
    make_good(&b);
    for (size_t i = 0; i < b.size - 596; i++)
        for (int j = 0; j < 10; j++) {
            struct read r;
            uint8_t kept = b.data[i];
            b.data[i] = j < 8 ? kept ^ (uint8_t)(1 << j) : j == 8 ? 0 : 0xff;
            read_bytes(&r, b.data, b.size);
            release(&r);
            b.data[i] = kept;
        }
}

static const int64_t two[2] = {32, 2};

static void bad_magic(struct bytes *b) {
    put_header(b, 3, 0, 0);
    b->data[0] = 'g';
}
static void version_1(struct bytes *b) {
    put_header(b, 1, 0, 0);
}
static void version_4(struct bytes *b) {
    put_header(b, 4, 0, 0);
}
static void big_endian(struct bytes *b) {
    put_header(b, 3u << 24, 0, 0);
}
static void many_tensors(struct bytes *b) {
    put_header(b, 3, UINT64_C(1) << 60, 0);
}
static void many_keys(struct bytes *b) {
    put_header(b, 3, 0, UINT64_MAX);
}
static void empty_key(struct bytes *b) {
    put_header(b, 3, 0, 1);
    put_key_text(b, "", "a value that is long enough");
}
static void long_key(struct bytes *b) {
    put_header(b, 3, 0, 1);
    put_u64(b, UINT64_MAX - 3);
    put(b, NULL, 64);
}
static void zero_in_key(struct bytes *b) {
    put_header(b, 3, 0, 1);
    put_u64(b, 4);
    put(b, "a\0bc", 4);
    put(b, NULL, 64);
}
static void same_key(struct bytes *b) {
    put_header(b, 3, 0, 2);
    put_key_u32(b, "key", 1);
    put_key_text(b, "key", "1");
}
static void unknown_value(struct bytes *b) {
    put_header(b, 3, 0, 1);
    put_name(b, "key");
    put_u32(b, 13);
    put_u64(b, 0);
}
static void negative_value(struct bytes *b) {
    put_header(b, 3, 0, 1);
    put_name(b, "key");
    put_u32(b, UINT32_MAX);
    put_u64(b, 0);
}
static void nested_array(struct bytes *b) {
    put_header(b, 3, 0, 1);
    put_array(b, "key", 9, 1, 64);
}
static void long_array(struct bytes *b) {
    put_header(b, 3, 0, 1);
    put_array(b, "key", 10, UINT64_C(1) << 61, 64);
}
static void long_string_array(struct bytes *b) {
    put_header(b, 3, 0, 1);
    put_array(b, "key", 8, 9, 64);
}
static void string_past_end(struct bytes *b) {
    put_header(b, 3, 0, 1);
    put_array(b, "key", 8, 1, 0);
    put_u64(b, UINT64_MAX);
}
static void alignment_0(struct bytes *b) {
    put_header(b, 3, 0, 1);
    put_key_u32(b, "general.alignment", 0);
}
static void alignment_48(struct bytes *b) {
    put_header(b, 3, 0, 1);
    put_key_u32(b, "general.alignment", 48);
}
static void alignment_text(struct bytes *b) {
    put_header(b, 3, 0, 1);
    put_key_text(b, "general.alignment", "32");
}
static void five_dims(struct bytes *b) {
    put_header(b, 3, 1, 0);
    put_tensor(b, "t", 5, (int64_t[]){1, 1, 1, 1, 1}, 0, 0);
    put_data(b, 32, 64);
}
static void huge_dims(struct bytes *b) {
    put_header(b, 3, 1, 0);
    put_tensor(b, "t", 2, (int64_t[]){INT64_C(1) << 60, INT64_C(1) << 60}, 0, 0);
    put_data(b, 32, 64);
}
static void huge_bytes(struct bytes *b) {
    put_header(b, 3, 1, 0);
    put_tensor(b, "t", 1, (int64_t[]){INT64_C(1) << 61}, 0, 0);
    put_data(b, 32, 64);
}
static void huge_but_fitting(struct bytes *b) {
    put_header(b, 3, 1, 0);
    put_tensor(b, "t", 1, (int64_t[]){(INT64_C(1) << 61) - 1}, 0, 0);
    put_data(b, 32, 64);
}
static void negative_dim(struct bytes *b) {
    put_header(b, 3, 1, 0);
    put_tensor(b, "t", 2, (int64_t[]){32, -2}, 0, 0);
    put_data(b, 32, 64);
}
static void half_block(struct bytes *b) {
    put_header(b, 3, 1, 0);
    put_tensor(b, "t", 2, (int64_t[]){128, 2}, 12, 0);
    put_data(b, 32, 288);
}
static void unknown_type(struct bytes *b) {
    put_header(b, 3, 1, 0);
    put_tensor(b, "t", 2, two, 77, 0);
    put_data(b, 32, 256);
}
static void removed_type(struct bytes *b) {
    put_header(b, 3, 1, 0);
    put_tensor(b, "t", 2, two, 4, 0);
    put_data(b, 32, 256);
}
static void past_end(struct bytes *b) {
    put_header(b, 3, 1, 0);
    put_tensor(b, "t", 2, two, 0, 0);
    put_data(b, 32, 255);
}
static void wrong_offset(struct bytes *b) {
    put_header(b, 3, 1, 0);
    put_tensor(b, "t", 2, two, 0, 32);
    put_data(b, 32, 512);
}
static void overlapping(struct bytes *b) {
    put_header(b, 3, 2, 0);
    put_tensor(b, "t", 2, two, 0, 0);
    put_tensor(b, "u", 2, two, 0, 128);
    put_data(b, 32, 512);
}
static void offset_overflow(struct bytes *b) {
    put_header(b, 3, 2, 0);
    put_tensor(b, "t", 2, two, 0, 0);
    put_tensor(b, "u", 2, two, 0, UINT64_MAX - 15);
    put_data(b, 32, 512);
}

static void test_bad(void **state) {
    (void)state;
    static const struct {
        void (*make)(struct bytes *b);
        fmk_status status;
        const char *word;
    } cases[] = {
        {bad_magic, FMK_EFORMAT, "GGUF"},
        {version_1, FMK_EUNSUPPORTED, "version 1"},
        {version_4, FMK_EUNSUPPORTED, "version 4"},
        {big_endian, FMK_EUNSUPPORTED, "big-endian"},
        {many_tensors, FMK_EFORMAT, "tensors are more than"},
        {many_keys, FMK_EFORMAT, "keys are more than"},
        {empty_key, FMK_EFORMAT, "a key at byte 24"},
        {long_key, FMK_EFORMAT, "a key at byte 32 takes"},
        {zero_in_key, FMK_EFORMAT, "a key at byte 24"},
        {same_key, FMK_EFORMAT, "key key is there twice"},
        {unknown_value, FMK_EFORMAT, "type 13"},
        {negative_value, FMK_EFORMAT, "type -1"},
        {nested_array, FMK_EFORMAT, "array of type 9"},
        {long_array, FMK_EFORMAT, "elements, more than"},
        {long_string_array, FMK_EFORMAT, "elements, more than"},
        {string_past_end, FMK_EFORMAT, "element 0"},
        {alignment_0, FMK_EFORMAT, "general.alignment is 0"},
        {alignment_48, FMK_EFORMAT, "general.alignment is 48"},
        {alignment_text, FMK_EFORMAT, "general.alignment"},
        {five_dims, FMK_EFORMAT, "5 dimensions"},
        {huge_dims, FMK_EFORMAT, "63 bits"},
        {huge_bytes, FMK_EFORMAT, "63 bits"},
        {huge_but_fitting, FMK_EFORMAT, "but the file has"},
        {negative_dim, FMK_EFORMAT, "dimension -2"},
        {half_block, FMK_EFORMAT, "multiple of 256"},
        {unknown_type, FMK_EFORMAT, "type 77"},
        {removed_type, FMK_EFORMAT, "type 4"},
        {past_end, FMK_EFORMAT, "but the file has"},
        {wrong_offset, FMK_EFORMAT, "offset 32"},
        {overlapping, FMK_EFORMAT, "offset 128"},
        {offset_overflow, FMK_EFORMAT, "256 is expected"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        static struct bytes b;
        struct read r;
        cases[i].make(&b);
        REFUSED(read_bytes(&r, b.data, b.size), cases[i].status, cases[i].word);
        release(&r);
    }
}

static void test_file_types(void **state) {
    (void)state;
    assert_string_equal(fmk_gguf_file_type(15), "q4_k_m");
    assert_string_equal(fmk_gguf_file_type(32), "bf16");
    assert_string_equal(fmk_gguf_file_type(4), "");
    assert_string_equal(fmk_gguf_file_type(-1), "");
    assert_string_equal(fmk_gguf_file_type(INT64_MAX), "");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_truncated_anywhere),
        cmocka_unit_test(test_any_byte_changed),
        cmocka_unit_test(test_bad),
        cmocka_unit_test(test_file_types),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
