/* ferrumk.h - linear projections over quantized LLM weights.
 *
 *     out[m][n] = act( sum_k in[m][k] * W[n][k]  + bias[n] + addend[m][n] ) * pair_weight[m]
 *
 * The engine owns streams, activations and scheduling. This library owns the weight bytes and the
 * fastest correct way to multiply by them.
 *
 * Handles   Reference counted: a child keeps its parent alive, so handles may be destroyed in any
 *           order. Destroying NULL does nothing. A handle is destroyed once by whoever created it.
 * Errors    Every call that can fail answers an fmk_status, 0 being success. fmk_last_error() is the
 *           sentence for the calling thread's last failure. A failed call leaves nothing half-made:
 *           what it would have written through a handle pointer is set to NULL.
 * Threads   context, weight, checkpoint and model may be used from any number of threads at once.
 *           A queue, and a workspace, belong to one thread at a time.
 * Structs   A struct that begins with struct_size can grow. Zero it, set struct_size = sizeof, fill in.
 *           Zero means the default wherever a field's comment does not say that it is required. Of a
 *           larger input than this library knows, the unknown tail must be zero. Of an output the
 *           smaller of both sizes is written, and struct_size is set to what was written.
 *           Structs without struct_size never change. What a struct points to is read during the call
 *           unless its comment says otherwise.
 * Units     Sizes and offsets in bytes, strides in elements, matrices row-major. K is in_features, N is
 *           out_features, M is the number of activation rows (tokens).
 * Numbers   float means IEEE binary32; f16 is binary16; bf16 is the upper half of a binary32.
 */
#ifndef FERRUMK_H
#define FERRUMK_H

#include <stddef.h>
#include <stdint.h>

#ifndef FMK_API
#define FMK_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* The version this header describes; fmk_version() answers for the library that was loaded. Within
 * one FMK_VERSION_MAJOR a newer library serves programs built with an older header. */
#define FMK_VERSION_MAJOR 0
#define FMK_VERSION_MINOR 1
#define FMK_VERSION_PATCH 0

typedef struct fmk_context fmk_context;       /* one device of one backend */
typedef struct fmk_queue fmk_queue;           /* an order of execution on a context */
typedef struct fmk_weight fmk_weight;         /* immutable; merged projections, a stack of experts */
typedef struct fmk_checkpoint fmk_checkpoint; /* a mapped model file or directory */
typedef struct fmk_model fmk_model;           /* a whole model's weights by layer and role */

/* ---- numbers -------------------------------------------------------------------------------- */

typedef int32_t fmk_status;
enum {
    FMK_OK = 0,
    FMK_EINVAL = -1,       /* an argument is wrong; the sentence names it */
    FMK_ENOMEM = -2,       /* an allocator, the caller's or the C library's, answered no */
    FMK_EUNSUPPORTED = -3, /* well-formed, but no kernel, format or backend here serves it */
    FMK_ENODEVICE = -4,    /* the backend or device asked for is not present */
    FMK_EFORMAT = -5,      /* the bytes of a file or tensor contradict their own description */
    FMK_EIO = -6,          /* the operating system refused to open, read or map a file */
    FMK_EDEVICE = -7,      /* a device call failed; the context is still usable */
    FMK_EWORKSPACE = -8,   /* workspace smaller than `least` of fmk_workspace_size */
    FMK_ENOTFOUND = -9,    /* no tensor, layer or role of that name */
    FMK_ECANCELED = -10,   /* a progress callback answered non-zero */
    FMK_ELOST = -11,       /* the context is dead: destroy it and make another */
    FMK_EFORKED = -12,     /* the context was made before fork() and this is the child */
    FMK_EAGAIN = -13,      /* not ready yet */
    FMK_ENOTPREPARED = -14 /* call fmk_prepare first */
};

typedef int32_t fmk_backend;
enum {
    FMK_BACKEND_AUTO = 0, /* the fastest one present */
    FMK_BACKEND_CPU = 1,
    FMK_BACKEND_CUDA = 2,
    FMK_BACKEND_VULKAN = 3
    /* 4 and 5 are reserved for METAL and HIP */
};

/* How the bytes of a weight lie in memory. docs/formats.md describes each, byte by byte. */
typedef int32_t fmk_format;
enum {
    FMK_FORMAT_DENSE = 1,   /* qweight: f32, f16 or bf16 [N][K] */
    FMK_FORMAT_GPTQ = 2,    /* AutoGPTQ "gptq": stored zero point is one less than the real one */
    FMK_FORMAT_GPTQ_V2 = 3, /* "gptq_v2": zero point stored as it is */
    FMK_FORMAT_MARLIN = 4,  /* IST-DASLab Marlin checkpoint: B, s */
    FMK_FORMAT_Q4_K = 5,    /* ggml super-blocks of 256 weights in 144 bytes */
    FMK_FORMAT_Q6_K = 6,    /* ggml super-blocks of 256 weights in 210 bytes */
    FMK_FORMAT_AWQ = 7,     /* recognised in checkpoints, refused by name */
    FMK_FORMAT_PACKED = 8   /* what fmk_weight_export wrote: qweight is those bytes */
};

