/* One linear call on Vulkan, slab by slab: list the rows by expert, gather them, multiply, join, reduce. */
#include "linear.h"

#include "../abi.h"
#include "../error.h"
#include "commands.h"
#include "plan.h"

enum {
    GEMV_THREADS = 128,
    GEMV_GROUPS = 256,        /* workgroups at least, where rows can be shared by more invocations */
    GEMV_MOST_LANES = 32,     /* of these */
    GEMV_STAGE = 2048,        /* k of the activations in shared memory at most, */
    GEMV_STAGE_TOKENS = 1024, /* of several tokens, */
    GEMV_SHARED = 49152,      /* and bytes of them */
    GEMM_THREADS = 64,        /* with the smallest tile: so many tokens, of routed calls */
    GEMM_ROWS = 64,
    GEMM_TOKENS = 32,
    LARGE_THREADS = 256, /* with the largest, for more tokens than half of it has */
    LARGE_ROWS = 128,
    LARGE_TOKENS = 128,
    LARGE_SHARED = 32768, /* bytes of shared memory that it takes */
    COOPMAT_ROWS = 128,   /* of a tile of matrices */
    COOPMAT_LANES = 32,   /* and of a subgroup */
    HALF_SHARED = 32772,  /* bytes of shared memory that the largest tile takes in f16 */
    FEW_THREADS = 128,
    FEW_ROWS = 16,
    PLAIN_THREADS = 64,
    PLAIN_TOKENS = 8,
    ROWS_THREADS = 128, /* gather, glu, reduce */
    HALVE_THREADS = 512,
    ROUTE_THREADS = 128,
    MOST_GROUPS = 65535
};

/* What the steps of a slab have in common. Rows are numbered as the call numbers them; those of the
 * workspace's arrays begin with number `base`, or where they are routed with 0 or the first pair. */
struct slab {
    const struct fmk_vk_plan *plan;
    struct fmk_vk_order *order;
    const fmk_linear_args *args;
    uint64_t workspace;
    int64_t begin, end; /* units */
    int32_t expert;     /* BATCH: the slab's, else that of all rows */
};

static uint64_t address_of(fmk_buffer buffer) {
    return buffer.handle ? buffer.handle + buffer.offset : 0;
}

static uint64_t address(const void *at) {
    return (uint64_t)(uintptr_t)at;
}

static uint32_t groups_of(int64_t count, int64_t each) {
    return (uint32_t)fmk_min((count + each - 1) / each, MOST_GROUPS);
}

static int64_t first_pair(const struct slab *slab) {
    return slab->begin * slab->plan->call->rows_per_token;
}

static struct fmk_vk_kernel kernel_of(uint32_t module, uint32_t threads) {
    struct fmk_vk_kernel kernel = {.module = module};
    kernel.constants[FMK_VK_SPEC_THREADS] = threads;
    return kernel;
}

/* ---- routing ---- */

static fmk_status route(const struct slab *slab) {
    const struct fmk_vk_plan *plan = slab->plan;
    const struct fmk_call *call = plan->call;
    const fmk_routing *r = &call->routing;
    int64_t top_k = call->rows_per_token, limit = call->rows;
    if (r->pairs.handle && r->pairs.size)
        limit = fmk_min(limit, (int64_t)(r->pairs.size / 4));
    struct fmk_vk_kernel kernel = kernel_of(FMK_VK_ROUTE, ROUTE_THREADS);
    struct fmk_vk_route_args args = {
        .ids = r->kind == FMK_ROUTE_IDS ? address_of(r->ids) : 0,
        .offsets = r->kind == FMK_ROUTE_SORTED ? address_of(r->offsets) : 0,
        .pairs = r->kind == FMK_ROUTE_SORTED ? address_of(r->pairs) : 0,
        .m_dev = address_of(slab->args->m_dev),
        .lists = slab->workspace + plan->at_lists,
        .present = call->reduce ? slab->workspace + plan->at_present : 0,
        .counts = slab->workspace + plan->at_counts,
        .expert_base = r->expert_base,
        .experts = plan->w->num_experts,
        .top_k = (int32_t)top_k,
        .in_per_pair = r->in_per_pair || !call->pairs,
        .begin = (int32_t)(slab->begin * top_k),
        .end = (int32_t)(slab->end * top_k),
        .sorted_limit = (int32_t)limit,
        .capacity = (uint32_t)(plan->units * top_k),
        .num_tiles = (uint32_t)plan->num_tiles,
        .tile = (uint32_t)plan->tile,
    };
    return fmk_vk_dispatch(slab->order, &kernel, 1, 1, &args, sizeof args);
}

