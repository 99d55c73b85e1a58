/* Q6_K as its file has it, in blocks of 256 weights and 210 bytes: u8 low[128], u8 high[64], i8 scales[16], f16 d. A
 * block begins at any even address. Of each half of 128 weights, run r (0..3) of 32 has the low or, from r = 2 on, the
 * high nibbles of bytes 32 (r % 2) .. of low, and bits 2 r and 2 r + 1 of high. */
#include "codes.glsl"

const uint Q6K_BLOCK = 210;

/* 16 bytes at an even address: of aligned words, which lie in the block, halves are put together. */
uint[4] load_even(uint64_t at) {
    bool odd = (uint(at) & 2) != 0;
    uint64_t from = at - (odd ? 2 : 0);
    uint word[4], next = load_4(from);
    [[unroll]] for (uint i = 0; i < 4; i++) {
        uint here = next;
        next = load_4(from + 4 * i + 4);
        word[i] = odd ? here >> 16 | next << 16 : here;
    }
    return word;
}

float q6k_d(uint64_t block) {
    return split_halves(load_2(block + 208)).x;
}

float q6k_scale(uint64_t block, uint i) {
    return float(bitfieldExtract(int(load_1(block + 192 + i)), 0, 8));
}

/* Four codes of a run, less 32, of a word of low and one of high. */
vec4 q6k_codes(uint low, uint high, uint run) {
    uint top = run < 2 ? high << 4 - 2 * run : high >> 2 * run - 4;
    return bytes_of((run < 2 ? low : low >> 4) & 0x0f0f0f0f | top & 0x30303030, 32.0);
}