typedef int32_t fmk_dtype;
enum { FMK_F16 = 1, FMK_BF16 = 2, FMK_F32 = 3, FMK_I32 = 4, FMK_U8 = 5 };

typedef int32_t fmk_memory;
enum { FMK_MEM_HOST = 0, FMK_MEM_HOST_PINNED = 1, FMK_MEM_DEVICE = 2 };

/* Gate/up activations: out = act(gate) * up, n/2 wide. They need a weight made with FMK_WEIGHT_GLU; with
 * NONE such a weight gives gate and up side by side, n wide. */
typedef int32_t fmk_act;
enum {
    FMK_ACT_NONE = 0,
    FMK_ACT_SILU_MUL = 1,      /* gate * sigmoid(gate) * up */
    FMK_ACT_GELU_TANH_MUL = 2, /* gelu_tanh(gate) * up */
    FMK_ACT_SWIGLU_CLAMP = 3   /* g = min(gate, limit), u = clamp(up, +-limit):
                                  g * sigmoid(alpha * g) * (u + 1) */
};

typedef int32_t fmk_route;
enum {
    FMK_ROUTE_NONE = 0,   /* all rows go to one expert: fmk_routing.expert */
    FMK_ROUTE_SORTED = 1, /* rows lie grouped by expert: offsets, and pairs unless gathered already */
    FMK_ROUTE_IDS = 2,    /* ids[token][slot] names the expert */
    FMK_ROUTE_BATCH = 3   /* every expert has its own m rows of in and out; no addend, no pair weights */
};

/* fmk_weight_desc.flags */
enum {
    FMK_WEIGHT_BORROW = 1, /* keep using the source bytes where a kernel can: they must outlive the
                              weight (or belong to `source`). Bytes no kernel can use are copied. CUDA:
                              used are dense and PACKED bytes in device memory. Vulkan: all but GPTQ and
                              Marlin, in device memory or where the driver takes it the host's */
    FMK_WEIGHT_GLU = 2     /* two parts of equal n: parts[0] is gate, parts[1] is up */
};

/* fmk_linear_args.flags */
enum {
    FMK_LINEAR_PDL = 1, /* CUDA: may begin, and fetch weights, while the kernel before it on the stream is
                           still running (programmatic dependent launch): that kernel must not write the
                           weight. Elsewhere it does nothing */
    FMK_LINEAR_BATCH_INVARIANT = 2, /* an output row's bits depend neither on m nor on its place */
    /* Many rows may be multiplied less exactly where that is faster, unless EXACT or BATCH_INVARIANT is
     * asked for, too. CPU with AMX: K-quants and INT4, from 64 rows an expert on average, as int8 times int8,
     * both with a step for every 256 k, relative L2 1.1e-2 with N(0, 1) activations, 3.3e-2 where 1% of the
     * channels are 50 times as large; dense weights, from 16 rows on, as bf16, 3e-3. Vulkan without
     * cooperative matrices: sums in f16, some products at a time, 1e-3. Elsewhere it does nothing */
    FMK_LINEAR_FAST_REDUCE = 4,
    FMK_LINEAR_EXACT = 8,         /* no rounding of activations below float: relative L2 <= 1e-6 */
    FMK_LINEAR_REDUCE_TOP_K = 16, /* out has one row per token: the sum over its top_k pairs, without
                                     the skipped ones; 0 where all are */
    FMK_LINEAR_REFERENCE = 32     /* plain loops with double accumulators: slow, for checking */
};

/* ---- embedded structs: these never change ---------------------------------------------------- */

/* Memory. CPU: `handle` is an address. CUDA: a CUdeviceptr. Vulkan: a VkBuffer, made with
 * VK_BUFFER_USAGE_SHADER_DEVICE_ADDRESS_BIT and bound to memory that has it too. The bytes begin at
 * handle + offset. `size` counts from there; 0 = not told, and then not checked. handle 0 = absent. */
typedef struct {
    uint64_t handle, offset, size;
} fmk_buffer;

/* A contiguous tensor. With experts, expert e begins expert_stride * e bytes later. */
typedef struct {
    fmk_buffer data;
    uint64_t expert_stride; /* bytes; 0 = there is no expert dimension */
    fmk_dtype dtype;        /* 0 = what the format prescribes */
    fmk_memory memory;
} fmk_tensor;

/* ---- weights: descriptors -------------------------------------------------------------------- */

