/* The bytes of ggml's super-blocks of 256 weights, taken apart: codes, 6-bit scales and minima, and the
 * formulas that make weights of them. Fields, in order:
 *     Q4_K  f16 d, f16 dmin, u8 scales[12], u8 nibbles[128]
 *     Q6_K  u8 low[128], u8 high[64], i8 scales[16], f16 d */
#ifndef FMK_FORMATS_K_QUANTS_H
#define FMK_FORMATS_K_QUANTS_H

#include "../half.h"

enum {
    FMK_SUPER_BLOCK = 256,
    FMK_Q4K_BLOCK = 144, /* bytes, and offsets in them */
    FMK_Q4K_D = 0,
    FMK_Q4K_DMIN = 2,
    FMK_Q4K_SCALES = 4,
    FMK_Q4K_NIBBLES = 16,
    FMK_Q6K_BLOCK = 210,
    FMK_Q6K_HIGH = 128,
    FMK_Q6K_SCALES = 192,
    FMK_Q6K_D = 208
};

static inline float fmk_load_f16(const uint8_t *bytes) {
    uint16_t half;
    memcpy(&half, bytes, sizeof half);
    return fmk_f16_to_f32(half);
}

/* Eight scales and eight minima, 6 bits each, from 12 bytes: the first four of each lie in the low 6 bits of
 * s[0..3] and s[4..7]; of the last four the low 4 bits are the nibbles of s[8..11] and the high 2 bits
 * the top bits of s[0..3] and s[4..7]. Four bytes at a time: no bit crosses into another byte. */
static inline void fmk_q4k_scales(const uint8_t s[12], uint8_t scale[8], uint8_t min[8]) {
    uint32_t in[3], out[4];
    memcpy(in, s, sizeof in);
    out[0] = in[0] & 0x3f3f3f3f;
    out[1] = (in[2] & 0x0f0f0f0f) | (in[0] >> 6 & 0x03030303) << 4;
    out[2] = in[1] & 0x3f3f3f3f;
    out[3] = (in[2] >> 4 & 0x0f0f0f0f) | (in[1] >> 6 & 0x03030303) << 4;
    memcpy(scale, out, 8);
    memcpy(min, out + 2, 8);
}

static inline void fmk_q4k_store_scales(uint8_t s[12], const uint8_t scale[8], const uint8_t min[8]) {
    for (int i = 0; i < 4; i++) {
        s[i] = (uint8_t)(scale[i] | (scale[4 + i] >> 4) << 6);
        s[4 + i] = (uint8_t)(min[i] | (min[4 + i] >> 4) << 6);
        s[8 + i] = (uint8_t)((scale[4 + i] & 15) | (min[4 + i] & 15) << 4);
    }
}

/* Codes 0..15 in the order of k. Each run of 32 bytes holds 64 weights: low nibbles first. */
static inline void fmk_q4k_codes(const uint8_t *block, uint8_t codes[FMK_SUPER_BLOCK]) {
    const uint8_t *nibbles = block + FMK_Q4K_NIBBLES;
    for (int run = 0; run < 4; run++)
        for (int i = 0; i < 32; i++) {
            codes[64 * run + i] = nibbles[32 * run + i] & 15;
            codes[64 * run + 32 + i] = nibbles[32 * run + i] >> 4;
        }
}

static inline void fmk_q4k_store_codes(uint8_t *block, const uint8_t codes[FMK_SUPER_BLOCK]) {
    uint8_t *nibbles = block + FMK_Q4K_NIBBLES;
    for (int run = 0; run < 4; run++)
        for (int i = 0; i < 32; i++)
            nibbles[32 * run + i] = (uint8_t)(codes[64 * run + i] | codes[64 * run + 32 + i] << 4);
}

/* Codes 0..63 in the order of k; a weight's is (code - 32). Each half of 128 weights is 64 low bytes and 32
 * high ones; its four runs of 32 take a nibble each of the low ones and a pair of bits of the high ones. */
static inline void fmk_q6k_codes(const uint8_t *block, uint8_t codes[FMK_SUPER_BLOCK]) {
    for (int half = 0; half < 2; half++) {
        const uint8_t *low = block + 64 * half, *high = block + FMK_Q6K_HIGH + 32 * half;
        uint8_t *out = codes + 128 * half;
        for (int i = 0; i < 32; i++) {
            out[i] = (uint8_t)((low[i] & 15) | (high[i] & 3) << 4);
            out[32 + i] = (uint8_t)((low[32 + i] & 15) | (high[i] >> 2 & 3) << 4);
            out[64 + i] = (uint8_t)(low[i] >> 4 | (high[i] >> 4 & 3) << 4);
            out[96 + i] = (uint8_t)(low[32 + i] >> 4 | (high[i] >> 6) << 4);
        }
    }
}

static inline void fmk_q6k_store_codes(uint8_t *block, const uint8_t codes[FMK_SUPER_BLOCK]) {
    for (int half = 0; half < 2; half++) {
        uint8_t *low = block + 64 * half, *high = block + FMK_Q6K_HIGH + 32 * half;
        const uint8_t *in = codes + 128 * half;
        for (int i = 0; i < 32; i++) {
            low[i] = (uint8_t)((in[i] & 15) | (in[64 + i] & 15) << 4);
            low[32 + i] = (uint8_t)((in[32 + i] & 15) | (in[96 + i] & 15) << 4);
            high[i] = (uint8_t)(in[i] >> 4 | (in[32 + i] >> 4) << 2 | (in[64 + i] >> 4) << 4 |
                                (in[96 + i] >> 4) << 6);
        }
    }
}

/* The published formulas, in float and in this order of operations: scale and min of a sub-block are rounded
 * products, and nothing is contracted. */
static inline float fmk_q4k_weight(float scale, float min, uint8_t code) {
    return scale * code - min; /* scale = d * 6-bit scale, min = dmin * 6-bit min */
}

static inline float fmk_q6k_weight(float scale, uint8_t code) {
    return scale * (float)(code - 32); /* scale = d * 8-bit scale */
}

#endif
