/* Every kernel of int4_wgmma, in clusters of every kind, on tiles that are whole and that are not: what plans
 * choose only for shapes that are large. */
#include "calls.h"

#include "abi.h"
#include "cuda/device.h"
#include "cuda/wgmma.h"
#include "weight.h"

enum { MOST_PARTS = 2 };

struct problem {
    const char *name;
    struct ref_spec part[MOST_PARTS];
    int32_t num_parts;
    int64_t m, first_row, m_dev; /* m_dev 0: none */
    bool glu;
    fmk_dtype out_type; /* 0: as `in` */
};

static const struct problem problems[] = {
    {.name = "whole tiles", .part = {{.n = 512, .k = 512, .group_size = 128}}, .num_parts = 1, .m = 128},
    {.name = "zero points, bias",
     .part = {{.n = 712, .k = 1160, .group_size = 128, .zeros = REF_ZEROS_RANDOM, .bias = FMK_F16}},
     .num_parts = 1,
     .m = 135},
    {.name = "one tile of tokens",
     .part = {{.n = 456, .k = 1216, .group_size = 64}, {.n = 72, .k = 1216, .group_size = 128}},
     .num_parts = 2,
     .m = 13},
    {.name = "two parts, groups of 32 and 64",
     .part = {{.n = 96, .k = 640, .group_size = 32, .zeros = REF_ZEROS_RANDOM},
              {.n = 280, .k = 640, .group_size = 64, .dtype = FMK_BF16}},
     .num_parts = 2,
     .m = 300,
     .first_row = 171},
    {.name = "odd rows, m of the device",
     .part = {{.n = 333, .k = 384, .group_size = 128, .bias = FMK_F16}},
     .num_parts = 1,
     .m = 70,
     .m_dev = 37,
     .out_type = FMK_F32},
    {.name = "gate and up",
     .part = {{.n = 328, .k = 256, .group_size = 128}, {.n = 328, .k = 256, .group_size = 128}},
     .num_parts = 2,
     .m = 67,
     .glu = true},
    {.name = "gate and up of different ranges",
     .part = {{.n = 72, .k = 256, .group_size = 128},
              {.n = 72, .k = 256, .group_size = 128, .extremes = true}},
     .num_parts = 2,
     .m = 40,
     .glu = true,
     .out_type = FMK_F32},
    {.name = "experts",
     .part = {{.n = 136, .k = 256, .group_size = 64, .experts = 3, .zeros = REF_ZEROS_RANDOM}},
     .num_parts = 1,
     .m = 33},
    {.name = "many tokens",
     .part = {{.n = 264, .k = 640, .group_size = 128, .bias = FMK_F16},
              {.n = 120, .k = 640, .group_size = 128, .zeros = REF_ZEROS_RANDOM}},
     .num_parts = 2,
     .m = 530},
    {.name = "extreme scales",
     .part = {{.n = 64, .k = 256, .group_size = 128, .zeros = REF_ZEROS_RANDOM, .extremes = true}},
     .num_parts = 1,
     .m = 32,
     .out_type = FMK_F32},
};

/* Of one problem: numbers, and where they lie on the device. */
struct subject {
    const struct problem *problem;
    struct ref_weight part[MOST_PARTS];
    fmk_weight *weight;
    int64_t n, k, experts, columns; /* of all parts; of the output */
    struct matrix in;               /* [experts * m] */
    double *want;                   /* [experts * m][columns] */
    uint64_t in_there, out_there, m_there;
};

static int64_t rows_of(const struct subject *s) {
    return s->experts * s->problem->m;
}

static double product(const struct subject *s, int64_t row, int p, int64_t n) {
    int64_t expert = row / s->problem->m;
    double sum = s->part[p].bias ? ref_bias(&s->part[p], expert, n) : 0;
    for (int64_t k = 0; k < s->k; k++)
        sum += at(&s->in, row, k) * ref_value(&s->part[p], expert, n, k);
    return sum;
}

