/* int4.x8 and int4.x16: grouped INT4 with eight or sixteen rows interleaved (panels.h). Groups lie in runs of
 * whole chunks (formats/int4_groups.h). */
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

typedef uint64_t words2 __attribute__((vector_size(16)));
typedef uint8_t bytes16 __attribute__((vector_size(16)));
typedef uint16_t pairs8 __attribute__((vector_size(16)));

/* The eight rows' codes of k and of the k 16 after it, joined to bytes, in the low half. */
static bytes16 join(const uint8_t *low) {
    uint64_t first, second;
    memcpy(&first, low, 8);
    memcpy(&second, low + 128, 8);
    return (bytes16)(words2){first | second << 4, 0};
}

/* Byte by byte of the low halves: what every SIMD has an instruction for. */
static pairs8 interleave(bytes16 a, bytes16 b) {
    return (pairs8)__builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}

/* codes [32 k][8 rows] to those rows' part of a chunk, whose quads are `quad` bytes: 4 k x 8 rows transposed,
 * four times. */
static void pack_chunk(const uint8_t *codes, int32_t quad, uint8_t *chunk) {
    for (int v = 0; v < 4; v++, codes += 32, chunk += quad) {
        pairs8 k01 = interleave(join(codes), join(codes + 8));
        pairs8 k23 = interleave(join(codes + 16), join(codes + 24));
        pairs8 rows0123 = __builtin_shufflevector(k01, k23, 0, 8, 1, 9, 2, 10, 3, 11);
        pairs8 rows4567 = __builtin_shufflevector(k01, k23, 4, 12, 5, 13, 6, 14, 7, 15);
        memcpy(chunk, &rows0123, 16);
        memcpy(chunk + 16, &rows4567, 16);
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
    uint32_t bits[8];
    int64_t group = fmk_int4_scale_row(source, expert, k);
    fmk_int4_scale_bits(source, expert, row, rows, group, bits);
    for (int32_t r = 0; r < rows; r++) {
        uint16_t half = (uint16_t)bits[r];
        memcpy(scales + r * size, size == 2 ? (const void *)&half : &bits[r], (size_t)size);
    }
    fmk_int4_zeros(source, expert, row, rows, group, zeros);
}

/* Rows packed together: the file keeps 64 columns of a k in a row or two of cache lines and pages. */
enum { TOGETHER = 64, MOST_PANELS = TOGETHER / 8, STEP = 8 }; /* and chunks at a time */

/* Chunks c .. c+count-1, all of one block, of one panel, of which `rows` rows are there. Answers the byte
 * after them. */
static uint8_t *pack_chunks(const struct fmk_source *source, const struct fmk_packed *packed, int64_t expert,
                            int64_t row, int64_t rows, int64_t c, int64_t count, const int32_t *k,
                            uint8_t *out) {
    const int32_t panel = packed->layout->panel_rows, size = (int32_t)fmk_dtype_size(packed->dtype);
    bool header = c % packed->chunks == 0;
    uint8_t *nibbles = out + (header ? header_bytes(packed) : 0), codes[32 * STEP * 8];
    for (int32_t eight = 0; eight < panel; eight += 8) {
        int32_t present = (int32_t)fmk_max(0, fmk_min(8, rows - eight));
        if (header)
            pack_header(source, packed, expert, row + eight, present, k[0], out + eight * size,
                        out + panel * size + eight);
        if (present)
            fmk_int4_codes(source, expert, row + eight, present, k, 32 * count, codes);
        else
            memset(codes, 0, sizeof codes);
        for (int64_t i = 0; i < count; i++)
            pack_chunk(codes + 256 * i, 4 * panel, nibbles + i * panel * FMK_PANEL_CHUNK + 4 * eight);
    }
    return nibbles + count * panel * FMK_PANEL_CHUNK;
}

static void pack_panels(const struct fmk_source *source, const struct fmk_packed *packed,
                        const int32_t *k_index, int64_t expert, int64_t row, int64_t rows, uint8_t *dst) {
    const int32_t panel = packed->layout->panel_rows;
    int32_t k[32 * STEP];
    uint8_t *out[MOST_PANELS];
    int64_t chunks = packed->k_packed / 32, panels = (rows + panel - 1) / panel, count;
    for (int64_t p = 0; p < panels; p++)
        out[p] = dst + (uint64_t)(row / panel + p) * packed->stride;
    for (int64_t c = 0; c < chunks; c += count) {
        count = fmk_min(fmk_min(STEP, packed->chunks - c % packed->chunks), chunks - c);
        for (int64_t i = 0; i < 32 * count; i++) {
            int64_t position = 32 * c + i;
            k[i] = k_index ? k_index[position] : position < source->k ? (int32_t)position : -1;
        }
        for (int64_t p = 0; p < panels; p++)
            out[p] = pack_chunks(source, packed, expert, row + panel * p, fmk_min(panel, rows - panel * p), c,
                                 count, k, out[p]);
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
