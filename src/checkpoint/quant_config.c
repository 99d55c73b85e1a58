/* Reads a quantization config and answers what it says of one module.
 *
 * `dynamic` maps regular expressions to overrides. The first whose expression matches at the beginning of the
 * module's name (Python's re.match) decides: "-:" in front of it means that the module is not quantized,
 * "+:" or nothing that the numbers given replace the general ones. */
#include "quant_config.h"

#include "../error.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_RULES = 1024,
    MAX_PATTERN = 4096,
    /* Steps, nesting and KiB of one match. Real patterns take a few hundred steps; a hostile one must not
     * take seconds. */
    MATCH_STEPS = 20000,
    MATCH_DEPTH = 2000,
    MATCH_KIB = 4096,
    MAX_PARENTHESES = 64
};

struct fmk_quant_rule {
    pcre2_code *code;
    struct fmk_quant_numbers numbers;
    bool skip;
};

static fmk_status read_integer(const json_t *object, const char *key, int64_t least, int64_t most,
                               const char *accepted, int32_t *out) {
    const json_t *value = json_object_get(object, key);
    if (!value || json_is_null(value))
        return FMK_OK;
    if (!json_is_integer(value))
        return fmk_fail(FMK_EFORMAT, "%s is not an integer; %s is accepted", key, accepted);
    int64_t number = json_integer_value(value);
    if (number < least || number > most)
        return fmk_fail(FMK_EFORMAT, "%s is %lld; %s is accepted", key, (long long)number, accepted);
    *out = (int32_t)number;
    return FMK_OK;
}

static fmk_status read_bool(const json_t *object, const char *key, int32_t *out) {
    const json_t *value = json_object_get(object, key);
    if (!value || json_is_null(value))
        return FMK_OK;
    if (!json_is_boolean(value))
        return fmk_fail(FMK_EFORMAT, "%s is neither true nor false", key);
    *out = json_is_true(value) ? 1 : -1;
    return FMK_OK;
}

/* The text of the first key that is there, "" where none is. */
static fmk_status read_text(const json_t *object, const char *key, const char *other, const char **out) {
    const json_t *value = json_object_get(object, key);
    if (!value || json_is_null(value)) {
        key = other;
        value = json_object_get(object, key);
    }
    *out = "";
    if (!value || json_is_null(value))
        return FMK_OK;
    if (!json_is_string(value))
        return fmk_fail(FMK_EFORMAT, "%s is not a string", key);
    *out = json_string_value(value);
    return FMK_OK;
}

static fmk_status read_numbers(const json_t *object, struct fmk_quant_numbers *numbers) {
    fmk_status status = read_integer(object, "bits", 2, 8, "2 to 8", &numbers->bits);
    if (!status)
        status = read_integer(object, "group_size", -1, INT32_MAX, "-1, or 8 and more", &numbers->group_size);
    if (status)
        return status;
    const json_t *group_size = json_object_get(object, "group_size");
    if (json_is_integer(group_size) && numbers->group_size != -1 && numbers->group_size < 8)
        return fmk_fail(FMK_EFORMAT, "group_size is %d; -1, or 8 and more is accepted", numbers->group_size);
    status = read_bool(object, "sym", &numbers->symmetric);
    return status ? status : read_bool(object, "desc_act", &numbers->act_order);
}

static fmk_status compile(const char *pattern, pcre2_code **out) {
    fmk_status status = FMK_OK;
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    if (!context)
        return fmk_no_memory(sizeof(void *), "a pattern");
    pcre2_set_max_pattern_length(context, MAX_PATTERN);
    pcre2_set_parens_nest_limit(context, MAX_PARENTHESES);
    int error = 0;
    size_t at = 0;
    *out = pcre2_compile((PCRE2_SPTR)pattern, strlen(pattern),
                         PCRE2_ANCHORED | PCRE2_UTF | PCRE2_NEVER_BACKSLASH_C, &error, &at, context);
    if (!*out && error == PCRE2_ERROR_HEAP_FAILED) {
        status = fmk_no_memory(strlen(pattern), "a pattern");
    } else if (!*out) {
        char text[128];
        pcre2_get_error_message(error, (PCRE2_UCHAR *)text, sizeof text);
        status = fmk_fail(FMK_EFORMAT, "dynamic: \"%.64s\" is not a regular expression: %s at character %zu",
                          pattern, text, at);
    }
    pcre2_compile_context_free(context);
    return status;
}

static fmk_status read_rules(const json_t *object, struct fmk_quant_config *config) {
    const json_t *dynamic = json_object_get(object, "dynamic");
    if (!dynamic || json_is_null(dynamic))
        return FMK_OK;
    size_t count = json_object_size(dynamic);
    if (!json_is_object(dynamic) || count > MAX_RULES)
        return fmk_fail(FMK_EFORMAT, "dynamic is not an object of at most %d rules", MAX_RULES);
    if (!count)
        return FMK_OK;
    config->rules = calloc(count, sizeof *config->rules);
    if (!config->rules)
        return fmk_no_memory(count * sizeof *config->rules, "dynamic");
    const char *key = NULL;
    json_t *value = NULL;
    json_object_foreach((json_t *)(uintptr_t)dynamic, key, value) {
        struct fmk_quant_rule *rule = &config->rules[config->num_rules++];
        rule->skip = strncmp(key, "-:", 2) == 0;
        bool prefixed = rule->skip || strncmp(key, "+:", 2) == 0;
        if (!rule->skip && !json_is_object(value))
            return fmk_fail(FMK_EFORMAT, "dynamic: the value of \"%.64s\" is not an object", key);
        fmk_status status = rule->skip ? FMK_OK : read_numbers(value, &rule->numbers);
        if (status)
            return fmk_fail_in(status, "dynamic: \"%.64s\"", key);
        if ((status = compile(prefixed ? key + 2 : key, &rule->code)))
            return status;
    }
    return FMK_OK;
}

