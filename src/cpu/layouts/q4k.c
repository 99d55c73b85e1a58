/* q4_k.x8 and q4_k.x16: Q4_K with eight or sixteen rows interleaved and the 6-bit scales unpacked
 * (panels.h). */
#include "panels.h"
#include "x16.h"
#include "layouts.h"
#include "../../formats/k_quants.h"

enum { MOST_ROWS = 16, MOST_K = INT32_MAX };

/* Of a panel: fits, with k at most MOST_K. */
static int64_t panel_bytes(const struct fmk_packed *packed) {
    return packed->k / FMK_SUPER_BLOCK * FMK_Q4K_PANEL_BLOCK * packed->layout->panel_rows;
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

/* Sub-blocks 2c and 2c+1 are the low and high nibbles of the 32 bytes at `in`; four codes at a time. */
static void pack_two_chunks(const uint8_t *in, int32_t rows, int64_t r, uint8_t *chunk) {
    for (int v = 0; v < 4; v++, chunk += 4 * rows) {
        uint32_t first = fmk_load_u32(in + 4 * v), second = fmk_load_u32(in + 16 + 4 * v);
        fmk_store_u32(chunk + 4 * r, (first & 0x0f0f0f0f) | (second & 0x0f0f0f0f) << 4);
        fmk_store_u32(chunk + rows * FMK_PANEL_CHUNK + 4 * r,
                      (first >> 4 & 0x0f0f0f0f) | (second & 0xf0f0f0f0));
    }
}

static void pack_block(const uint8_t *in, int32_t rows, int64_t r, uint8_t *out) {
    uint8_t scale[8], min[8];
    fmk_q4k_scales(in + FMK_Q4K_SCALES, scale, min);
    memcpy(out + 2 * r, in + FMK_Q4K_D, 2);
    memcpy(out + rows * FMK_Q4K_PANEL_MINIMA + 2 * r, in + FMK_Q4K_DMIN, 2);
    for (int j = 0; j < 8; j++) {
        out[rows * (FMK_Q4K_PANEL_SCALES + j) + r] = scale[j];
        out[rows * (FMK_Q4K_PANEL_MINS + j) + r] = min[j];
    }
    uint8_t *chunk = out + rows * FMK_Q4K_PANEL_NIBBLES;
    for (int c = 0; c < 4; c++)
        pack_two_chunks(in + FMK_Q4K_NIBBLES + 32 * c, rows, r, chunk + 2 * c * rows * FMK_PANEL_CHUNK);
}

static void pack(const struct fmk_source *source, const struct fmk_packed *packed, const int32_t *k_index,
                 int64_t expert, int64_t row, int64_t rows, uint8_t *dst) {
    (void)k_index;
    const int32_t panel = packed->layout->panel_rows;
    int64_t blocks = packed->k / FMK_SUPER_BLOCK, bytes = panel * FMK_Q4K_PANEL_BLOCK;
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
                pack_block(in[r] + b * FMK_Q4K_BLOCK, panel, r, out);
        }
    }
}

static void decode(const struct fmk_packed *packed, const uint8_t *data, int64_t row, int64_t k,
                   int64_t count, float *out) {
    const int32_t rows = packed->layout->panel_rows;
    const uint8_t *block =
        data + (uint64_t)(row / rows) * packed->stride + k / FMK_SUPER_BLOCK * rows * FMK_Q4K_PANEL_BLOCK;
    int64_t r = row % rows;
    float d = fmk_load_f16(block + 2 * r), dmin = fmk_load_f16(block + rows * FMK_Q4K_PANEL_MINIMA + 2 * r);
    for (int64_t i = 0; i < count; i++) {
        int64_t j = i / 32;
        float scale = d * block[rows * (FMK_Q4K_PANEL_SCALES + j) + r];
        float min = dmin * block[rows * (FMK_Q4K_PANEL_MINS + j) + r];
        const uint8_t *chunk = block + rows * (FMK_Q4K_PANEL_NIBBLES + j * FMK_PANEL_CHUNK);
        out[i] = fmk_q4k_weight(scale, min, fmk_panel_nibble(chunk, rows, r, i % 32));
    }
}

const struct fmk_layout fmk_layout_q4k_x8 = {
    .id = FMK_LAYOUT_Q4_K_X8,
    .name = "q4_k.x8",
    .backends = 1u << FMK_BACKEND_CPU,
    .family = FMK_FAMILY_Q4_K,
    .panel_rows = 8,
    .k_multiple = FMK_SUPER_BLOCK,
    .shape = shape,
    .valid = valid,
    .pack = pack,
    .decode = decode,
};

const struct fmk_layout fmk_layout_q4k_x16 = {
    .id = FMK_LAYOUT_Q4_K_X16,
    .name = "q4_k.x16",
    .backends = 1u << FMK_BACKEND_CPU,
    .needs = FMK_X16_NEEDS,
    .family = FMK_FAMILY_Q4_K,
    .panel_rows = 16,
    .k_multiple = FMK_SUPER_BLOCK,
    .shape = shape,
    .valid = valid,
    .pack = pack,
    .decode = decode,
};
