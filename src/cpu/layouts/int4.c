/* int4.x8 and int4.x16: grouped INT4 with eight or sixteen rows interleaved (panels.h). Groups lie in runs of
 * whole chunks (formats/int4_groups.h). */
#include "interleave.h"
#include "panels.h"
#include "x16.h"
#include "layouts.h"
#include "../../formats/int4_groups.h"
#include "../../half.h"

/* Bytes in front of a block's nibbles. */
static int64_t header_bytes(const struct fmk_packed *packed) {
    return packed->layout->panel_rows * (fmk_dtype_size(packed->dtype) + 1);
}

static int64_t panel_bytes(const struct fmk_packed *packed) {
    int64_t chunks = packed->k_packed / 32, blocks = (chunks + packed->chunks - 1) / packed->chunks;
    return blocks * header_bytes(packed) + chunks * packed->layout->panel_rows * FMK_PANEL_CHUNK;
}

static bool shape(const struct fmk_source *source, struct fmk_packed *packed, bool *index) {
    struct fmk_int4_groups groups;
    fmk_int4_groups(source, &groups);
    *index = groups.index;
    packed->dtype = source->part.scales.dtype;
    packed->chunks = (int32_t)fmk_min(fmk_max(groups.common, 1), groups.chunks);
    packed->k_packed = 32 * groups.chunks;
    return packed->k_packed <= INT32_MAX &&
           fmk_panel_sizes(source->n, source->experts, packed->layout->panel_rows, panel_bytes(packed),
                           packed);
}

static bool valid(const struct fmk_packed *packed) {
    if (packed->dtype != FMK_F16 && packed->dtype != FMK_BF16 && packed->dtype != FMK_F32)
        return false;
    /* Each k makes at most one chunk. */
    if (packed->k <= 0 || packed->k > INT32_MAX || packed->k_packed < packed->k ||
        packed->k_packed > 32 * packed->k || packed->k_packed % 32)
        return false;
    return packed->chunks >= 1 && packed->chunks <= packed->k_packed / 32 &&
           fmk_panel_valid(packed, panel_bytes(packed));
}

static void index_groups(const struct fmk_source *source, const struct fmk_packed *packed, int64_t expert,
                         int32_t *k_index) {
    fmk_int4_index(source, packed->k_packed, expert, k_index);
}

/* The eight rows' codes of k and of the k 16 after it, joined to bytes, in the low half. */
static words4 join(const uint8_t *low) {
    uint64_t pair[2] = {0, 0}, second;
    memcpy(&pair[0], low, 8);
    memcpy(&second, low + 128, 8);
    pair[0] |= second << 4;
    return load_words((const uint8_t *)pair);
}

/* codes [32 k][8 rows] to those rows' part of a chunk, whose quads are `quad` bytes: 4 k x 8 rows transposed,
 * four times. */
static void pack_chunk(const uint8_t *codes, int32_t quad, uint8_t *chunk) {
    for (int v = 0; v < 4; v++, codes += 32, chunk += quad) {
        words4 k01 = low_bytes(join(codes), join(codes + 8));
        words4 k23 = low_bytes(join(codes + 16), join(codes + 24));
        store_words(chunk, low_pairs(k01, k23));
        store_words(chunk + 16, high_pairs(k01, k23));
    }
}

/* The same, of all rows of a panel, from words of eight k each, of which the next eight are `stride` bytes
 * on. */
static void pack_words(const uint8_t *words, int64_t stride, int32_t rows, uint8_t *chunk) {
    for (int32_t r = 0; r < rows; r += 4)
        for (int i = 0; i < 2; i++) { /* k 8i .. 8i+7, and the 16 after them */
            words4 even = load_words(words + i * stride + 4 * r);
            words4 odd = load_words(words + (i + 2) * stride + 4 * r);
            regroup_nibbles(&even, &odd);
            words4 rows01 = low_bytes(even, odd), rows23 = high_bytes(even, odd);
            uint8_t *quads = chunk + 8 * rows * i + 4 * r;
            store_words(quads, __builtin_shufflevector(rows01, rows23, 0, 2, 4, 6));
            store_words(quads + 4 * rows, __builtin_shufflevector(rows01, rows23, 1, 3, 5, 7));
        }
}

/* Scale and zero of the group that k belongs to, of eight rows: `scales` and `zeros` are theirs in a header.
 * A block of padding alone (k = -1) weighs nothing, nor do rows that are not there. */
static void pack_header(const struct fmk_source *source, const struct fmk_packed *packed, int64_t expert,
                        int64_t row, int32_t rows, int64_t k, uint8_t *scales, uint8_t *zeros) {
    int64_t size = fmk_dtype_size(packed->dtype);
    memset(scales, 0, (size_t)(8 * size));
    memset(zeros, 0, 8);
    if (k < 0 || !rows)
        return;
    int64_t group = fmk_int4_scale_row(source, expert, k);
    fmk_int4_scales(source, expert, row, rows, group, scales);
    fmk_int4_zeros(source, expert, row, rows, group, zeros);
}

/* The chunk's codes of a panel of which `rows` rows are there, wherever the file has them. */
static void gather_chunk(const struct fmk_source *source, int64_t expert, int64_t row, int64_t rows,
                         const int32_t k[32], int32_t panel, uint8_t *nibbles) {
    uint8_t codes[32 * 8];
    for (int32_t eight = 0; eight < panel; eight += 8) {
        int32_t present = (int32_t)fmk_max(0, fmk_min(8, rows - eight));
        if (present)
            fmk_int4_codes(source, expert, row + eight, present, k, 32, codes);
        else
            memset(codes, 0, sizeof codes);
        pack_chunk(codes, 4 * panel, nibbles + 4 * eight);
    }
}

