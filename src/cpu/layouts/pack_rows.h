/* How the K-quants' packers go through a matrix: a panel of rows at a time, block by block, so that what they
 * write is one run. What they read is many short ones, which no prefetcher of the hardware follows: while a
 * block of a panel is packed, the same of the next panel is asked for, and the next block's place. */
#ifndef FMK_CPU_PACK_ROWS_H
#define FMK_CPU_PACK_ROWS_H

#include "panels.h"

enum { FMK_PANEL_MOST_ROWS = 16, FMK_BLOCK_MOST_BYTES = 256 };

/* A block of each row of a panel; rows that are not there are zeros. */
typedef void pack_block(const uint8_t *const in[FMK_PANEL_MOST_ROWS], int32_t rows, uint8_t *out);

static inline __attribute__((always_inline)) void pack_rows(const struct fmk_source *source,
                                                            const struct fmk_packed *packed, int64_t expert,
                                                            int64_t row, int64_t rows, uint8_t *dst,
                                                            const int64_t block_bytes, int64_t panel_bytes,
                                                            pack_block *pack) {
    static const uint8_t nothing[FMK_BLOCK_MOST_BYTES] = {0};
    const int32_t panel = packed->layout->panel_rows;
    const int64_t blocks = packed->k_packed / 256;
    const uint8_t *next[FMK_PANEL_MOST_ROWS];
    for (int64_t r = 0; r < panel; r++)
        next[r] = row + r < packed->n ? fmk_source_row(source, expert, row + r) : nothing;
    for (int64_t first = row; first < row + rows; first += panel) {
        const uint8_t *in[FMK_PANEL_MOST_ROWS];
        int64_t step[FMK_PANEL_MOST_ROWS];
        for (int64_t r = 0; r < panel; r++) {
            int64_t after = first + panel + r;
            in[r] = next[r];
            step[r] = next[r] == nothing ? 0 : block_bytes;
            next[r] = after < packed->n ? fmk_source_row(source, expert, after) : nothing;
        }
        uint8_t *out = dst + (uint64_t)(first / panel) * packed->stride;
        for (int64_t b = 0; b < blocks; b++, out += panel_bytes) {
            for (int64_t r = 0; r < panel; r++)
                for (int64_t i = 0; i < block_bytes; i += 64)
                    __builtin_prefetch((const void *)((uintptr_t)next[r] + (uintptr_t)(b * block_bytes + i)));
            for (int64_t i = 0; i < panel_bytes; i += 64) /* the next block, to be written */
                __builtin_prefetch((const void *)((uintptr_t)out + (uintptr_t)(panel_bytes + i)), 1);
            pack(in, panel, out);
            for (int64_t r = 0; r < panel; r++)
                in[r] += step[r];
        }
    }
}

#endif
