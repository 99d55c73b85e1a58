/* Rows as f16, each times the power of two that brings its largest number to 32 .. 64, so that neither that nor sums of
 * products with it overflow; behind a row's columns is the float that takes the power off again. What is not finite
 * stays so and does not count. A workgroup has a row. */
#version 450
#extension GL_GOOGLE_include_directive : require
#include "memory.glsl"

layout(local_size_x_id = FMK_VK_SPEC_THREADS) in;
layout(constant_id = FMK_VK_SPEC_THREADS) const uint THREADS = 128;

layout(push_constant, std430) uniform Push {
    fmk_vk_gather_args args;
};

const uint AHEAD = 4; /* quads of an invocation on their way at once */
const float LARGEST_FLOAT = 3.4028234e38;

shared uint largest; /* bits of a float */

/* Four columns of a row; row -1 is of zeros. */
vec4 quad_at(int64_t row, uint column) {
    const uint in_type = FMK_VK_IN_TYPE(args.types);
    const uint64_t first = uint64_t(row) * args.in_stride;
    vec4 x = vec4(0.0);
    if (row < 0 || column >= args.width)
        return x;
    const bool aligned = (uint(args.from) & 15) == 0 && args.in_stride * number_size(in_type) % 16 == 0;
    if (args.k_index == 0 && aligned && column + 4 <= args.k)
        return load_quad(args.from + first * number_size(in_type), in_type, column);
    [[unroll]] for (uint i = 0; i < 4; i++) {
        int k = int(column + i);
        if (args.k_index != 0)
            k = column + i < args.num_tiles ? load_int(args.k_index, column + i) : -1;
        if (k >= 0 && k < args.k)
            x[i] = load_number(args.from, in_type, first + k);
    }
    return x;
}

float size_of(float x) {
    return abs(x) <= LARGEST_FLOAT ? abs(x) : 0.0;
}

uint pack(vec2 x) {
    if (NATIVE_HALF != 0)
        return packHalf2x16(x);
    return float_to_half(x.x) | float_to_half(x.y) << 16;
}

void main() {
    const uint me = gl_LocalInvocationIndex, steps = (args.width / 4 + THREADS * AHEAD - 1) / (THREADS * AHEAD);
    uint m = args.m;
    if (args.lists != 0)
        m = uint(clamp(load_int(args.lists, 0), 0, int(m)));
    for (uint row = args.first + gl_WorkGroupID.y; row < m; row += gl_NumWorkGroups.y) {
        int64_t from = args.in_rows != 0 ? load_int(args.in_rows, row) : int(row);
        if (from >= args.in_limit)
            from = -1;
        float most = 0.0;
        vec4 x[AHEAD];
        for (uint step = 0; step < steps; step++) {
            [[unroll]] for (uint i = 0; i < AHEAD; i++)
                x[i] = quad_at(from, 4 * (me + (step * AHEAD + i) * THREADS));
            [[unroll]] for (uint i = 0; i < AHEAD; i++)
                most = max(most, max(max(size_of(x[i].x), size_of(x[i].y)), max(size_of(x[i].z), size_of(x[i].w))));
        }
        barrier(); /* the last row's is taken */
        if (me == 0)
            largest = 0;
        barrier();
        atomicMax(largest, floatBitsToUint(most));
        barrier();
        const uint exponent = clamp(largest >> 23, 33, 227);
        const float factor = uintBitsToFloat(127 + 5 + 127 - exponent << 23);
        const uint64_t to = args.to + uint64_t(row) * args.out_stride * 2;
        for (uint step = 0; step < steps; step++) {
            if (steps > 1)
                [[unroll]] for (uint i = 0; i < AHEAD; i++)
                    x[i] = quad_at(from, 4 * (me + (step * AHEAD + i) * THREADS));
            [[unroll]] for (uint i = 0; i < AHEAD; i++) {
                const uint column = 4 * (me + (step * AHEAD + i) * THREADS);
                if (column < args.width) {
                    store_4(to + 2 * column, pack(x[i].xz * factor));
                    store_4(to + 2 * column + 4, pack(x[i].yw * factor));
                }
            }
        }
        if (me == 0)
            store_4(to + 2 * uint64_t(args.width), exponent - 5 << 23);
    }
}