/* Rows packed together: the file has those of eight k side by side, a row of the file to as many pages as
 * there are rows, so that short runs would each meet another page. A chunk of all of them at a time: the
 * file's rows lie a power of two apart as often as not, and would claim the same few lines of the cache. */
enum { TOGETHER = 256, MOST_PANELS = TOGETHER / 8 };

/* Chunk c of a panel of which `rows` rows are there, with the header where a block begins; in_order: its k
 * are neighbours in the file. Answers the byte after it. */
static uint8_t *pack_panel(const struct fmk_source *source, const struct fmk_packed *packed, int64_t expert,
                           int64_t row, int64_t rows, int64_t c, const int32_t k[32], bool in_order,
                           uint8_t *out) {
    const int32_t panel = packed->layout->panel_rows, size = (int32_t)fmk_dtype_size(packed->dtype);
    if (c % packed->chunks == 0) {
        for (int32_t eight = 0; eight < panel; eight += 8)
            pack_header(source, packed, expert, row + eight, (int32_t)fmk_max(0, fmk_min(8, rows - eight)),
                        k[0], out + eight * size, out + panel * size + eight);
        out += header_bytes(packed);
    }
    int64_t stride, chunk = panel * FMK_PANEL_CHUNK;
    const uint8_t *words =
        in_order && rows == panel ? fmk_int4_words(source, expert, row, k[0], &stride) : NULL;
    if (words) {
        for (int j = 4; j < 8; j++) { /* the next chunk's, and a quarter of the fourth one's place */
            __builtin_prefetch((const void *)((uintptr_t)words + (uintptr_t)(j * stride)));
            __builtin_prefetch((const void *)((uintptr_t)out + (uintptr_t)(4 * chunk + j % 4 * chunk / 4)),
                               1);
        }
        pack_words(words, stride, panel, out);
    } else {
        gather_chunk(source, expert, row, rows, k, panel, out);
    }
    return out + chunk;
}

static void pack_panels(const struct fmk_source *source, const struct fmk_packed *packed,
                        const int32_t *k_index, int64_t expert, int64_t row, int64_t rows, uint8_t *dst) {
    const int32_t panel = packed->layout->panel_rows;
    int32_t k[32];
    uint8_t *out[MOST_PANELS];
    int64_t panels = (rows + panel - 1) / panel;
    for (int64_t p = 0; p < panels; p++)
        out[p] = dst + (uint64_t)(row / panel + p) * packed->stride;
    for (int64_t c = 0; c < packed->k_packed / 32; c++) {
        for (int32_t i = 0; i < 32; i++) {
            int64_t position = 32 * c + i;
            k[i] = k_index ? k_index[position] : position < source->k ? (int32_t)position : -1;
        }
        for (int64_t p = 0; p < panels; p++)
            out[p] = pack_panel(source, packed, expert, row + panel * p, fmk_min(panel, rows - panel * p), c,
                                k, !k_index && k[31] >= 0, out[p]);
    }
}

static void pack(const struct fmk_source *source, const struct fmk_packed *packed, const int32_t *k_index,
                 int64_t expert, int64_t row, int64_t rows, uint8_t *dst) {
    for (int64_t done = 0; done < rows; done += TOGETHER)
        pack_panels(source, packed, k_index, expert, row + done, fmk_min(TOGETHER, rows - done), dst);
}

static float load_scale(const uint8_t *scales, fmk_dtype dtype, int64_t r) {
    uint16_t half;
    memcpy(&half, scales + 2 * r, 2); /* inside the header, whatever the type */
    return dtype == FMK_F16    ? fmk_f16_to_f32(half)
           : dtype == FMK_BF16 ? fmk_bf16_to_f32(half)
                               : fmk_float_of_bits(fmk_load_u32(scales + 4 * r));
}

static void decode(const struct fmk_packed *packed, const uint8_t *data, int64_t row, int64_t k,
                   int64_t count, float *out) {
    const int32_t rows = packed->layout->panel_rows;
    int64_t size = fmk_dtype_size(packed->dtype), header = header_bytes(packed), r = row % rows;
    int64_t chunk_bytes = rows * FMK_PANEL_CHUNK;
    const uint8_t *panel = data + (uint64_t)(row / rows) * packed->stride;
    float scale = 0;
    int32_t zero = 0;
    for (int64_t i = 0; i < count; i++) {
        int64_t c = (k + i) / 32, block = c / packed->chunks;
        const uint8_t *start = panel + block * (header + packed->chunks * chunk_bytes);
        if (i % 32 == 0) {
            scale = load_scale(start, packed->dtype, r);
            zero = start[rows * size + r];
        }
        const uint8_t *chunk = start + header + (c - block * packed->chunks) * chunk_bytes;
        out[i] = scale * (float)(fmk_panel_nibble(chunk, rows, r, (k + i) % 32) - zero);
    }
}

const struct fmk_layout fmk_layout_int4_x8 = {
    .id = FMK_LAYOUT_INT4_X8,
    .name = "int4.x8",
    .backends = 1u << FMK_BACKEND_CPU | 1u << FMK_BACKEND_VULKAN,
    .family = FMK_FAMILY_INT4,
    .panel_rows = 8,
    .k_multiple = 32,
    .shape = shape,
    .valid = valid,
    .index = index_groups,
    .pack = pack,
    .decode = decode,
};

const struct fmk_layout fmk_layout_int4_x16 = {
    .id = FMK_LAYOUT_INT4_X16,
    .name = "int4.x16",
    .backends = 1u << FMK_BACKEND_CPU,
    .needs = FMK_X16_NEEDS,
    .family = FMK_FAMILY_INT4,
    .panel_rows = 16,
    .k_multiple = 32,
    .shape = shape,
    .valid = valid,
    .index = index_groups,
    .pack = pack,
    .decode = decode,
};
