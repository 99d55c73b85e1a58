/* JSON as checkpoints use it: an object out of bytes, and its values as flat settings. */
#include "json.h"

#include "../error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* jansson's scanner ignores that its token buffer cannot grow and drops the byte. So the text is read as the
 * second element of an array whose first is a string longer than any token in it: once that one is whole, the
 * buffer needs to grow no more. */
struct feed {
    struct {
        const uint8_t *data;
        size_t size;
    } pieces[3]; /* ["aaaa...", then the text, then ] */
    size_t piece;
};

static size_t feed_more(void *buffer, size_t room, void *user) {
    struct feed *feed = user;
    while (feed->piece < 3 && !feed->pieces[feed->piece].size)
        feed->piece++;
    if (feed->piece == 3)
        return 0;
    size_t size = feed->pieces[feed->piece].size;
    size = size < room ? size : room;
    memcpy(buffer, feed->pieces[feed->piece].data, size);
    feed->pieces[feed->piece].data += size;
    feed->pieces[feed->piece].size -= size;
    return size;
}

static bool is_between_tokens(uint8_t byte) {
    return byte && strchr(" \t\r\n,:[]{}", byte);
}

/* Bytes of the longest string, number or word, quotes and all. */
static size_t longest_token(const uint8_t *data, size_t size) {
    size_t longest = 0;
    for (size_t i = 0, begin = 0; i < size; begin = i) {
        if (data[i] == '"') {
            for (i++; i < size && data[i] != '"'; i++)
                i += data[i] == '\\';
            i++;
        } else if (is_between_tokens(data[i])) {
            i++;
        } else {
            while (i < size && data[i] != '"' && !is_between_tokens(data[i]))
                i++;
        }
        longest = i - begin > longest ? i - begin : longest;
    }
    return longest;
}

enum { MARGIN = 16 };

/* NULL and no text in *error where memory is short. `first` is the first piece, with a string of `size`. */
static json_t *parse(const uint8_t *data, size_t data_size, const char *first, size_t size,
                     json_error_t *error) {
    struct feed feed = {{{(const uint8_t *)first, size + 5}, {data, data_size}, {(const uint8_t *)"]", 1}},
                        0};
    json_t *both = json_load_callback(feed_more, &feed, JSON_REJECT_DUPLICATES, error);
    json_t *value = NULL;
    if (both && json_string_length(json_array_get(both, 0)) == size) {
        value = json_incref(json_array_get(both, 1));
        if (json_array_size(both) != 2) {
            json_decref(value);
            value = NULL;
            snprintf(error->text, sizeof error->text, "there is more than one value");
        }
    }
    json_decref(both);
    if (json_error_code(error) == json_error_out_of_memory)
        error->text[0] = 0;
    return value;
}

fmk_status fmk_json_object(const uint8_t *data, size_t size, const char *what, json_t **out) {
    *out = NULL;
    size_t longest = longest_token(data, size) + MARGIN;
    char *first = malloc(longest + 6);
    if (!first)
        return fmk_no_memory(longest + 6, what);
    memset(first, 'a', longest + 2);
    memcpy(first, "[\"", 2);
    memcpy(first + 2 + longest, "\", ", 4);
    json_error_t error = {0}, again = {0};
    json_t *value = parse(data, size, first, longest, &error);
    if (!value && error.text[0]) {
        /* A token for which there was no memory reads as a wrong one: what parses now was right before, and
         * where even the token's size cannot be had nothing is known to be wrong. */
        json_t *second = parse(data, size, first, longest, &again);
        void *volatile probe = malloc(longest); /* volatile: compilers drop an allocation nobody uses */
        if (second || !probe)
            error.text[0] = 0;
        free(probe);
        json_decref(second);
    }
    free(first);
    if (!value && !error.text[0])
        return fmk_no_memory(size, what);
    if (!value)
        return fmk_fail(FMK_EFORMAT, "%s is not JSON: %s, line %d", what, error.text, error.line);
    if (!json_is_object(value)) {
        json_decref(value);
        return fmk_fail(FMK_EFORMAT, "%s is JSON, but not an object", what);
    }
    *out = value;
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
