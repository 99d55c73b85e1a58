/* q6_k.x8 and q6_k.x16: Q6_K with eight or sixteen rows interleaved (panels.h). */
#include "panels.h"
#include "x16.h"
#include "layouts.h"
#include "../../formats/k_quants.h"

enum { MOST_ROWS = 16, MOST_K = INT32_MAX };

/* Of a panel: fits, with k at most MOST_K. */
static int64_t panel_bytes(const struct fmk_packed *packed) {
    return packed->k / FMK_SUPER_BLOCK * FMK_Q6K_PANEL_BLOCK * packed->layout->panel_rows;
}

static bool shape(const struct fmk_source *source, struct fmk_packed *packed, bool *index) {
    *index = false;
    if (source->k > MOST_K)
        return false;
    packed->k_packed = source->k;
    packed->dtype = 0;
    packed->chunks = 0;
    return fmk_panel_sizes(source->n, source->experts, packed->layout->panel_rows, panel_bytes(packed),
                           packed);
}

static bool valid(const struct fmk_packed *packed) {
    return packed->k > 0 && packed->k <= MOST_K && packed->k % FMK_SUPER_BLOCK == 0 &&
           packed->k_packed == packed->k && fmk_panel_valid(packed, panel_bytes(packed));
}

/* Run s (0..3) of half a super-block: 32 codes, low bits in nibbles of 32 of the half's 64 low bytes, high
 * bits in bits 2s and 2s+1 of its 32 high bytes. Four codes at a time. */
static void pack_chunk(const uint8_t *low, const uint8_t *high, int s, int32_t rows, int64_t r,
                       uint8_t *nibbles, uint8_t *pairs) {
    low += 32 * (s % 2);
    int shift = s / 2 * 4;
    for (int v = 0; v < 4; v++) {
        uint32_t first = fmk_load_u32(low + 4 * v) >> shift & 0x0f0f0f0f;
        uint32_t second = fmk_load_u32(low + 16 + 4 * v) >> shift & 0x0f0f0f0f;
        fmk_store_u32(nibbles + 4 * rows * v + 4 * r, first | second << 4);
    }
    for (int v = 0; v < 2; v++) {
        uint32_t word = 0;
        for (int j = 0; j < 4; j++)
            word |= (fmk_load_u32(high + 16 * v + 4 * j) >> 2 * s & 0x03030303) << 2 * j;
        fmk_store_u32(pairs + 4 * rows * v + 4 * r, word);
    }
}

static void pack_block(const uint8_t *in, int32_t rows, int64_t r, uint8_t *out) {
    memcpy(out + 2 * r, in + FMK_Q6K_D, 2);
    for (int i = 0; i < 16; i++)
        out[rows * (FMK_Q6K_PANEL_SCALES + i) + r] = in[FMK_Q6K_SCALES + i];
    for (int c = 0; c < 8; c++)
        pack_chunk(in + 64 * (c / 4), in + FMK_Q6K_HIGH + 32 * (c / 4), c % 4, rows, r,
                   out + rows * (FMK_Q6K_PANEL_LOW + c * FMK_PANEL_CHUNK),
                   out + rows * (FMK_Q6K_PANEL_HIGH + c * FMK_PANEL_CHUNK / 2));
}

static void pack(const struct fmk_source *source, const struct fmk_packed *packed, const int32_t *k_index,
                 int64_t expert, int64_t row, int64_t rows, uint8_t *dst) {
    (void)k_index;
    const int32_t panel = packed->layout->panel_rows;
    int64_t blocks = packed->k / FMK_SUPER_BLOCK, bytes = panel * FMK_Q6K_PANEL_BLOCK;
    for (int64_t first = row; first < row + rows; first += panel) {
        int64_t present = fmk_min(panel, row + rows - first);
        const uint8_t *in[MOST_ROWS];
        for (int64_t r = 0; r < present; r++)
            in[r] = fmk_source_row(source, expert, first + r);
        uint8_t *out = dst + (uint64_t)(first / panel) * packed->stride;
        for (int64_t b = 0; b < blocks; b++, out += bytes) {
            if (present < panel)
                memset(out, 0, (size_t)bytes);
            for (int64_t r = 0; r < present; r++)
                pack_block(in[r] + b * FMK_Q6K_BLOCK, panel, r, out);
        }
    }
}

static void decode(const struct fmk_packed *packed, const uint8_t *data, int64_t row, int64_t k,
                   int64_t count, float *out) {
    const int32_t rows = packed->layout->panel_rows;
    const uint8_t *block =
        data + (uint64_t)(row / rows) * packed->stride + k / FMK_SUPER_BLOCK * rows * FMK_Q6K_PANEL_BLOCK;
    int64_t r = row % rows;
    float d = fmk_load_f16(block + 2 * r);
    for (int64_t i = 0; i < count; i++) {
        int64_t c = i / 32;
        float scale = d * (float)(int8_t)block[rows * (FMK_Q6K_PANEL_SCALES + i / 16) + r];
        const uint8_t *nibbles = block + rows * (FMK_Q6K_PANEL_LOW + c * FMK_PANEL_CHUNK);
        const uint8_t *pairs =
            block + rows * (FMK_Q6K_PANEL_HIGH + c * FMK_PANEL_CHUNK / 2) + i % 32 / 16 * 4 * rows;
        uint8_t low = fmk_panel_nibble(nibbles, rows, r, i % 32);
        uint8_t high = pairs[4 * r + i % 4] >> 2 * (i / 4 % 4) & 3;
        out[i] = fmk_q6k_weight(scale, (uint8_t)(low | high << 4));
    }
}

const struct fmk_layout fmk_layout_q6k_x8 = {
    .id = FMK_LAYOUT_Q6_K_X8,
    .name = "q6_k.x8",
    .backends = 1u << FMK_BACKEND_CPU,
    .family = FMK_FAMILY_Q6_K,
    .panel_rows = 8,
    .k_multiple = FMK_SUPER_BLOCK,
    .shape = shape,
    .valid = valid,
    .pack = pack,
    .decode = decode,
};

const struct fmk_layout fmk_layout_q6k_x16 = {
    .id = FMK_LAYOUT_Q6_K_X16,
    .name = "q6_k.x16",
    .backends = 1u << FMK_BACKEND_CPU,
    .needs = FMK_X16_NEEDS,
    .family = FMK_FAMILY_Q6_K,
    .panel_rows = 16,
    .k_multiple = FMK_SUPER_BLOCK,
    .shape = shape,
    .valid = valid,
    .pack = pack,
    .decode = decode,
};