/* One projection as it lies in a checkpoint, and which rectangle of it to keep. */
typedef struct {
    uint32_t struct_size;
    fmk_format format;      /* required */
    int64_t n, k;           /* required: out_features and in_features of the whole tensor. PACKED: 0, or
                               what the packed bytes must say; of the rest it takes qweight alone */
    int64_t n_begin, n_end; /* the shard to keep, n_begin <= row < n_end; n_end 0 = n. Uneven is fine */
    int64_t k_begin, k_end; /* likewise along K. K-quants: multiples of 256. Marlin: of 16. Shards of
                               act-order weights keep every scale row that they touch */
    int32_t group_size;     /* GPTQ, Marlin: required. -1 = one group of K, else >= 8. K need not be a
                               multiple. Other formats: 0 */
    int32_t zero_point;     /* GPTQ: 0 = settle it from the data (see fmk_part_info), 1 = stored + 1,
                               2 = as stored */
    int32_t symmetric;      /* GPTQ: what the checkpoint declares: 1 yes, -1 no, 0 not told */
    int32_t reserved;       /* 0 */
    fmk_tensor qweight;     /* required. DENSE: dtype F32, F16 or BF16, [n][k]. GPTQ: i32 [k/8][n].
                               MARLIN: i32 [k/16][2n]. Q4_K, Q6_K: blocks [n][k/256] */
    fmk_tensor scales;      /* GPTQ: f16, bf16 or f32 [groups][n]. MARLIN: f16, bf16 [groups][n] */
    fmk_tensor qzeros;      /* GPTQ: i32 [groups][n/8] (n rounded up to 8); absent = symmetric, zero 8 */
    fmk_tensor g_idx;       /* GPTQ: i32 [k], group of each k, negative counts from the end; or absent */
    fmk_tensor bias;        /* f16, bf16 or f32 [n] of the whole tensor; or absent */
    fmk_tensor n_order;     /* i32 [n_end - n_begin], a permutation: row j of the result (and its bias) is
                               row n_order[j] of the shard, so that a producer can emit its consumer's
                               act-order; or absent */
} fmk_part;

/* A weight: parts concatenated along N (q, k, v; gate, up), each with its own format. */
typedef struct {
    uint32_t struct_size;
    uint32_t flags;         /* FMK_WEIGHT_* */
    const fmk_part *parts;  /* element i is at (const char *)parts + i * parts[0].struct_size; all have
                               that struct_size */
    int32_t num_parts;      /* required, 1..64 */
    int32_t num_experts;    /* 0 = dense */
    int32_t apply_bias;     /* 0 = only where k_begin is 0 (so a sum over K shards adds it once);
                               1 = always, -1 = never */
    int32_t reserved;       /* 0 */
    fmk_buffer storage;     /* memory for the packed bytes, fmk_weight_storage says how much; it must
                               outlive the weight. handle 0 = the context's allocator. For an engine that
                               manages buffers itself, this is the repack: from any source, by the device */
    fmk_checkpoint *source; /* kept open while the weight borrows from it; or NULL */
    int32_t (*progress)(void *user, uint64_t done, uint64_t total); /* bytes; non-zero cancels. Called
                                from the calling thread, done never less than before and total at the
                                end; not called where all is borrowed */
    void *progress_user;
} fmk_weight_desc;

typedef struct {
    uint32_t struct_size;
    int32_t glu, borrowed; /* 1 or 0; borrowed: some of the source bytes are still in use */
    int32_t num_parts, num_experts, act_order;
    int64_t n, k;         /* of the result: after shards and concatenation */
    uint64_t bytes;       /* read by one M = 1 call of one expert, times the experts: the packed size
                             and what is borrowed */
    uint64_t packed_size; /* what fmk_weight_export writes */
    uint64_t layout_id;   /* names the packed layouts and their version; the key for a cache of
                             exported bytes. Never 0 */
} fmk_weight_info_t;

typedef struct {
    uint32_t struct_size;
    fmk_format format;
    int64_t n_offset;      /* first column of the output that this part makes */
    int64_t n, k;          /* of the shard */
    int32_t group_size;    /* 0 where the format has none */
    int32_t act_order;     /* 1: groups do not lie in runs along K */
    int32_t symmetric;     /* 1, or 0 */
    int32_t zero_declared; /* GPTQ: 1 or 2, from the format */
    int32_t zero_detected; /* 1 or 2 where all stored zeros are 7 or all are 8; 0 = cannot be told */
    int32_t zero_used;     /* 1 or 2 */
    int32_t zero_conflict; /* 1: declared and used differ */
    int32_t has_bias;
    const char *layout; /* name of the layout in memory; lives as long as the library */
} fmk_part_info;

/* ---- linear: descriptors --------------------------------------------------------------------- */

/* Which expert serves which row. A "pair" is token * top_k + slot. On the CPU wrong offsets and pairs are
 * refused. On a device they are read when the call executes: a pair that is out of range is skipped, offsets
 * are cut to the rows that there are, and of a pair that comes twice the row is undefined. */
