/* Checks of one call's arguments: every refusal is a sentence that names the field. */
#include "call.h"

#include "../abi.h"
#include "../error.h"

#include <string.h>

enum {
    MAX_TOP_K = 4096, /* bounds what one token's rows take */
    KNOWN_FLAGS = FMK_LINEAR_PDL | FMK_LINEAR_BATCH_INVARIANT | FMK_LINEAR_FAST_REDUCE | FMK_LINEAR_EXACT |
                  FMK_LINEAR_REDUCE_TOP_K | FMK_LINEAR_REFERENCE
};

typedef long long ll;

static fmk_status check_type(const char *name, fmk_dtype type) {
    if (type == FMK_F16 || type == FMK_BF16 || type == FMK_F32)
        return FMK_OK;
    return fmk_fail(FMK_EINVAL, "%s %d is none of F16 1, BF16 2, F32 3", name, type);
}

static fmk_status check_stride(const char *name, int64_t *stride, int64_t width, const char *meaning) {
    if (!*stride)
        *stride = width;
    if (*stride < width)
        return fmk_fail(FMK_EINVAL, "%s %lld is less than %s %lld", name, (ll)*stride, meaning, (ll)width);
    return FMK_OK;
}

/* `bytes` from the buffer's start are about to be used. */
static fmk_status check_buffer(const char *name, fmk_buffer buffer, int64_t bytes, int64_t align) {
    uint64_t address, end;
    if (__builtin_add_overflow(buffer.handle, buffer.offset, &address) ||
        __builtin_add_overflow(address, (uint64_t)bytes, &end))
        return fmk_fail(FMK_EINVAL, "%s.offset %llu runs past the end of memory", name,
                        (unsigned long long)buffer.offset);
    if (address % (uint64_t)align)
        return fmk_fail(FMK_EINVAL, "%s is at address 0x%llx, which is not a multiple of %lld", name,
                        (unsigned long long)address, (ll)align);
    if (buffer.size && buffer.size < (uint64_t)bytes)
        return fmk_fail(FMK_EINVAL, "%s.size %llu is less than the %lld bytes that the call uses", name,
                        (unsigned long long)buffer.size, (ll)bytes);
    return FMK_OK;
}

/* Bytes from the first to the last element of rows x width. */
static fmk_status extent(const char *name, int64_t rows, int64_t stride, int64_t width, fmk_dtype type,
                         int64_t *bytes) {
    int64_t elements = 0;
    if (rows && (!fmk_mul(rows - 1, stride, &elements) || !fmk_add(elements, width, &elements)))
        return fmk_fail(FMK_EINVAL, "%s: %lld rows of stride %lld do not fit in memory", name, (ll)rows,
                        (ll)stride);
    if (!fmk_mul(elements, fmk_dtype_size(type), bytes))
        return fmk_fail(FMK_EINVAL, "%s: %lld elements do not fit in memory", name, (ll)elements);
    return FMK_OK;
}

static fmk_status check_matrix(const char *name, fmk_buffer buffer, int64_t rows, int64_t stride,
                               int64_t width, fmk_dtype type) {
    int64_t bytes;
    fmk_status status = extent(name, rows, stride, width, type, &bytes);
    if (!status)
        status = check_buffer(name, buffer, bytes, fmk_dtype_size(type));
    return status;
}

/* Two row-major regions share a byte. Rows of one region may lie between the rows of the other where both
 * have the same distance in bytes. */
static bool overlap(uint64_t a, int64_t a_bytes, int64_t a_width, int64_t a_stride, uint64_t b,
                    int64_t b_bytes, int64_t b_width, int64_t b_stride) {
    if (!a_bytes || !b_bytes || a >= b + (uint64_t)b_bytes || b >= a + (uint64_t)a_bytes)
        return false;
    if (a_stride != b_stride)
        return true;
    int64_t shift = ((int64_t)(b - a) % a_stride + a_stride) % a_stride; /* b's first column, in a's rows */
    return shift < a_width || shift + b_width > a_stride;
}

