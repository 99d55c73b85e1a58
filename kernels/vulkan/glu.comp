/* Gate and up, made apart, to one. */
#version 450
#extension GL_GOOGLE_include_directive : require
#include "memory.glsl"
#include "epilogue.glsl"

layout(local_size_x_id = FMK_VK_SPEC_THREADS) in;
layout(constant_id = FMK_VK_SPEC_ROUTED) const uint ROUTED = 0;

layout(push_constant, std430) uniform Push {
    fmk_vk_glu_args args;
};

void write_row(uint64_t row) {
    for (uint j = gl_GlobalInvocationID.x; j < args.n; j += gl_NumWorkGroups.x * gl_WorkGroupSize.x) {
        uint64_t sums = args.sums + 4 * row * args.sums_stride;
        float t = activate(FMK_VK_ACT(args.types), args.alpha, args.limit, load_float(sums, j),
                           load_float(sums, args.up + j));
        if (args.weights != 0)
            t *= load_float(args.weights, row);
        store_number(args.to, FMK_VK_OUT_TYPE(args.types), row * args.out_stride + j, t);
    }
}

void main() {
    if (ROUTED != 0) {
        uint64_t rows = args.lists + 16 * uint64_t(args.num_tiles) + 4 * uint64_t(args.capacity);
        for (uint y = gl_WorkGroupID.y; y < args.num_tiles; y += gl_NumWorkGroups.y) {
            uvec4 tile = load_words(args.lists + 16 * uint64_t(y), false); /* expert, first, count */
            for (uint entry = tile.y; entry < tile.y + tile.z; entry++)
                write_row(load_4(rows + 4 * uint64_t(entry)));
        }
        return;
    }
    uint m = args.m;
    if (args.lists != 0)
        m = uint(clamp(load_int(args.lists, 0), 0, int(m)));
    for (uint row = args.first + gl_WorkGroupID.y; row < m; row += gl_NumWorkGroups.y)
        write_row(row);
}