/* ---- gather ---- */

/* Whether the device's own conversion of f16 is known to keep subnormals. */
static bool native_half(const struct fmk_context *ctx) {
    return fmk_vulkan_of(ctx)->info.properties12.driverID == VK_DRIVER_ID_NVIDIA_PROPRIETARY;
}

/* Rows of `in` that there are, as far as the caller told. */
static uint32_t rows_of_in(const struct slab *slab) {
    const fmk_linear_args *a = slab->args;
    int64_t elements = (int64_t)(a->in.size / (uint64_t)fmk_dtype_size(a->in_type)), k = slab->plan->w->k;
    if (!a->in_rows.handle || !a->in.size)
        return INT32_MAX;
    return elements < k ? 0 : (uint32_t)fmk_min((elements - k) / a->in_stride + 1, INT32_MAX);
}

static uint64_t in_of(const struct slab *slab) {
    const fmk_routing *r = &slab->plan->call->routing;
    int64_t shift = r->kind == FMK_ROUTE_BATCH ? slab->expert * r->expert_in_stride : 0;
    return address_of(slab->args->in) + (uint64_t)(shift * fmk_dtype_size(slab->args->in_type));
}

/* Row 0 of a gathered form: rows are numbered as the call does, in lists as these do. */
static uint64_t form_row_zero(const struct slab *slab, const struct fmk_vk_form *form) {
    int64_t row = fmk_vk_form_row(slab->plan, form);
    return slab->workspace + form->at - (uint64_t)(slab->plan->routed ? 0 : slab->begin * row);
}

static fmk_status gather(const struct slab *slab, const struct fmk_vk_form *form) {
    const struct fmk_vk_plan *plan = slab->plan;
    const fmk_linear_args *a = slab->args;
    bool routed = plan->routed;
    struct fmk_vk_kernel kernel = kernel_of(routed ? FMK_VK_GATHER_ROUTED : FMK_VK_GATHER, ROWS_THREADS);
    struct fmk_vk_gather_args args = {
        .from = in_of(slab),
        .to = form_row_zero(slab, form),
        .in_rows = address_of(a->in_rows),
        .lists = routed ? slab->workspace + plan->at_lists : address_of(a->m_dev),
        .in_limit = rows_of_in(slab),
        .k = (uint32_t)plan->w->k,
        .width = (uint32_t)form->width,
        .in_stride = (uint32_t)a->in_stride,
        .out_stride = (uint32_t)form->width,
        .first = (uint32_t)slab->begin,
        .m = (uint32_t)slab->end,
        .num_tiles = routed ? (uint32_t)plan->num_tiles : 0,
        .types = FMK_VK_TYPES((uint32_t)a->in_type, 0u, 0u, (uint32_t)a->in_type, 0u),
    };
    if (form->index) {
        int64_t expert = routed ? 0 : slab->expert;
        args.k_index = address(form->index->k_index + expert * form->index->k_packed);
    }
    return fmk_vk_dispatch(slab->order, &kernel, groups_of(form->width / 2, ROWS_THREADS),
                           routed ? args.num_tiles : groups_of(slab->end - slab->begin, 1), &args,
                           sizeof args);
}

