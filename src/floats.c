/* Element conversions of whole runs; the loops are plain so that the compiler vectorizes them. */
#include "floats.h"

#include "half.h"

static uint16_t load_half(const uint8_t *at) {
    uint16_t half;
    memcpy(&half, at, sizeof half);
    return half;
}

static void store_half(uint8_t *at, uint16_t half) {
    memcpy(at, &half, sizeof half);
}

void fmk_load_floats(const void *data, fmk_dtype type, int64_t first, int64_t count, float *out) {
    const uint8_t *from = (const uint8_t *)data + first * (type == FMK_F32 ? 4 : 2);
    if (type == FMK_F32)
        memcpy(out, from, (size_t)count * sizeof *out);
    else if (type == FMK_F16)
        for (int64_t i = 0; i < count; i++)
            out[i] = fmk_f16_to_f32(load_half(from + 2 * i));
    else
        for (int64_t i = 0; i < count; i++)
            out[i] = fmk_bf16_to_f32(load_half(from + 2 * i));
}

void fmk_store_floats(void *data, fmk_dtype type, int64_t first, int64_t count, const float *in) {
    uint8_t *to = (uint8_t *)data + first * (type == FMK_F32 ? 4 : 2);
    if (type == FMK_F32)
        memcpy(to, in, (size_t)count * sizeof *in);
    else if (type == FMK_F16)
        for (int64_t i = 0; i < count; i++)
            store_half(to + 2 * i, fmk_f32_to_f16(in[i]));
    else
        for (int64_t i = 0; i < count; i++)
            store_half(to + 2 * i, fmk_f32_to_bf16(in[i]));
}