static fmk_status check_routing(const struct fmk_projection *w, const fmk_linear_args *a,
                                const fmk_routing *given, struct fmk_call *call) {
    fmk_routing *r = &call->routing;
    memset(r, 0, sizeof *r);
    if (!given) {
        if (w->num_experts)
            return fmk_fail(FMK_EINVAL,
                            "routing is NULL and the weight has %d experts; say which serves a row",
                            w->num_experts);
        return FMK_OK;
    }
    fmk_status status = fmk_struct_in(r, sizeof *r, given, "routing");
    if (status)
        return status;
    int32_t experts = w->num_experts ? w->num_experts : 1;
    if (r->kind < FMK_ROUTE_NONE || r->kind > FMK_ROUTE_BATCH)
        return fmk_fail(FMK_EINVAL, "routing.kind %d is none of NONE 0, SORTED 1, IDS 2, BATCH 3", r->kind);
    if (r->kind == FMK_ROUTE_NONE && (r->expert < 0 || r->expert >= experts))
        return fmk_fail(FMK_EINVAL, "routing.expert %d is not in 0..%d", r->expert, experts - 1);
    if (r->kind != FMK_ROUTE_NONE && !w->num_experts)
        return fmk_fail(FMK_EINVAL, "routing.kind %d: the weight is dense; accepted are NONE and NULL",
                        r->kind);
    if (r->kind == FMK_ROUTE_IDS && !r->ids.handle && a->m)
        return fmk_fail(FMK_EINVAL, "routing.ids is absent; IDS needs i32 [m][top_k]");
    if (r->kind == FMK_ROUTE_SORTED && !r->offsets.handle)
        return fmk_fail(FMK_EINVAL, "routing.offsets is absent; SORTED needs i32 [num_experts + 1]");
    call->pairs = r->kind == FMK_ROUTE_IDS || (r->kind == FMK_ROUTE_SORTED && r->pairs.handle);
    if (call->pairs && (r->top_k < 1 || r->top_k > MAX_TOP_K))
        return fmk_fail(FMK_EINVAL, "routing.top_k %d is not in 1..%d", r->top_k, MAX_TOP_K);
    if (r->in_per_pair != 0 && r->in_per_pair != 1)
        return fmk_fail(FMK_EINVAL, "routing.in_per_pair %d is neither 0, the token, nor 1, the pair",
                        r->in_per_pair);
    if (r->expert_in_stride < 0 || r->expert_out_stride < 0)
        return fmk_fail(FMK_EINVAL, "routing.expert_%s_stride is negative",
                        r->expert_in_stride < 0 ? "in" : "out");
    if (r->kind == FMK_ROUTE_BATCH && a->addend.handle)
        return fmk_fail(FMK_EUNSUPPORTED, "addend: BATCH routing takes none");
    if (r->kind == FMK_ROUTE_BATCH && r->pair_weights.handle)
        return fmk_fail(FMK_EUNSUPPORTED, "routing.pair_weights: BATCH routing takes none");
    return FMK_OK;
}

static fmk_status check_epilogue(const struct fmk_projection *w, struct fmk_call *call) {
    fmk_linear_args *a = &call->args;
    if (a->act < FMK_ACT_NONE || a->act > FMK_ACT_SWIGLU_CLAMP)
        return fmk_fail(FMK_EINVAL, "act %d is none of NONE 0, SILU_MUL 1, GELU_TANH_MUL 2, SWIGLU_CLAMP 3",
                        a->act);
    if (a->act && !w->glu)
        return fmk_fail(FMK_EINVAL, "act %d needs a weight made with FMK_WEIGHT_GLU", a->act);
    if (a->act == FMK_ACT_SWIGLU_CLAMP) {
        a->act_alpha = a->act_alpha == 0 ? 1.702f : a->act_alpha;
        a->act_limit = a->act_limit == 0 ? 7.0f : a->act_limit;
        if (!(a->act_limit > 0))
            return fmk_fail(FMK_EINVAL, "act_limit %g is not positive", (double)a->act_limit);
    }
    call->width = a->act ? w->n / 2 : w->n;
    call->reduce = a->flags & FMK_LINEAR_REDUCE_TOP_K;
    if (call->reduce && !call->pairs)
        return fmk_fail(FMK_EINVAL, "flags: REDUCE_TOP_K needs routing by IDS, or SORTED with pairs");
    return FMK_OK;
}

