/* Which tokens a workgroup has: of linear kernels, whose arguments are `args`. */

layout(constant_id = FMK_VK_SPEC_ROUTED) const uint ROUTED = 0;

/* Tokens first .. first+count-1, as the lists number them. */
struct Tokens {
    uint expert, first, count;
};

/* Of run or tile y of `many` tokens. */
Tokens find_tokens(uint y, uint many) {
    if (ROUTED != 0) {
        uvec4 tile = load_words(args.lists + 16 * uint64_t(y), false);
        return Tokens(tile.x, tile.y, min(tile.z, many));
    }
    uint m = args.m;
    if (args.lists != 0)
        m = uint(clamp(int(load_4(args.lists)), 0, int(m)));
    uint first = args.first + many * y;
    return Tokens(0, first, first < m ? min(m - first, many) : 0);
}

uint64_t in_row(uint token) {
    if (ROUTED == 0 || args.first != 0)
        return token;
    return uint64_t(load_4(args.lists + 16 * uint64_t(args.num_tiles) + 4 * uint64_t(token)));
}

uint64_t out_row(uint token) {
    if (ROUTED == 0)
        return token;
    return uint64_t(
        load_4(args.lists + 16 * uint64_t(args.num_tiles) + 4 * (uint64_t(args.capacity) + token)));
}
