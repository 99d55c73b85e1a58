/* How an engine uses ferrumk: a context per device, weights made once, and one call per projection of each
 * layer. Here a feed-forward block, down(silu(gate(x)) * up(x)), of weights that the program quantizes
 * itself; it checks the result against plain loops and exits with 1 when they disagree. */
#include <ferrumk.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { HIDDEN = 512, INNER = 1024, MOST_TOKENS = 32 };

static void check(fmk_status status, const char *what) {
    if (status) {
        fprintf(stderr, "%s: %s: %s\n", what, fmk_status_name(status), fmk_last_error());
        exit(1);
    }
}

static void *allocate(size_t size) { /* aligned as workspaces must be */
    void *memory = aligned_alloc(256, (size + 255) / 256 * 256);
    if (!memory)
        exit(1);
    return memory;
}

static fmk_buffer buffer(void *address, uint64_t size) {
    return (fmk_buffer){.handle = (uintptr_t)address, .size = size};
}

static float random_value(void) { /* uniform in -1..1 */
    return (float)rand() / (float)RAND_MAX * 2 - 1;
}

/* An engine has its weights in a checkpoint: fmk_checkpoint_find fills in such a part for it. */
static fmk_part quantized_part(fmk_context *ctx, fmk_format format, int64_t n, int64_t k) {
    float *values = allocate((size_t)(n * k) * sizeof(float));
    for (int64_t i = 0; i < n * k; i++)
        values[i] = random_value() / sqrtf((float)k);
    fmk_quantize_args args = {
        .struct_size = sizeof args, .format = format, .n = n, .k = k, .in_type = FMK_F32, .in = values};
    uint64_t size, scales_size, zeros_size;
    check(fmk_quantize_size(&args, &size, &scales_size, &zeros_size), "quantize_size");
    args.qweight = allocate(size);
    check(fmk_quantize(ctx, &args), "quantize");
    free(values);
    return (fmk_part){.struct_size = sizeof(fmk_part),
                      .format = format,
                      .n = n,
                      .k = k,
                      .qweight = {.data = buffer(args.qweight, size)}};
}

static void free_part(fmk_part *part) {
    free((void *)(uintptr_t)part->qweight.data.handle);
}

/* out[m][n] = in * W^T by plain loops over the dequantized weight. */
static void plain_product(fmk_queue *queue, const fmk_weight *weight, int64_t m, const float *in,
                          float *out) {
    fmk_weight_info_t info = {.struct_size = sizeof info};
    check(fmk_weight_info(weight, &info), "weight_info");
    uint64_t size = (uint64_t)(info.n * info.k) * sizeof(float);
    float *w = allocate(size);
    fmk_buffer all = buffer(w, size);
    check(fmk_weight_dequantize(queue, weight, 0, &all, FMK_F32, 0), "weight_dequantize");
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < info.n; j++) {
            double sum = 0;
            for (int64_t l = 0; l < info.k; l++)
                sum += (double)in[i * info.k + l] * (double)w[j * info.k + l];
            out[i * info.n + j] = (float)sum;
        }
    free(w);
}

