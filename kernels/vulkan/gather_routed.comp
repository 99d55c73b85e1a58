/* Gathers the entries of a routed call's lists. */
#version 450
#extension GL_GOOGLE_include_directive : require
#include "gather.glsl"

void main() {
    for (uint y = gl_WorkGroupID.y; y < args.num_tiles; y += gl_NumWorkGroups.y) {
        uvec4 tile = load_words(args.lists + 16 * uint64_t(y), false); /* expert, first, count */
        uint64_t k_index = args.k_index != 0 ? args.k_index + 4 * uint64_t(args.width) * tile.x : 0;
        for (uint entry = tile.y; entry < tile.y + tile.z; entry++) {
            int from = load_int(args.lists + 16 * uint64_t(args.num_tiles), entry);
            for (uint column = 2 * gl_GlobalInvocationID.x; column < args.width;
                 column += 2 * gl_NumWorkGroups.x * gl_WorkGroupSize.x)
                gather(from < int(args.in_limit) ? from : -1, k_index, column, entry);
        }
    }
}