typedef struct {
    uint32_t struct_size;
    fmk_route kind;
    int32_t top_k;       /* IDS, and SORTED with pairs: required, >= 1 */
    int32_t expert_base; /* IDS: the id of the weight's expert 0. Ids outside [expert_base, expert_base +
                            num_experts), and negative ones, are skipped: rows of skipped pairs are left
                            untouched */
    int32_t in_per_pair; /* 0: the input row of a pair is its token (gate/up); 1: the pair (down) */
    int32_t expert;      /* NONE: the expert of every row */
    int64_t expert_in_stride, expert_out_stride; /* BATCH: elements from one expert's first row to the
                                                    next one's. out: required, no row over another.
                                                    in: 0 = all experts read the same rows */
    fmk_buffer ids;                              /* IDS: i32 [m][top_k] */
    fmk_buffer offsets;      /* SORTED: i32 [num_experts + 1], ascending from 0: expert e serves sorted
                                rows offsets[e] .. offsets[e+1]-1 */
    fmk_buffer pairs;        /* SORTED: i32 [offsets[num_experts]], the pair of each sorted row, none
                                twice; absent = sorted row r reads in[r] and writes out[r] */
    fmk_buffer pair_weights; /* f32 [m * top_k], by pair, multiplies the output row (before the sum of
                                REDUCE_TOP_K); or absent. NONE, and SORTED without `pairs`: [m], by row */
} fmk_routing;

/* One call. Output rows: m (dense), the pair number (IDS, SORTED with pairs), the sorted row (SORTED
 * without), the token (REDUCE_TOP_K). */
typedef struct {
    uint32_t struct_size;
    uint32_t flags;              /* FMK_LINEAR_* */
    int64_t m;                   /* tokens; SORTED without pairs: rows; BATCH: rows of each expert. 0 is a
                                    call that does nothing, whatever buffers it has */
    fmk_dtype in_type, out_type; /* required: F16, BF16 or F32 */
    fmk_dtype addend_type;       /* required with addend */
    fmk_act act;
    float act_alpha, act_limit; /* SWIGLU_CLAMP; 0 = 1.702 and 7 */
    int64_t in_stride;          /* elements from row to row; 0 = k */
    int64_t out_stride;         /* 0 = n, or n/2 with a gate/up activation */
    int64_t addend_stride;      /* 0 = the addend's width */
    fmk_buffer in;              /* required: [rows][k] */
    fmk_buffer out;             /* required: must not overlap what the call reads (but see addend; rows of
                                   `in` and `out` may lie between each other) nor the workspace */
    fmk_buffer addend;          /* a residual or LoRA delta, n wide, one row per output row, added before
                                   the activation; may be `out` itself when types and strides agree.
                                   REDUCE_TOP_K: one row per token, out's width, added to the sum */
    fmk_buffer in_rows;         /* i32 [m]: input row r is in[in_rows[r]] (last tokens for lm_head); with
                                   routing NULL or NONE; entries must be >= 0 and within `in`. Others are
                                   refused on the CPU; on a device, where they are read when the call
                                   executes, a negative one, or one past the end of an `in` whose size was
                                   told, stands for a row of zeros */
    fmk_buffer m_dev;           /* i32 read when the call executes, 0 <= *m_dev <= m: the m really there
                                   (a larger value counts as m, a negative one as 0); what belongs to the
                                   rest is neither read nor written */
    fmk_buffer workspace;       /* any content, aligned to 256, free for later work on the same queue; size
                                   required */
    const fmk_routing *routing; /* NULL = dense */
} fmk_linear_args;

typedef struct {
    uint32_t struct_size;
    fmk_dtype out_type; /* required: F16, BF16 or F32 */
    int64_t m;          /* number of ids */
    int64_t out_stride; /* elements; 0 = k */
    int32_t expert, reserved;
    fmk_buffer ids; /* i32 [m], each in 0..n-1; a row with any other id is zeroed */
    fmk_buffer out; /* [m][k] */
} fmk_rows_args;

/* ---- contexts: descriptors ------------------------------------------------------------------- */

/* The caller's memory. Both or neither; called from any thread, never by fmk_linear. `native_stream` is
 * the queue's native handle (NULL on the CPU). alloc answers 0 for "no". */
typedef struct {
    uint64_t (*alloc)(void *user, void *native_stream, uint64_t size, uint64_t align, fmk_memory memory);
    void (*release)(void *user, void *native_stream, uint64_t handle, uint64_t size, fmk_memory memory);
    void *user;
} fmk_allocator;

