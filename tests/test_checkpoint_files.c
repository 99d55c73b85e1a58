/* Checkpoints on disk: folders, split sets and indexes, what is found in them, and what is refused. */
#include "files.h"
#include "samples.h"

#include <sys/stat.h>

static char *folder;

static int set_up(void **state) {
    (void)state;
    folder = make_folder();
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    remove_folder(folder);
    return 0;
}

static fmk_status open_in(fmk_checkpoint **c, const char *name) {
    return fmk_checkpoint_open(c, *name ? path_in(folder, name) : folder);
}

static void refuse_open(const char *name, fmk_status status, const char *word) {
    fmk_checkpoint *c = (fmk_checkpoint *)folder; /* not NULL */
    REFUSED(open_in(&c, name), status, word);
    assert_null(c);
}

static int32_t entries_of(fmk_checkpoint *c) {
    fmk_checkpoint_info_t info = {.struct_size = sizeof info};
    OK(fmk_checkpoint_info(c, &info));
    return info.num_entries;
}

static fmk_entry entry_of(fmk_checkpoint *c, const char *name) {
    for (int32_t i = 0; i < entries_of(c); i++) {
        fmk_entry entry = {.struct_size = sizeof entry};
        OK(fmk_checkpoint_entry(c, i, &entry));
        if (strcmp(entry.name, name) == 0)
            return entry;
    }
    fail_msg("there is no entry %s", name);
    return (fmk_entry){0};
}

static void write_safetensors(const char *name, const char *header, size_t data) {
    static struct bytes b;
    put_safetensors(&b, header, data);
    write_bytes(folder, name, b.data, b.size);
}

static const char one[] = "{\"a.weight\":{\"dtype\":\"F16\",\"shape\":[2,8],\"data_offsets\":[0,32]}}";
static const char other[] = "{\"b.weight\":{\"dtype\":\"F16\",\"shape\":[2,8],\"data_offsets\":[0,32]}}";

static void test_paths(void **state) {
    (void)state;
    refuse_open("", FMK_ENOTFOUND, "holds no .gguf");
    refuse_open("absent.gguf", FMK_EIO, "No such file");
    refuse_open("absent.safetensors", FMK_EIO, "No such file");
    refuse_open("absent", FMK_EIO, "No such file");
    write_text(folder, "empty.gguf", "");
    refuse_open("empty.gguf", FMK_EFORMAT, "is empty");
    must(mkfifo(path_in(folder, "pipe.gguf"), 0600) == 0);
    refuse_open("pipe.gguf", FMK_EIO, "not a regular file");
    must(symlink("loop.gguf", path_in(folder, "loop.gguf")) == 0);
    refuse_open("loop.gguf", FMK_EIO, "cannot open");
    fmk_checkpoint *c = NULL;
    REFUSED(fmk_checkpoint_open(&c, "/dev/null"), FMK_EIO, "not a regular file");
    REFUSED(fmk_checkpoint_open(&c, ""), FMK_EINVAL, "path is empty");
    REFUSED(fmk_checkpoint_open(&c, NULL), FMK_EINVAL, "path is NULL");
    REFUSED(fmk_checkpoint_open(NULL, folder), FMK_EINVAL, "out is NULL");
    empty_folder(folder);
    must(truncate(path_in(folder, "none"), 0) != 0);
    FILE *huge = fopen(path_in(folder, "huge.gguf"), "wb");
    must(huge != NULL);
    if (ftruncate(fileno(huge), INT64_C(1) << 43) == 0) /* where the file system allows: all zeros, sparse */
        refuse_open("huge.gguf", FMK_EFORMAT, "GGUF");
    fclose(huge);
}

static void test_folders(void **state) {
    (void)state;
    fmk_checkpoint *c = NULL;
    write_safetensors("x.safetensors", one, 32);
    write_safetensors("._x.safetensors", "not one", 0);
    OK(open_in(&c, ""));
    fmk_checkpoint_close(c);
    write_safetensors("y.safetensors", other, 32);
    refuse_open("", FMK_EINVAL, "more than one model");
    write_safetensors("model.safetensors", other, 32);
    OK(open_in(&c, ""));
    assert_string_equal(entry_of(c, "b").name, "b");
    fmk_checkpoint_close(c);
    write_text(folder, "z.gguf", "GGUF");
    refuse_open("", FMK_EINVAL, "more than one model");
    fmk_checkpoint_close(NULL);
}

