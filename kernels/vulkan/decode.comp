/* Rows of weights to numbers. */
#version 450
#extension GL_GOOGLE_include_directive : require
#include "memory.glsl"
#include "weights.glsl"

layout(local_size_x_id = FMK_VK_SPEC_THREADS) in;
layout(constant_id = FMK_VK_SPEC_THREADS) const uint THREADS = 128;

layout(push_constant, std430) uniform Push {
    fmk_vk_decode_args args;
};

void write_row(Part part, uint row, uint64_t to) {
    const uint type = FMK_VK_OUT_TYPE(args.types);
    for (uint at = 4 * gl_LocalInvocationID.x; at < args.k_packed; at += 4 * THREADS) {
        vec4 w = weights_at(part, row, at);
        if (args.k_index == 0 && at + 4 <= args.k && type != FMK_VK_F32 && (uint(to) & 3) == 0) {
            uvec4 bits;
            for (uint b = 0; b < 4; b++)
                bits[b] = type == FMK_VK_F16 ? float_to_half(w[b]) : float_to_bf16(w[b]);
            store_4(to + 2 * uint64_t(at), bits.x | bits.y << 16);
            store_4(to + 2 * uint64_t(at) + 4, bits.z | bits.w << 16);
            continue;
        }
        for (uint b = 0; b < 4 && at + b < args.k_packed; b++) {
            int k = args.k_index != 0 ? load_int(args.k_index, at + b) : int(at + b);
            if (k >= 0 && k < args.k)
                store_number(to, type, k, w[b]);
        }
    }
}

void write_zeros(uint64_t to) {
    for (uint k = gl_LocalInvocationID.x; k < args.k; k += THREADS)
        store_number(to, FMK_VK_OUT_TYPE(args.types), k, 0.0);
}

void main() {
    Part part =
        Part(args.data, args.stride, FMK_VK_WEIGHT_TYPE(args.types), args.chunks, args.k_packed);
    for (uint i = gl_WorkGroupID.x; i < args.m; i += gl_NumWorkGroups.x) {
        uint64_t to = args.to + uint64_t(i) * args.out_stride * number_size(FMK_VK_OUT_TYPE(args.types));
        if (args.ids == 0) {
            write_row(part, uint(args.first) + i, to);
            continue;
        }
        int id = load_int(args.ids, i);
        if (id < 0 || id >= args.total) {
            if (args.zeroes != 0)
                write_zeros(to);
        } else if (id >= args.first && id - args.first < args.n) { /* else another part's */
            write_row(part, uint(id - args.first), to);
        }
    }
}
