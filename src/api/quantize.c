/* float weights to Q4_K, Q6_K and GPTQ. */
#include "../abi.h"
#include "../context.h"
#include "../error.h"
#include "../quantize/quantize.h"

static fmk_status read_args(const fmk_quantize_args *in, fmk_quantize_args *args, uint64_t *qweight,
                            uint64_t *scales, uint64_t *qzeros) {
    fmk_status status = fmk_struct_in(args, sizeof *args, in, "args");
    return status ? status : fmk_quantize_check(args, qweight, scales, qzeros);
}

fmk_status fmk_quantize_size(const fmk_quantize_args *args, uint64_t *qweight, uint64_t *scales,
                             uint64_t *qzeros) {
    if (!qweight || !scales || !qzeros)
        return fmk_fail(FMK_EINVAL, "%s is NULL", !qweight ? "qweight" : !scales ? "scales" : "qzeros");
    fmk_quantize_args own;
    return read_args(args, &own, qweight, scales, qzeros);
}

fmk_status fmk_quantize(fmk_context *ctx, const fmk_quantize_args *args) {
    if (!ctx)
        return fmk_fail(FMK_EINVAL, "ctx is NULL");
    fmk_quantize_args own;
    uint64_t qweight, scales, qzeros;
    fmk_status status = fmk_context_alive(ctx);
    if (!status)
        status = read_args(args, &own, &qweight, &scales, &qzeros);
    if (status)
        return status;
    const struct {
        const char *name;
        const void *pointer;
        uint64_t size;
    } tensors[] = {{"in", own.in, 1},
                   {"qweight", own.qweight, qweight},
                   {"scales", own.scales, scales},
                   {"qzeros", own.qzeros, qzeros}};
    for (size_t i = 0; i < sizeof tensors / sizeof tensors[0]; i++)
        if (tensors[i].size && !tensors[i].pointer)
            return fmk_fail(FMK_EINVAL, "args.%s is NULL: it is required", tensors[i].name);
    return fmk_quantize_weights(ctx, &own);
}
