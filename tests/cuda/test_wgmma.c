/* Every kernel of int4_wgmma, in clusters of every kind, on tiles that are whole and that are not: what plans
 * choose only for shapes that are large. */
#include "products.h"

#include "cuda/wgmma.h"

struct way {
    struct fmk_wgmma_cut cut;
    uint64_t room; /* on the device; 0: none */
};

static void launch(const struct subject *s, struct bench *b, const struct fmk_linear_kernel_args *linear,
                   const void *how) {
    const struct way *way = how;
    const struct fmk_packed *parts = s->weight->projection.parts;
    struct fmk_wgmma_args args = {.linear = *linear, .experts = (int32_t)s->experts};
    struct fmk_cuda_order order = {.queue = b->queue};
    for (int p = 0; p < linear->num_parts; p++) {
        assert_int_equal(parts[p].layout->id, FMK_LAYOUT_INT4_T64);
        args.range[p] = (const float *)parts[p].range;
    }
    args.room = (void *)(uintptr_t)way->room;
    OK(fmk_wgmma_launch_cut(&order, &args, &way->cut));
}

static bool serves_glu(int32_t variant) {
    return variant == FMK_WGMMA_128X16 || variant == FMK_WGMMA_512X16 || variant == FMK_WGMMA_256X32 ||
           variant == FMK_WGMMA_256X64 || (variant >= FMK_WGMMA_WIDE && variant != FMK_WGMMA_WIDE_192X128);
}

static void test_cuts(const struct subject *s, struct bench *b, size_t number) {
    for (int32_t variant = 0; variant < FMK_WGMMA_VARIANTS; variant++) {
        if (s->problem->glu && !serves_glu(variant))
            continue;
        for (size_t c = 0; c < 3; c++) {
            /* Wide tiles: whole; cut between neighbours; between more than two. */
            static const int32_t clusters[] = {1, 2, 5}, workers[] = {2, 3, 17};
            bool wide = variant >= FMK_WGMMA_WIDE;
            int32_t size = wide ? 1 + (variant == FMK_WGMMA_WIDE_256X256) : clusters[c];
            struct way way = {.cut = {.variant = variant,
                                      .cluster = size,
                                      .blocks = (uint32_t)(size * (wide ? workers[c] : 2)),
                                      .dealt = wide && c > 0}};
            if (quick() && c != (number + (size_t)variant) % 3)
                continue;
            char name[80];
            snprintf(name, sizeof name, "variant %d, clusters of %d, %u blocks", variant, size,
                     way.cut.blocks);
            if (way.cut.dealt)
                way.room = gpu_alloc(FMK_WIDE_ROOM((uint64_t)way.cut.blocks));
            check_product(s, b, launch, &way, name, way.cut.dealt);
            if (way.room)
                gpu_free(way.room);
        }
    }
}

static void test_all(fmk_dtype type, const char *name) {
    struct ref_rng rng = ref_rng_start(name);
    struct bench b = open_bench(1);
    bool there = b.ctx->features & FMK_CUDA_SM90A;
    if (there)
        test_problems(&b, type, &rng, FMK_MODULE_INT4_WGMMA, test_cuts);
    close_bench(&b);
    if (!there) {
        print_message("the device, or this run, has no wgmma\n");
        skip();
    }
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
