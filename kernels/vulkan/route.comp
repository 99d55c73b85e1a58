/* Pairs -> lists grouped by expert, and the tiles that products take. */
#version 450
#extension GL_GOOGLE_include_directive : require
#include "memory.glsl"

layout(push_constant, std430) uniform Push {
    fmk_vk_route_args args;
};

uint items();
bool find_item(uint i, out uint expert, out uint value);
void begin_expert(uint expert, uint first, uint count, uint first_tile);
void put_item(uint at, uint value);

#include "group.glsl"

int end; /* of the pairs that count */

/* IDS: the pairs. SORTED: rows up to the last offset, whatever that is. */
uint items() {
    if (args.ids != 0)
        return uint(max(end - args.begin, 0));
    return uint(clamp(load_int(args.offsets, args.experts), 0, args.sorted_limit));
}

/* The last expert whose rows begin at or in front of `row`, or -1. */
int expert_of_row(uint row) {
    int low = -1, high = args.experts; /* begins there or in front; does not */
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (load_int(args.offsets, middle) <= int(row))
            low = middle;
        else
            high = middle;
    }
    return low;
}

bool find_item(uint i, out uint expert, out uint value) {
    if (args.ids != 0) {
        value = uint(args.begin) + i;
        return find_expert(load_int(args.ids, value), args.expert_base, args.experts, expert);
    }
    int owner = expert_of_row(i), pair = args.pairs != 0 ? load_int(args.pairs, i) : int(i);
    expert = uint(owner);
    value = uint(pair);
    return owner >= 0 && int(i) < load_int(args.offsets, owner + 1) && pair >= args.begin && pair < end;
}

void store_tile(uint tile, uvec4 words) {
    if (tile < args.num_tiles)
        for (uint i = 0; i < 4; i++)
            store_4(args.lists + 16 * uint64_t(tile) + 4 * i, words[i]);
}

void begin_expert(uint expert, uint first, uint count, uint first_tile) {
    for (uint done = 0; done < count; done += args.tile)
        store_tile(first_tile + done / args.tile, uvec4(expert, first + done, min(args.tile, count - done), 0));
}

void put_item(uint at, uint pair) {
    uint64_t lists = args.lists + 16 * uint64_t(args.num_tiles);
    store_4(lists + 4 * uint64_t(at), args.in_per_pair != 0 ? pair : pair / args.top_k);
    store_4(lists + 4 * (uint64_t(args.capacity) + at), pair);
    if (args.present != 0)
        store_4(args.present + 4 * uint64_t(pair - args.begin), 1);
}

void main() {
    const uint me = gl_LocalInvocationID.x;
    end = args.end;
    if (args.m_dev != 0)
        end = int(clamp(int64_t(load_int(args.m_dev, 0)) * args.top_k, 0, int64_t(end)));
    for (uint i = me; args.present != 0 && i < args.end - args.begin; i += THREADS)
        store_4(args.present + 4 * uint64_t(i), 0);
    for (uint i = me; i < args.num_tiles; i += THREADS)
        store_tile(i, uvec4(0));
    memoryBarrierBuffer();
    barrier();
    group_all(args.experts, args.capacity, args.tile);
}