/* How many rows the call makes, and of which there must be input. */
static fmk_status count_rows(const struct fmk_projection *w, struct fmk_call *call, int64_t *in_rows,
                             int64_t *out_rows) {
    const fmk_linear_args *a = &call->args;
    const fmk_routing *r = &call->routing;
    if (a->m < 0 || a->m > INT32_MAX)
        return fmk_fail(FMK_EINVAL, "m %lld is not in 0..%d", (ll)a->m, INT32_MAX);
    call->rows_per_token = call->pairs ? r->top_k : 1;
    int64_t factor = r->kind == FMK_ROUTE_BATCH ? w->num_experts : call->rows_per_token;
    if (!fmk_mul(a->m, factor, &call->rows) || call->rows > INT32_MAX)
        return fmk_fail(FMK_EINVAL, "m %lld times %s %lld is more than %d rows", (ll)a->m,
                        r->kind == FMK_ROUTE_BATCH ? "num_experts" : "top_k", (ll)factor, INT32_MAX);
    *in_rows = call->pairs && r->in_per_pair ? call->rows : a->m;
    *out_rows = call->pairs && !call->reduce ? call->rows : a->m;
    return FMK_OK;
}

/* Bytes of `in` and `out` from their first to their last element. */
static fmk_status count_bytes(const struct fmk_projection *w, const struct fmk_call *call, int64_t in_rows,
                              int64_t out_rows, int64_t *in_bytes, int64_t *out_bytes) {
    const fmk_linear_args *a = &call->args;
    const fmk_routing *r = &call->routing;
    int64_t in_width = w->k, out_width = call->width;
    if (r->kind == FMK_ROUTE_BATCH) {
        if (w->num_experts > 1 && r->expert_out_stride < out_width)
            return fmk_fail(FMK_EINVAL, "routing.expert_out_stride %lld is less than a row of %lld",
                            (ll)r->expert_out_stride, (ll)out_width);
        /* Experts' blocks may interleave with each other: only the extent is checked. */
        int64_t last_in, last_out;
        if (!fmk_mul(w->num_experts - 1, r->expert_in_stride, &last_in) ||
            !fmk_mul(w->num_experts - 1, r->expert_out_stride, &last_out) ||
            !fmk_add(in_width, last_in, &in_width) || !fmk_add(out_width, last_out, &out_width))
            return fmk_fail(FMK_EINVAL, "routing.expert_in_stride or expert_out_stride is too large");
    }
    /* With in_rows the rows of `in` are whatever the indices name. */
    fmk_status status = extent("in", a->in_rows.handle ? fmk_min(in_rows, 1) : in_rows, a->in_stride,
                               in_width, a->in_type, in_bytes);
    return status ? status : extent("out", out_rows, a->out_stride, out_width, a->out_type, out_bytes);
}

/* BATCH: either each expert's rows lie together, or each row's experts. */
static fmk_status check_batch(const struct fmk_projection *w, const struct fmk_call *call) {
    const fmk_linear_args *a = &call->args;
    int64_t expert = call->routing.expert_out_stride; /* no product overflows: see count_bytes */
    if (w->num_experts < 2 || expert >= (a->m - 1) * a->out_stride + call->width ||
        a->out_stride >= (w->num_experts - 1) * expert + call->width)
        return FMK_OK;
    return fmk_fail(FMK_EINVAL,
                    "routing.expert_out_stride %lld: the experts' %lld rows of out_stride %lld would overlap",
                    (ll)expert, (ll)a->m, (ll)a->out_stride);
}

