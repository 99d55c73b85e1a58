/* Where the chunks of int4.x8 and int4.x16 lie that share a scale (panels.h). */
#ifndef FMK_CPU_INT4_RUNS_H
#define FMK_CPU_INT4_RUNS_H

#include "panels.h"

/* Chunks in a row that share a scale: at most as many as a kernel takes at once, and as are left. */
struct int4_run {
    int chunks;
    int64_t header, nibbles; /* byte offsets in the panel */
};

static inline struct int4_run int4_run_at(const struct fmk_packed *part, int64_t chunk, int64_t end,
                                          int64_t most) {
    int64_t rows = part->layout->panel_rows, header = rows * ((part->dtype == FMK_F32 ? 4 : 2) + 1);
    int64_t chunk_bytes = rows * FMK_PANEL_CHUNK;
    /* Both fit 32 bits, of which divisions are faster. */
    uint32_t block = (uint32_t)chunk / (uint32_t)part->chunks,
             in_block = (uint32_t)chunk % (uint32_t)part->chunks;
    int64_t start = block * (header + part->chunks * chunk_bytes);
    int64_t count = fmk_min(fmk_min(most, part->chunks - in_block), end - chunk);
    return (struct int4_run){(int)count, start, start + header + in_block * chunk_bytes};
}

#endif
