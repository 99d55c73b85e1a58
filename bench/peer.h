/* peer.h - another implementation of the same product, to be timed beside ours in the same process.
 *
 *     out[m][n] = sum_k in[m][k] * W[n][k]
 *
 * A peer is a shared object given to a benchmark on its command line (`bench_cpu --peer ./ggml.so`). It
 * exports one function, bench_peers, and hides everything else it is made of. It is written by whoever wants
 * the comparison, and built from the other project's own sources; bench/peers.md shows how.
 *
 * Errors    A function that answers an int answers 0 for success. One that can fail writes a sentence to
 *           `error` and leaves nothing behind. A peer that cannot do something refuses; it never takes a
 *           slower way in secret.
 * Threads   One thread calls all functions of a peer.
 * Rows      in and out are contiguous, row-major, aligned to 256 bytes.
 */
#ifndef BENCH_PEER_H
#define BENCH_PEER_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { BENCH_PEER_VERSION = 1 };

enum { BENCH_PEER_HOST = 0, BENCH_PEER_CUDA = 1 };

/* Where the peer is to work. */
struct bench_peer_device {
    int32_t threads; /* HOST: that multiply, the calling one included */
    int32_t index;   /* CUDA: of the device, whose primary context is current in every call */
};

/* A matrix as its file has it, in host memory; every peer gets the same bytes. */
struct bench_peer_source {
    /* "q4_k", "q6_k"      ggml blocks [n][k / 256]
     * "f32", "f16", "bf16" [n][k]
     * "int4"              GPTQ v1, symmetric (zero 8), without act-order: qweight i32 [k / 8][n], scales f16
     *                     [k / group_size][n]
     * "int4_asym"         likewise, and qzeros i32 [k / group_size][n / 8]: one less than the zero points
     * "int4_act_order"    "int4", and g_idx i32 [k]: the group of each k */
    const char *format;
    int64_t n, k;
    int32_t group_size;                    /* int4; else 0 */
    const void *qweight, *scales, *qzeros; /* NULL = the format has none */
    uint64_t qweight_bytes, scales_bytes, qzeros_bytes;
    const int32_t *g_idx;
};

/* One product. */
struct bench_peer_call {
    int64_t m;
    const char *type; /* of in and out: "f32", "f16" or "bf16" */
    const void *in;   /* [m][k]; CUDA: memory of the device, as is out */
    void *out;        /* [m][n] */
    void *stream;     /* CUDA: the CUstream to enqueue on, and nowhere else; HOST: NULL */
};

struct bench_peer {
    uint32_t version;  /* BENCH_PEER_VERSION */
    int32_t kind;      /* BENCH_PEER_HOST or BENCH_PEER_CUDA */
    const char *name;  /* one word, unique among all that are compared: "ggml.repack" */
    const char *about; /* one line: the project, its commit, how it was compiled */

    /* The peer's state: threads, handles, workspace. NULL = refused. */
    void *(*open)(const struct bench_peer_device *device, char *error, size_t cap);
    void (*close)(void *peer);

    /* A weight of its own, ready to be multiplied by when this returns (CUDA: once the device is idle). It
     * may not refer to `source` afterwards. Several are alive at once. NULL = refused. */
    void *(*create)(void *peer, const struct bench_peer_source *source, char *error, size_t cap);
    void (*destroy)(void *weight);
    uint64_t (*bytes)(const void *weight); /* that a product of one row reads of it; or NULL = not known */

    /* Whatever calls like this one, on this weight, do not have to do each time: memory, choice of a kernel.
     * Not timed. Calls with another weight or m may be prepared, and run, before and after. */
    int32_t (*prepare)(void *weight, const struct bench_peer_call *call, char *error, size_t cap);
    /* HOST: done when this returns. CUDA: only enqueues, so that it can be captured in a graph. m and type
     * have been prepared; in, out and stream may differ from what prepare was told. Not 0 = refused, without
     * a sentence. */
    int32_t (*run)(void *weight, const struct bench_peer_call *call);

    /* Somebody else is timed next: threads that wait for work should leave their cores. Not timed, and undone
     * by the next run. Or NULL. */
    void (*rest)(void *peer);
    /* The kernel that such a call runs, in the peer's words, valid until the next call of this; or NULL. */
    const char *(*kernel)(void *weight, const struct bench_peer_call *call);
};

/* Ends with NULL. Answers NULL itself where it does not know that version. */
typedef const struct bench_peer *const *bench_peers_function(uint32_t version);

#ifdef BENCH_PEER_IMPLEMENTATION /* defined by a peer's own source */
__attribute__((visibility("default"))) bench_peers_function bench_peers;
#endif

#ifdef __cplusplus
}
#endif
#endif
