/* Any part, any alignment: an invocation sums a row of weights times eight tokens, in the order of k. The reference
 * does so with pairs of floats, whose sum has 48 bits. */
#version 450
#extension GL_GOOGLE_include_directive : require
#include "memory.glsl"
#include "weights.glsl"

layout(local_size_x_id = FMK_VK_SPEC_THREADS) in;
layout(constant_id = FMK_VK_SPEC_THREADS) const uint THREADS = 64;
layout(constant_id = FMK_VK_SPEC_DOUBLE) const uint DOUBLE = 0;

layout(push_constant, std430) uniform Push {
    fmk_vk_plain_args args;
};

#include "tokens.glsl"

const uint TOKENS = 8;

uint64_t from_row[TOKENS]; /* number of the first element */
float sum[TOKENS], low[TOKENS], product_sum[TOKENS];

/* The upper half of a float's bits; what is left has half of them too, so that products of halves are exact. */
float upper_half(float a) {
    return uintBitsToFloat(floatBitsToUint(a) & 0xfffff000);
}

void add_product(float w, float x, uint token) {
    if (DOUBLE == 0) {
        sum[token] = fma(w, x, sum[token]);
        return;
    }
    precise float product = w * x;
    precise float wh = upper_half(w), xh = upper_half(x), wl = w - wh, xl = x - xh;
    precise float rest = ((wh * xh - product) + wh * xl + wl * xh) + wl * xl;
    precise float before = sum[token], after = before + product, part = after - before;
    precise float lost = (before - (after - part)) + (product - part);
    precise float total = low[token] + (lost + rest);
    sum[token] = after;
    low[token] = total;
    precise float plain = product_sum[token] + product;
    product_sum[token] = plain;
}

/* Where a number is not finite the lower half is NaN, and the sum of the products says what it is. */
float result(uint token) {
    if (DOUBLE == 0)
        return sum[token];
    float both = sum[token] + low[token];
    return isnan(both) ? product_sum[token] : both;
}

void multiply(uint expert, uint row, uint count) {
    Part part = Part(args.data + 2 * uint64_t(args.expert_stride) * expert, args.stride,
                     FMK_VK_WEIGHT_TYPE(args.types), args.chunks, args.k_packed);
    const uint type = FMK_VK_IN_TYPE(args.types);
    for (uint token = 0; token < TOKENS; token++)
        sum[token] = low[token] = product_sum[token] = 0.0;
    for (uint at = 0; at < args.k_packed; at += 4) {
        vec4 w = weights_at(part, row, at);
        [[unroll]] for (uint b = 0; b < 4; b++) {
            int k = int(at + b);
            if (args.k_index != 0)
                k = k < args.k_packed ? load_int(args.k_index + 4 * uint64_t(args.k_packed) * expert, k) : -1;
            bool there = k >= 0 && k < args.k;
            [[unroll]] for (uint token = 0; token < TOKENS; token++)
                if (there && token < count)
                    add_product(w[b], load_number(args.from, type, from_row[token] + k), token);
        }
    }
}

void finish(uint expert, uint row, uint64_t at, float t) {
    if (args.bias != 0)
        t += load_float(args.bias, uint64_t(expert) * args.n + row);
    if (args.addend != 0)
        t += load_number(args.addend, FMK_VK_ADDEND_TYPE(args.types), at * args.addend_stride + row);
    if (args.weights != 0)
        t *= load_float(args.weights, at);
    store_number(args.to, FMK_VK_OUT_TYPE(args.types), at * args.out_stride + row, t);
}

void main() {
    Tokens tokens = find_tokens(gl_WorkGroupID.y, TOKENS);
    for (uint token = 0; token < tokens.count; token++)
        from_row[token] = in_row(tokens.first + token) * args.in_stride;
    for (uint row = gl_GlobalInvocationID.x; row < args.n; row += gl_NumWorkGroups.x * THREADS) {
        multiply(tokens.expert, row, tokens.count);
        for (uint token = 0; token < tokens.count; token++)
            finish(tokens.expert, row, out_row(tokens.first + token), result(token));
    }
}
