/* JSON as checkpoints use it: an object out of bytes, and its values as flat settings. */
#include "json.h"

#include "../error.h"

#include <stdio.h>
#include <string.h>

fmk_status fmk_json_object(const uint8_t *data, size_t size, const char *what, json_t **out) {
    json_error_t error = {0};
    *out = json_loadb((const char *)data, size, JSON_REJECT_DUPLICATES, &error);
    if (!*out) {
        /* jansson leaves no text where an allocation failed in its scanner */
        if (json_error_code(&error) == json_error_out_of_memory || !error.text[0])
            return fmk_no_memory(size, what);
        return fmk_fail(FMK_EFORMAT, "%s is not JSON: %s, line %d", what, error.text, error.line);
    }
    if (!json_is_object(*out)) {
        json_decref(*out);
        *out = NULL;
        return fmk_fail(FMK_EFORMAT, "%s is JSON, but not an object", what);
    }
    return FMK_OK;
}

enum { MAX_DEPTH = 4, MAX_KEY = 512 };

static bool set_value(struct fmk_setting *setting, const json_t *value, struct fmk_strings *strings) {
    setting->kind = FMK_SETTING_OTHER;
    if (json_is_integer(value)) {
        setting->kind = FMK_SETTING_INTEGER;
        setting->integer = json_integer_value(value);
        setting->real = (double)setting->integer;
    } else if (json_is_real(value)) {
        setting->kind = FMK_SETTING_REAL;
        setting->real = json_real_value(value);
    } else if (json_is_boolean(value)) {
        setting->kind = FMK_SETTING_BOOL;
        setting->integer = json_is_true(value);
    } else if (json_is_string(value) && json_string_length(value) <= FMK_LONGEST_SETTING) {
        setting->kind = FMK_SETTING_STRING;
        setting->string = fmk_strings_add(strings, json_string_value(value), json_string_length(value));
        return setting->string;
    }
    return true;
}

static fmk_status add_object(const json_t *object, const char *prefix, int depth,
                             struct fmk_settings *settings, struct fmk_strings *strings) {
    const char *name = NULL;
    json_t *value = NULL;
    json_object_foreach((json_t *)(uintptr_t)object, name, value) {
        char key[MAX_KEY];
        int size = snprintf(key, sizeof key, "%s%s%s", prefix, *prefix ? "." : "", name);
        if (json_is_null(value) || size < 0 || size >= MAX_KEY)
            continue; /* no setting that is looked up has so long a name; null is as good as absent */
        if (json_is_object(value)) {
            fmk_status status =
                depth < MAX_DEPTH ? add_object(value, key, depth + 1, settings, strings) : FMK_OK;
            if (status)
                return status;
            continue;
        }
        struct fmk_setting setting = {.key = fmk_strings_add(strings, key, (size_t)size)};
        if (!setting.key || !set_value(&setting, value, strings) || !fmk_settings_add(settings, &setting))
            return fmk_no_memory(sizeof setting, "a setting");
    }
    return FMK_OK;
}

fmk_status fmk_json_settings(const json_t *object, struct fmk_settings *settings,
                             struct fmk_strings *strings) {
    fmk_status status = add_object(object, "", 1, settings, strings);
    if (status)
        return status;
    /* "a.b" beside {"a": {"b": ...}} */
    const char *twice = fmk_settings_sort(settings);
    return twice ? fmk_fail(FMK_EFORMAT, "%.64s is there twice", twice) : FMK_OK;
}
