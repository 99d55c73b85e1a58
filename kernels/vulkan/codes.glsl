/* Four-bit and larger codes as floats, exactly, with no conversion, which is slow on many devices: bits p .. of a
 * word are or-ed into the mantissa of 2^(23-p), where they count as ones, and that number is taken off again. */

/* Zero, which a compiler does not know: an instruction of NVIDIA's masks and ors, but has room for one constant. */
uint hidden_zero() {
    return args.k >> 31;
}

/* The field of `word` that `mask` covers, from bit `p` on, less `zero`; p + its bits <= 23. */
float code_at(uint word, uint mask, uint p, float zero) {
    return uintBitsToFloat(word & mask | (150u - p << 23) + hidden_zero()) - (float(1u << 23 - p) + zero);
}

/* The low, or high, nibbles of a word's four bytes, less `zero`. */
vec4 nibbles_of(uint word, bool high, float zero) {
    uint upper = word >> 12; /* brings the fields down that would reach into the exponent */
    if (high)
        return vec4(code_at(word, 0xf0, 4, zero), code_at(word, 0xf000, 12, zero),
                    code_at(upper, 0xf00, 8, zero), code_at(upper, 0xf0000, 16, zero));
    return vec4(code_at(word, 0xf, 0, zero), code_at(word, 0xf00, 8, zero), code_at(word, 0xf0000, 16, zero),
                code_at(upper, 0xf000, 12, zero));
}

/* A word's four bytes, each less than 64, less `zero`. */
vec4 bytes_of(uint word, float zero) {
    return vec4(code_at(word, 0x3f, 0, zero), code_at(word, 0x3f00, 8, zero),
                code_at(word, 0x3f0000, 16, zero), code_at(word >> 16, 0x3f00, 8, zero));
}
