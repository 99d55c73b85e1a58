/* Weights as numbers, by the published formulas bit for bit: nothing is contracted. Four neighbours in k at a time,
 * from any row that lies as its file has it, or int4.x8 (src/cpu/layouts/x8.h). Small, not fast. */

layout(constant_id = FMK_VK_SPEC_FAMILY) const uint FAMILY = FMK_VK_DENSE;

/* What is to be known of a part. */
struct Part {
    uint64_t data;
    uint stride, type, chunks; /* as in struct fmk_vk_plain_args; type: of the weights, or of int4's scales */
    uint k;                    /* packed */
};

/* A number of a dense row, which may lie at any byte. */
float load_dense(uint64_t row, uint type, uint k) {
    uint size = number_size(type);
    if ((uint(row) & size - 1) == 0)
        return load_number(row, type, k);
    uint bits = 0;
    for (uint i = 0; i < size; i++)
        bits |= load_1(row + size * uint64_t(k) + i) << 8 * i;
    return type == FMK_VK_F32   ? uintBitsToFloat(bits)
           : type == FMK_VK_F16 ? half_to_float(bits)
                                : uintBitsToFloat(bits << 16);
}

vec4 q4k_quad(uint64_t row, uint k) {
    uint64_t block = row + 144 * uint64_t(k / 256);
    uint j = k / 32 % 8, i = k % 32, scale_byte, min_byte;
    if (j < 4) {
        scale_byte = load_1(block + 4 + j) & 63;
        min_byte = load_1(block + 8 + j) & 63;
    } else {
        uint low = load_1(block + 8 + j);
        scale_byte = low & 15 | load_1(block + j) >> 6 << 4;
        min_byte = low >> 4 | load_1(block + 4 + j) >> 6 << 4;
    }
    precise float scale = half_to_float(load_2(block)) * float(scale_byte);
    precise float least = half_to_float(load_2(block + 2)) * float(min_byte);
    precise vec4 w;
    [[unroll]] for (uint b = 0; b < 4; b++) {
        uint code = load_1(block + 16 + j / 2 * 32 + i + b) >> j % 2 * 4 & 15;
        w[b] = scale * float(code) - least;
    }
    return w;
}

vec4 q6k_quad(uint64_t row, uint k) {
    uint64_t block = row + 210 * uint64_t(k / 256);
    uint half_at = k / 128 % 2, run = k / 32 % 4, l = k % 32;
    precise float scale = half_to_float(load_2(block + 208)) *
                          float(bitfieldExtract(int(load_1(block + 192 + k % 256 / 16)), 0, 8));
    precise vec4 w;
    [[unroll]] for (uint b = 0; b < 4; b++) {
        uint low = load_1(block + 64 * half_at + run % 2 * 32 + l + b) >> run / 2 * 4 & 15;
        uint high = load_1(block + 128 + 32 * half_at + l + b) >> 2 * run & 3;
        w[b] = scale * float(int(low | high << 4) - 32);
    }
    return w;
}

vec4 int4_quad(Part part, uint row, uint k) {
    uint header = 8 * number_size(part.type) + 8, chunk = k / 32, v = k % 16 / 4;
    uint64_t block = part.data + uint64_t(row / 8) * part.stride +
                     uint64_t(chunk / part.chunks) * (header + part.chunks * 128);
    uint word = load_4(block + header + chunk % part.chunks * 128 + 32 * v + row % 8 * 4) >> k / 16 % 2 * 4;
    int zero = int(load_1(block + 8 * number_size(part.type) + row % 8));
    precise float scale = load_number(block, part.type, row % 8);
    precise vec4 w;
    [[unroll]] for (uint b = 0; b < 4; b++)
        w[b] = scale * float(int(word >> 8 * b & 15) - zero);
    return w;
}

/* Weights k .. k+3 of a row, k a multiple of 4; 0 past its end. */
vec4 weights_at(Part part, uint row, uint k) {
    uint64_t at = part.data + uint64_t(row) * part.stride;
    if (FAMILY == FMK_VK_Q4_K)
        return q4k_quad(at, k);
    if (FAMILY == FMK_VK_Q6_K)
        return q6k_quad(at, k);
    if (FAMILY == FMK_VK_INT4)
        return int4_quad(part, row, k);
    vec4 w = vec4(0.0);
    [[unroll]] for (uint b = 0; b < 4; b++)
        if (k + b < part.k)
            w[b] = load_dense(at, part.type, k + b);
    return w;
}