static void make_subject(struct subject *s, struct bench *b, const struct problem *problem, fmk_dtype type,
                         struct ref_rng *rng) {
    *s = (struct subject){.problem = problem, .k = problem->part[0].k, .experts = problem->part[0].experts};
    if (!s->experts)
        s->experts = 1;
    for (int p = 0; p < problem->num_parts; p++) {
        struct ref_spec spec = problem->part[p];
        spec.format = FMK_FORMAT_GPTQ_V2;
        ref_make(&s->part[p], &spec, rng);
        s->n += spec.n;
    }
    s->weight = make_weight(b, s->part, problem->num_parts, problem->glu ? FMK_WEIGHT_GLU : 0);
    s->columns = problem->glu ? s->n / 2 : s->n;
    s->in = random_matrix(type, rows_of(s), s->k, s->k + 8, rng);
    s->want = malloc((size_t)(rows_of(s) * s->columns) * sizeof *s->want);
    assert_non_null(s->want);
    for (int64_t row = 0; row < rows_of(s); row++) {
        double *want = s->want + row * s->columns;
        for (int p = 0; p < (problem->glu ? 1 : problem->num_parts); p++)
            for (int64_t n = 0; n < problem->part[p].n; n++) {
                *want = product(s, row, p, n);
                if (problem->glu)
                    *want *= product(s, row, 1, n) / (1 + exp(-*want));
                want++;
            }
    }
    s->in_there = gpu_alloc(s->in.size);
    gpu_write(s->in_there, s->in.data, s->in.size);
    s->m_there = gpu_alloc(4);
    int32_t m = (int32_t)problem->m_dev;
    gpu_write(s->m_there, &m, 4);
}

static void free_subject(struct subject *s, struct bench *b) {
    for (int p = 0; p < s->problem->num_parts; p++)
        ref_free(&s->part[p]);
    fmk_weight_destroy(s->weight, b->queue);
    free_matrix(&s->in);
    free(s->want);
    gpu_free(s->in_there);
    gpu_free(s->m_there);
}

/* What src/cuda/linear.c would make of it. */
static struct fmk_wgmma_args args_of(const struct subject *s, uint64_t out, fmk_dtype out_type,
                                     int64_t out_stride) {
    const struct problem *problem = s->problem;
    const struct fmk_packed *parts = s->weight->projection.parts;
    struct fmk_wgmma_args args = {.experts = (int32_t)s->experts};
    struct fmk_linear_kernel_args *l = &args.linear;
    l->num_parts = problem->num_parts;
    l->glu = problem->glu;
    l->k = (int32_t)s->k;
    l->k_packed = (int32_t)parts[0].k_packed;
    l->in = (const void *)(uintptr_t)s->in_there;
    l->in_stride = s->in.stride;
    l->in_type = s->in.type;
    l->m = (int32_t)problem->m;
    l->first_row = (int32_t)problem->first_row;
    l->m_dev = problem->m_dev ? (const int32_t *)(uintptr_t)s->m_there : NULL;
    l->expert_in_stride = problem->m * s->in.stride;
    l->expert_out_stride = problem->m * out_stride;
    l->epilogue.out = (void *)(uintptr_t)out;
    l->epilogue.out_stride = out_stride;
    l->epilogue.out_type = out_type;
    l->epilogue.act = problem->glu ? FMK_ACT_SILU_MUL : 0;
    l->epilogue.up_column = (int32_t)(s->n / 2);
    int32_t column = 0;
    for (int32_t p = 0; p < problem->num_parts; p++) {
        assert_int_equal(parts[p].layout->id, FMK_LAYOUT_INT4_T64);
        l->part[p] = (struct fmk_linear_part){.data = parts[p].data,
                                              .bias = parts[p].bias,
                                              .expert_stride = parts[p].expert_stride,
                                              .stride = parts[p].stride,
                                              .n = (int32_t)parts[p].n,
                                              .column = column,
                                              .dtype = parts[p].dtype,
                                              .chunks = parts[p].chunks,
                                              .has_zeros = parts[p].has_zeros};
        args.range[p] = (const float *)parts[p].range;
        column += l->part[p].n;
    }
    return args;
}