static fmk_status halve(const struct slab *slab, const struct fmk_vk_form *form) {
    const struct fmk_vk_plan *plan = slab->plan;
    const fmk_linear_args *a = slab->args;
    const struct fmk_context *ctx = slab->order->queue->ctx;
    const VkPhysicalDeviceLimits *limits = &fmk_vulkan_of(ctx)->info.properties.limits;
    bool large = limits->maxComputeWorkGroupInvocations >= HALVE_THREADS &&
                 limits->maxComputeWorkGroupSize[0] >= HALVE_THREADS;
    struct fmk_vk_kernel kernel = kernel_of(FMK_VK_HALVE, large ? HALVE_THREADS : ROWS_THREADS);
    kernel.constants[FMK_VK_SPEC_NATIVE_HALF] = native_half(ctx);
    struct fmk_vk_gather_args args = {
        .from = in_of(slab),
        .to = form_row_zero(slab, form),
        .in_rows = address_of(a->in_rows),
        .lists = address_of(a->m_dev),
        .in_limit = rows_of_in(slab),
        .k = (uint32_t)plan->w->k,
        .width = (uint32_t)form->width,
        .in_stride = (uint32_t)a->in_stride,
        .out_stride = (uint32_t)(fmk_vk_form_row(plan, form) / 2),
        .first = (uint32_t)slab->begin,
        .m = (uint32_t)slab->end,
        .types = FMK_VK_TYPES(0u, 0u, 0u, (uint32_t)a->in_type, 0u),
    };
    if (form->index) {
        args.k_index = address(form->index->k_index + slab->expert * form->index->k_packed);
        args.num_tiles = (uint32_t)form->index->k_packed;
    }
    return fmk_vk_dispatch(slab->order, &kernel, 1, groups_of(slab->end - slab->begin, 1), &args,
                           sizeof args);
}

/* ---- multiply ---- */

static int64_t column_of(const struct fmk_projection *w, int32_t p) {
    int64_t column = 0;
    while (p)
        column += w->parts[--p].n;
    return column;
}

/* Where results go: to the caller, or to the workspace, as pairs to be summed or as gate and up to be joined.
 */
struct target {
    uint64_t to, weights;
    int64_t stride; /* elements */
    fmk_dtype type;
};

static struct target final_target(const struct slab *slab) {
    const struct fmk_vk_plan *plan = slab->plan;
    const struct fmk_call *call = plan->call;
    const fmk_linear_args *a = slab->args;
    int64_t shift =
        call->routing.kind == FMK_ROUTE_BATCH ? slab->expert * call->routing.expert_out_stride : 0;
    struct target target = {
        .to = address_of(a->out) + (uint64_t)(shift * fmk_dtype_size(a->out_type)),
        .weights = address_of(call->routing.pair_weights),
        .stride = a->out_stride,
        .type = a->out_type,
    };
    if (call->reduce) {
        target.to = slab->workspace + plan->at_pairs - (uint64_t)(first_pair(slab) * call->width * 4);
        target.stride = call->width;
        target.type = FMK_F32;
    }
    return target;
}

static struct target sums_target(const struct slab *slab) {
    int64_t row = slab->plan->w->n;
    return (struct target){
        .to = slab->workspace + slab->plan->at_sums - (uint64_t)(first_pair(slab) * row * 4),
        .stride = row,
        .type = FMK_F32,
    };
}

static uint32_t run_of_tokens(const struct slab *slab, int64_t rows) {
    const struct fmk_vk_plan *plan = slab->plan;
    if (plan->routed)
        return (uint32_t)plan->tile;
    return rows > 4 ? 8 : rows > 2 ? 4 : (uint32_t)rows;
}

/* Whether rows of a part's weights begin at multiples of what its kernels load at once. */
static bool in_vectors(const struct fmk_packed *part) {
    static const uint64_t multiple[] = {
        [FMK_FAMILY_DENSE] = 16, [FMK_FAMILY_INT4] = 8, [FMK_FAMILY_Q4_K] = 16, [FMK_FAMILY_Q6_K] = 4};
    return (address(part->data) | part->stride | part->expert_stride) % multiple[part->layout->family] == 0;
}

/* Who works on a gemv, and how much of the activations it has in shared memory. Sums depend on how many share
 * a row, which with BATCH_INVARIANT does not depend on the tokens. */