typedef struct {
    uint32_t struct_size;
    fmk_backend backend;
    int32_t device;          /* index among the backend's devices; the CPU has only 0 */
    int32_t cpu_threads;     /* size of the thread pool, the caller included; 0 = one per core this
                                process may run on; 1 = the calling thread alone. CUDA, Vulkan: for weights,
                                which it checks and brings to the device */
    const char *disable;     /* features to do without, separated by commas: "avx2,fma", "sm90,cublas";
                                an unknown name is ignored, so that one string serves every machine */
    fmk_allocator allocator; /* for weights; all zero = the library's own */
    /* Runs body(arg, 0..count-1), in any order on any threads, and returns when all are done: the
     * engine's own pool in place of ours. It may be called from several threads at once. */
    void (*parallel_for)(void *user, void (*body)(void *arg, int64_t i), void *arg, int64_t count);
    void *parallel_user;
    /* Told of conflicts and fallbacks while weights are made: level 0 note, 1 warning. Any thread. */
    void (*log)(void *user, int32_t level, const char *text);
    void *log_user;
    const void *native;         /* CUDA: a CUcontext, borrowed: it must outlive this context. NULL = the
                                   device's primary context, which the CUDA runtime uses too. Vulkan: an
                                   fmk_vulkan_device, read during the call, whose handles are borrowed;
                                   NULL = an instance and a device of the library's own. With native,
                                   `device` is not looked at. CPU: NULL */
    uint64_t staging_bytes;     /* CUDA, Vulkan: memory of the host through which weights are uploaded; 0 =
                                   64 MiB */
    const void *pipeline_cache; /* Vulkan: what fmk_context_pipeline_cache once gave, or NULL */
    uint64_t pipeline_cache_size;
} fmk_context_desc;

/* fmk_vulkan_device.extras: what the VkDevice was made with beyond what is required. */
enum {
    FMK_VULKAN_EXTERNAL_MEMORY_HOST = 1,  /* VK_EXT_external_memory_host: BORROW of host memory */
    FMK_VULKAN_SUBGROUP_SIZE_CONTROL = 2, /* VK_EXT_subgroup_size_control with its two features: faster */
    FMK_VULKAN_COOPERATIVE_MATRIX = 4,    /* likewise VK_NV_cooperative_matrix with its feature, shaderFloat16
                                             and vulkanMemoryModel; needs SUBGROUP_SIZE_CONTROL too */
    FMK_VULKAN_FLOAT16 = 8                /* likewise shaderFloat16 */
};

/* A Vulkan device. The VkInstance is of version 1.2 or later; the VkDevice has the features
 * bufferDeviceAddress, shaderInt64, storageBuffer16BitAccess and storageBuffer8BitAccess enabled. */
typedef struct {
    uint32_t struct_size;
    uint32_t queue_family;                /* of `queue`; it computes */
    uint32_t extras, reserved;            /* FMK_VULKAN_*; 0 */
    void (*get_instance_proc_addr)(void); /* the vkGetInstanceProcAddr to ask; NULL = libvulkan.so.1's */
    void *instance, *physical_device, *device, *queue; /* required */
    /* Called around every vkQueueSubmit to `queue`, from any thread; or both NULL: then nobody else submits
     * there while a call of the library runs. */
    void (*lock_queue)(void *user);
    void (*unlock_queue)(void *user);
    void *lock_user;
} fmk_vulkan_device;

typedef struct {
    uint32_t struct_size;
    fmk_backend backend;
    int32_t device, threads;
    uint64_t memory;           /* bytes of device memory (CPU: of physical memory) */
    uint64_t last_level_cache; /* bytes; 0 = unknown */
    char name[128];            /* of the device */
    char features[256];        /* in use, separated by commas, in the words of `disable` */
} fmk_context_info_t;

/* ---- library --------------------------------------------------------------------------------- */

/* MAJOR << 16 | MINOR << 8 | PATCH of the library that was loaded. */
FMK_API uint32_t fmk_version(void);
/* One line: version, backends built in, compiler. Lives as long as the library. */
FMK_API const char *fmk_build_info(void);
/* "FMK_EINVAL" and so on; "unknown status" for any other number. */
FMK_API const char *fmk_status_name(fmk_status status);
/* The sentence for this thread's last failed call; "" before the first. Valid until this thread's next
 * call that fails. */
FMK_API const char *fmk_last_error(void);

/* ---- context and queue ----------------------------------------------------------------------- */

/* desc NULL = all defaults. In a forked child every call that would work on a context of its parent answers
 * FMK_EFORKED. */
FMK_API fmk_status fmk_context_create(fmk_context **out, const fmk_context_desc *desc);
/* FMK_OK, FMK_ELOST or FMK_EFORKED; does not wait for anything. */
FMK_API fmk_status fmk_context_status(fmk_context *ctx);
FMK_API fmk_status fmk_context_info(fmk_context *ctx, fmk_context_info_t *out);
FMK_API void fmk_context_destroy(fmk_context *ctx);
/* Vulkan: the handles that the context works with, its own ones or those it was given: what buffers to give
 * it must be made of. Its own ones live as long as the context. */
