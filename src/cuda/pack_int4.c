/* int4: words as GPTQ or Marlin has them, cut by columns, and beside them the scales and zero points of the
 * slice in packed order of K, so that the kernel looks up no group. */
#include "pack.h"

#include "../../kernels/layout.h"
#include "../../kernels/pack.h"
#include "../abi.h"
#include "../formats/format.h"
#include "../formats/int4_groups.h"
#include "../parallel.h"

enum { WINDOW = 256 };

/* How the words of a slice lie. */
enum words { GPTQ, MARLIN };

/* A slice of the rows of one expert: what the threads put into the slot. */
struct slice {
    struct fmk_pack *pack;
    int64_t expert, row, rows;
    enum words form;
    bool rewritten; /* from codes: the format's words with n_order make no run */
    int64_t first_word_row, word_rows;
    int64_t first_word, row_words; /* of each word row of the file that is taken, and how many */
    int64_t word_tasks, word_rows_per_task;
    int64_t scale_rows;
    uint8_t *words, *scales, *zeros;
};

/* ---- words ---- */

static int64_t file_row_words(const struct fmk_source *source) {
    return source->part.format == FMK_FORMAT_MARLIN ? 2 * source->part.n : source->part.n;
}

static void copy_words(const struct slice *s, int64_t first, int64_t end) {
    const struct fmk_source *source = s->pack->fill->source;
    const uint8_t *qweight = fmk_tensor_data(&source->part.qweight, s->expert);
    const uint8_t *order = fmk_tensor_data(&source->part.n_order, s->expert);
    for (int64_t w = first; w < end; w++) {
        const uint8_t *from =
            qweight + 4 * ((s->first_word_row + w) * file_row_words(source) + s->first_word);
        uint8_t *to = s->words + 4 * w * s->row_words;
        if (!order) {
            fmk_stage_copy(to, from, 4 * (size_t)s->row_words);
            continue;
        }
        from = qweight + 4 * ((s->first_word_row + w) * source->part.n + source->part.n_begin);
        for (int64_t r = 0; r < s->row_words; r++)
            memcpy(to + 4 * r, from + 4 * (int64_t)fmk_load_i32(order + 4 * (s->row + r)), 4);
    }
}

/* Words of eight k of eight columns at a time. */
static void rewrite_words(const struct slice *s, int64_t first, int64_t end) {
    const struct fmk_source *source = s->pack->fill->source;
    int32_t k[WINDOW];
    uint8_t codes[8 * WINDOW];
    for (int64_t w = first; w < end; w += WINDOW / 8) {
        int64_t count = fmk_min(WINDOW / 8, end - w);
        for (int64_t i = 0; i < 8 * count; i++)
            k[i] = 8 * w + i < source->k ? (int32_t)(8 * w + i) : -1;
        for (int64_t r = 0; r < s->rows; r += 8) {
            int32_t rows = (int32_t)fmk_min(8, s->rows - r);
            fmk_int4_codes(source, s->expert, s->row + r, rows, k, 8 * count, codes);
            for (int64_t i = 0; i < count; i++)
                for (int32_t c = 0; c < rows; c++) {
                    uint32_t word = 0;
                    for (int j = 0; j < 8; j++)
                        word |= (uint32_t)codes[8 * (8 * i + j) + c] << 4 * j;
                    memcpy(s->words + 4 * ((w + i) * s->row_words + r + c), &word, 4);
                }
        }
    }
}

/* ---- scales ---- */

static void fill_scale_row(const struct slice *s, int64_t i) {
    const struct fmk_source *source = s->pack->fill->source;
    const struct fmk_packed *packed = s->pack->fill->packed;
    int64_t size = fmk_dtype_size(packed->dtype), run = 32 * packed->chunks;
    /* A group begins with the first of its positions: where that is padding, all are. */
    int64_t k = s->pack->k_index ? s->pack->k_index[i * run] : i * run < packed->k ? i * run : -1;
    uint8_t *scales = s->scales + i * s->rows * size, *zeros = s->zeros + i * s->rows;
    if (k < 0) {
        memset(scales, 0, (size_t)(s->rows * size));
        if (s->zeros)
            memset(zeros, 0, (size_t)s->rows);
        return;
    }
    int64_t group = fmk_int4_scale_row(source, s->expert, k);
    fmk_int4_scales(source, s->expert, s->row, s->rows, group, scales);
    if (s->zeros)
        fmk_int4_zeros(source, s->expert, s->row, (int32_t)s->rows, group, zeros);
}

