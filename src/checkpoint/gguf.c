/* Reads a GGUF file's header: key-values, tensor infos, and where the data of each tensor lies. Every number
 * in it may be a lie: each is checked against the bytes that are there before it is used. */
#include "gguf.h"

#include "../abi.h"
#include "../error.h"
#include "../half.h"

#include <string.h>

enum value_type {
    VALUE_U8,
    VALUE_I8,
    VALUE_U16,
    VALUE_I16,
    VALUE_U32,
    VALUE_I32,
    VALUE_F32,
    VALUE_BOOL,
    VALUE_STRING,
    VALUE_ARRAY,
    VALUE_U64,
    VALUE_I64,
    VALUE_F64,
    VALUE_TYPES
};

static const uint8_t value_size[VALUE_TYPES] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8}; /* 0 = varies */

enum { LONGEST_NAME = 65535, MIN_KEY_VALUE = 8 + 1 + 4 + 1, MIN_TENSOR = 8 + 1 + 4 + 4 + 8 };

struct cursor {
    const uint8_t *data;
    uint64_t size, at;
};

static fmk_status ends_early(const struct cursor *c, const char *what, uint64_t wanted) {
    return fmk_fail(FMK_EFORMAT, "%s at byte %llu takes %llu bytes, but the file has %llu in all", what,
                    (unsigned long long)c->at, (unsigned long long)wanted, (unsigned long long)c->size);
}

static fmk_status take(struct cursor *c, void *out, uint64_t size, const char *what) {
    if (c->size - c->at < size)
        return ends_early(c, what, size);
    memcpy(out, c->data + c->at, size);
    c->at += size;
    return FMK_OK;
}

static fmk_status take_string(struct cursor *c, const char **text, uint64_t *size, const char *what) {
    fmk_status status = take(c, size, sizeof *size, what);
    if (status)
        return status;
    if (c->size - c->at < *size)
        return ends_early(c, what, *size);
    *text = (const char *)(c->data + c->at);
    c->at += *size;
    return FMK_OK;
}

/* A key or a tensor's name: 1..65535 bytes without a 0. */
static fmk_status take_name(struct cursor *c, struct fmk_strings *strings, const char **name,
                            const char *what) {
    const char *text = NULL;
    uint64_t size = 0, begin = c->at;
    fmk_status status = take_string(c, &text, &size, what);
    if (status)
        return status;
    if (size == 0 || size > LONGEST_NAME || memchr(text, 0, size))
        return fmk_fail(FMK_EFORMAT,
                        "%s at byte %llu is empty, has a zero byte in it or is longer than 65535 bytes", what,
                        (unsigned long long)begin);
    *name = fmk_strings_add(strings, text, size);
    return *name ? FMK_OK : fmk_no_memory(size + 1, what);
}

static fmk_status skip_array(struct cursor *c, const char *key) {
    int32_t type = 0;
    uint64_t count = 0;
    fmk_status status = take(c, &type, sizeof type, "an array's element type");
    if (!status)
        status = take(c, &count, sizeof count, "an array's length");
    if (status)
        return fmk_fail_in(status, "key %.64s", key);
    if (type < 0 || type >= VALUE_TYPES || type == VALUE_ARRAY)
        return fmk_fail(
            FMK_EFORMAT,
            "key %.64s is an array of type %d; a type from 0 to 12 other than 9 (array) is expected", key,
            type);
    uint64_t least = type == VALUE_STRING ? 8 : value_size[type];
    if (count > (c->size - c->at) / least)
        return fmk_fail(FMK_EFORMAT,
                        "key %.64s is an array of %llu elements, more than the file's %llu bytes hold", key,
                        (unsigned long long)count, (unsigned long long)c->size);
    if (type != VALUE_STRING) {
        c->at += count * least;
        return FMK_OK;
    }
    for (uint64_t i = 0; i < count; i++) {
        const char *text = NULL;
        uint64_t size = 0;
        if ((status = take_string(c, &text, &size, "a string")))
            return fmk_fail_in(status, "key %.64s, element %llu", key, (unsigned long long)i);
    }
    return FMK_OK;
}

static void set_integer(struct fmk_setting *setting, int64_t value) {
    setting->kind = FMK_SETTING_INTEGER;
    setting->integer = value;
    setting->real = (double)value;
}

/* The value of a fixed-size type from its bytes. */
static void set_number(struct fmk_setting *setting, enum value_type type, const uint8_t *bytes) {
    uint64_t raw = 0;
    memcpy(&raw, bytes, value_size[type]);
    double real = 0;
    switch (type) {
    case VALUE_F32:
        setting->kind = FMK_SETTING_REAL;
        setting->real = (double)fmk_float_of_bits((uint32_t)raw);
        return;
    case VALUE_F64:
        memcpy(&real, &raw, sizeof real);
        setting->kind = FMK_SETTING_REAL;
        setting->real = real;
        return;
    case VALUE_BOOL:
        setting->kind = FMK_SETTING_BOOL;
        setting->integer = raw != 0;
        return;
    case VALUE_I8:
        set_integer(setting, (int8_t)raw);
        return;
    case VALUE_I16:
        set_integer(setting, (int16_t)raw);
        return;
    case VALUE_I32:
        set_integer(setting, (int32_t)raw);
        return;
    case VALUE_U64:
        if (raw > INT64_MAX) {
            setting->kind = FMK_SETTING_REAL;
            setting->real = (double)raw;
            return;
        }
        set_integer(setting, (int64_t)raw);
        return;
    default:
        set_integer(setting, (int64_t)raw);
        return;
    }
}