FMK_API fmk_status fmk_context_vulkan(fmk_context *ctx, fmk_vulkan_device *out);
/* Vulkan: writes what the driver made of all pipelines so far to memory of `capacity` bytes, for
 * fmk_context_desc.pipeline_cache of a later run; *size is set to its bytes. data NULL asks for the size
 * alone. */
FMK_API fmk_status fmk_context_pipeline_cache(fmk_context *ctx, void *data, uint64_t capacity,
                                              uint64_t *size);

/* native: the stream to enqueue on, borrowed. CUDA: a CUstream of the context, never NULL (the default stream
 * is not used). Vulkan: a VkCommandBuffer that is being recorded, of any family that computes: calls record
 * into it, each between two barriers, so that they follow what is before them as on a stream; or NULL: each
 * call is submitted to the context's VkQueue (and, when 32 of the queue are in flight, first waits for the
 * oldest). CPU: NULL; a call is done when it returns. */
FMK_API fmk_status fmk_queue_create(fmk_queue **out, fmk_context *ctx, void *native);
/* Follow another stream from now on; allocates nothing. */
FMK_API fmk_status fmk_queue_rebind(fmk_queue *queue, void *native);
/* Returns when what was enqueued is done. Vulkan: what the queue submitted itself; of the caller's command
 * buffers the library knows no end. */
FMK_API fmk_status fmk_queue_wait(fmk_queue *queue);
FMK_API void fmk_queue_destroy(fmk_queue *queue);

/* ---- weight ---------------------------------------------------------------------------------- */

/* Bytes and alignment that the packed form of `desc` needs; 0 bytes when all of it is borrowed. Tensors in
 * device memory must have been written. */
FMK_API fmk_status fmk_weight_storage(fmk_context *ctx, const fmk_weight_desc *desc, uint64_t *size,
                                      uint64_t *align);
/* Validates everything, then packs. Sources must live until the weight is ready (on the CPU: until this
 * returns), and as long as the weight when it borrows. CUDA: packing is enqueued on the queue's stream, after
 * what is there (of a source in device memory, its kernels may be); calls on the same stream need not wait
 * for it, others wait by fmk_weight_ready. The stream must not be under capture. Vulkan: packed when this
 * returns; what is in device memory must have been written. */
FMK_API fmk_status fmk_weight_create(fmk_weight **out, fmk_queue *queue, const fmk_weight_desc *desc);
/* Another reference to the same weight, to be destroyed on its own. */
FMK_API fmk_status fmk_weight_retain(fmk_weight *weight);
/* FMK_OK, or FMK_EAGAIN while packing is under way and wait is 0. */
FMK_API fmk_status fmk_weight_ready(fmk_weight *weight, int32_t wait);
FMK_API fmk_status fmk_weight_info(const fmk_weight *weight, fmk_weight_info_t *out);
FMK_API fmk_status fmk_weight_part_info(const fmk_weight *weight, int32_t part, fmk_part_info *out);
/* Writes the packed bytes to host memory of `capacity` bytes; *size is set to what they need. host NULL
 * asks for the size alone. Re-import: one part of FMK_FORMAT_PACKED, qweight = those bytes with their
 * size, aligned to 128 when borrowed. The bytes belong to one layout_id and byte order. Waits for the
 * device; not while one of its streams is under capture. */
FMK_API fmk_status fmk_weight_export(fmk_weight *weight, void *host, uint64_t capacity, uint64_t *size);
/* W of one expert as [n][k]; out_stride 0 = k. Values are those of the formats' published formulas:
 * with out_type F32 bit for bit. */
FMK_API fmk_status fmk_weight_dequantize(fmk_queue *queue, const fmk_weight *weight, int32_t expert,
                                         const fmk_buffer *out, fmk_dtype out_type, int64_t out_stride);
/* Drops the caller's reference. queue: later work on it may reuse the memory; NULL: the caller vouches
 * that nothing in flight uses the weight. CUDA: the last reference gives an allocator of the caller's its
 * memory back at once, with the queue's stream; without one it waits for the queue. Vulkan: likewise, but the
 * caller's command buffers must be done. */
FMK_API void fmk_weight_destroy(fmk_weight *weight, fmk_queue *queue);

/* ---- linear ---------------------------------------------------------------------------------- */

/* Whether a weight made from `desc` could serve `args` on this context, without making it: no tensor is
 * read, data handles may be 0, and of the buffers in args only counts which are present. FMK_OK, or the
 * refusal that create or linear would give. Not for PACKED. */
FMK_API fmk_status fmk_can_run(fmk_context *ctx, const fmk_weight_desc *desc, const fmk_linear_args *args);
/* least: enough for the slowest legal plan; best: no faster plan wants more. Both hold for every m in
 * 1..args->m. Buffers in args are not looked at, other than which of them are present. */