static void set_gemv(const struct slab *slab, const struct fmk_packed *part, int64_t rows,
                     uint32_t *constants) {
    static const struct {
        uint32_t own, lanes; /* rows of an invocation, invocations of a row */
    } by_family[] = {[FMK_FAMILY_DENSE] = {4, 32},
                     [FMK_FAMILY_INT4] = {2, 8},
                     [FMK_FAMILY_Q4_K] = {4, 8},
                     [FMK_FAMILY_Q6_K] = {2, 16}};
    const VkPhysicalDeviceLimits *limits = &fmk_vulkan_of(slab->order->queue->ctx)->info.properties.limits;
    bool invariant = slab->plan->call->args.flags & FMK_LINEAR_BATCH_INVARIANT;
    uint32_t tokens = run_of_tokens(slab, rows), stage = tokens > 1 ? GEMV_STAGE_TOKENS : GEMV_STAGE;
    uint32_t own = by_family[part->layout->family].own, lanes = by_family[part->layout->family].lanes;
    if (part->n * lanes < (int64_t)GEMV_GROUPS * own * GEMV_THREADS)
        own = 2;
    while (lanes < GEMV_MOST_LANES && part->n * lanes < (int64_t)GEMV_GROUPS * own * GEMV_THREADS)
        lanes *= 2;
    uint32_t room = limits->maxComputeSharedMemorySize;
    room = (room < GEMV_SHARED ? room : GEMV_SHARED) - 4 * GEMV_THREADS;
    while (stage > 256 && tokens * (stage / 8) * 35 > room)
        stage /= 2;
    if (!invariant && lanes > stage / 64) /* else some would have nothing to do */
        lanes = stage / 64;
    constants[FMK_VK_SPEC_ROWS] = own * GEMV_THREADS / lanes;
    constants[FMK_VK_SPEC_TOKENS] = tokens;
    constants[FMK_VK_SPEC_LANES] = lanes;
    constants[FMK_VK_SPEC_STAGE] = stage;
    constants[FMK_VK_SPEC_SCALED] = tokens > 2 || invariant;
}

/* The tile of a gemm and who works on it. Sums do not depend on it. */
static void set_tile(const struct slab *slab, int64_t rows, uint32_t *constants) {
    const VkPhysicalDeviceLimits *limits = &fmk_vulkan_of(slab->order->queue->ctx)->info.properties.limits;
    bool large = !slab->plan->routed && rows > LARGE_TOKENS / 2 &&
                 limits->maxComputeSharedMemorySize >= LARGE_SHARED &&
                 limits->maxComputeWorkGroupInvocations >= LARGE_THREADS &&
                 limits->maxComputeWorkGroupSize[0] >= LARGE_THREADS;
    constants[FMK_VK_SPEC_THREADS] = large ? LARGE_THREADS : GEMM_THREADS;
    constants[FMK_VK_SPEC_ROWS] = large ? LARGE_ROWS : GEMM_ROWS;
    constants[FMK_VK_SPEC_TOKENS] = large ? LARGE_TOKENS : GEMM_TOKENS;
}

/* The same of products in f16. */
static void set_half_tile(const struct slab *slab, int64_t rows, uint32_t *constants) {
    const VkPhysicalDeviceLimits *limits = &fmk_vulkan_of(slab->order->queue->ctx)->info.properties.limits;
    set_tile(slab, rows, constants);
    if (limits->maxComputeSharedMemorySize < HALF_SHARED) {
        constants[FMK_VK_SPEC_THREADS] = GEMM_THREADS;
        constants[FMK_VK_SPEC_ROWS] = GEMM_ROWS;
        constants[FMK_VK_SPEC_TOKENS] = GEMM_TOKENS;
    }
}

/* A tile of cooperative matrices, which a device with them has room for. Nor do sums depend on this. */
static void set_coopmat_tile(int64_t rows, uint32_t *constants) {
    uint32_t tokens = rows > 64 ? 128 : rows > 32 ? 64 : 32;
    constants[FMK_VK_SPEC_THREADS] = rows > 64 ? 256 : 128;
    constants[FMK_VK_SPEC_ROWS] = COOPMAT_ROWS;
    constants[FMK_VK_SPEC_TOKENS] = tokens;
    constants[FMK_VK_SPEC_LANES] = COOPMAT_LANES;
}

static void set_few_tile(int64_t rows, uint32_t *constants) {
    constants[FMK_VK_SPEC_THREADS] = FEW_THREADS;
    constants[FMK_VK_SPEC_ROWS] = FEW_ROWS;
    constants[FMK_VK_SPEC_TOKENS] = rows > 8 ? 16 : 8;
}

static uint32_t module_of(int32_t path, bool subgroups) {
    switch (path) {
    case FMK_VULKAN_GEMV:
        return subgroups ? FMK_VK_GEMV_SUBGROUPS : FMK_VK_GEMV;
    case FMK_VULKAN_HALF:
        return FMK_VK_GEMM_HALF;
    case FMK_VULKAN_COOPMAT:
        return FMK_VK_GEMM_COOPMAT;
    case FMK_VULKAN_FEW:
        return FMK_VK_GEMM_FEW;
    default:
        return FMK_VK_GEMM;
    }
}