/* Indices were checked: nothing that the call writes may change them before they are used. */
static fmk_status check_apart(const struct fmk_projection *w, const struct fmk_call *call,
                              int64_t out_bytes) {
    const fmk_linear_args *a = &call->args;
    const fmk_routing *r = &call->routing;
    const struct {
        const char *name;
        fmk_buffer buffer;
        uint64_t bytes;
    } read[] = {
        {"in_rows", a->in_rows, 4 * (uint64_t)a->m},
        {"m_dev", a->m_dev, 4},
        {"routing.ids", r->ids, 4 * (uint64_t)call->rows},
        {"routing.offsets", r->offsets, 4 * ((uint64_t)w->num_experts + 1)},
        {"routing.pairs", r->pairs, r->pairs.size},
        {"routing.pair_weights", r->pair_weights, 4 * (uint64_t)call->rows},
    };
    if (fmk_meet(a->out, (uint64_t)out_bytes, a->workspace, a->workspace.size))
        return fmk_fail(FMK_EINVAL, "workspace overlaps out; they must be apart");
    for (size_t i = 0; i < sizeof read / sizeof read[0]; i++) {
        bool out = fmk_meet(a->out, (uint64_t)out_bytes, read[i].buffer, read[i].bytes);
        if (out || fmk_meet(a->workspace, a->workspace.size, read[i].buffer, read[i].bytes))
            return fmk_fail(FMK_EINVAL, "%s overlaps %s; they must be apart", out ? "out" : "workspace",
                            read[i].name);
    }
    return FMK_OK;
}

static fmk_status check_addend(const struct fmk_projection *w, const struct fmk_call *call, int64_t out_bytes,
                               int64_t rows) {
    const fmk_linear_args *a = &call->args;
    int64_t width = call->reduce ? call->width : w->n, bytes;
    int64_t size = fmk_dtype_size(a->addend_type), out_size = fmk_dtype_size(a->out_type);
    uint64_t addend = a->addend.handle + a->addend.offset, out = a->out.handle + a->out.offset;
    fmk_status status = extent("addend", rows, a->addend_stride, width, a->addend_type, &bytes);
    if (status || (status = check_buffer("addend", a->addend, bytes, size)))
        return status;
    if (addend != out && overlap(addend, bytes, width * size, a->addend_stride * size, out, out_bytes,
                                 call->width * out_size, a->out_stride * out_size))
        return fmk_fail(FMK_EINVAL, "addend overlaps out; it may be out itself, or apart");
    return FMK_OK;
}

static fmk_status check_buffers(const struct fmk_projection *w, const struct fmk_call *call, int64_t in_bytes,
                                int64_t out_bytes, int64_t out_rows) {
    const fmk_linear_args *a = &call->args;
    const fmk_routing *r = &call->routing;
    if (!a->in.handle)
        return fmk_fail(FMK_EINVAL, "in is absent");
    if (!a->out.handle)
        return fmk_fail(FMK_EINVAL, "out is absent");

    fmk_status status = check_buffer("in", a->in, in_bytes, fmk_dtype_size(a->in_type));
    if (!status)
        status = check_buffer("out", a->out, out_bytes, fmk_dtype_size(a->out_type));
    if (!status && a->addend.handle)
        status = check_addend(w, call, out_bytes, out_rows);
    if (!status && a->in_rows.handle)
        status = check_matrix("in_rows", a->in_rows, a->m, 1, 1, FMK_I32);
    if (!status && a->m_dev.handle)
        status = check_buffer("m_dev", a->m_dev, 4, 4);
    if (!status && r->kind == FMK_ROUTE_IDS)
        status = check_matrix("routing.ids", r->ids, a->m, r->top_k, r->top_k, FMK_I32);
    if (!status && r->kind == FMK_ROUTE_SORTED)
        status = check_matrix("routing.offsets", r->offsets, w->num_experts + 1, 1, 1, FMK_I32);
    if (!status && r->kind == FMK_ROUTE_SORTED && r->pairs.handle)
        status = check_buffer("routing.pairs", r->pairs, 0, 4); /* offsets tell how many */
    if (!status && r->pair_weights.handle)
        status = check_matrix("routing.pair_weights", r->pair_weights, call->rows, 1, 1, FMK_F32);
    if (!status && r->kind == FMK_ROUTE_BATCH)
        status = check_batch(w, call);
    if (!status)
        status = check_apart(w, call, out_bytes);
    if (status)
        return status;

    int64_t in_size = fmk_dtype_size(a->in_type), out_size = fmk_dtype_size(a->out_type);
    if (r->kind != FMK_ROUTE_BATCH &&
        overlap(a->in.handle + a->in.offset, in_bytes, w->k * in_size, a->in_stride * in_size,
                a->out.handle + a->out.offset, out_bytes, call->width * out_size, a->out_stride * out_size))
        return fmk_fail(FMK_EINVAL, "out overlaps in; they must be apart");
    return FMK_OK;
}

