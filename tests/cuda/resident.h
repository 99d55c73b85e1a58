/* For tests of the CUDA backend: a projection whose activations, result and workspace lie in the device's
 * memory for as long as it lives, so that it can be captured, repeated and run beside others. */
#ifndef RESIDENT_H
#define RESIDENT_H

#include "calls.h"

struct resident {
    struct ref_weight part;
    fmk_weight *weight;
    fmk_linear_args args; /* m, types, in, out and workspace are set; prepared by nobody */
    struct matrix in;     /* the host's copy */
    size_t out_size;
};

/* Gives the args a workspace of the best size. */
static inline void resident_workspace(struct resident *r) {
    uint64_t least, best;
    OK(fmk_workspace_size(r->weight, &r->args, &least, &best));
    assert_true(least <= best);
    r->args.workspace = (fmk_buffer){.handle = gpu_alloc(best), .size = best};
    gpu_fill(r->args.workspace.handle, 0xff, best);
}

static inline struct resident resident_of(struct bench *b, const struct ref_spec *spec, fmk_dtype in_type,
                                          fmk_dtype out_type, int64_t m, uint32_t flags,
                                          struct ref_rng *rng) {
    struct resident r = {.in = random_matrix(in_type, m, spec->k, spec->k, rng)};
    ref_make(&r.part, spec, rng);
    r.weight = make_weight(b, &r.part, 1, 0);
    r.out_size = (size_t)(m * spec->n * ref_size(out_type));
    r.args = (fmk_linear_args){.struct_size = sizeof r.args,
                               .flags = flags,
                               .m = m,
                               .in_type = in_type,
                               .out_type = out_type,
                               .in = {.handle = gpu_alloc(r.in.size), .size = r.in.size},
                               .out = {.handle = gpu_alloc(r.out_size), .size = r.out_size}};
    gpu_write(r.args.in.handle, r.in.data, r.in.size);
    gpu_fill(r.args.out.handle, POISON, r.out_size);
    if (!spec->experts) /* else it depends on the routing */
        resident_workspace(&r);
    return r;
}

static inline struct ref_spec sample_spec(int sample, int64_t n, int64_t k) {
    struct ref_spec spec = samples[sample].spec;
    spec.n = n;
    spec.k = k;
    return spec;
}

/* The bytes of `out` now; to be freed. */
static inline uint8_t *resident_out(const struct resident *r) {
    uint8_t *bytes = malloc(r->out_size);
    assert_non_null(bytes);
    gpu_read(bytes, r->args.out.handle, r->out_size);
    return bytes;
}

static inline void assert_out_is(const struct resident *r, const uint8_t *want, const char *what) {
    uint8_t *bytes = resident_out(r);
    for (size_t i = 0; i < r->out_size; i++)
        if (bytes[i] != want[i])
            fail_msg("%s: byte %zu of %zu is %02x, want %02x", what, i, r->out_size, bytes[i], want[i]);
    free(bytes);
}

static inline void free_resident(struct resident *r, struct bench *b) {
    gpu_wait(test_stream());
    gpu_free(r->args.in.handle);
    gpu_free(r->args.out.handle);
    gpu_free(r->args.workspace.handle);
    fmk_weight_destroy(r->weight, r->weight ? b->queue : NULL);
    free_matrix(&r->in);
    ref_free(&r->part);
}

/* ---- graphs ---- */

enum { CAPTURE_GLOBAL = 0 }; /* the mode that forbids most: nothing unsafe on any thread */

static inline void capture_begin(void *stream) {
    CUDA(CtxSetCurrent(primary_context()));
    CUDA(StreamBeginCapture(stream, CAPTURE_GLOBAL));
    CUDA(CtxSetCurrent(NULL)); /* as the library is called elsewhere */
}

/* An instance to be replayed. */
static inline void *capture_end(void *stream) {
    void *graph, *instance;
    CUDA(CtxSetCurrent(primary_context()));
    CUDA(StreamEndCapture(stream, &graph));
    CUDA(GraphInstantiate(&instance, graph, 0));
    CUDA(GraphDestroy(graph));
    CUDA(CtxSetCurrent(NULL));
    return instance;
}

static inline void replay(void *instance, void *stream) {
    CUDA(CtxSetCurrent(primary_context()));
    CUDA(GraphLaunch(instance, stream));
    CUDA(StreamSynchronize(stream));
    CUDA(CtxSetCurrent(NULL));
}

static inline void free_instance(void *instance) {
    CUDA(CtxSetCurrent(primary_context()));
    CUDA(GraphExecDestroy(instance));
    CUDA(CtxSetCurrent(NULL));
}

#endif