static void launch(const struct subject *s, struct bench *b, const struct fmk_wgmma_cut *cut,
                   const struct matrix *out, uint64_t there, uint64_t room) {
    struct fmk_wgmma_args args = args_of(s, there, out->type, out->stride);
    struct fmk_cuda_order order = {.queue = b->queue};
    CUcontext before;
    args.room = (void *)(uintptr_t)room;
    OK(fmk_cuda_enter(b->ctx, &before));
    OK(fmk_wgmma_launch_cut(&order, &args, cut));
    fmk_cuda_leave(b->ctx, before);
    gpu_wait(test_stream());
}

/* Rows that are not asked for stay as they are; the second time, numbers are the same. */
static void check_cut(const struct subject *s, struct bench *b, const struct fmk_wgmma_cut *cut) {
    static const uint8_t poison = 0x5a;
    const struct problem *problem = s->problem;
    fmk_dtype out_type = problem->out_type ? problem->out_type : s->in.type;
    struct matrix out = matrix(out_type, rows_of(s), s->columns, fmk_round_up(s->columns, 8) + 8);
    memset(out.data, poison, out.size);
    uint64_t there = gpu_alloc(out.size);
    uint64_t room = cut->dealt ? gpu_alloc(FMK_WIDE_ROOM((uint64_t)cut->blocks)) : 0;
    gpu_write(there, out.data, out.size);
    launch(s, b, cut, &out, there, room);
    gpu_read(out.data, there, out.size);
    if (room) {
        uint8_t *first = malloc(out.size);
        assert_non_null(first);
        memcpy(first, out.data, out.size);
        launch(s, b, cut, &out, there, room);
        gpu_read(out.data, there, out.size);
        assert_memory_equal(first, out.data, out.size);
        free(first);
        gpu_free(room);
    }
    gpu_free(there);
    int64_t m = problem->m_dev ? problem->m_dev : problem->m;
    double bound = bound_of(0, s->in.type, out_type, rows_of(s), s->k), error = 0, norm = 0, largest = 0;
    for (int64_t i = 0; i < rows_of(s) * s->columns; i++)
        largest = fmax(largest, fabs(s->want[i]));
    for (int64_t row = 0; row < rows_of(s); row++)
        for (int64_t column = 0; column < s->columns; column++) {
            double want = s->want[row * s->columns + column], got = at(&out, row, column);
            if (row % problem->m < problem->first_row || row % problem->m >= m) {
                const uint8_t *bytes = out.data + (row * out.stride + column) * ref_size(out_type);
                assert_int_equal(bytes[0], poison);
                continue;
            }
            if (!(fabs(got - want) <= 0.05 * largest))
                fail_msg("%s, variant %d, clusters of %d, %u blocks, type %d: row %lld column %lld: want %g "
                         "got %g",
                         problem->name, cut->variant, cut->cluster, cut->blocks, s->in.type, (long long)row,
                         (long long)column, want, got);
            error += (got - want) * (got - want);
            norm += want * want;
        }
    /* Both factors of a gated output err. */
    if (sqrt(error / norm) > (problem->glu ? 2 : 1) * bound)
        fail_msg("%s, variant %d, clusters of %d, %u blocks, type %d: relative L2 %g, bound %g",
                 problem->name, cut->variant, cut->cluster, cut->blocks, s->in.type, sqrt(error / norm),
                 bound);
    assert_gaps_untouched(&out);
    free_matrix(&out);
}

