/* What the gemv and the gemm kernels have in common: their arguments, and what becomes of a sum. */
#include "memory.glsl"

layout(push_constant, std430) uniform Push {
    fmk_vk_linear_args args;
};

layout(constant_id = FMK_VK_SPEC_GLU) const uint GLU = 0;
layout(constant_id = FMK_VK_SPEC_VECTORS) const uint VECTORS = 0;

#include "epilogue.glsl"
#include "tokens.glsl"

float bias_of(uint64_t bias, uint expert, uint row) {
    return bias != 0 ? load_float(bias, uint64_t(expert) * args.n + row) : 0.0;
}

float addend_of(uint64_t at, uint column) {
    return args.addend != 0 ? load_number(args.addend, FMK_VK_ADDEND_TYPE(args.types),
                                          at * args.addend_stride + column)
                            : 0.0;
}

/* The sum, or gate's and up's, of a row of weights and row `at` of the output. */
void finish(uint expert, uint row, uint64_t at, float sum, float up) {
    float t = sum + bias_of(args.bias, expert, row) + addend_of(at, row);
    if (GLU != 0) {
        up += bias_of(args.up_bias, expert, row) + addend_of(at, args.n + row);
        t = activate(FMK_VK_ACT(args.types), args.alpha, args.limit, t, up);
    }
    if (args.weights != 0)
        t *= load_float(args.weights, at);
    store_number(args.to, FMK_VK_OUT_TYPE(args.types), at * args.out_stride + row, t);
}
