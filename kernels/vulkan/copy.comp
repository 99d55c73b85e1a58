/* Copies rows of bytes from anywhere to anywhere: weights on their way in and out. */
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_shader_explicit_arithmetic_types_int32 : require
#extension GL_EXT_shader_explicit_arithmetic_types_int64 : require
#extension GL_EXT_shader_8bit_storage : require
#include "args.h"

layout(local_size_x_id = FMK_VK_SPEC_THREADS) in;
layout(push_constant) uniform Push {
    fmk_vk_copy_args args;
};

layout(buffer_reference, std430, buffer_reference_align = 1) buffer Bytes {
    uint8_t at[];
};
layout(buffer_reference, std430, buffer_reference_align = 4) buffer Words {
    uint32_t at[];
};
layout(buffer_reference, std430, buffer_reference_align = 16) buffer Quads {
    uvec4 at[];
};

void main() {
    uint64_t step = uint64_t(gl_NumWorkGroups.x) * gl_WorkGroupSize.x;
    uint64_t first = gl_GlobalInvocationID.x;
    for (uint32_t row = gl_WorkGroupID.y; row < args.rows; row += gl_NumWorkGroups.y) {
        uint64_t from = args.from + row * args.from_stride, to = args.to + row * args.to_stride;
        if (args.unit == 16) {
            for (uint64_t i = first; i < args.bytes / 16; i += step)
                Quads(to + 16 * i).at[0] = Quads(from + 16 * i).at[0];
        } else if (args.unit == 4) {
            for (uint64_t i = first; i < args.bytes / 4; i += step)
                Words(to + 4 * i).at[0] = Words(from + 4 * i).at[0];
        } else {
            for (uint64_t i = first; i < args.bytes; i += step)
                Bytes(to + i).at[0] = Bytes(from + i).at[0];
        }
    }
}