int main(void) {
    printf("%s\n", fmk_build_info());

    /* Once per device. This program's buffers are host memory, so it names the CPU; AUTO would be a GPU where
     * there is one. */
    fmk_context *ctx;
    fmk_queue *queue;
    fmk_context_desc context_desc = {.struct_size = sizeof context_desc, .backend = FMK_BACKEND_CPU};
    check(fmk_context_create(&ctx, &context_desc), "context_create");
    check(fmk_queue_create(&queue, ctx, NULL), "queue_create");

    /* Once per layer: gate and up as one weight, whose halves the activation joins; down. */
    fmk_part gate_up_parts[2] = {quantized_part(ctx, FMK_FORMAT_Q4_K, INNER, HIDDEN),
                                 quantized_part(ctx, FMK_FORMAT_Q4_K, INNER, HIDDEN)};
    fmk_part down_part = quantized_part(ctx, FMK_FORMAT_Q6_K, HIDDEN, INNER);
    fmk_weight *gate_up, *down;
    fmk_weight_desc gate_up_desc = {
        .struct_size = sizeof gate_up_desc, .flags = FMK_WEIGHT_GLU, .parts = gate_up_parts, .num_parts = 2};
    fmk_weight_desc down_desc = {.struct_size = sizeof down_desc, .parts = &down_part, .num_parts = 1};
    check(fmk_weight_create(&gate_up, queue, &gate_up_desc), "weight_create gate_up");
    check(fmk_weight_create(&down, queue, &down_desc), "weight_create down");
    /* The weights own their packed bytes: the sources may go. */
    free_part(&gate_up_parts[0]);
    free_part(&gate_up_parts[1]);
    free_part(&down_part);

    /* Once per model: what each call looks like, and one workspace that suits the largest of them. */
    float *x = allocate(MOST_TOKENS * HIDDEN * sizeof(float));
    float *inner = allocate(MOST_TOKENS * INNER * sizeof(float));
    float *y = allocate(MOST_TOKENS * HIDDEN * sizeof(float));
    fmk_linear_args gate_up_args = {.struct_size = sizeof gate_up_args,
                                    .m = MOST_TOKENS,
                                    .in_type = FMK_F32,
                                    .out_type = FMK_F32,
                                    .act = FMK_ACT_SILU_MUL,
                                    .in = buffer(x, MOST_TOKENS * HIDDEN * sizeof(float)),
                                    .out = buffer(inner, MOST_TOKENS * INNER * sizeof(float))};
    fmk_linear_args down_args = {.struct_size = sizeof down_args,
                                 .m = MOST_TOKENS,
                                 .in_type = FMK_F32,
                                 .out_type = FMK_F32,
                                 .in = buffer(inner, MOST_TOKENS * INNER * sizeof(float)),
                                 .out = buffer(y, MOST_TOKENS * HIDDEN * sizeof(float))};
    uint64_t least, best, best_down;
    check(fmk_workspace_size(gate_up, &gate_up_args, &least, &best), "workspace_size gate_up");
    check(fmk_workspace_size(down, &down_args, &least, &best_down), "workspace_size down");
    best = best > best_down ? best : best_down;
    void *workspace = allocate(best);
    gate_up_args.workspace = down_args.workspace = buffer(workspace, best);
    check(fmk_prepare(queue, gate_up, &gate_up_args), "prepare gate_up");
    check(fmk_prepare(queue, down, &down_args), "prepare down");

    /* For every batch of tokens: only m and the buffers change. One token, then many. */
    double worst = 0;
    for (int64_t m = 1; m <= MOST_TOKENS; m += MOST_TOKENS - 1) {
        for (int64_t i = 0; i < m * HIDDEN; i++)
            x[i] = random_value();
        gate_up_args.m = down_args.m = m;
        check(fmk_linear(queue, gate_up, &gate_up_args), "linear gate_up");
        check(fmk_linear(queue, down, &down_args), "linear down");

        float *want_both = allocate((size_t)m * 2 * INNER * sizeof(float));
        float *want_inner = allocate((size_t)m * INNER * sizeof(float));
        float *want = allocate((size_t)m * HIDDEN * sizeof(float));
        plain_product(queue, gate_up, m, x, want_both);
        for (int64_t i = 0; i < m; i++)
            for (int64_t j = 0; j < INNER; j++) {
                float gate = want_both[i * 2 * INNER + j], up = want_both[i * 2 * INNER + INNER + j];
                want_inner[i * INNER + j] = gate / (1 + expf(-gate)) * up;
            }
        plain_product(queue, down, m, want_inner, want);
        double error = 0, norm = 0;
        for (int64_t i = 0; i < m * HIDDEN; i++) {
            error += pow((double)y[i] - (double)want[i], 2);
            norm += pow((double)want[i], 2);
        }
        printf("%lld tokens: relative error %.2g\n", (long long)m, sqrt(error / norm));
        worst = fmax(worst, sqrt(error / norm));
        free(want_both);
        free(want_inner);
        free(want);
    }

    /* In any order: a weight keeps its context. */
    fmk_context_destroy(ctx);
    fmk_weight_destroy(gate_up, queue);
    fmk_weight_destroy(down, queue);
    fmk_queue_destroy(queue);
    free(workspace);
    free(x);
    free(inner);
    free(y);
    return worst < 0.02 ? 0 : 1; /* activations are rounded to 8 bits on the way; FMK_LINEAR_EXACT does not */
}
