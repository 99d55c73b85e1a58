/* ferrumk on a GPU, as an engine that is a CUDA program uses it: its own stream and device memory, a weight
 * brought to the device, one graph that serves any number of tokens up to a bound. The program quantizes its
 * weight itself; it checks the results against plain loops and exits with 1 when they disagree. */
#include <cuda.h>
#include <ferrumk.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { N = 1024, K = 512, MOST_TOKENS = 8 };

static void check(fmk_status status, const char *what) {
    if (status) {
        fprintf(stderr, "%s: %s: %s\n", what, fmk_status_name(status), fmk_last_error());
        exit(1);
    }
}

static void check_cuda(CUresult result, const char *what) {
    if (result) {
        fprintf(stderr, "%s: CUDA error %d\n", what, (int)result);
        exit(1);
    }
}

static fmk_buffer device_buffer(uint64_t size) { /* aligned to 256, as workspaces must be */
    CUdeviceptr address;
    check_cuda(cuMemAlloc(&address, size), "cuMemAlloc");
    return (fmk_buffer){.handle = address, .size = size};
}

static float random_value(void) { /* uniform in -1..1 */
    return (float)rand() / (float)RAND_MAX * 2 - 1;
}

int main(void) {
    static float values[N * K], in[MOST_TOKENS * K], out[MOST_TOKENS * N], w[N * K];

    /* The engine's own CUDA: the primary context is what the CUDA runtime uses, and ferrumk too. */
    CUdevice device;
    CUcontext primary;
    CUstream stream;
    check_cuda(cuInit(0), "cuInit");
    check_cuda(cuDeviceGet(&device, 0), "cuDeviceGet");
    check_cuda(cuDevicePrimaryCtxRetain(&primary, device), "cuDevicePrimaryCtxRetain");
    check_cuda(cuCtxSetCurrent(primary), "cuCtxSetCurrent");
    check_cuda(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING), "cuStreamCreate");

    /* Once per device; a queue for each thread that enqueues, bound to its stream. */
    fmk_context *ctx;
    fmk_queue *queue;
    fmk_context_desc context_desc = {.struct_size = sizeof context_desc, .backend = FMK_BACKEND_CUDA};
    check(fmk_context_create(&ctx, &context_desc), "context_create");
    check(fmk_queue_create(&queue, ctx, stream), "queue_create");

    /* A weight, from host memory: an engine has a part from fmk_checkpoint_find. Packing is enqueued, and the
     * source is needed until the weight is ready. */
    for (int i = 0; i < N * K; i++)
        values[i] = random_value() / sqrtf(K);
    fmk_quantize_args quantize = {.struct_size = sizeof quantize,
                                  .format = FMK_FORMAT_Q4_K,
                                  .n = N,
                                  .k = K,
                                  .in_type = FMK_F32,
                                  .in = values};
    uint64_t size, none;
    check(fmk_quantize_size(&quantize, &size, &none, &none), "quantize_size");
    void *blocks = quantize.qweight = malloc(size);
    check(fmk_quantize(ctx, &quantize), "quantize");
    fmk_part part = {.struct_size = sizeof part, .format = FMK_FORMAT_Q4_K, .n = N, .k = K};
    part.qweight.data = (fmk_buffer){.handle = (uintptr_t)blocks, .size = size};
    fmk_weight_desc weight_desc = {.struct_size = sizeof weight_desc, .parts = &part, .num_parts = 1};
    fmk_weight *weight;
    check(fmk_weight_create(&weight, queue, &weight_desc), "weight_create");
    check(fmk_weight_ready(weight, 1), "weight_ready");
    free(blocks);

    /* What a call looks like, with as many tokens as there can be, and all that it needs of the host. */
    fmk_buffer device_m = device_buffer(sizeof(int32_t));
    fmk_linear_args args = {.struct_size = sizeof args,
                            .m = MOST_TOKENS,
                            .in_type = FMK_F32,
                            .out_type = FMK_F32,
                            .in = device_buffer(sizeof in),
                            .out = device_buffer(sizeof out),
                            .m_dev = device_m};
    uint64_t least, best;
    check(fmk_workspace_size(weight, &args, &least, &best), "workspace_size");
    args.workspace = device_buffer(best ? best : 256);
    check(fmk_prepare(queue, weight, &args), "prepare");

    /* From here on a call only enqueues, so that it can be captured. */
    CUgraph graph;
    CUgraphExec replay;
    check_cuda(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL), "cuStreamBeginCapture");
    check(fmk_linear(queue, weight, &args), "linear");
    check_cuda(cuStreamEndCapture(stream, &graph), "cuStreamEndCapture");
    check_cuda(cuGraphInstantiate(&replay, graph, 0), "cuGraphInstantiate");

    /* What the result should be: plain loops over the dequantized weight. */
    fmk_buffer device_w = device_buffer(sizeof w);
    check(fmk_weight_dequantize(queue, weight, 0, &device_w, FMK_F32, 0), "weight_dequantize");
    check_cuda(cuMemcpyDtoHAsync(w, device_w.handle, sizeof w, stream), "cuMemcpyDtoHAsync");
    check_cuda(cuStreamSynchronize(stream), "cuStreamSynchronize");

    /* For every batch of tokens: their number is read on the device. */
    double worst = 0;
    for (int32_t m = 1; m <= MOST_TOKENS; m += MOST_TOKENS - 1) {
        for (int i = 0; i < m * K; i++)
            in[i] = random_value();
        check_cuda(cuMemcpyHtoDAsync(device_m.handle, &m, sizeof m, stream), "cuMemcpyHtoDAsync");
        check_cuda(cuMemcpyHtoDAsync(args.in.handle, in, sizeof in, stream), "cuMemcpyHtoDAsync");
        check_cuda(cuGraphLaunch(replay, stream), "cuGraphLaunch");
        check_cuda(cuMemcpyDtoHAsync(out, args.out.handle, sizeof out, stream), "cuMemcpyDtoHAsync");
        check_cuda(cuStreamSynchronize(stream), "cuStreamSynchronize");

        double error = 0, norm = 0;
        for (int i = 0; i < m * N; i++) {
            double want = 0;
            for (int k = 0; k < K; k++)
                want += (double)in[i / N * K + k] * (double)w[i % N * K + k];
            error += pow((double)out[i] - want, 2);
            norm += pow(want, 2);
        }
        printf("%d tokens: relative error %.2g\n", m, sqrt(error / norm));
        worst = fmax(worst, sqrt(error / norm));
    }

    /* The weight's memory goes when the stream is done with it. */
    cuGraphExecDestroy(replay);
    cuGraphDestroy(graph);
    fmk_weight_destroy(weight, queue);
    fmk_queue_destroy(queue);
    fmk_context_destroy(ctx);
    cuMemFree(device_m.handle);
    cuMemFree(device_w.handle);
    cuMemFree(args.in.handle);
    cuMemFree(args.out.handle);
    cuMemFree(args.workspace.handle);
    cuStreamDestroy(stream);
    cuDevicePrimaryCtxRelease(device);
    return worst < 1e-5 ? 0 : 1;
}