static struct fmk_vk_kernel linear_kernel(const struct slab *slab, const struct fmk_vk_product *product,
                                          int64_t rows) {
    const struct fmk_vk_plan *plan = slab->plan;
    const struct fmk_packed *part = &plan->w->parts[product->part];
    const struct fmk_context *ctx = slab->order->queue->ctx;
    bool dense = part->layout->family == FMK_FAMILY_DENSE, int4 = part->layout->family == FMK_FAMILY_INT4;
    bool subgroups = ctx->features & FMK_VK_SUBGROUPS;
    struct fmk_vk_kernel kernel =
        kernel_of(module_of(product->path, subgroups) + part->layout->family, GEMV_THREADS);
    uint32_t *constants = kernel.constants;
    constants[FMK_VK_SPEC_WEIGHT_TYPE] = dense || int4 ? (uint32_t)part->dtype : 0;
    constants[FMK_VK_SPEC_GLU] = product->glu;
    constants[FMK_VK_SPEC_CHUNKS] = int4 ? (uint32_t)part->chunks : 0;
    constants[FMK_VK_SPEC_ROUTED] = plan->routed;
    constants[FMK_VK_SPEC_VECTORS] =
        in_vectors(part) && (!product->glu || in_vectors(&plan->w->parts[product->part + 1]));
    constants[FMK_VK_SPEC_NATIVE_HALF] = native_half(ctx);
    if (product->path == FMK_VULKAN_COOPMAT || product->path == FMK_VULKAN_FEW ||
        (product->path == FMK_VULKAN_GEMV && subgroups))
        constants[FMK_VK_SPEC_SUBGROUP] = fmk_vulkan_of(ctx)->info.subgroup;
    if (product->path == FMK_VULKAN_COOPMAT)
        set_coopmat_tile(rows, constants);
    else if (product->path == FMK_VULKAN_FEW)
        set_few_tile(rows, constants);
    else if (product->path == FMK_VULKAN_HALF)
        set_half_tile(slab, rows, constants);
    else if (product->path == FMK_VULKAN_GEMM) {
        set_tile(slab, rows, constants);
        constants[FMK_VK_SPEC_IN_TYPE] = (uint32_t)plan->call->args.in_type;
    } else
        set_gemv(slab, part, rows, constants);
    return kernel;
}

static uint64_t of_expert(const struct slab *slab, const struct fmk_packed *part) {
    return address(part->data) + (slab->plan->routed ? 0 : (uint64_t)slab->expert * part->expert_stride);
}

static uint64_t bias_of(const struct slab *slab, const struct fmk_packed *part) {
    return part->bias ? address(part->bias + (slab->plan->routed ? 0 : slab->expert * part->n)) : 0;
}

