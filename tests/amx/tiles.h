/* What src/cpu/amx/emulated_tiles.h wraps, in C: included before it, so that the kernels of src/cpu/amx run,
 * and are tested, on machines without AMX. As the instructions do, a load fills the tile's rows past those
 * configured with zeros, a store writes only rows that are configured, and a product whose tiles do not fit
 * together stops the program.
 *
 * tdpbf16ps: for each pair of k in turn, and of the two the first first, sums += product, each fused and
 * rounded to nearest even, with denormals taken for and turned into zero. */
#ifndef FMK_CPU_AMX_TILES_H
#define FMK_CPU_AMX_TILES_H

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};
_Static_assert(sizeof(struct tile_config) == 64, "as ldtilecfg reads it");

static _Thread_local struct {
    struct tile_config config;
    uint8_t bytes[8][16][64];
} emulated_tiles;

static inline void tile_configure(const struct tile_config *config) {
    for (int i = 0; i < 16; i++) {
        int rows = config->rows[i], row_bytes = config->row_bytes[i];
        if (rows > 16 || row_bytes > 64 || !rows != !row_bytes || (i >= 8 && rows))
            abort(); /* the instruction faults */
    }
    for (int i = 0; i < 14; i++)
        if (config->reserved[i])
            abort();
    if (config->palette != 1)
        abort();
    memset(&emulated_tiles, 0, sizeof emulated_tiles);
    emulated_tiles.config = *config;
}

static inline void tile_release(void) {
    memset(&emulated_tiles, 0, sizeof emulated_tiles);
}

/* An instruction with a tile that is not configured faults. */
static inline void tile_use(int tile) {
    if (!emulated_tiles.config.palette || !emulated_tiles.config.rows[tile])
        abort();
}

static inline void tile_zero(int tile) {
    tile_use(tile);
    memset(emulated_tiles.bytes[tile], 0, sizeof emulated_tiles.bytes[tile]);
}

static inline void tile_load(int tile, const void *from, int64_t stride) {
    tile_zero(tile);
    for (int row = 0; row < emulated_tiles.config.rows[tile]; row++)
        memcpy(emulated_tiles.bytes[tile][row], (const uint8_t *)from + row * stride,
               emulated_tiles.config.row_bytes[tile]);
}

static inline void tile_store(int tile, void *to, int64_t stride) {
    tile_use(tile);
    for (int row = 0; row < emulated_tiles.config.rows[tile]; row++)
        memcpy((uint8_t *)to + row * stride, emulated_tiles.bytes[tile][row],
               emulated_tiles.config.row_bytes[tile]);
}

static inline float tile_flush(float x) {
    return fabsf(x) < 0x1p-126f ? copysignf(0, x) : x;
}

static inline float tile_bf16(const uint8_t *at) {
    uint16_t half;
    memcpy(&half, at, sizeof half);
    uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return tile_flush(value);
}

/* A product whose tiles fit together. */
static inline void tile_use_product(int sums, int acts, int weights) {
    const struct tile_config *c = &emulated_tiles.config;
    tile_use(sums), tile_use(acts), tile_use(weights);
    if (c->rows[sums] != c->rows[acts] || c->row_bytes[sums] != c->row_bytes[weights] ||
        c->row_bytes[acts] != 4 * c->rows[weights])
        abort();
}

static inline void tile_dot_bf16(int sums, int acts, int weights) {
    const struct tile_config *c = &emulated_tiles.config;
    tile_use_product(sums, acts, weights);
    for (int m = 0; m < c->rows[sums]; m++)
        for (int n = 0; n < c->row_bytes[sums] / 4; n++) {
            float sum;
            memcpy(&sum, emulated_tiles.bytes[sums][m] + 4 * n, sizeof sum);
            for (int p = 0; p < c->rows[weights]; p++)
                for (int i = 0; i < 2; i++)
                    sum = tile_flush(fmaf(tile_bf16(emulated_tiles.bytes[acts][m] + 4 * p + 2 * i),
                                          tile_bf16(emulated_tiles.bytes[weights][p] + 4 * n + 2 * i), sum));
            memcpy(emulated_tiles.bytes[sums][m] + 4 * n, &sum, sizeof sum);
        }
}

static inline void tile_multiply_bf16(int sums) {
    tile_dot_bf16(sums, 4 + sums / 2, 6 + sums % 2);
}

/* Integers, modulo 2^32. */
static inline void tile_multiply_int8(int sums) {
    const struct tile_config *c = &emulated_tiles.config;
    const int acts = 4 + sums / 2, weights = 6 + sums % 2;
    tile_use_product(sums, acts, weights);
    for (int m = 0; m < c->rows[sums]; m++)
        for (int n = 0; n < c->row_bytes[sums] / 4; n++) {
            uint32_t sum;
            memcpy(&sum, emulated_tiles.bytes[sums][m] + 4 * n, sizeof sum);
            for (int q = 0; q < c->rows[weights]; q++)
                for (int i = 0; i < 4; i++)
                    sum += (uint32_t)((int8_t)emulated_tiles.bytes[acts][m][4 * q + i] *
                                      (int8_t)emulated_tiles.bytes[weights][q][4 * n + i]);
            memcpy(emulated_tiles.bytes[sums][m] + 4 * n, &sum, sizeof sum);
        }
}

static inline void tile_multiply_row_bf16(int sums) {
    static const int weights[4] = {6, 7, 5, 6};
    tile_dot_bf16(sums, 4, weights[sums]);
}

#endif
