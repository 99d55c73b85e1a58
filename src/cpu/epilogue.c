/* The epilogue on tiles of float: t = tile + bias + addend; out = act(t) * pair weight. */
#include "epilogue.h"

#include "../abi.h"
#include "../floats.h"
#include "tile.h"

#include <math.h>
#include <string.h>

/* t += bias + the addend's columns from `column` on. */
static void add(const struct fmk_epilogue *e, float *restrict t, const float *bias, int64_t row,
                int64_t column, int32_t count) {
    const fmk_linear_args *a = &e->call->args;
    if (bias)
        for (int32_t c = 0; c < count; c++)
            t[c] += bias[c];
    if (a->addend.handle && !e->call->reduce) {
        float delta[FMK_TILE_N];
        fmk_load_floats(fmk_pointer(a->addend), a->addend_type, row * a->addend_stride + column, count,
                        delta);
        for (int32_t c = 0; c < count; c++)
            t[c] += delta[c];
    }
}

static void store(const struct fmk_epilogue *e, float *restrict t, int64_t entry, int64_t column,
                  int32_t count) {
    const struct fmk_slab *slab = e->slab;
    const fmk_linear_args *a = &e->call->args;
    if (slab->weight)
        for (int32_t c = 0; c < count; c++)
            t[c] *= slab->weight[entry];
    if (e->pairs)
        memcpy(e->pairs + slab->row[entry] * e->call->width + column, t, (size_t)count * sizeof *t);
    else
        fmk_store_floats(fmk_pointer(a->out), a->out_type, slab->out[entry] + column, count, t);
}

void fmk_store_tile(const struct fmk_epilogue *e, const float *tile, const float *bias, int64_t first,
                    int32_t tokens, int64_t column, int32_t count) {
    for (int32_t i = 0; i < tokens; i++) {
        float t[FMK_TILE_N];
        memcpy(t, tile + i * FMK_TILE_N, (size_t)count * sizeof *t);
        add(e, t, bias, e->slab->row[first + i], column, count);
        store(e, t, first + i, column, count);
    }
}

static float sigmoid(float x) {
    return 1 / (1 + expf(-x));
}

static void activate(const fmk_linear_args *a, float *restrict gate, const float *restrict up,
                     int32_t count) {
    const float root = 0.7978845608028654f; /* sqrt(2 / pi) */
    for (int32_t c = 0; c < count; c++) {
        float g = gate[c], u = up[c];
        switch (a->act) {
        case FMK_ACT_SILU_MUL:
            gate[c] = g * sigmoid(g) * u;
            break;
        case FMK_ACT_GELU_TANH_MUL:
            gate[c] = 0.5f * g * (1 + tanhf(root * (g + 0.044715f * g * g * g))) * u;
            break;
        default: /* SWIGLU_CLAMP; written so that a NaN stays one */
            g = g > a->act_limit ? a->act_limit : g;
            u = u > a->act_limit ? a->act_limit : u < -a->act_limit ? -a->act_limit : u;
            gate[c] = g * sigmoid(a->act_alpha * g) * (u + 1);
        }
    }
}

void fmk_store_glu(const struct fmk_epilogue *e, const float *gate, const float *up, const float *gate_bias,
                   const float *up_bias, int64_t first, int32_t tokens, int64_t column, int32_t count) {
    for (int32_t i = 0; i < tokens; i++) {
        float g[FMK_TILE_N], u[FMK_TILE_N];
        memcpy(g, gate + i * FMK_TILE_N, (size_t)count * sizeof *g);
        memcpy(u, up + i * FMK_TILE_N, (size_t)count * sizeof *u);
        add(e, g, gate_bias, e->slab->row[first + i], column, count);
        add(e, u, up_bias, e->slab->row[first + i], e->w->n / 2 + column, count);
        activate(&e->call->args, g, u, count);
        store(e, g, first + i, column, count);
    }
}

void fmk_reduce_token(const struct fmk_epilogue *e, const uint8_t *present, int64_t first_token,
                      int64_t token) {
    const fmk_linear_args *a = &e->call->args;
    int64_t width = e->call->width, top_k = e->call->routing.top_k, row = first_token + token;
    for (int64_t column = 0; column < width; column += FMK_TILE_N) {
        int64_t count = fmk_min(FMK_TILE_N, width - column);
        float sum[FMK_TILE_N] = {0}, delta[FMK_TILE_N];
        for (int64_t pair = token * top_k; pair < (token + 1) * top_k; pair++)
            for (int64_t c = 0; present[pair] && c < count; c++)
                sum[c] += e->pairs[pair * width + column + c];
        if (a->addend.handle) {
            fmk_load_floats(fmk_pointer(a->addend), a->addend_type, row * a->addend_stride + column, count,
                            delta);
            for (int64_t c = 0; c < count; c++)
                sum[c] += delta[c];
        }
        fmk_store_floats(fmk_pointer(a->out), a->out_type, row * a->out_stride + column, count, sum);
    }
}