/* Scales first: a row of them may take longer than a run of words, and what is long should not begin last. */
static void slice_task(void *arg, int64_t i) {
    const struct slice *s = arg;
    if (i < s->scale_rows) {
        fill_scale_row(s, i);
        return;
    }
    int64_t first = (i - s->scale_rows) * s->word_rows_per_task,
            end = fmk_min(first + s->word_rows_per_task, s->word_rows);
    (s->rewritten ? rewrite_words : copy_words)(s, first, end);
    fmk_stage_copied();
}

/* ---- slices ---- */

/* What does not depend on which rows it is. */
static void plan_slice(struct slice *s) {
    const struct fmk_source *source = s->pack->fill->source;
    const struct fmk_packed *packed = s->pack->fill->packed;
    bool marlin = source->part.format == FMK_FORMAT_MARLIN;
    s->rewritten = marlin && source->part.n_order.data.handle && !fmk_pack_in_place(s->pack);
    s->form = marlin && !s->rewritten ? MARLIN : GPTQ;
    int64_t height = s->form == MARLIN ? 16 : 8, k_begin = s->rewritten ? 0 : source->part.k_begin;
    s->first_word_row = k_begin / height;
    s->word_rows = (k_begin + source->k + height - 1) / height - s->first_word_row;
    s->scale_rows = packed->k_packed / (32 * packed->chunks);
}

/* Columns of whole tiles that the slice's rows lie in. */
static void place_words(struct slice *s) {
    const struct fmk_source *source = s->pack->fill->source;
    if (s->form == MARLIN) {
        int64_t first = (source->part.n_begin + s->row) / 64,
                last = (source->part.n_begin + s->row + s->rows - 1) / 64;
        s->first_word = 128 * first;
        s->row_words = 128 * (last + 1 - first);
    } else {
        s->first_word = source->part.n_begin + s->row;
        s->row_words = s->rows;
    }
}

/* Fills a piece of the slot, one for all that the kernel reads, and enqueues its copy; sets the addresses in
 * args. */
static fmk_status send_slice(struct slice *s, bool in_place, struct fmk_pack_int4_args *args) {
    const struct fmk_packed *packed = s->pack->fill->packed;
    int64_t size = fmk_dtype_size(packed->dtype), scales = s->scale_rows * s->rows;
    int64_t words = in_place ? 0 : fmk_round_up(4 * s->word_rows * s->row_words, 16);
    int64_t zeros = words + fmk_round_up(scales * size, 16);
    int64_t order = zeros + (packed->has_zeros ? fmk_round_up(scales, 16) : 0);
    const uint8_t *n_order =
        in_place ? fmk_tensor_data(&s->pack->fill->source->part.n_order, s->expert) : NULL;
    int64_t bytes = order + (n_order ? 4 * s->rows : 0);
    struct fmk_staged piece;
    fmk_status status = fmk_stage_take(&s->pack->stage, (uint64_t)bytes, &piece);
    if (status)
        return status;
    s->words = piece.host;
    s->scales = piece.host + words;
    s->zeros = packed->has_zeros ? piece.host + zeros : NULL;
    s->word_rows_per_task = fmk_max(1, FMK_STAGE_TASK / (4 * s->row_words));
    if (s->rewritten) /* it works through WINDOW k at a time */
        s->word_rows_per_task = WINDOW / 8;
    s->word_tasks = in_place ? 0 : (s->word_rows + s->word_rows_per_task - 1) / s->word_rows_per_task;
    fmk_parallel(s->pack->stage.queue->ctx, slice_task, s, s->scale_rows + s->word_tasks);
    if (n_order)
        memcpy(piece.host + order, n_order + 4 * s->row, 4 * (size_t)s->rows);
    const uint8_t *device = (const uint8_t *)(uintptr_t)piece.device;
    if (!in_place)
        args->words = device;
    args->scales = device + words;
    args->zeros = packed->has_zeros ? device + zeros : NULL;
    args->order = n_order ? (const int32_t *)(device + order) : NULL;
    return fmk_stage_send(&s->pack->stage, &piece, piece.host, (uint64_t)bytes);
}

