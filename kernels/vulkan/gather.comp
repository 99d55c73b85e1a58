/* Gathers rows for a call that is not routed. */
#version 450
#extension GL_GOOGLE_include_directive : require
#include "gather.glsl"

void main() {
    uint m = args.m;
    if (args.lists != 0)
        m = uint(clamp(load_int(args.lists, 0), 0, int(m)));
    for (uint row = args.first + gl_WorkGroupID.y; row < m; row += gl_NumWorkGroups.y) {
        int64_t from = args.in_rows != 0 ? load_int(args.in_rows, row) : int(row);
        if (from >= args.in_limit)
            from = -1;
        for (uint column = 2 * gl_GlobalInvocationID.x; column < args.width;
             column += 2 * gl_NumWorkGroups.x * gl_WorkGroupSize.x)
            gather(from, args.k_index, column, row);
    }
}
