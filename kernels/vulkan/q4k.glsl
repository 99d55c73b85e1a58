/* Q4_K as its file has it, in blocks of 256 weights and 144 bytes: f16 d, f16 dmin, u8 scales[12], u8 nibbles[128].
 * Of each 32 bytes of nibbles the low ones are a sub-block of 32 weights, the high ones the next. */
#include "codes.glsl"

const uint Q4K_BLOCK = 144;

/* The scales and minima of sub-blocks 2 part and 2 part + 1. Six bits each: of the first four sub-blocks in bytes
 * of their own, of the others four bits in the third word and two in front of the others'. */
void find_scales(uvec4 header, uint part, out vec2 scale[2]) {
    uvec3 words = header.yzw >> part % 2 * 16;
    uint scales = words.x & 0x3f3f, minima = words.y & 0x3f3f;
    if (part >= 2) {
        scales = words.z & 0x0f0f | words.x >> 2 & 0x3030;
        minima = words.z >> 4 & 0x0f0f | words.y >> 2 & 0x3030;
    }
    vec2 d = split_halves(header.x);
    scale[0] = d * vec2(code_at(scales, 0x3f, 0, 0.0), code_at(minima, 0x3f, 0, 0.0));
    scale[1] = d * vec2(code_at(scales, 0x3f00, 8, 0.0), code_at(minima, 0x3f00, 8, 0.0));
}
