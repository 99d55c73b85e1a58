/* Weights that are rounded to f16 are multiplied by a power of two first, one for a whole tile: it brings the largest
 * of the first slab to 2^TARGET .. 2^(TARGET + 1), and is lowered, with all sums, when a later slab has one that would
 * reach LIMIT. The family says
 *     bound_of(raw)    no weight of the unit is larger in magnitude
 * Infinite and NaN bounds do not count: such weights stay what they are. */

shared uint tile_bound; /* bits of a float: the largest bound so far */

void forget_bound() {
    barrier();
    if (gl_LocalInvocationIndex == 0)
        tile_bound = 0;
    barrier();
}

/* Before a barrier. */
void raise_bound(float bound, bool first) {
    if (bound <= 3.4028234e38 && (first || bound * factor >= LIMIT))
        atomicMax(tile_bound, floatBitsToUint(bound));
}

/* Behind it, in front of another: sets `factor`. What sums are to be multiplied by is its change. */
float take_bound(bool first) {
    const float last = factor, bound = uintBitsToFloat(tile_bound);
    if (!first && !(bound * factor >= LIMIT))
        return 1.0;
    factor = uintBitsToFloat(127 + TARGET + 127 - clamp(tile_bound >> 23, 27, 227) << 23);
    return first ? 1.0 : factor / last;
}

/* The power of two that was taken out of a token's row lies behind its columns. */
float token_factor(uint token) {
    return load_float(args.from + (in_row(token) * args.in_stride + args.in_stride - 8) * 2, 0);
}