static fmk_status read_key_value(struct cursor *c, const struct fmk_reading *reading) {
    struct fmk_setting setting = {.kind = FMK_SETTING_OTHER};
    int32_t type = 0;
    fmk_status status = take_name(c, reading->strings, &setting.key, "a key");
    if (!status)
        status = take(c, &type, sizeof type, "a key's type");
    if (status)
        return status;
    if (type < 0 || type >= VALUE_TYPES)
        return fmk_fail(FMK_EFORMAT, "key %.64s has type %d; 0 to 12 are known", setting.key, type);
    if (type == VALUE_ARRAY) {
        status = skip_array(c, setting.key);
    } else if (type == VALUE_STRING) {
        const char *text = NULL;
        uint64_t size = 0;
        status = take_string(c, &text, &size, "a string");
        if (!status && size <= FMK_LONGEST_SETTING && !memchr(text, 0, size)) {
            setting.kind = FMK_SETTING_STRING;
            if (!(setting.string = fmk_strings_add(reading->strings, text, size)))
                return fmk_no_memory(size + 1, "a string");
        }
    } else {
        uint8_t bytes[8] = {0};
        status = take(c, bytes, value_size[type], "a value");
        if (!status)
            set_number(&setting, (enum value_type)type, bytes);
    }
    if (status)
        return status;
    return fmk_settings_add(reading->settings, &setting) ? FMK_OK : fmk_no_memory(sizeof setting, "a key");
}

static fmk_status read_tensor(struct cursor *c, const struct fmk_reading *reading) {
    struct fmk_file_tensor tensor = {.file = reading->file};
    uint32_t num_dims = 0, type = 0;
    int64_t dims[FMK_MAX_DIMS] = {0};
    fmk_status status = take_name(c, reading->strings, &tensor.name, "a tensor's name");
    if (!status)
        status = take(c, &num_dims, sizeof num_dims, "a tensor's number of dimensions");
    if (status)
        return status;
    if (num_dims > FMK_MAX_DIMS)
        return fmk_fail(FMK_EFORMAT, "tensor %.64s has %u dimensions; 4 is the most", tensor.name, num_dims);
    status = take(c, dims, num_dims * sizeof dims[0], "a tensor's dimensions");
    if (!status)
        status = take(c, &type, sizeof type, "a tensor's type");
    if (!status)
        status = take(c, &tensor.offset, sizeof tensor.offset, "a tensor's offset");
    if (status)
        return fmk_fail_in(status, "tensor %.64s", tensor.name);
    if (!(tensor.type = fmk_type_of_gguf(type)))
        return fmk_fail(FMK_EFORMAT, "tensor %.64s has type %u; those of ggml from 0 to 41 are known",
                        tensor.name, type);
    tensor.num_dims = (int32_t)num_dims;
    for (uint32_t i = 0; i < num_dims; i++) {
        if (dims[i] < 0)
            return fmk_fail(FMK_EFORMAT, "tensor %.64s has dimension %lld", tensor.name, (long long)dims[i]);
        tensor.dims[num_dims - 1 - i] = dims[i];
    }
    if (!fmk_tensor_measure(&tensor))
        return fmk_fail(
            FMK_EFORMAT,
            "tensor %.64s of type %s: the first of its dimensions (%lld, %lld, %lld, %lld) is not a "
            "multiple of %d, or their product does not fit 63 bits",
            tensor.name, tensor.type->name, (long long)dims[0], (long long)dims[1], (long long)dims[2],
            (long long)dims[3], tensor.type->block);
    return fmk_tensors_add(reading->tensors, &tensor) ? FMK_OK : fmk_no_memory(sizeof tensor, "a tensor");
}

/* Offsets are the running sum of padded sizes, and the data ends within the file. */
static fmk_status place_tensors(const struct cursor *c, const struct fmk_tensor_list *list, size_t from,
                                int64_t alignment) {
    int64_t begin = fmk_round_up((int64_t)c->at, alignment), expected = 0;
    for (size_t i = from; i < list->count; i++) {
        struct fmk_file_tensor *tensor = &list->items[i];
        if (tensor->offset != (uint64_t)expected)
            return fmk_fail(
                FMK_EFORMAT,
                "tensor %.64s lies at offset %llu of the data; after the tensors before it %lld is expected",
                tensor->name, (unsigned long long)tensor->offset, (long long)expected);
        int64_t first = 0, end = 0;
        if (!fmk_add(begin, expected, &first) || !fmk_add(first, (int64_t)tensor->size, &end) ||
            (uint64_t)end > c->size)
            return fmk_fail(FMK_EFORMAT,
                            "tensor %.64s takes %llu bytes from byte %lld on, but the file has %llu",
                            tensor->name, (unsigned long long)tensor->size, (long long)first,
                            (unsigned long long)c->size);
        tensor->data = c->data + first;
        /* end <= file size, so neither the padding nor the sum can overflow */
        expected += fmk_round_up((int64_t)tensor->size, alignment);
    }
    return FMK_OK;
}

