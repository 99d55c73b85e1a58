/* int4.x8, panels of eight rows (src/cpu/layouts/x8.h): blocks of scale[8], u8 zero[8] and CHUNKS chunks of 128 bytes.
 * A chunk is 32 k: of byte 32 v + 4 r + i, the low nibble is row r, k 4 v + i, the high one the k 16 further on. */
#include "codes.glsl"

layout(constant_id = FMK_VK_SPEC_WEIGHT_TYPE) const uint WEIGHT_TYPE = FMK_VK_F16; /* of scales */
layout(constant_id = FMK_VK_SPEC_CHUNKS) const uint CHUNKS = 4;

const uint INT4_HEADER = WEIGHT_TYPE == FMK_VK_F32 ? 40 : 24, INT4_CHUNK = 128;
const uint INT4_BLOCK = INT4_HEADER + CHUNKS * INT4_CHUNK;