static void resolve(const struct fmk_context *ctx, struct fmk_call *call) {
    fmk_linear_args *a = &call->args;
    fmk_routing *r = &call->routing;
    fmk_buffer *buffers[] = {&a->in,        &a->out, &a->addend,  &a->in_rows, &a->m_dev,
                             &a->workspace, &r->ids, &r->offsets, &r->pairs,   &r->pair_weights};
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++)
        fmk_context_resolve(ctx, buffers[i]);
}

fmk_status fmk_call_check(const struct fmk_context *ctx, const struct fmk_projection *w,
                          const fmk_linear_args *args, bool buffers, struct fmk_call *call) {
    memset(call, 0, sizeof *call);
    fmk_linear_args *a = &call->args;
    fmk_status status = fmk_struct_in(a, sizeof *a, args, "args");
    if (status)
        return status;
    if (a->flags & ~(uint32_t)KNOWN_FLAGS)
        return fmk_fail(FMK_EINVAL, "flags 0x%x has bits that are none of 0x%x", a->flags, KNOWN_FLAGS);
    if ((status = check_type("in_type", a->in_type)) || (status = check_type("out_type", a->out_type)) ||
        (a->addend.handle && (status = check_type("addend_type", a->addend_type))))
        return status;
    if ((status = check_routing(w, a, a->routing, call)) || (status = check_epilogue(w, call)))
        return status;
    if (buffers && a->m && ctx->backend->address)
        resolve(ctx, call);
    if (a->in_rows.handle && call->routing.kind != FMK_ROUTE_NONE)
        return fmk_fail(FMK_EINVAL, "in_rows goes with dense calls; routing has its own gather");
    int64_t addend_width = call->reduce ? call->width : w->n;
    if ((status = check_stride("in_stride", &a->in_stride, w->k, "k")) ||
        (status = check_stride("out_stride", &a->out_stride, call->width, a->act ? "n / 2" : "n")) ||
        (status = check_stride("addend_stride", &a->addend_stride, addend_width, "the addend's width")))
        return status;
    if (a->addend.handle && a->addend.handle + a->addend.offset == a->out.handle + a->out.offset &&
        (a->addend_type != a->out_type || a->addend_stride != a->out_stride || addend_width != call->width))
        return fmk_fail(FMK_EINVAL,
                        "addend is out itself, but type, stride or width differ (type %d and %d, "
                        "stride %lld and %lld)",
                        a->addend_type, a->out_type, (ll)a->addend_stride, (ll)a->out_stride);

    int64_t in_rows = 0, out_rows = 0;
    if ((status = count_rows(w, call, &in_rows, &out_rows)))
        return status;
    int64_t in_bytes = 0, out_bytes = 0;
    if ((status = count_bytes(w, call, in_rows, out_rows, &in_bytes, &out_bytes)))
        return status;
    return buffers && a->m ? check_buffers(w, call, in_bytes, out_bytes, out_rows) : FMK_OK;
}