/* Of 16 rows; the last slice fills up the layout's last panel. */
static int64_t panels_of(const struct slice *s) {
    int64_t rows = s->rows;
    if (s->row + rows == s->pack->fill->source->n)
        rows = fmk_round_up(s->row + rows, s->pack->fill->packed->layout->panel_rows) - s->row;
    return (rows + FMK_T16_ROWS - 1) / FMK_T16_ROWS;
}

static fmk_status pack_slice(struct slice *s) {
    struct fmk_pack *pack = s->pack;
    const struct fmk_source *source = pack->fill->source;
    const struct fmk_packed *packed = pack->fill->packed;
    bool in_place = fmk_pack_in_place(pack);
    struct fmk_pack_int4_args args = {
        .out = (uint8_t *)(uintptr_t)packed->data + (uint64_t)s->expert * packed->expert_stride,
        .k_index = packed->k_index ? packed->k_index + s->expert * packed->k_packed : NULL,
        .largest = (float *)(uintptr_t)packed->range,
        .stride = packed->stride,
        .marlin = s->form == MARLIN,
        .aligned = 1,
        .first_panel = (int32_t)(s->row / FMK_T16_ROWS),
        .panels = (int32_t)panels_of(s),
        .rows = (int32_t)s->rows,
        .units = (int32_t)(packed->k_packed / FMK_INT4_UNIT_K),
        .k = (int32_t)packed->k,
        .dtype = packed->dtype,
        .chunks = packed->chunks,
        .scale_stride = (int32_t)s->rows,
        .t64 = packed->layout->id == FMK_LAYOUT_INT4_T64,
    };
    place_words(s);
    if (in_place) {
        args.words = fmk_tensor_data(&source->part.qweight, s->expert);
        args.aligned = (uintptr_t)args.words % 4 == 0;
        args.row_words = file_row_words(source);
        args.column = source->part.n_begin + (source->part.n_order.data.handle ? 0 : s->row);
        args.k_begin = (int32_t)source->part.k_begin;
    } else {
        args.row_words = s->row_words;
        args.column = s->form == MARLIN ? (source->part.n_begin + s->row) % 64 : 0;
        args.k_begin = s->form == GPTQ && !s->rewritten ? (int32_t)(source->part.k_begin % 8) : 0;
    }
    fmk_status status = send_slice(s, in_place, &args);
    if (status)
        return status;
    struct fmk_cuda_grid grid = {
        (uint32_t)args.units,
        (uint32_t)((args.panels + FMK_PACK_WARPS - 1) / FMK_PACK_WARPS),
        1,
        32 * FMK_PACK_WARPS,
        0,
        0,
    };
    status = fmk_cuda_launch(pack->stage.queue, FMK_MODULE_PACK, FMK_PACK_INT4, grid, &args, false);
    uint64_t panel_bytes = packed->stride / (uint64_t)(packed->layout->panel_rows / FMK_T16_ROWS);
    return status ? status : fmk_pack_advance(pack, (uint64_t)args.panels * panel_bytes);
}

fmk_status fmk_pack_int4(struct fmk_pack *pack, int64_t expert) {
    enum { GRID_ROWS = 65535 * 64, PADDING = 4 * 256 };
    const struct fmk_source *source = pack->fill->source;
    const struct fmk_packed *packed = pack->fill->packed;
    bool in_place = fmk_pack_in_place(pack);
    struct slice s = {.pack = pack, .expert = expert};
    plan_slice(&s);
    uint64_t word_bytes = in_place ? 0 : 4 * (uint64_t)s.word_rows * (s.form == MARLIN ? 2 : 1);
    uint64_t scale_bytes =
        (uint64_t)(fmk_dtype_size(packed->dtype) + packed->has_zeros) * (uint64_t)s.scale_rows;
    uint64_t fixed =
        PADDING + (s.form == MARLIN && !in_place ? 126 * word_bytes : 0); /* of tiles cut at both ends */
    fmk_status status = FMK_OK;
    for (; s.row < source->n && !status; s.row += s.rows) {
        status = fmk_pack_rows_at_once(pack, word_bytes + scale_bytes + 4, fixed, source->n - s.row, &s.rows);
        if (status)
            return status;
        s.rows = fmk_min(s.rows, GRID_ROWS);
        status = pack_slice(&s);
    }
    return status;
}