static fmk_status multiply_fast(const struct slab *slab, const struct fmk_vk_product *product,
                                const struct target *target) {
    const struct fmk_vk_plan *plan = slab->plan;
    const fmk_linear_args *a = slab->args;
    const struct fmk_packed *part = &plan->w->parts[product->part];
    const struct fmk_vk_form *form = &plan->forms[product->form];
    int64_t column = column_of(plan->w, product->part), rows = slab->end - slab->begin;
    int64_t in_stride = form->direct   ? a->in_stride
                        : form->halves ? fmk_vk_form_row(plan, form) / 2
                                       : form->width;
    bool addend = a->addend.handle && !plan->call->reduce;
    struct fmk_vk_linear_args args = {
        .data = of_expert(slab, part),
        .bias = bias_of(slab, part),
        .from = form->direct ? in_of(slab) : form_row_zero(slab, form),
        .to = target->to + (uint64_t)(column * fmk_dtype_size(target->type)),
        .addend = addend ? address_of(a->addend) + (uint64_t)(column * fmk_dtype_size(a->addend_type)) : 0,
        .lists = plan->routed ? slab->workspace + plan->at_lists : address_of(a->m_dev),
        .weights = target->weights,
        .n = (uint32_t)part->n,
        .k = (uint32_t)(form->direct ? part->k : fmk_round_up(part->k_packed, 8)),
        .stride = (uint32_t)part->stride,
        .expert_stride = (uint32_t)(part->expert_stride / 2),
        .in_stride = (uint32_t)in_stride,
        .out_stride = (uint32_t)target->stride,
        .addend_stride = (uint32_t)a->addend_stride,
        .first = plan->routed ? !form->direct : (uint32_t)slab->begin,
        .m = (uint32_t)slab->end,
        .num_tiles = (uint32_t)plan->num_tiles,
        .capacity = (uint32_t)(plan->units * plan->call->rows_per_token),
        .types = FMK_VK_TYPES((uint32_t)target->type, (uint32_t)a->addend_type,
                              product->glu ? (uint32_t)a->act : 0u, (uint32_t)a->in_type, 0u),
        .alpha = a->act_alpha,
        .limit = a->act_limit,
    };
    if (product->glu) {
        args.up = of_expert(slab, &part[1]);
        args.up_bias = bias_of(slab, &part[1]);
    }
    struct fmk_vk_kernel kernel = linear_kernel(slab, product, rows);
    uint32_t y =
        plan->routed ? (uint32_t)plan->num_tiles : groups_of(rows, kernel.constants[FMK_VK_SPEC_TOKENS]);
    return fmk_vk_dispatch(slab->order, &kernel, groups_of(part->n, kernel.constants[FMK_VK_SPEC_ROWS]), y,
                           &args, sizeof args);
}

static fmk_status multiply_plain(const struct slab *slab, const struct fmk_vk_product *product,
                                 const struct target *target) {
    const struct fmk_vk_plan *plan = slab->plan;
    const fmk_linear_args *a = slab->args;
    const struct fmk_packed *part = &plan->w->parts[product->part];
    const struct fmk_vk_form *form = &plan->forms[product->form];
    int64_t column = column_of(plan->w, product->part);
    bool addend = a->addend.handle && !plan->call->reduce;
    struct fmk_vk_kernel kernel = kernel_of(FMK_VK_PLAIN, PLAIN_THREADS);
    kernel.constants[FMK_VK_SPEC_FAMILY] = (uint32_t)part->layout->family;
    kernel.constants[FMK_VK_SPEC_TOKENS] = PLAIN_TOKENS;
    kernel.constants[FMK_VK_SPEC_ROUTED] = plan->routed;
    kernel.constants[FMK_VK_SPEC_DOUBLE] = product->path == FMK_VULKAN_DOUBLE;
    struct fmk_vk_plain_args args = {
        .data = of_expert(slab, part),
        .k_index =
            part->k_index ? address(part->k_index + (plan->routed ? 0 : slab->expert * part->k_packed)) : 0,
        .bias = bias_of(slab, part),
        .from = form->direct ? in_of(slab) : form_row_zero(slab, form),
        .to = target->to + (uint64_t)(column * fmk_dtype_size(target->type)),
        .addend = addend ? address_of(a->addend) + (uint64_t)(column * fmk_dtype_size(a->addend_type)) : 0,
        .lists = plan->routed ? slab->workspace + plan->at_lists : address_of(a->m_dev),
        .weights = target->weights,
        .n = (uint32_t)part->n,
        .k = (uint32_t)part->k,
        .k_packed = (uint32_t)part->k_packed,
        .stride = (uint32_t)part->stride,
        .expert_stride = (uint32_t)(part->expert_stride / 2),
        .in_stride = (uint32_t)(form->direct ? a->in_stride : form->width),
        .out_stride = (uint32_t)target->stride,
        .addend_stride = (uint32_t)a->addend_stride,
        .first = plan->routed ? !form->direct : (uint32_t)slab->begin,
        .m = (uint32_t)slab->end,
        .num_tiles = (uint32_t)plan->num_tiles,
        .capacity = (uint32_t)(plan->units * plan->call->rows_per_token),
        .types = FMK_VK_TYPES((uint32_t)target->type, (uint32_t)a->addend_type, 0u, (uint32_t)a->in_type,
                              (uint32_t)part->dtype),
        .chunks = (uint32_t)part->chunks,
    };
    uint32_t y = plan->routed ? (uint32_t)plan->num_tiles : groups_of(slab->end - slab->begin, PLAIN_TOKENS);
    return fmk_vk_dispatch(slab->order, &kernel, groups_of(part->n, PLAIN_THREADS), y, &args, sizeof args);
}

