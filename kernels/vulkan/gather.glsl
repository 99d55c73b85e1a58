/* Rows of `from` in the order, the type and at the distance that a product wants, two columns an invocation. */
#include "memory.glsl"

layout(local_size_x_id = FMK_VK_SPEC_THREADS) in;

layout(push_constant, std430) uniform Push {
    fmk_vk_gather_args args;
};

/* Columns `column` and the next of row `from`, to row `to`. A row of -1 is of zeros. */
void gather(int64_t from, uint64_t k_index, uint column, uint64_t to) {
    const uint in_type = FMK_VK_IN_TYPE(args.types), out_type = FMK_VK_OUT_TYPE(args.types);
    float x[2];
    for (uint i = 0; i < 2; i++) {
        int k = k_index != 0 ? load_int(k_index, column + i) : int(column + i);
        x[i] = from >= 0 && k >= 0 && k < args.k
                   ? load_number(args.from, in_type, uint64_t(from) * args.in_stride + k)
                   : 0.0;
    }
    uint64_t at = args.to + (to * args.out_stride + column) * number_size(out_type);
    if (out_type == FMK_VK_F32) {
        store_4(at, floatBitsToUint(x[0]));
        store_4(at + 4, floatBitsToUint(x[1]));
    } else if (out_type == FMK_VK_F16) {
        store_4(at, float_to_half(x[0]) | float_to_half(x[1]) << 16);
    } else {
        store_4(at, float_to_bf16(x[0]) | float_to_bf16(x[1]) << 16);
    }
}