static bool serves_glu(int32_t variant) {
    return variant == FMK_WGMMA_128X16 || variant == FMK_WGMMA_512X16 || variant == FMK_WGMMA_256X32 ||
           variant == FMK_WGMMA_256X64 ||
           (variant >= FMK_WGMMA_WIDE && variant != FMK_WGMMA_WIDE_192X128);
}

static void test_all(fmk_dtype type, const char *name) {
    struct ref_rng rng = ref_rng_start(name);
    struct bench b = open_bench(1);
    if (!(b.ctx->features & FMK_CUDA_SM90A)) {
        print_message("the device, or this run, has no wgmma\n");
        close_bench(&b);
        skip();
    }
    CUcontext before;
    OK(fmk_cuda_enter(b.ctx, &before));
    OK(fmk_cuda_load(b.ctx, FMK_MODULE_INT4_WGMMA));
    fmk_cuda_leave(b.ctx, before);
    for (size_t i = 0; i < sizeof problems / sizeof problems[0]; i++) {
        struct subject s;
        make_subject(&s, &b, &problems[i], type, &rng);
        for (int32_t variant = 0; variant < FMK_WGMMA_VARIANTS; variant++) {
            if (problems[i].glu && !serves_glu(variant))
                continue;
            for (size_t c = 0; c < 3; c++) {
                /* Wide tiles: whole; cut between neighbours; between more than two. */
                static const int32_t clusters[] = {1, 2, 5}, workers[] = {2, 3, 17};
                bool wide = variant >= FMK_WGMMA_WIDE;
                int32_t size = wide ? 1 + (variant == FMK_WGMMA_WIDE_256X256) : clusters[c];
                struct fmk_wgmma_cut cut = {.variant = variant,
                                            .cluster = size,
                                            .blocks = (uint32_t)(size * (wide ? workers[c] : 2)),
                                            .dealt = wide && c > 0};
                if (!quick() || c == (i + (size_t)variant) % 3)
                    check_cut(&s, &b, &cut);
            }
        }
        free_subject(&s, &b);
    }
    close_bench(&b);
}

static void test_f16(void **state) {
    (void)state;
    test_all(FMK_F16, "wgmma f16");
}

static void test_bf16(void **state) {
    (void)state;
    test_all(FMK_BF16, "wgmma bf16");
}

/* Whatever is asked, the answer is one that can be launched. */
static void test_choice(void **state) {
    (void)state;
    struct ref_rng rng = ref_rng_start("wgmma choice");
    for (int i = 0; i < 100000; i++) {
        struct fmk_linear_part parts[FMK_LAUNCH_PARTS];
        struct fmk_wgmma_problem problem = {.parts = parts,
                                            .num_parts = 1 + (int32_t)ref_below(&rng, FMK_LAUNCH_PARTS),
                                            .glu = ref_below(&rng, 3) == 0,
                                            .k = 1 + ref_below(&rng, 1ll << ref_below(&rng, 18)),
                                            .m = 1 + ref_below(&rng, 1ll << ref_below(&rng, 17)),
                                            .experts = 1 + ref_below(&rng, 4),
                                            .multiprocessors = 1 + (int32_t)ref_below(&rng, 200),
                                            .room = ref_below(&rng, 2)};
        for (int p = 0; p < FMK_LAUNCH_PARTS; p++)
            parts[p].n = 1 + (int32_t)ref_below(&rng, 1ll << ref_below(&rng, 18));
        struct fmk_wgmma_cut cut = fmk_wgmma_choose(&problem);
        assert_true(cut.variant >= 0 && cut.variant < FMK_WGMMA_VARIANTS);
        assert_true(cut.cluster >= 1 && cut.cluster <= FMK_WGMMA_MOST_CLUSTER);
        assert_true(cut.blocks > 0 && cut.blocks % (uint32_t)cut.cluster == 0);
        assert_true(!problem.glu || serves_glu(cut.variant));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_choice), cmocka_unit_test(test_f16),
                                       cmocka_unit_test(test_bf16)};
    on_gpu();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
