/* The lines of memory that the next sheet is made of, to be asked for a few at a time while this one is
 * multiplied: else memory would rest then, and the processor while the next is decoded. */
#ifndef FMK_CPU_GEMM_LINES_H
#define FMK_CPU_GEMM_LINES_H

#include "../../abi.h"
#include "gemm.h"

struct fmk_lines {
    const uint8_t *at;
    int64_t left;      /* lines of this run */
    int64_t run, jump; /* lines of every run; bytes from the end of one to the next one's first */
    int64_t runs;      /* after this one */
};

/* Bytes of a packed row, or panel, before position k: exact where k is a multiple of 256, near enough else.
 */
static inline int64_t fmk_bytes_before(const struct fmk_packed *part, int64_t k) {
    return (int64_t)((double)part->stride / (double)part->k_packed * (double)k);
}

/* Of the job's rows, `count` k from k on; none where the part ends before that. */
static inline struct fmk_lines fmk_lines_of(const struct fmk_gemm_job *job, int64_t k, int64_t count) {
    const struct fmk_packed *part = job->part;
    int32_t rows = part->layout->panel_rows;
    count = fmk_min(count, part->k_packed - k);
    if (count <= 0)
        return (struct fmk_lines){0};
    int64_t first = fmk_bytes_before(part, k), bytes = fmk_bytes_before(part, k + count) - first;
    int64_t run = (bytes + 63) / 64;
    return (struct fmk_lines){
        .at = job->data + (uint64_t)(job->row / rows) * part->stride + first,
        .left = run,
        .run = run,
        .jump = (int64_t)part->stride - 64 * run,
        .runs = (fmk_min(job->rows, part->n - job->row) + rows - 1) / rows - 1,
    };
}

/* That are still to be asked for. */
static inline int64_t fmk_lines_left(const struct fmk_lines *lines) {
    return lines->left + lines->run * lines->runs;
}

static inline __attribute__((always_inline)) void fmk_lines_next_run(struct fmk_lines *lines) {
    if (lines->left == 0 && lines->runs) {
        lines->runs--;
        lines->left = lines->run;
        lines->at += lines->jump;
    }
}

/* Asks for one. */
static inline __attribute__((always_inline)) void fmk_lines_next(struct fmk_lines *lines) {
    if (!lines->left)
        return;
    __builtin_prefetch(lines->at, 0, 2); /* to the second-level cache */
    lines->at += 64;
    lines->left--;
    fmk_lines_next_run(lines);
}

/* Asks for some. */
static inline __attribute__((always_inline)) void fmk_lines_ask(struct fmk_lines *lines, int64_t count) {
    while (lines->left && count) {
        int64_t some = fmk_min(lines->left, count);
        for (int64_t i = 0; i < some; i++)
            __builtin_prefetch(lines->at + 64 * i, 0, 2);
        lines->at += 64 * some;
        lines->left -= some;
        count -= some;
        fmk_lines_next_run(lines);
    }
}

#endif