static void test_index(void **state) {
    (void)state;
    static const struct {
        const char *map;
        fmk_status status;
        const char *word;
    } cases[] = {
        {"{\"a.weight\":\"1.safetensors\",\"b.weight\":\"2.safetensors\"}", FMK_OK, ""},
        {"{\"a.weight\":\"1.safetensors\",\"b.weight\":\"3.safetensors\"}", FMK_EIO, "3.safetensors"},
        {"{\"a.weight\":\"2.safetensors\",\"b.weight\":\"1.safetensors\"}", FMK_EFORMAT, "is not there"},
        {"{\"a.weight\":\"1.safetensors\",\"c.weight\":\"1.safetensors\"}", FMK_EFORMAT, "c.weight"},
        {"{\"a.weight\":\"1.safetensors\",\"b.weight\":\"../2.safetensors\"}", FMK_EFORMAT, "../2"},
        {"{\"a.weight\":\"1.safetensors\",\"x\":\"1b.safetensors\"}", FMK_EFORMAT, "is not there"},
        {"{\"a.weight\":\"1.safetensors\",\"b.weight\":\"4.safetensors\"}", FMK_EFORMAT,
         ""}, /* a.weight twice */
    };
    write_safetensors("1.safetensors", one, 32);
    write_safetensors("1b.safetensors", one, 32);
    write_safetensors("2.safetensors", other, 32);
    write_safetensors("4.safetensors",
                      "{\"a.weight\":{\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[0,2]},"
                      "\"b.weight\":{\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[2,4]}}",
                      4);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[256];
        snprintf(text, sizeof text, "{\"weight_map\":%s}", cases[i].map);
        write_text(folder, "model.safetensors.index.json", text);
        for (int whole = 0; whole < 2; whole++) {
            const char *name = whole ? "" : "model.safetensors.index.json";
            fmk_checkpoint *c = NULL;
            if (cases[i].status) {
                REFUSED(open_in(&c, name), cases[i].status, cases[i].word);
            } else {
                OK(open_in(&c, name));
                assert_int_equal(entries_of(c), 2);
                fmk_checkpoint_close(c);
            }
        }
    }
}

static void write_shard(const char *name, int number, int count, const char *tensor, int total) {
    static struct bytes b;
    put_header(&b, 3, 1, total ? 4 : 3);
    put_key_text(&b, "general.architecture", "llama");
    put_key_u16(&b, "split.no", (uint16_t)number);
    put_key_u16(&b, "split.count", (uint16_t)count);
    if (total)
        put_key_u32(&b, "split.tensors.count", (uint32_t)total);
    put_tensor(&b, tensor, 2, (int64_t[]){8, 2}, 1, 0);
    put_data(&b, 32, 32);
    write_bytes(folder, name, b.data, b.size);
}

static void test_split(void **state) {
    (void)state;
    static const char *const names[] = {"m-00001-of-00002.gguf", "m-00002-of-00002.gguf"};
    fmk_checkpoint *c = NULL;
    write_shard(names[0], 0, 2, "a.weight", 2);
    refuse_open(names[0], FMK_EIO, names[1]);
    write_shard(names[1], 1, 2, "b.weight", 0);
    for (int i = 0; i < 3; i++) {
        OK(open_in(&c, i < 2 ? names[i] : ""));
        assert_int_equal(entries_of(c), 2);
        fmk_checkpoint_close(c);
    }
    write_shard(names[1], 1, 2, "a.weight", 0);
    refuse_open(names[0], FMK_EFORMAT, "is there twice");
    write_shard(names[1], 0, 2, "b.weight", 0);
    refuse_open(names[0], FMK_EFORMAT, "split.no is 0");
    write_shard(names[1], 1, 3, "b.weight", 0);
    refuse_open(names[0], FMK_EFORMAT, "split.count 3");
    write_shard(names[1], 1, 2, "b.weight", 0);
    write_shard(names[0], 0, 2, "a.weight", 5);
    refuse_open(names[1], FMK_EFORMAT, "split.tensors.count is 5");
    write_shard("alone.gguf", 0, 2, "a.weight", 0);
    refuse_open("alone.gguf", FMK_EFORMAT, "split set");
}

/* ---- groups of tensors ---- */