FMK_API fmk_status fmk_workspace_size(const fmk_weight *weight, const fmk_linear_args *args, uint64_t *least,
                                      uint64_t *best);
/* Does all host-side set-up for calls of this weight, on this queue, like `max` with any m up to its own;
 * after it fmk_linear neither allocates nor waits for set-up. CUDA: loads kernels and makes the cuBLAS
 * handle; fmk_linear answers FMK_ENOTPREPARED where it was left out, and buffers that are given in `max` are
 * checked to be memory of the device. Vulkan: makes pipelines; likewise FMK_ENOTPREPARED. On the CPU there is
 * nothing to do and it only checks. */
FMK_API fmk_status fmk_prepare(fmk_queue *queue, const fmk_weight *weight, const fmk_linear_args *max);
/* Enqueues one projection. Never allocates, locks a global, or reads the environment. */
FMK_API fmk_status fmk_linear(fmk_queue *queue, const fmk_weight *weight, const fmk_linear_args *args);
/* W rows by id, dequantized: token embeddings from the weight that lm_head uses. */
FMK_API fmk_status fmk_rows(fmk_queue *queue, const fmk_weight *weight, const fmk_rows_args *args);
/* Groups m * top_k pairs by expert, stable: ids (its top_k, expert_base and ids) -> out->offsets
 * [num_experts + 1] and out->pairs (room for m * top_k), which must not overlap ids. Done once per layer,
 * used by gate/up and by down. Skipped ids are left out. */
FMK_API fmk_status fmk_route_sort(fmk_queue *queue, const fmk_routing *ids, int64_t m, int32_t num_experts,
                                  const fmk_routing *out);
/* Text: per part, the chosen kernel and each better one's objection; without a workspace in args, as if it
 * were large enough. Writes at most cap bytes with the final 0; *needed (may be NULL) is set to the bytes
 * that all of it takes. */
FMK_API fmk_status fmk_explain(const fmk_weight *weight, const fmk_linear_args *args, char *text, size_t cap,
                               size_t *needed);

/* ---- quantizers ------------------------------------------------------------------------------ */

typedef struct {
    uint32_t struct_size;
    fmk_format format;     /* required: Q4_K, Q6_K, GPTQ or GPTQ_V2 */
    int64_t n, k;          /* required. K-quants: k a multiple of 256. GPTQ: k and n multiples of 8 */
    int32_t group_size;    /* GPTQ: -1 or >= 8 */
    int32_t symmetric;     /* GPTQ: 1 = zero point 8, 0 = asymmetric */
    fmk_dtype in_type;     /* required: F32, F16 or BF16 */
    fmk_dtype scales_type; /* GPTQ: F16 (also 0) or BF16 */
    const void *in;        /* host [n][k] */
    int64_t in_stride;     /* elements; 0 = k */
    void *qweight, *scales, *qzeros; /* host outputs, in the file format; sizes by fmk_quantize_size */
} fmk_quantize_args;

/* Bytes of each output; 0 where the format has none. Pointers in args are not looked at. */
FMK_API fmk_status fmk_quantize_size(const fmk_quantize_args *args, uint64_t *qweight, uint64_t *scales,
                                     uint64_t *qzeros);
/* Round to nearest, with the scales (and minima) that a search over each block finds best. Uses the
 * context's threads; the result does not depend on them. A weight that is not finite is refused. */
FMK_API fmk_status fmk_quantize(fmk_context *ctx, const fmk_quantize_args *args);

/* ---- checkpoints ----------------------------------------------------------------------------- */

typedef int32_t fmk_container;
enum { FMK_CONTAINER_GGUF = 1, FMK_CONTAINER_SAFETENSORS = 2 };

typedef int32_t fmk_entry_kind;
enum {
    FMK_ENTRY_MATRIX = 1,     /* a projection or embedding: fmk_checkpoint_find describes it */
    FMK_ENTRY_VECTOR = 2,     /* anything else of f32, f16 or bf16: norms, biases of their own */
    FMK_ENTRY_UNSUPPORTED = 3 /* recognised, not readable here: format_name says what it is */
};

typedef struct {
    uint32_t struct_size;
    fmk_container container;
    int32_t num_files, num_entries;
    uint64_t bytes;           /* of all files */
    const char *architecture; /* general.architecture, or config.json's model_type; "" = not told. Lives,
                                 as quantization does, as long as the handle */
    const char *quantization; /* "gptq", "marlin", "q4_k_m" ...; "" = none declared */
} fmk_checkpoint_info_t;

