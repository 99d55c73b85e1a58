/* Groups items by expert, stably, in one workgroup. Included behind
 *     uint items(), and bool find_item(i, expert, value): whether item i counts
 *     begin_expert(expert, first, count, first_tile) and put_item(at, value)
 * of which the first is called once for every expert, by any invocation, and the other once for every item. Experts
 * go by windows, whose counts are in shared memory. */
layout(local_size_x_id = FMK_VK_SPEC_THREADS) in;
layout(constant_id = FMK_VK_SPEC_THREADS) const uint THREADS = 128;

const uint WINDOW = 1024;

shared uint count[WINDOW];  /* of the window's experts; later, where each one's next item goes */
shared uvec2 before[THREADS];
shared uint chosen[THREADS];

/* Sums over the invocations in front of this one, and over all. */
uvec2 scan(uvec2 value, out uvec2 all) {
    const uint me = gl_LocalInvocationID.x;
    barrier();
    before[me] = value;
    barrier();
    uvec2 sum = uvec2(0);
    all = uvec2(0);
    for (uint i = 0; i < THREADS; i++) {
        if (i < me)
            sum += before[i];
        all += before[i];
    }
    return sum;
}

/* Experts window .. of `experts`, whose items come behind `taken` items and tiles of `tile` items. */
uvec2 group_window(uint window, uint experts, uint capacity, uint tile, uvec2 taken) {
    const uint me = gl_LocalInvocationID.x, size = min(experts - window, WINDOW), number = items();
    for (uint i = me; i < size; i += THREADS)
        count[i] = 0;
    barrier();
    uint expert, value;
    for (uint i = me; i < number; i += THREADS)
        if (find_item(i, expert, value) && expert - window < size)
            atomicAdd(count[expert - window], 1);
    barrier();

    /* Each invocation has a run of experts. */
    const uint run = (size + THREADS - 1) / THREADS, from = min(run * me, size), to = min(from + run, size);
    uvec2 mine = uvec2(0), all;
    for (uint i = from; i < to; i++)
        mine += uvec2(count[i], (count[i] + tile - 1) / tile);
    uvec2 at = taken + scan(mine, all);
    for (uint i = from; i < to; i++) {
        uint those = count[i], first = min(at.x, capacity);
        begin_expert(window + i, first, min(those, capacity - first), at.y);
        count[i] = at.x;
        at += uvec2(those, (those + tile - 1) / tile);
    }

    /* A round of items: each goes behind those of the same expert in front of it. */
    for (uint round = 0; round < number; round += THREADS) {
        bool here = round + me < number && find_item(round + me, expert, value) && expert - window < size;
        barrier();
        chosen[me] = here ? expert - window : WINDOW;
        barrier();
        uint rank = 0, same = 0;
        for (uint i = 0; here && i < THREADS; i++)
            if (chosen[i] == expert - window) {
                rank += i < me ? 1 : 0;
                same++;
            }
        uint place = here ? count[expert - window] + rank : capacity;
        barrier();
        if (here && rank + 1 == same)
            count[expert - window] += same;
        if (place < capacity)
            put_item(place, value);
    }
    barrier();
    return taken + all;
}

/* Items and tiles of all. */
uvec2 group_all(uint experts, uint capacity, uint tile) {
    uvec2 taken = uvec2(0);
    for (uint window = 0; window < experts; window += WINDOW)
        taken = group_window(window, experts, capacity, tile, taken);
    return taken;
}

/* The expert of an id, if it is here. */
bool find_expert(int id, int expert_base, int experts, out uint expert) {
    int64_t at = int64_t(id) - expert_base;
    expert = uint(at);
    return id >= 0 && at >= 0 && at < experts;
}
