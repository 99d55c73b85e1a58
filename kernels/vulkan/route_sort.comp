/* Ids -> offsets and pairs, for fmk_route_sort. */
#version 450
#extension GL_GOOGLE_include_directive : require
#include "memory.glsl"

layout(push_constant, std430) uniform Push {
    fmk_vk_route_sort_args args;
};

uint items();
bool find_item(uint i, out uint expert, out uint value);
void begin_expert(uint expert, uint first, uint count, uint first_tile);
void put_item(uint at, uint value);

#include "group.glsl"

uint items() {
    return uint(args.count);
}

bool find_item(uint i, out uint expert, out uint value) {
    value = i;
    return find_expert(load_int(args.ids, i), args.expert_base, args.experts, expert);
}

void begin_expert(uint expert, uint first, uint count, uint first_tile) {
    store_4(args.offsets + 4 * uint64_t(expert), first);
}

void put_item(uint at, uint pair) {
    store_4(args.pairs + 4 * uint64_t(at), pair);
}

void main() {
    uvec2 taken = group_all(args.experts, args.count, args.count + 1);
    if (gl_LocalInvocationID.x == 0)
        store_4(args.offsets + 4 * uint64_t(args.experts), taken.x);
}