/* ---- behind the products ---- */

static fmk_status join(const struct slab *slab) {
    const struct fmk_vk_plan *plan = slab->plan;
    const fmk_linear_args *a = slab->args;
    struct target sums = sums_target(slab), target = final_target(slab);
    uint32_t y = plan->routed ? (uint32_t)plan->num_tiles : groups_of(slab->end - slab->begin, 1);
    struct fmk_vk_kernel kernel = kernel_of(FMK_VK_GLU, ROWS_THREADS);
    kernel.constants[FMK_VK_SPEC_ROUTED] = plan->routed;
    struct fmk_vk_glu_args args = {
        .sums = sums.to,
        .to = target.to,
        .lists = plan->routed ? slab->workspace + plan->at_lists : address_of(a->m_dev),
        .weights = target.weights,
        .n = (uint32_t)plan->call->width,
        .up = (uint32_t)plan->call->width,
        .sums_stride = (uint32_t)sums.stride,
        .out_stride = (uint32_t)target.stride,
        .first = (uint32_t)slab->begin,
        .m = (uint32_t)slab->end,
        .num_tiles = (uint32_t)plan->num_tiles,
        .capacity = (uint32_t)(plan->units * plan->call->rows_per_token),
        .types = FMK_VK_TYPES((uint32_t)target.type, 0u, (uint32_t)a->act, 0u, 0u),
        .alpha = a->act_alpha,
        .limit = a->act_limit,
    };
    return fmk_vk_dispatch(slab->order, &kernel, groups_of(args.n, ROWS_THREADS), y, &args, sizeof args);
}

static fmk_status reduce(const struct slab *slab) {
    const struct fmk_vk_plan *plan = slab->plan;
    const struct fmk_call *call = plan->call;
    const fmk_linear_args *a = slab->args;
    struct fmk_vk_kernel kernel = kernel_of(FMK_VK_REDUCE, ROWS_THREADS);
    struct fmk_vk_reduce_args args = {
        .pairs = slab->workspace + plan->at_pairs,
        .present = slab->workspace + plan->at_present,
        .to = address_of(a->out),
        .addend = address_of(a->addend),
        .m_dev = address_of(a->m_dev),
        .width = (uint32_t)call->width,
        .top_k = (uint32_t)call->rows_per_token,
        .first = (uint32_t)slab->begin,
        .m = (uint32_t)slab->end,
        .out_stride = (uint32_t)a->out_stride,
        .addend_stride = (uint32_t)a->addend_stride,
        .types = FMK_VK_TYPES((uint32_t)a->out_type, (uint32_t)a->addend_type, 0u, 0u, 0u),
    };
    return fmk_vk_dispatch(slab->order, &kernel, groups_of(args.width, ROWS_THREADS),
                           groups_of(args.m - args.first, 1), &args, sizeof args);
}

/* ---- a slab, and all of them ---- */

static fmk_status run_slab(const struct slab *slab) {
    const struct fmk_vk_plan *plan = slab->plan;
    fmk_vk_barrier(slab->order); /* the workspace is used again */
    fmk_status status = plan->routed ? route(slab) : FMK_OK;
    if (plan->routed)
        fmk_vk_barrier(slab->order);
    for (int32_t f = 0; !status && f < plan->num_forms; f++)
        if (!plan->forms[f].direct)
            status = plan->forms[f].halves ? halve(slab, &plan->forms[f]) : gather(slab, &plan->forms[f]);
    fmk_vk_barrier(slab->order);
    struct target target = plan->split_glu ? sums_target(slab) : final_target(slab);
    for (int32_t i = 0; !status && i < plan->num_products; i++) {
        const struct fmk_vk_product *product = &plan->products[i];
        bool plain = product->path == FMK_VULKAN_PLAIN || product->path == FMK_VULKAN_DOUBLE;
        status = plain ? multiply_plain(slab, product, &target) : multiply_fast(slab, product, &target);
    }
    if (!status && plan->split_glu) {
        fmk_vk_barrier(slab->order);
        status = join(slab);
    }
    if (!status && plan->call->reduce) {
        fmk_vk_barrier(slab->order);
        status = reduce(slab);
    }
    return status;
}

