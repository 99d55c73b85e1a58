/* Quantization configs: methods, `dynamic` overrides by Python's re.match, and everything malformed. */
#include "files.h"
#include "samples.h"

#include "checkpoint/quant_config.h"

static fmk_status parse(const char *text, struct fmk_quant_config *config) {
    json_t *root = NULL;
    *config = (struct fmk_quant_config){0};
    fmk_status status = fmk_json_object((const uint8_t *)text, strlen(text), "the config", &root);
    if (!status)
        status = fmk_quant_config_read(root, config);
    json_decref(root);
    return status;
}

static void test_methods(void **state) {
    (void)state;
    static const struct {
        const char *text;
        enum fmk_quant_method method;
        const char *name;
    } cases[] = {
        {"{\"bits\":4,\"group_size\":128,\"desc_act\":false,\"sym\":true}", FMK_QUANT_GPTQ, "gptq"},
        {"{\"quant_method\":\"gptq\",\"checkpoint_format\":\"gptq\"}", FMK_QUANT_GPTQ, "gptq"},
        {"{\"quant_method\":\"gptq\",\"checkpoint_format\":null}", FMK_QUANT_GPTQ, "gptq"},
        {"{\"quant_method\":\"gptq\",\"checkpoint_format\":\"gptq_v2\"}", FMK_QUANT_GPTQ_V2, "gptq"},
        {"{\"method\":\"gptq\",\"format\":\"gptq_v2\"}", FMK_QUANT_GPTQ_V2, "gptq"},
        {"{\"method\":\"gptq\",\"format\":\"gptq_p\",\"bits\":4}", FMK_QUANT_GPTQ_V2, "gptq"},
        {"{\"checkpoint_format\":\"marlin\"}", FMK_QUANT_MARLIN, "marlin"},
        {"{\"quant_method\":\"marlin\",\"group_size\":128}", FMK_QUANT_MARLIN, "marlin"},
        {"{\"is_marlin_format\":true,\"bits\":4}", FMK_QUANT_MARLIN, "marlin"},
        {"{\"is_marlin_format\":false,\"bits\":4}", FMK_QUANT_GPTQ, "gptq"},
        {"{\"quant_method\":\"awq\",\"group_size\":0}", FMK_QUANT_AWQ, "awq"},
        {"{\"zero_point\":true,\"q_group_size\":128,\"w_bit\":4,\"version\":\"GEMM\"}", FMK_QUANT_AWQ, "awq"},
        {"{\"quant_method\":\"fp8\",\"group_size\":\"x\"}", FMK_QUANT_OTHER, "fp8"},
        {"{\"quant_method\":\"gptq\",\"checkpoint_format\":\"bitblas\"}", FMK_QUANT_OTHER, "bitblas"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct fmk_quant_config config;
        OK(parse(cases[i].text, &config));
        if (config.method != cases[i].method)
            fail_msg("%s is read as method %d", cases[i].text, (int)config.method);
        assert_string_equal(config.name, cases[i].name);
        fmk_quant_config_free(&config);
    }
}

static void test_bad(void **state) {
    (void)state;
    static const struct {
        const char *text, *word;
    } cases[] = {
        {"[]", "not an object"},
        {"{\"bits\":4,\"bits\":4}", "not JSON"},
        {"{\"bits\":0}", "bits is 0"},
        {"{\"bits\":9}", "bits is 9"},
        {"{\"bits\":\"4\"}", "bits is not an integer"},
        {"{\"group_size\":0}", "group_size is 0"},
        {"{\"group_size\":1}", "group_size is 1"},
        {"{\"group_size\":7}", "group_size is 7"},
        {"{\"group_size\":-2}", "group_size is -2"},
        {"{\"group_size\":2147483648}", "group_size is 2147483648"},
        {"{\"group_size\":128.0}", "group_size is not an integer"},
        {"{\"sym\":1}", "sym is neither"},
        {"{\"desc_act\":\"yes\"}", "desc_act is neither"},
        {"{\"is_marlin_format\":[]}", "is_marlin_format is neither"},
        {"{\"lm_head\":3}", "lm_head is neither"},
        {"{\"modules_in_block_to_quantize\":3}", "modules_in_block_to_quantize"},
        {"{\"quant_method\":4}", "quant_method is not a string"},
        {"{\"checkpoint_format\":4}", "checkpoint_format is not a string"},
        {"{\"dynamic\":[]}", "dynamic is not an object"},
        {"{\"dynamic\":{\"a\":1}}", "\"a\" is not an object"},
        {"{\"dynamic\":{\"(\":{}}}", "not a regular expression"},
        {"{\"dynamic\":{\"-:[\":{}}}", "not a regular expression"},
        {"{\"dynamic\":{\"\\\\C\":{}}}", "not a regular expression"},
        {"{\"dynamic\":{\"+:a\":{\"bits\":1}}}", "\"+:a\": bits is 1"},
        {"{\"dynamic\":{\"a\":{\"group_size\":7}}}", "\"a\": group_size is 7"},
        {"{\"dynamic\":{\"((a{1,9999}){1,9999}){1,9999}\":{}}}", "not a regular expression"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct fmk_quant_config config;
        REFUSED(parse(cases[i].text, &config), FMK_EFORMAT, cases[i].word);
        fmk_quant_config_free(&config);
    }
}

static void test_dynamic(void **state) {
    (void)state;
    struct fmk_quant_config config;
    OK(parse("{\"bits\":4,\"group_size\":128,\"sym\":true,\"desc_act\":true,\"dynamic\":{"
             "\"-:.*\\\\.down_proj\":{},"
             "\".*\\\\.(?:1[0-9])\\\\..*up_proj$\":{\"bits\":8,\"group_size\":64},"
             "\"+:model\\\\.layers\\\\.0\\\\.\":{\"sym\":false},"
             "\"layers\":{\"bits\":2},"
             "\"model\\\\.layers\\\\.0\\\\.self_attn\":{\"group_size\":-1,\"desc_act\":false}}}",
             &config));
    static const struct {
        const char *module;
        bool skipped;
        struct fmk_quant_numbers numbers;
    } cases[] = {
        {"model.layers.3.mlp.down_proj", true, {4, 128, 1, 1}},
        {"model.layers.12.mlp.up_proj", false, {8, 64, 1, 1}},
        {"model.layers.12.mlp.up_proj_b", false, {4, 128, 1, 1}},
        {"model.layers.2.mlp.up_proj", false, {4, 128, 1, 1}},
        {"model.layers.0.self_attn.q_proj", false, {4, 128, -1, 1}}, /* the first rule that matches, alone */
        {"layers.0", false, {2, 128, 1, 1}},                         /* matched at the beginning only */
        {"lm_head", false, {4, 128, 1, 1}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct fmk_quant_numbers numbers;
        bool skipped = false;
        OK(fmk_quant_config_for(&config, cases[i].module, &numbers, &skipped));
        if (skipped != cases[i].skipped || memcmp(&numbers, &cases[i].numbers, sizeof numbers) != 0)
            fail_msg("%s: skipped %d, bits %d, group_size %d, symmetric %d, act_order %d", cases[i].module,
                     skipped, numbers.bits, numbers.group_size, numbers.symmetric, numbers.act_order);
    }
    fmk_quant_config_free(&config);
}

/* Patterns that backtrack without end are given up, soon. */
static void test_endless_match(void **state) {
    (void)state;
    static const char *const patterns[] = {"(a+)+$",          "(a|aa)+$", "(.*)*(.*)*(.*)*x",
                                           "((((a*)*)*)*)*b", "(?R)?a*b", "(?=(a+))*x(?1)"};
    for (size_t i = 0; i < sizeof patterns / sizeof patterns[0]; i++) {
        char text[128];
        struct fmk_quant_config config;
        struct fmk_quant_numbers numbers;
        bool skipped = false;
        snprintf(text, sizeof text, "{\"dynamic\":{\"%s\":{}}}", patterns[i]);
        fmk_status status = parse(text, &config);
        if (!status)
            status = fmk_quant_config_for(&config,
                                          "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaac",
                                          &numbers, &skipped);
        if (status && status != FMK_EFORMAT)
            fail_msg("%s: %s", patterns[i], fmk_last_error());
        fmk_quant_config_free(&config);
    }
    struct fmk_quant_config config;
    struct fmk_quant_numbers numbers;
    bool skipped = false;
    OK(parse("{\"dynamic\":{\"(a+)+$\":{}}}", &config));
    REFUSED(fmk_quant_config_for(&config, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaac", &numbers, &skipped),
            FMK_EFORMAT, "match");
    fmk_quant_config_free(&config);
}

static void test_too_many_rules(void **state) {
    (void)state;
    static char text[65536];
    size_t size = (size_t)snprintf(text, sizeof text, "{\"dynamic\":{\"first\":{}");
    for (int i = 0; i < 1024; i++)
        size += (size_t)snprintf(text + size, sizeof text - size, ",\"m%d\":{}", i);
    snprintf(text + size, sizeof text - size, "}}");
    struct fmk_quant_config config;
    REFUSED(parse(text, &config), FMK_EFORMAT, "1024");
    fmk_quant_config_free(&config);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_methods),        cmocka_unit_test(test_bad),
        cmocka_unit_test(test_dynamic),        cmocka_unit_test(test_endless_match),
        cmocka_unit_test(test_too_many_rules),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
