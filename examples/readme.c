#include <ferrumk.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) { /* model.gguf blk.0.attn_q.weight */
    fmk_context *ctx;
    fmk_queue *queue;
    fmk_checkpoint *file;
    fmk_weight *weight;
    uint64_t least, best;
    fmk_weight_info_t info = {.struct_size = sizeof info};
    fmk_context_desc cpu = {.struct_size = sizeof cpu, .backend = FMK_BACKEND_CPU};
    if (argc < 3 || fmk_context_create(&ctx, &cpu) || fmk_queue_create(&queue, ctx, NULL) ||
        fmk_checkpoint_open(&file, argv[1]) ||
        fmk_checkpoint_load(&weight, queue, file, (const char *const *)&argv[2], 1, NULL) ||
        fmk_weight_info(weight, &info))
        return fprintf(stderr, "%s\n", fmk_last_error()), 1;

    float *in = calloc((size_t)info.k, sizeof *in), *out = calloc((size_t)info.n, sizeof *out);
    in[0] = 1; /* so that out becomes the first column of W */
    fmk_linear_args args = {.struct_size = sizeof args, .m = 1, .in_type = FMK_F32, .out_type = FMK_F32};
    args.in.handle = (uintptr_t)in;
    args.out.handle = (uintptr_t)out;
    if (fmk_workspace_size(weight, &args, &least, &best))
        return fprintf(stderr, "%s\n", fmk_last_error()), 1;
    args.workspace.size = (best + 255) / 256 * 256;
    args.workspace.handle = (uintptr_t)aligned_alloc(256, args.workspace.size);
    if (fmk_linear(queue, weight, &args))
        return fprintf(stderr, "%s\n", fmk_last_error()), 1;
    printf("W[0][0] = %g\n", out[0]);
}