static fmk_status run(struct fmk_vk_order *order, const struct fmk_vk_plan *plan) {
    const struct fmk_call *call = plan->call;
    bool batch = call->routing.kind == FMK_ROUTE_BATCH;
    int32_t experts = batch ? plan->w->num_experts : 1;
    struct slab slab = {
        .plan = plan,
        .order = order,
        .args = &call->args,
        .workspace = address_of(call->args.workspace),
    };
    fmk_status status = FMK_OK;
    for (int32_t e = 0; !status && e < experts; e++)
        for (int64_t begin = 0; !status && begin < call->args.m; begin += plan->units) {
            slab.begin = begin;
            slab.end = fmk_min(begin + plan->units, call->args.m);
            slab.expert = batch ? e : call->routing.expert;
            status = run_slab(&slab);
        }
    return status;
}

/* Numbers that kernels count in 32 bits. */
static fmk_status check_strides(const struct fmk_projection *w, const struct fmk_call *call) {
    const fmk_linear_args *a = &call->args;
    if (a->out_stride > UINT32_MAX || (a->addend.handle && a->addend_stride > UINT32_MAX) ||
        a->in_stride > UINT32_MAX)
        return fmk_fail(FMK_EUNSUPPORTED, "%s is more than %u elements",
                        a->in_stride > UINT32_MAX    ? "in_stride"
                        : a->out_stride > UINT32_MAX ? "out_stride"
                                                     : "addend_stride",
                        UINT32_MAX);
    for (int32_t p = 0; p < w->num_parts; p++)
        if (w->parts[p].stride > UINT32_MAX || w->parts[p].expert_stride / 2 > UINT32_MAX)
            return fmk_fail(FMK_EUNSUPPORTED,
                            "weight: part %d has rows of %llu bytes and experts of %llu; at most %u and %llu "
                            "are served",
                            p, (unsigned long long)w->parts[p].stride,
                            (unsigned long long)w->parts[p].expert_stride, UINT32_MAX, 2ull * UINT32_MAX);
    return FMK_OK;
}

fmk_status fmk_vk_linear(struct fmk_queue *queue, const struct fmk_projection *w,
                         const struct fmk_call *call) {
    if (!call->args.m)
        return FMK_OK;
    const fmk_buffer *space = &call->args.workspace;
    uint64_t least, best, size = space->handle ? space->size : 0;
    fmk_vk_workspace(queue->ctx, w, call, &least, &best);
    if (size < least)
        return fmk_fail(FMK_EWORKSPACE, "workspace.size %llu is less than the least, %llu",
                        (unsigned long long)size, (unsigned long long)least);
    if (address_of(*space) % 256)
        return fmk_fail(FMK_EINVAL, "workspace is at address 0x%llx, which is not a multiple of 256",
                        (unsigned long long)address_of(*space));
    fmk_status status = check_strides(w, call);
    if (status)
        return status;
    struct fmk_vk_plan plan;
    struct fmk_vk_order order;
    fmk_vk_plan_make(&plan, queue->ctx, w, call, size, true);
    status = fmk_vk_begin(queue, false, &order);
    if (status)
        return status;
    status = run(&order, &plan);
    return fmk_vk_end(&order, status);
}

/* The same steps for the fewest tokens of each kind of plan. */
fmk_status fmk_vk_prepare(struct fmk_queue *queue, const struct fmk_projection *w,
                          const struct fmk_call *call) {
    static const int64_t counts[] = {1, 2, 3, 5, 9, 17, 33, 65, 129};
    struct fmk_vk_order order;
    fmk_status status = check_strides(w, call);
    if (status || (status = fmk_vk_begin(queue, true, &order)))
        return status;
    for (size_t i = 0; !status && i <= sizeof counts / sizeof counts[0]; i++) {
        struct fmk_call fewer = *call;
        fewer.args.m = i < sizeof counts / sizeof counts[0] ? counts[i] : call->args.m;
        if (!call->args.m || fewer.args.m > call->args.m)
            continue;
        fewer.rows = call->rows / call->args.m * fewer.args.m;
        struct fmk_vk_plan plan;
        fmk_vk_plan_make(&plan, queue->ctx, w, &fewer, FMK_BEST_WORKSPACE, false);
        plan.units = fewer.args.m; /* one slab */
        status = run(&order, &plan);
    }
    return status;
}