#define TENSOR(name, dtype, shape, begin, end)                                                               \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" begin "," end "]}"
/* K 64, N 8 in two groups of 32: 256, 32 and 8 bytes */
#define QWEIGHT TENSOR("p.qweight", "I32", "[8,8]", "0", "256")
#define SCALES TENSOR("p.scales", "F16", "[2,8]", "256", "288")
#define QZEROS TENSOR("p.qzeros", "I32", "[2,1]", "288", "296")
#define CONFIG "{\"bits\":4,\"group_size\":32,\"sym\":false}"

static void test_bad_groups(void **state) {
    (void)state;
    static const struct {
        const char *header;
        size_t data;
        const char *config;
        fmk_status status;
        const char *word;
    } cases[] = {
        {"{" QWEIGHT "," SCALES "," QZEROS "}", 296, CONFIG, FMK_OK, ""},
        {"{" QWEIGHT "," SCALES "," QZEROS "}", 296, NULL, FMK_OK, ""},
        {"{" QWEIGHT "}", 256, CONFIG, FMK_EFORMAT, "scales are missing"},
        {"{" QWEIGHT "," SCALES "}", 288, CONFIG, FMK_OK, ""},
        {"{" QWEIGHT "," SCALES "}", 288, NULL, FMK_EFORMAT, "bits"},
        {"{" QWEIGHT "," SCALES "," QZEROS "}", 296, "{\"group_size\":64}", FMK_EFORMAT, "group_size 64"},
        {"{" QWEIGHT "," SCALES "," QZEROS "}", 296, "{\"group_size\":-1}", FMK_EFORMAT, "group_size -1"},
        {"{" QWEIGHT "," SCALES "," QZEROS "}", 296, "{\"bits\":8}", FMK_EUNSUPPORTED, "GPTQ 8-bit"},
        {"{" QWEIGHT "," SCALES "," QZEROS "}", 296, "{\"checkpoint_format\":\"bitblas\"}", FMK_EUNSUPPORTED,
         "bitblas"},
        {"{" QWEIGHT "," SCALES "," QZEROS "}", 296, "{\"is_marlin_format\":true}", FMK_EFORMAT, "Marlin"},
        {"{" QWEIGHT "," SCALES "," QZEROS "}", 296, "{\"dynamic\":{\"-:p\":{}}}", FMK_EFORMAT, "dynamic"},
        {"{" QWEIGHT "," SCALES "," QZEROS "}", 296,
         "{\"group_size\":64,\"dynamic\":{\"p\":{\"group_size\":32}}}", FMK_OK, ""},
        {"{" TENSOR("p.qweight", "F32", "[8,8]", "0", "256") "," SCALES "}", 288, CONFIG, FMK_EFORMAT,
         "type F32"},
        {"{" TENSOR("p.qweight", "I32", "[64]", "0", "256") "," SCALES "}", 288, CONFIG, FMK_EFORMAT,
         "dimensions"},
        {"{" QWEIGHT "," TENSOR("p.scales", "I16", "[2,8]", "256", "288") "}", 288, CONFIG, FMK_EFORMAT,
         "type I16"},
        {"{" QWEIGHT "," TENSOR("p.scales", "F16", "[4,4]", "256", "288") "}", 288, CONFIG, FMK_EFORMAT,
         "p.scales"},
        {"{" QWEIGHT "," TENSOR("p.scales", "F16", "[1,16]", "256", "288") "}", 288, CONFIG, FMK_EFORMAT,
         "p.scales"},
        {"{" QWEIGHT "," SCALES "," TENSOR("p.qzeros", "I32", "[1,2]", "288", "296") "}", 296, CONFIG,
         FMK_EFORMAT, "p.qzeros"},
        {"{" QWEIGHT "," SCALES "," TENSOR("p.qzeros", "F32", "[2,1]", "288", "296") "}", 296, CONFIG,
         FMK_EFORMAT, "p.qzeros"},
        {"{" QWEIGHT "," SCALES "," TENSOR("p.g_idx", "I32", "[2]", "288", "296") "}", 296, CONFIG,
         FMK_EFORMAT, "p.g_idx"},
        {"{" QWEIGHT "," SCALES "," TENSOR("p.g_idx", "I32", "[0]", "288", "288") "}", 288, CONFIG, FMK_OK,
         ""},
        {"{" QWEIGHT "," SCALES "," TENSOR("p.bias", "F16", "[4]", "288", "296") "}", 296, CONFIG,
         FMK_EFORMAT, "p.bias"},
        {"{" TENSOR("p.weight", "F16", "[2,8]", "0", "32") "," TENSOR("p.bias", "F16", "[3]", "32", "38") "}",
         38, NULL, FMK_EFORMAT, "p.bias"},
        {"{" TENSOR("p.weight", "F8_E4M3", "[2,8]", "0", "16") "}", 16, NULL, FMK_EUNSUPPORTED, "F8_E4M3"},
        {"{" TENSOR("p.weight", "F16", "[8]", "0", "16") "}", 16, NULL, FMK_ENOTFOUND, "vector"},
        {"{" TENSOR("q.weight", "F16", "[8]", "0", "16") "}", 16, NULL, FMK_ENOTFOUND, "\"p\""},
        {"{" TENSOR("p.B", "I32", "[8,128]", "0", "4096") "}", 4096, "{\"is_marlin_format\":true}",
         FMK_EFORMAT, "s is missing"},
        {"{" TENSOR("p.B", "I32", "[8,128]", "0", "4096") "," TENSOR("p.s", "F16", "[1,64]", "4096",
                                                                     "4224") "}",
         4224, "{\"is_marlin_format\":true,\"group_size\":64}", FMK_EFORMAT, "group_size 64"},
        {"{" TENSOR("p.B", "I32", "[8,128]", "0", "4096") "," TENSOR("p.s", "F16", "[1,64]", "4096",
                                                                     "4224") "}",
         4224, NULL, FMK_OK, ""},
        /* three groups of 43 or of 64 in K 128 */
        {"{" TENSOR("p.qweight", "I32", "[20,8]", "0",
                    "640") "," TENSOR("p.scales", "F16", "[3,8]", "640",
                                      "688") "," TENSOR("p.qzeros", "I32", "[3,1]", "688", "700") "}",
         700, NULL, FMK_OK, ""},
        {"{" TENSOR("p.qweight", "I32", "[48,8]", "0",
                    "1536") "," TENSOR("p.scales", "F16", "[2,8]", "1536",
                                       "1568") "," TENSOR("p.qzeros", "I32", "[2,1]", "1568", "1576") "}",
         1576, NULL, FMK_EFORMAT, "group size"},
        /* K 2^62 + 8 without a byte: N is 0 */
        {"{" TENSOR("p.qweight", "I32", "[576460752303423489,0]", "0",
                    "0") "," TENSOR("p.scales", "F16", "[1000003,0]", "0", "0") "}",
         0, "{\"quant_method\":\"gptq\",\"bits\":4}", FMK_EFORMAT, "group size"},
        {"{" TENSOR("p.qweight", "I32", "[1152921504606846975,0]", "0",
                    "0") "," TENSOR("p.scales", "F16", "[3,0]", "0", "0") "}",
         0, "{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":2147483647}", FMK_EFORMAT, "has 3 rows"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        fmk_checkpoint *c = NULL;
        fmk_part part = {.struct_size = sizeof part};
        empty_folder(folder);
        write_safetensors("model.safetensors", cases[i].header, cases[i].data);
        if (cases[i].config)
            write_text(folder, "quantize_config.json", cases[i].config);
        OK(open_in(&c, ""));
        fmk_entry entry = {.struct_size = sizeof entry};
        OK(fmk_checkpoint_entry(c, 0, &entry)); /* whatever is wrong, it is listed */
        fmk_status status = fmk_checkpoint_find(c, "p", &part, NULL);
        if (status != cases[i].status || (status && !strstr(fmk_last_error(), cases[i].word)))
            fail_msg("%s with config %s: %s %s", cases[i].header, cases[i].config ? cases[i].config : "none",
                     fmk_status_name(status), status ? fmk_last_error() : "");
        fmk_checkpoint_close(c);
    }
}

