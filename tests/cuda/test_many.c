/* Every tile of int4_many, which plans choose by the size of a product. */
#include "products.h"

#include "cuda/many.h"
#include "cuda/plan.h"
#include "cuda/linear.h"

struct tile {
    int32_t tile;
    bool any; /* groups */
};

static void launch(const struct subject *s, struct bench *b, const struct fmk_linear_kernel_args *linear,
                   const void *how) {
    const struct tile *tile = how;
    const struct fmk_packed *parts = s->weight->projection.parts;
    struct fmk_many_args args = {.linear = *linear};
    struct fmk_cuda_order order = {.queue = b->queue};
    for (int p = 0; p < linear->num_parts; p++) {
        assert_int_equal(parts[p].layout->id, FMK_LAYOUT_INT4_T16);
        args.range[p] = (const float *)parts[p].range;
    }
    OK(fmk_many_launch_tile(&order, &args, (uint32_t)s->experts, tile->any, tile->tile));
}

/* Kernels of any groups serve all. */
static void test_tiles(const struct subject *s, struct bench *b, size_t number) {
    bool any = fmk_cuda_any_groups(&s->weight->projection.parts[0]);
    for (int32_t tile = 0; tile < FMK_MANY_TILES; tile++)
        for (int both = any; both < 2; both++) {
            char name[80];
            snprintf(name, sizeof name, "tile %d, %s groups", tile, both ? "any" : "usual");
            if (!quick() || any || both == (int)(number + (size_t)tile) % 2)
                check_product(s, b, launch, &(struct tile){tile, both}, name, false);
        }
}

static void test_all(fmk_dtype type, const char *name) {
    struct ref_rng rng = ref_rng_start(name);
    struct bench b = open_bench(1);
    bool there = !(b.ctx->features & FMK_CUDA_SM90A);
    if (there)
        test_problems(&b, type, &rng, FMK_MODULE_INT4_MANY, test_tiles);
    close_bench(&b);
    if (!there) {
        print_message("weights lie as wgmma has them, unless the feature sm90 is switched off\n");
        skip();
    }
}

static void test_f16(void **state) {
    (void)state;
    test_all(FMK_F16, "many f16");
}

static void test_bf16(void **state) {
    (void)state;
    test_all(FMK_BF16, "many bf16");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_f16), cmocka_unit_test(test_bf16)};
    on_gpu();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
