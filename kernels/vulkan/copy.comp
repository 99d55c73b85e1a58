/* Rows of bytes from one place to another. */
#version 450
#extension GL_GOOGLE_include_directive : require
#include "memory.glsl"

layout(local_size_x_id = FMK_VK_SPEC_THREADS) in;

layout(push_constant, std430) uniform Push {
    fmk_vk_copy_args args;
};

layout(buffer_reference, std430, buffer_reference_align = 16) writeonly buffer Out16 { uvec4 v; };
layout(buffer_reference, std430, buffer_reference_align = 1) writeonly buffer Out1 { uint8_t v; };

void main() {
    const uint64_t units = args.bytes / args.unit;
    for (uint row = gl_WorkGroupID.y; row < args.rows; row += gl_NumWorkGroups.y) {
        uint64_t from = args.from + row * args.from_stride, to = args.to + row * args.to_stride;
        for (uint64_t i = gl_GlobalInvocationID.x; i < units; i += gl_NumWorkGroups.x * gl_WorkGroupSize.x)
            if (args.unit == 16)
                Out16(to + 16 * i).v = load_16(from + 16 * i);
            else if (args.unit == 4)
                store_4(to + 4 * i, load_4(from + 4 * i));
            else
                Out1(to + i).v = uint8_t(load_1(from + i));
    }
}
