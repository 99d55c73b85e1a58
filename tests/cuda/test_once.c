/* int4_once with up to eight tokens a tile: of small weights plans give it two at most. */
#include "products.h"

#include "cuda/once.h"

static void launch(const struct subject *s, struct bench *b, const struct fmk_linear_kernel_args *linear,
                   const void *how) {
    enum { TOKENS = 8 };
    const struct fmk_packed *parts = s->weight->projection.parts;
    struct fmk_once_args args = {.linear = *linear};
    struct fmk_cuda_grid grid = {.y = (uint32_t)(linear->m - linear->first_row + TOKENS - 1) / TOKENS,
                                 .z = (uint32_t)s->experts};
    (void)how;
    for (int p = 0; p < linear->num_parts; p++)
        assert_int_equal(parts[p].layout->id, FMK_LAYOUT_INT4_T64);
    assert_true(fmk_once_serves(fmk_cuda_of(b->ctx), linear, TOKENS));
    int32_t kernel = fmk_once_share(fmk_cuda_of(b->ctx), TOKENS, false, &args, &grid) +
                     (linear->in_type == FMK_BF16 ? FMK_ONCE_BF16 : 0);
    OK(fmk_cuda_launch(b->queue, FMK_MODULE_INT4_ONCE, kernel, grid, &args, false));
}

static void test_tokens(const struct subject *s, struct bench *b, size_t number) {
    (void)number;
    if (!s->problem->glu)
        check_product(s, b, launch, NULL, "eight tokens", true);
}

static void test_all(fmk_dtype type, const char *name) {
    struct ref_rng rng = ref_rng_start(name);
    struct bench b = open_bench(1);
    bool there = b.ctx->features & FMK_CUDA_SM90A;
    if (there)
        test_problems(&b, type, &rng, FMK_MODULE_INT4_ONCE, test_tokens);
    close_bench(&b);
    if (!there) {
        print_message("the device, or this run, has no wgmma, and weights lie otherwise\n");
        skip();
    }
}

static void test_f16(void **state) {
    (void)state;
    test_all(FMK_F16, "once f16");
}

static void test_bf16(void **state) {
    (void)state;
    test_all(FMK_BF16, "once bf16");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_f16), cmocka_unit_test(test_bf16)};
    on_gpu();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