/* One projection (all tensors of its group) or one plain tensor. Strings live as long as the handle. */
typedef struct {
    uint32_t struct_size;
    fmk_entry_kind kind;
    fmk_format format;       /* 0 where unsupported */
    fmk_dtype dtype;         /* dense and vectors; scales' type for GPTQ and Marlin */
    const char *name;        /* without .weight, .qweight or .B */
    const char *format_name; /* "Q4_K", "GPTQ", "F16", "Q5_0" ... */
    int64_t n, k;            /* vectors: n elements, k = 1 */
    int32_t num_experts;     /* 0 = not stacked */
    int32_t group_size;      /* 0 where the format has none */
    int32_t act_order, symmetric, zero_declared, zero_detected; /* as in fmk_part_info */
    uint64_t bytes;
} fmk_entry;

/* path (UTF-8): a .gguf file (any one of a split set), a .safetensors file, a *.index.json, or a
 * directory that holds one of these. Reads headers and configs; weights are mapped, not read. */
FMK_API fmk_status fmk_checkpoint_open(fmk_checkpoint **out, const char *path);
FMK_API fmk_status fmk_checkpoint_info(fmk_checkpoint *c, fmk_checkpoint_info_t *out);
/* index in 0..num_entries-1, sorted as in the files. */
FMK_API fmk_status fmk_checkpoint_entry(fmk_checkpoint *c, int32_t index, fmk_entry *out);
/* A matrix by name, with or without .weight, .qweight or .B, as a part whose tensors point into the map;
 * its struct_size must be set. num_experts may be NULL. The caller may add a shard before creating. */
FMK_API fmk_status fmk_checkpoint_find(fmk_checkpoint *c, const char *name, fmk_part *out,
                                       int32_t *num_experts);
/* Finds `count` matrices and makes one weight of them, concatenated along N; flags, apply_bias, storage
 * and progress are taken from desc (NULL = defaults), which must have no parts. */
FMK_API fmk_status fmk_checkpoint_load(fmk_weight **out, fmk_queue *queue, fmk_checkpoint *c,
                                       const char *const *names, int32_t count, const fmk_weight_desc *desc);
/* A vector by name, as float. *count is set to its length; out NULL asks for that alone. */
FMK_API fmk_status fmk_checkpoint_vector(fmk_checkpoint *c, const char *name, float *out, int64_t capacity,
                                         int64_t *count);
/* Weights that borrow, and models, keep the map alive. */
FMK_API void fmk_checkpoint_close(fmk_checkpoint *c);

/* ---- models ---------------------------------------------------------------------------------- */

typedef int32_t fmk_role;
enum {
    FMK_ROLE_EMBEDDING = 1, /* layer is ignored for these three */
    FMK_ROLE_FINAL_NORM = 2,
    FMK_ROLE_LM_HEAD = 3, /* the embedding's weight where they are tied */
    FMK_ROLE_INPUT_NORM = 4,
    FMK_ROLE_QKV = 5, /* q, k and v as one weight */
    FMK_ROLE_Q_NORM = 6,
    FMK_ROLE_K_NORM = 7,
    FMK_ROLE_O = 8,
    FMK_ROLE_POST_NORM = 9, /* after attention, before the feed-forward */
    FMK_ROLE_GATE_UP = 10,  /* made with FMK_WEIGHT_GLU */
    FMK_ROLE_DOWN = 11
};

typedef struct {
    uint32_t struct_size;
    int32_t num_layers, num_heads, num_kv_heads;
    int64_t hidden, intermediate, head_dim, vocab;
    float rms_eps, rope_theta;
    int32_t tied_embeddings;  /* 1: lm_head is the embedding */
    int32_t rope_interleaved; /* 1: q and k rows are ordered for rotation of neighbours (GGUF "llama"),
                                 0: for rotation of halves */
    const char *architecture; /* "llama", "qwen2", "qwen3"; lives as long as the model */
} fmk_model_info_t;

/* All weights of a Llama, Qwen2 or Qwen3 family checkpoint, whichever naming it uses. From desc (NULL =
 * defaults) come flags (BORROW), and progress over the whole model. */
FMK_API fmk_status fmk_model_load(fmk_model **out, fmk_queue *queue, fmk_checkpoint *c,
                                  const fmk_weight_desc *desc);
FMK_API fmk_status fmk_model_info(fmk_model *model, fmk_model_info_t *out);
/* The weight of a role; it lives as long as the model: fmk_weight_retain to keep it longer. */
FMK_API fmk_status fmk_model_weight(fmk_model *model, int32_t layer, fmk_role role, fmk_weight **out);
/* A norm; *data lives as long as the model. FMK_ENOTFOUND where the family has none (Q_NORM in Llama). */
FMK_API fmk_status fmk_model_vector(fmk_model *model, int32_t layer, fmk_role role, const float **data,
                                    int64_t *count);
FMK_API void fmk_model_destroy(fmk_model *model);

#ifdef __cplusplus
}
#endif
#endif
