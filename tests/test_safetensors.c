/* safetensors headers and indexes: what a good one holds, and every way in which one can lie. */
#include "files.h"
#include "samples.h"

#include "checkpoint/safetensors.h"

struct read {
    struct fmk_tensor_list tensors;
    struct fmk_strings strings;
};

/* From memory that ends where the file does, so that AddressSanitizer sees a byte too far. */
static fmk_status read_bytes(struct read *r, const uint8_t *data, size_t size) {
    *r = (struct read){0};
    uint8_t *copy = malloc(size ? size : 1);
    must(copy != NULL);
    memcpy(copy, data, size);
    struct fmk_reading reading = {&r->tensors, NULL, &r->strings, 0};
    fmk_status status = fmk_safetensors_read(copy, size, &reading);
    for (size_t i = 0; !status && i < r->tensors.count; i++) {
        const struct fmk_file_tensor *t = &r->tensors.items[i];
        assert_true(t->data >= copy && t->data + t->size <= copy + size);
    }
    free(copy);
    return status;
}

static void release(struct read *r) {
    free(r->tensors.items);
    fmk_strings_free(&r->strings);
}

static const char good[] = "{\"__metadata__\":{\"format\":\"pt\"},"
                           "\"second\":{\"dtype\":\"F16\",\"shape\":[2,3],\"data_offsets\":[4,16]},"
                           "\"empty\":{\"dtype\":\"I32\",\"shape\":[0],\"data_offsets\":[4,4]},"
                           "\"first\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]},"
                           "\"five\":{\"dtype\":\"BF16\",\"shape\":[2,1,3,1,2],\"data_offsets\":[16,40]}}  ";

static void test_good(void **state) {
    (void)state;
    static struct bytes b;
    struct read r;
    put_safetensors(&b, good, 40);
    OK(read_bytes(&r, b.data, b.size));
    assert_int_equal(r.tensors.count, 4);
    const struct fmk_file_tensor *t = r.tensors.items;
    assert_string_equal(t[0].name, "first");
    assert_int_equal(t[0].elements, 1);
    assert_string_equal(t[1].name, "empty");
    assert_string_equal(t[2].name, "second");
    assert_int_equal(t[2].dims[0], 2);
    assert_int_equal(t[2].dims[1], 3);
    assert_int_equal(t[3].num_dims, 4);
    assert_int_equal(t[3].elements, 12);
    release(&r);
}

static void test_truncated_anywhere(void **state) {
    (void)state;
    static struct bytes b;
    put_safetensors(&b, good, 40);
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
    put_safetensors(&b, good, 40);
    for (size_t i = 0; i < 8 + sizeof good; i++)
        for (int j = 0; j < 10; j++) {
            struct read r;
            uint8_t kept = b.data[i];
            b.data[i] = j < 8 ? kept ^ (uint8_t)(1 << j) : j == 8 ? 0 : 0xff;
            read_bytes(&r, b.data, b.size);
            release(&r);
            b.data[i] = kept;
        }
}

#define T(shape, offsets) "{\"t\":{\"dtype\":\"F16\",\"shape\":" shape ",\"data_offsets\":" offsets "}}"