static void test_bad_configs(void **state) {
    (void)state;
    static const struct {
        const char *name, *text, *word;
    } cases[] = {
        {"quantize_config.json", "{\"group_size\":7}", "quantize_config.json: group_size is 7"},
        {"quantize_config.json", "{\"group_size\":", "not JSON"},
        {"quant_config.json", "[1]", "not an object"},
        {"config.json", "{\"quantization_config\":{\"bits\":12}}", "bits is 12"},
        {"config.json", "{\"a.b\":1,\"a\":{\"b\":2}}", "a.b is there twice"},
        {"config.json", "x", "not JSON"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        empty_folder(folder);
        write_safetensors("model.safetensors", one, 32);
        write_text(folder, cases[i].name, cases[i].text);
        refuse_open("", FMK_EFORMAT, cases[i].word);
        refuse_open("model.safetensors", FMK_EFORMAT, cases[i].word);
    }
}

static void test_names(void **state) {
    (void)state;
    fmk_checkpoint *c = NULL;
    write_safetensors("model.safetensors",
                      "{" QWEIGHT "," SCALES "," QZEROS
                      "," TENSOR("d.weight", "F32", "[2,2]", "296", "312") "," TENSOR(
                          "d.bias", "F32", "[2]", "312",
                          "320") "," TENSOR("lora.B", "F16", "[2,2]", "320",
                                            "328") "," TENSOR("scalar", "F32", "[]", "328",
                                                              "332") "," TENSOR("none.weight", "F16", "[0]",
                                                                                "332", "332") "}",
                      332);
    OK(open_in(&c, ""));
    assert_int_equal(entries_of(c), 5);
    static const struct {
        const char *name;
        fmk_status status;
    } cases[] = {{"p", FMK_OK},
                 {"p.qweight", FMK_OK},
                 {"p.weight", FMK_ENOTFOUND},
                 {"p.B", FMK_ENOTFOUND},
                 {"d", FMK_OK},
                 {"d.weight", FMK_OK},
                 {"d.bias", FMK_ENOTFOUND},
                 {"p.scales", FMK_ENOTFOUND},
                 {"lora.B", FMK_OK},
                 {"lora", FMK_ENOTFOUND},
                 {"", FMK_ENOTFOUND},
                 {".weight", FMK_ENOTFOUND},
                 {"scalar", FMK_ENOTFOUND}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        fmk_part part = {.struct_size = sizeof part};
        fmk_status status = fmk_checkpoint_find(c, cases[i].name, &part, NULL);
        if (status != cases[i].status)
            fail_msg("find(%s) answers %s", cases[i].name, fmk_status_name(status));
    }
    float values[2] = {1, 1};
    int64_t count = -1;
    OK(fmk_checkpoint_vector(c, "scalar", values, 2, &count));
    assert_int_equal(count, 1);
    assert_true(values[0] == 0 && values[1] == 1);
    OK(fmk_checkpoint_vector(c, "none", values, 0, &count));
    assert_int_equal(count, 0);
    REFUSED(fmk_checkpoint_vector(c, "scalar", values, 0, &count), FMK_EINVAL, "capacity 0");
    REFUSED(fmk_checkpoint_vector(c, "d", NULL, 0, &count), FMK_ENOTFOUND, "matrix");
    REFUSED(fmk_checkpoint_vector(c, "d", NULL, 0, NULL), FMK_EINVAL, "count is NULL");
    REFUSED(fmk_checkpoint_vector(c, NULL, NULL, 0, &count), FMK_EINVAL, "name is NULL");
    REFUSED(fmk_checkpoint_vector(NULL, "d", NULL, 0, &count), FMK_EINVAL, "c is NULL");
    fmk_part part = {.struct_size = sizeof part};
    REFUSED(fmk_checkpoint_find(NULL, "d", &part, NULL), FMK_EINVAL, "c is NULL");
    REFUSED(fmk_checkpoint_find(c, NULL, &part, NULL), FMK_EINVAL, "name is NULL");
    REFUSED(fmk_checkpoint_find(c, "d", NULL, NULL), FMK_EINVAL, "out is NULL");
    part.struct_size = 0;
    REFUSED(fmk_checkpoint_find(c, "d", &part, NULL), FMK_EINVAL, "struct_size");
    fmk_entry entry = {.struct_size = sizeof entry};
    REFUSED(fmk_checkpoint_entry(c, -1, &entry), FMK_EINVAL, "index is -1");
    REFUSED(fmk_checkpoint_entry(c, 5, &entry), FMK_EINVAL, "index is 5");
    REFUSED(fmk_checkpoint_entry(c, 0, NULL), FMK_EINVAL, "out is NULL");
    REFUSED(fmk_checkpoint_entry(NULL, 0, &entry), FMK_EINVAL, "c is NULL");
    REFUSED(fmk_checkpoint_info(c, NULL), FMK_EINVAL, "out is NULL");
    fmk_checkpoint_close(c);
}

static void test_same_entry(void **state) {
    (void)state;
    write_safetensors("model.safetensors",
                      "{" QWEIGHT "," SCALES "," TENSOR("p.weight", "F16", "[2,2]", "288", "296") "}", 296);
    refuse_open("", FMK_EFORMAT, "p is there twice");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_paths, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_folders, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_index, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_split, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_bad_groups, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_bad_configs, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_names, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_same_entry, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
