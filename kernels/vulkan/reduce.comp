/* Each token's pairs, added up in the order of their slots. */
#version 450
#extension GL_GOOGLE_include_directive : require
#include "memory.glsl"

layout(local_size_x_id = FMK_VK_SPEC_THREADS) in;

layout(push_constant, std430) uniform Push {
    fmk_vk_reduce_args args;
};

void main() {
    uint m = args.m;
    if (args.m_dev != 0)
        m = uint(clamp(load_int(args.m_dev, 0), 0, int(m)));
    for (uint token = args.first + gl_WorkGroupID.y; token < m; token += gl_NumWorkGroups.y)
        for (uint j = gl_GlobalInvocationID.x; j < args.width;
             j += gl_NumWorkGroups.x * gl_WorkGroupSize.x) {
            float sum = 0.0;
            for (uint slot = 0; slot < args.top_k; slot++) {
                uint64_t pair = uint64_t(token - args.first) * args.top_k + slot;
                if (load_4(args.present + 4 * pair) != 0)
                    sum += load_float(args.pairs, pair * args.width + j);
            }
            if (args.addend != 0)
                sum += load_number(args.addend, FMK_VK_ADDEND_TYPE(args.types),
                                   uint64_t(token) * args.addend_stride + j);
            store_number(args.to, FMK_VK_OUT_TYPE(args.types), uint64_t(token) * args.out_stride + j, sum);
        }
}
