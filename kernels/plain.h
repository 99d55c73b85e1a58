/* How the plain kernels cut a call into blocks; the host makes their grid by it. */
#ifndef FMK_KERNELS_PLAIN_H
#define FMK_KERNELS_PLAIN_H

enum {
    FMK_PLAIN_THREADS = 256,
    FMK_PLAIN_TOKENS = 8,      /* of a block: of a tile, or of the grid's y where there are no tiles */
    FMK_PLAIN_MAX_Y = 65535,   /* without tiles: with less y than tokens / 8, blocks go round */
    FMK_PLAIN_PANEL_BLOCKS = 4 /* blocks that share 16 rows: each has rows 2 b, 2 b + 1 and those 8 further */
};

/* Blocks along the grid's x for the n rows of a part; with `glu` part 0's count alone. */
#define FMK_PLAIN_BLOCKS(n) (((n) + 15) / 16 * FMK_PLAIN_PANEL_BLOCKS)

#endif
