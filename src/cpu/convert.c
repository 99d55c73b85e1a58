/* Element conversions of whole runs; the loops are plain so that the compiler vectorizes them. */
#include "convert.h"

#include "../half.h"

void fmk_load_floats(const void *data, fmk_dtype type, int64_t first, int64_t count, float *out) {
    if (type == FMK_F32) {
        memcpy(out, (const float *)data + first, (size_t)count * sizeof *out);
        return;
    }
    const uint16_t *half = (const uint16_t *)data + first;
    if (type == FMK_F16)
        for (int64_t i = 0; i < count; i++)
            out[i] = fmk_f16_to_f32(half[i]);
    else
        for (int64_t i = 0; i < count; i++)
            out[i] = fmk_bf16_to_f32(half[i]);
}

void fmk_store_floats(void *data, fmk_dtype type, int64_t first, int64_t count, const float *in) {
    if (type == FMK_F32) {
        memcpy((float *)data + first, in, (size_t)count * sizeof *in);
        return;
    }
    uint16_t *half = (uint16_t *)data + first;
    if (type == FMK_F16)
        for (int64_t i = 0; i < count; i++)
            half[i] = fmk_f32_to_f16(in[i]);
    else
        for (int64_t i = 0; i < count; i++)
            half[i] = fmk_f32_to_bf16(in[i]);
}