static void test_bad(void **state) {
    (void)state;
    static const struct {
        const char *header;
        size_t data;
        const char *word;
    } cases[] = {
        {"[]", 0, "not an object"},
        {"", 0, "not JSON"},
        {"{\"t\":", 0, "not JSON"},
        {"{} {}", 0, "not JSON"},
        {"{\"t\":1}", 0, "\"dtype\""},
        {"{\"t\":{\"shape\":[1],\"data_offsets\":[0,2]}}", 2, "\"dtype\""},
        {"{\"t\":{\"dtype\":\"F17\",\"shape\":[1],\"data_offsets\":[0,2]}}", 2, "\"F17\""},
        {"{\"t\":{\"dtype\":\"Q4_K\",\"shape\":[256],\"data_offsets\":[0,144]}}", 144, "\"Q4_K\""},
        {"{\"t\":{\"dtype\":\"F16\",\"data_offsets\":[0,2]}}", 2, "\"shape\""},
        {"{\"t\":{\"dtype\":\"F16\",\"shape\":[1]}}", 2, "data_offsets"},
        {T("[1]", "[0,2]") "x", 2, "not JSON"},
        {"{\"t\":{\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[0,2]},"
         "\"t\":{\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[2,4]}}",
         4, "not JSON"}, /* the name twice */
        {T("[-1]", "[0,2]"), 2, "shape[0]"},
        {T("[1.5]", "[0,2]"), 2, "shape[0]"},
        {T("[1]", "[0,2,4]"), 2, "data_offsets"},
        {T("[1]", "[2,0]"), 2, "data_offsets"},
        {T("[1]", "[-2,0]"), 2, "data_offsets"},
        {T("[1]", "[0,\"2\"]"), 2, "data_offsets"},
        {T("[2]", "[0,2]"), 2, "span 2 bytes"},
        {T("[1]", "[2,4]"), 4, "begins at byte 2"}, /* a hole */
        {T("[1]", "[0,2]"), 4, "end at byte 2"},
        {T("[2]", "[0,4]"), 2, "ends at byte 4"},
        {T("[1152921504606846976,1152921504606846976]", "[0,2]"), 2, "63 bits"},
        {T("[9223372036854775807]", "[0,2]"), 2, "63 bits"},
        {T("[1152921504606846976,1152921504606846976,1,1,1,1]", "[0,2]"), 2, "63 bits"},
        {T("[4000000000000000000]", "[0,8000000000000000000]"), 2, "ends at byte"},
        {T("[18446744073709551616]", "[0,2]"), 2, "not JSON"},
        {"{\"t\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[0,4]},"
         "\"u\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[2,6]}}",
         6, "begins at byte 2"}, /* an overlap */
        {"{\"t\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,2]}}", 2, "whole bytes"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        static struct bytes b;
        struct read r;
        put_safetensors(&b, cases[i].header, cases[i].data);
        REFUSED(read_bytes(&r, b.data, b.size), FMK_EFORMAT, cases[i].word);
        release(&r);
    }
}

/* As deep as a header can nest: the parser must give up, not run out of stack. */
static void test_deep(void **state) {
    (void)state;
    static struct bytes b;
    b.size = 0;
    put_u64(&b, 50000);
    put_text(&b, "{\"t\":");
    while (b.size < 8 + 50000)
        put_text(&b, "[");
    struct read r;
    REFUSED(read_bytes(&r, b.data, b.size), FMK_EFORMAT, "not JSON");
    release(&r);
}

static void test_header_size(void **state) {
    (void)state;
    static const uint64_t sizes[] = {41, 100000001, UINT64_C(1) << 62, UINT64_MAX, UINT64_MAX - 7};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        static struct bytes b;
        struct read r;
        b.size = 0;
        put_u64(&b, sizes[i]);
        put_text(&b, "{}                                      ");
        REFUSED(read_bytes(&r, b.data, b.size), FMK_EFORMAT, "header is said to take");
        release(&r);
    }
}

static void test_index(void **state) {
    (void)state;
    static const struct {
        const char *text, *word;
    } cases[] = {
        {"[]", "not an object"},
        {"{}", "weight_map"},
        {"{\"weight_map\":[]}", "weight_map"},
        {"{\"weight_map\":{}}", "weight_map"},
        {"{\"weight_map\":{\"t\":1}}", "not a string"},
        {"{\"weight_map\":{\"t\":\"\"}}", "weight_map[t]"},
        {"{\"weight_map\":{\"t\":\"..\"}}", "weight_map[t]"},
        {"{\"weight_map\":{\"t\":\"../../etc/passwd\"}}", "../../etc/passwd"},
        {"{\"weight_map\":{\"t\":\"/etc/passwd\"}}", "/etc/passwd"},
        {"{\"weight_map\":{\"t\":\"a/b\"}}", "a/b"},
        {"{\"weight_map\":{\"t\":\"a\",\"t\":\"b\"}}", "not JSON"},
        {"{\"weight_map\":{\"t\":\"a\\u0000b\"}}", "not JSON"},
    };
    struct fmk_index index;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        REFUSED(fmk_index_read((const uint8_t *)cases[i].text, strlen(cases[i].text), &index), FMK_EFORMAT,
                cases[i].word);
        fmk_index_free(&index);
    }
    static const char text[] = "{\"weight_map\":{\"x\":\"b\",\"y\":\"a\",\"z\":\"b\"}}";
    OK(fmk_index_read((const uint8_t *)text, strlen(text), &index));
    assert_int_equal(index.num_files, 2);
    assert_int_equal(fmk_index_file(&index, "a"), 0);
    assert_int_equal(fmk_index_file(&index, "b"), 1);
    assert_int_equal(fmk_index_file(&index, "c"), -1);
    fmk_index_free(&index);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_truncated_anywhere),
        cmocka_unit_test(test_any_byte_changed),
        cmocka_unit_test(test_bad),
        cmocka_unit_test(test_deep),
        cmocka_unit_test(test_header_size),
        cmocka_unit_test(test_index),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