static bool is_one_of(const char *text, const char *a, const char *b) {
    return strcmp(text, a) == 0 || strcmp(text, b) == 0;
}

/* The method as a whole, from quant_method, checkpoint_format and is_marlin_format. */
static fmk_status settle_method(const json_t *object, struct fmk_quant_config *config) {
    const char *method = NULL, *format = NULL;
    int32_t marlin = 0;
    fmk_status status = read_text(object, "quant_method", "method", &method);
    if (!status)
        status = read_text(object, "checkpoint_format", "format", &format);
    if (!status)
        status = read_bool(object, "is_marlin_format", &marlin);
    if (status)
        return status;
    /* AutoAWQ's own file has other names and no method. */
    bool awq = strcmp(method, "awq") == 0 || (!*method && json_object_get(object, "w_bit"));
    const char *name = "gptq";
    config->method = FMK_QUANT_GPTQ;
    if (awq) {
        name = "awq";
        config->method = FMK_QUANT_AWQ;
    } else if (*method && strcmp(method, "gptq") != 0 && strcmp(method, "marlin") != 0) {
        name = method;
        config->method = FMK_QUANT_OTHER;
    } else if (marlin == 1 || strcmp(format, "marlin") == 0 || strcmp(method, "marlin") == 0) {
        name = "marlin";
        config->method = FMK_QUANT_MARLIN;
    } else if (is_one_of(format, "gptq_v2", "gptq_p")) {
        /* GPTQModel's planar words differ from v2 ones where bits do not divide 32, and those are not read.
         */
        config->method = FMK_QUANT_GPTQ_V2;
    } else if (!is_one_of(format, "", "gptq")) {
        name = format;
        config->method = FMK_QUANT_OTHER;
    }
    strncpy(config->name, name, sizeof config->name - 1);
    return FMK_OK;
}

static fmk_status check_types(const json_t *object) {
    int32_t lm_head = 0;
    fmk_status status = read_bool(object, "lm_head", &lm_head);
    if (status)
        return status;
    const json_t *modules = json_object_get(object, "modules_in_block_to_quantize");
    if (modules && !json_is_null(modules) && !json_is_array(modules))
        return fmk_fail(FMK_EFORMAT, "modules_in_block_to_quantize is not an array");
    return FMK_OK;
}

fmk_status fmk_quant_config_read(const json_t *object, struct fmk_quant_config *config) {
    *config = (struct fmk_quant_config){0};
    fmk_status status = settle_method(object, config);
    if (status || config->method == FMK_QUANT_OTHER || config->method == FMK_QUANT_AWQ)
        return status; /* nothing of these is read: their numbers mean what they like */
    status = read_numbers(object, &config->numbers);
    if (!status)
        status = check_types(object);
    return status ? status : read_rules(object, config);
}

void fmk_quant_config_free(struct fmk_quant_config *config) {
    for (size_t i = 0; i < config->num_rules; i++)
        pcre2_code_free(config->rules[i].code);
    free(config->rules);
    *config = (struct fmk_quant_config){0};
}

static fmk_status match(const struct fmk_quant_rule *rule, const char *module, pcre2_match_data *data,
                        pcre2_match_context *context, bool *matches) {
    int found = pcre2_match(rule->code, (PCRE2_SPTR)module, strlen(module), 0, 0, data, context);
    *matches = found >= 0;
    if (found >= 0 || found == PCRE2_ERROR_NOMATCH)
        return FMK_OK;
    if (found == PCRE2_ERROR_NOMEMORY)
        return fmk_no_memory(MATCH_KIB, "matching a pattern");
    char text[128];
    pcre2_get_error_message(found, (PCRE2_UCHAR *)text, sizeof text);
    return fmk_fail(FMK_EFORMAT, "dynamic: a pattern cannot be matched with %.64s: %s", module, text);
}

static void apply(const struct fmk_quant_numbers *from, struct fmk_quant_numbers *to) {
    to->bits = from->bits ? from->bits : to->bits;
    to->group_size = from->group_size ? from->group_size : to->group_size;
    to->symmetric = from->symmetric ? from->symmetric : to->symmetric;
    to->act_order = from->act_order ? from->act_order : to->act_order;
}

fmk_status fmk_quant_config_for(const struct fmk_quant_config *config, const char *module,
                                struct fmk_quant_numbers *numbers, bool *skipped) {
    *numbers = config->numbers;
    *skipped = false;
    if (!config->num_rules)
        return FMK_OK;
    fmk_status status = FMK_OK;
    pcre2_match_context *context = pcre2_match_context_create(NULL);
    pcre2_match_data *data = pcre2_match_data_create(1, NULL);
    if (!context || !data) {
        status = fmk_no_memory(MATCH_KIB, "matching a pattern");
        goto done;
    }
    pcre2_set_match_limit(context, MATCH_STEPS);
    pcre2_set_depth_limit(context, MATCH_DEPTH);
    pcre2_set_heap_limit(context, MATCH_KIB);
    for (size_t i = 0; i < config->num_rules && !status; i++) {
        bool matches = false;
        status = match(&config->rules[i], module, data, context, &matches);
        if (!matches)
            continue;
        *skipped = config->rules[i].skip;
        apply(&config->rules[i].numbers, numbers);
        break;
    }
done:
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
    return status;
}