static fmk_status read_header(struct cursor *c, int64_t *num_tensors, int64_t *num_keys) {
    uint32_t magic = 0, version = 0;
    fmk_status status = take(c, &magic, sizeof magic, "the magic number");
    if (!status)
        status = take(c, &version, sizeof version, "the version");
    if (status)
        return status;
    if ((version & 0xffff) == 0)
        return fmk_fail(FMK_EUNSUPPORTED, "GGUF version %#x: the file is big-endian; little-endian is read",
                        version);
    if (version != 2 && version != 3)
        return fmk_fail(FMK_EUNSUPPORTED, "GGUF version %u; 2 and 3 are read", version);
    status = take(c, num_tensors, sizeof *num_tensors, "the number of tensors");
    if (!status)
        status = take(c, num_keys, sizeof *num_keys, "the number of keys");
    if (status)
        return status;
    uint64_t rest = c->size - c->at;
    if (*num_keys < 0 || (uint64_t)*num_keys > rest / MIN_KEY_VALUE)
        return fmk_fail(FMK_EFORMAT, "%lld keys are more than %llu bytes hold", (long long)*num_keys,
                        (unsigned long long)c->size);
    if (*num_tensors < 0 || (uint64_t)*num_tensors > rest / MIN_TENSOR)
        return fmk_fail(FMK_EFORMAT, "%lld tensors are more than %llu bytes hold", (long long)*num_tensors,
                        (unsigned long long)c->size);
    return FMK_OK;
}

bool fmk_is_gguf(const uint8_t *data, size_t size) {
    return size >= 4 && memcmp(data, "GGUF", 4) == 0;
}

fmk_status fmk_gguf_read(const uint8_t *data, size_t size, const struct fmk_reading *reading) {
    if (!fmk_is_gguf(data, size))
        return fmk_fail(FMK_EFORMAT, "the file does not begin with \"GGUF\"");
    struct cursor c = {data, size, 0};
    int64_t num_tensors = 0, num_keys = 0, alignment = 32;
    fmk_status status = read_header(&c, &num_tensors, &num_keys);
    for (int64_t i = 0; i < num_keys && !status; i++)
        status = read_key_value(&c, reading);
    if (status)
        return status;
    const char *twice = fmk_settings_sort(reading->settings);
    if (twice)
        return fmk_fail(FMK_EFORMAT, "key %.64s is there twice", twice);
    const struct fmk_setting *told = fmk_settings_find(reading->settings, "general.alignment");
    if (told) {
        alignment = told->integer;
        if (told->kind != FMK_SETTING_INTEGER || alignment < 1 || alignment > INT32_MAX ||
            (alignment & (alignment - 1)))
            return fmk_fail(FMK_EFORMAT, "general.alignment is %lld; a power of two is expected",
                            (long long)alignment);
    }
    size_t first = reading->tensors->count;
    for (int64_t i = 0; i < num_tensors && !status; i++)
        status = read_tensor(&c, reading);
    if (status)
        return status;
    return place_tensors(&c, reading->tensors, first, alignment);
}

const char *fmk_gguf_file_type(int64_t file_type) {
    static const char *const names[] = {
        [0] = "f32",      [1] = "f16",      [2] = "q4_0",       [3] = "q4_1",    [7] = "q8_0",
        [8] = "q5_0",     [9] = "q5_1",     [10] = "q2_k",      [11] = "q3_k_s", [12] = "q3_k_m",
        [13] = "q3_k_l",  [14] = "q4_k_s",  [15] = "q4_k_m",    [16] = "q5_k_s", [17] = "q5_k_m",
        [18] = "q6_k",    [19] = "iq2_xxs", [20] = "iq2_xs",    [21] = "q2_k_s", [22] = "iq3_xs",
        [23] = "iq3_xxs", [24] = "iq1_s",   [25] = "iq4_nl",    [26] = "iq3_s",  [27] = "iq3_m",
        [28] = "iq2_s",   [29] = "iq2_m",   [30] = "iq4_xs",    [31] = "iq1_m",  [32] = "bf16",
        [36] = "tq1_0",   [37] = "tq2_0",   [38] = "mxfp4_moe", [39] = "nvfp4",  [40] = "q1_0"};
    if (file_type < 0 || file_type >= (int64_t)(sizeof names / sizeof names[0]) || !names[file_type])
        return "";
    return names[file_type];
}
