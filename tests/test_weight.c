/* Weights: shards, orders, borrowed and caller-owned memory, packed bytes, progress, rows and dequantizing.
 */
#include "calls.h"

#include <stdio.h>

static void outputs(struct bench *b, const fmk_weight *weight, const struct matrix *in, struct matrix *out) {
    fmk_linear_args args = {.struct_size = sizeof args,
                            .flags = FMK_LINEAR_EXACT,
                            .m = in->rows,
                            .in_type = in->type,
                            .out_type = out->type,
                            .in_stride = in->stride,
                            .out_stride = out->stride,
                            .in = buffer_of(in),
                            .out = buffer_of(out)};
    OK(call(b, weight, &args, true));
}

static fmk_weight *create(struct bench *b, const fmk_part *part, uint32_t flags) {
    fmk_weight_desc desc = {.struct_size = sizeof desc, .parts = part, .num_parts = 1, .flags = flags};
    fmk_weight *weight;
    OK(run_create(&weight, b->queue, &desc));
    return weight;
}

/* The values of a weight are those of its format, bit for bit, in every type, by row and as a whole. */
static void test_dequantize(void **state) {
    (void)state;
    struct ref_rng rng = ref_rng_start("weight/dequantize");
    struct bench b = open_bench(2);
    const int64_t n = 128, k = 512;
    for (int s = 0; s < NUM_SAMPLES; s++)
        for (int borrow = 0; borrow < 2; borrow++) {
            struct ref_weight part;
            make_sample(&part, s, n, k, &rng);
            fmk_weight *weight = make_weight(&b, &part, 1, borrow ? FMK_WEIGHT_BORROW : 0);
            fmk_weight_info_t info = {.struct_size = sizeof info};
            OK(fmk_weight_info(weight, &info));
            bool rows = samples[s].spec.format != FMK_FORMAT_GPTQ &&
                        samples[s].spec.format != FMK_FORMAT_MARLIN &&
                        samples[s].spec.format != FMK_FORMAT_GPTQ_V2;
            if (test_backend() == FMK_BACKEND_CPU)
                assert_int_equal(info.borrowed, borrow && rows);
            else if (test_backend() ==
                     FMK_BACKEND_VULKAN) /* but for drivers that do not take the host's memory */
                assert_true(!info.borrowed || (borrow && rows));
            else if (!borrow || !sources_on_gpu()) /* from the host's memory nothing can be borrowed */
                assert_int_equal(info.borrowed, 0);
            else if (samples[s].spec.format == FMK_FORMAT_DENSE)
                assert_int_equal(info.borrowed, 1);
            struct matrix whole = matrix(FMK_F32, n, k, k + 1), few = matrix(FMK_F16, 4, k, k + 2);
            fmk_buffer out = buffer_of(&whole);
            OK(run_dequantize(b.queue, weight, 0, &out, FMK_F32, whole.stride));
            for (int64_t j = 0; j < n; j++)
                for (int64_t i = 0; i < k; i++) {
                    /* The reference rounds nothing; one float rounding a step of w = a * b - c remains. */
                    double want = ref_value(&part, 0, j, i), got = at(&whole, j, i);
                    if (fabs(got - want) > 1e-6 * (fabs(want) + 1e-3))
                        fail_msg("%s: W[%lld][%lld] want %g got %g", samples[s].name, (long long)j,
                                 (long long)i, want, got);
                }
            assert_gaps_untouched(&whole);
            int32_t ids[4] = {127, 0, 128, -1};
            fmk_rows_args args = {.struct_size = sizeof args,
                                  .out_type = FMK_F16,
                                  .m = 4,
                                  .out_stride = k + 2,
                                  .ids = buffer(ids, sizeof ids),
                                  .out = buffer_of(&few)};
            OK(run_rows(b.queue, weight, &args));
            for (int64_t i = 0; i < k; i++) {
                uint16_t rounded;
                ref_store(FMK_F16, &rounded, at(&whole, 127, i));
                assert_true(at(&few, 0, i) == ref_f16(rounded));
                assert_true(at(&few, 2, i) == 0 && at(&few, 3, i) == 0);
            }
            assert_gaps_untouched(&few);
            free_matrix(&whole);
            free_matrix(&few);
            fmk_weight_destroy(weight, b.queue);
            ref_free(&part);
        }
    close_bench(&b);
}

/* Columns first.. of the whole's row are out's: bit for bit, but on a GPU, where a plan may depend on n,
 * within the bound of EXACT for each. */
static void check_same_columns(const struct matrix *out, const struct matrix *whole, int64_t row,
                               int64_t first) {
    double error = 0, norm = 0;
    for (int64_t c = 0; c < out->width; c++) {
        double want = at(whole, row, first + c), off = at(out, row, c) - want;
        error += off * off;
        norm += want * want;
    }
    if (sqrt(error / norm) > (on_gpu() ? 2e-6 : 0))
        fail_msg("a shard along N is off by %g", sqrt(error / norm));
}

/* Columns of shards along N, put side by side, are the whole bit for bit; shards along K sum to it. */
static void test_shards(void **state) {
    (void)state;
    struct ref_rng rng = ref_rng_start("weight/shards");
    struct bench b = open_bench(2);
    const int64_t n = 128, k = 768, m = 3;
    for (int s = 0; s < NUM_SAMPLES; s++)
        for (int borrow = 0; borrow < 2; borrow++) {
            struct ref_weight part;
            make_sample(&part, s, n, k, &rng);
            uint32_t flags = borrow ? FMK_WEIGHT_BORROW : 0;
            fmk_weight *weight = create(&b, &part.part, flags);
            struct matrix in = random_matrix(FMK_F32, m, k, k, &rng), whole = matrix(FMK_F32, m, n, n);
            outputs(&b, weight, &in, &whole);
            fmk_weight_destroy(weight, b.queue);

            const int64_t edges[] = {0, 19, 64, 128};
            for (int i = 0; i < 3; i++) {
                fmk_part shard = part.part;
                shard.n_begin = edges[i];
                shard.n_end = edges[i + 1];
                int64_t width = edges[i + 1] - edges[i];
                struct matrix out = matrix(FMK_F32, m, width, width);
                weight = create(&b, &shard, flags);
                outputs(&b, weight, &in, &out);
                for (int64_t r = 0; r < m; r++)
                    check_same_columns(&out, &whole, r, edges[i]);
                fmk_weight_destroy(weight, b.queue);
                free_matrix(&out);
            }

            double *sum = calloc((size_t)(m * n), sizeof *sum), *want = calloc((size_t)(m * n), sizeof *want);
            const int64_t cuts[] = {0, 256, 512, 768};
            struct matrix out = matrix(FMK_F32, m, n, n);
            for (int i = 0; i < 3; i++) {
                fmk_part shard = part.part;
                shard.k_begin = cuts[i];
                shard.k_end = cuts[i + 1];
                struct matrix slice = in;
                slice.data += cuts[i] * 4;
                slice.width = cuts[i + 1] - cuts[i];
                slice.size -= (size_t)cuts[i] * 4;
                weight = create(&b, &shard, flags);
                outputs(&b, weight, &slice, &out);
                for (int64_t j = 0; j < m * n; j++)
                    sum[j] += at(&out, j / n, j % n);
                fmk_weight_destroy(weight, b.queue);
            }
            for (int64_t j = 0; j < m * n; j++)
                want[j] = at(&whole, j / n, j % n);
            double error = 0, norm = 0;
            for (int64_t j = 0; j < m * n; j++) {
                error += (sum[j] - want[j]) * (sum[j] - want[j]);
                norm += want[j] * want[j];
            }
            if (sqrt(error / norm) > 2e-6)
                fail_msg("%s: the sum of K shards is off by %g", samples[s].name, sqrt(error / norm));
            free(sum);
            free(want);
            free_matrix(&in);
            free_matrix(&out);
            free_matrix(&whole);
            ref_free(&part);
        }
    close_bench(&b);
}

/* A producer that emits its rows in another order, bias with them. */
static void test_order(void **state) {
    (void)state;
    struct ref_rng rng = ref_rng_start("weight/order");
    struct bench b = open_bench(2);
    const int64_t n = 128, k = 256;
    int32_t order[128];
    for (int s = 0; s < NUM_SAMPLES; s++) {
        struct ref_weight part;
        make_sample(&part, s, n, k, &rng);
        struct matrix in = random_matrix(FMK_F32, 2, k, k, &rng);
        struct matrix plain = matrix(FMK_F32, 2, n, n), ordered = matrix(FMK_F32, 2, n, n);
        fmk_weight *weight = create(&b, &part.part, 0);
        outputs(&b, weight, &in, &plain);
        fmk_weight_destroy(weight, b.queue);
        ref_shuffle(&rng, order, n);
        ref_set_order(&part, order, n);
        weight = create(&b, &part.part, FMK_WEIGHT_BORROW);
        outputs(&b, weight, &in, &ordered);
        for (int64_t j = 0; j < n; j++)
            assert_true(at(&ordered, 1, j) == at(&plain, 1, order[j]));
        fmk_weight_destroy(weight, b.queue);
        free_matrix(&in);
        free_matrix(&plain);
        free_matrix(&ordered);
        ref_free(&part);
    }
    close_bench(&b);
}

static void test_bias_of_shards(void **state) {
    (void)state;
    struct ref_rng rng = ref_rng_start("weight/bias");
    struct bench b = open_bench(1);
    struct ref_weight part;
    make_sample(&part, 0, 64, 256, &rng);
    for (int apply = -1; apply <= 1; apply++)
        for (int64_t begin = 0; begin <= 128; begin += 128) {
            part.part.k_begin = begin;
            fmk_weight_desc desc = {
                .struct_size = sizeof desc, .parts = &part.part, .num_parts = 1, .apply_bias = apply};
            fmk_weight *weight;
            OK(run_create(&weight, b.queue, &desc));
            fmk_part_info info = {.struct_size = sizeof info};
            OK(fmk_weight_part_info(weight, 0, &info));
            assert_int_equal(info.has_bias, apply ? apply > 0 : begin == 0);
            fmk_weight_destroy(weight, b.queue);
        }
    ref_free(&part);
    close_bench(&b);
}

/* Export, then import: copied, borrowed, into the caller's memory; the same bits come out. */
static void test_packed(void **state) {
    (void)state;
    struct ref_rng rng = ref_rng_start("weight/packed");
    struct bench b = open_bench(2);
    const int64_t n = 192, k = 512, m = 4;
    for (int s = 0; s < NUM_SAMPLES; s++)
        for (int borrow = 0; borrow < 2; borrow++) {
            struct ref_weight part;
            make_sample(&part, s, n, k, &rng);
            part.part.n_begin = 64;
            part.part.k_begin = 256;
            fmk_weight *weight = create(&b, &part.part, borrow ? FMK_WEIGHT_BORROW : 0);
            struct matrix in = random_matrix(FMK_F32, m, 256, 256, &rng);
            struct matrix first = matrix(FMK_F32, m, 128, 128), again = matrix(FMK_F32, m, 128, 128);
            outputs(&b, weight, &in, &first);

            uint64_t size, told;
            OK(fmk_weight_export(weight, NULL, 0, &size));
            uint8_t *bytes = fenced(size);
            REFUSED(fmk_weight_export(weight, bytes, size - 1, &told), FMK_EINVAL, "capacity");
            OK(fmk_weight_export(weight, bytes, size, &told));
            assert_int_equal(size, told);
            fmk_weight_info_t before = {.struct_size = sizeof before}, after = before;
            OK(fmk_weight_info(weight, &before));
            assert_int_equal(before.packed_size, size);

            for (int way = 0; way < 3; way++) {
                fmk_part packed = {.struct_size = sizeof packed,
                                   .format = FMK_FORMAT_PACKED,
                                   .qweight = {.data = buffer(bytes, size)}};
                fmk_weight_desc desc = {.struct_size = sizeof desc,
                                        .parts = &packed,
                                        .num_parts = 1,
                                        .flags = way == 1 ? FMK_WEIGHT_BORROW : 0};
                uint64_t need, align;
                OK(fmk_weight_storage(b.ctx, &desc, &need, &align));
                assert_true(way != 1 ? need >= size : on_gpu() || need == 0);
                uint8_t *memory = way == 2 ? storage_alloc(need) : NULL;
                desc.storage = buffer(memory, way == 2 ? need : 0);
                fmk_weight *copy;
                OK(run_create(&copy, b.queue, &desc));
                OK(fmk_weight_info(copy, &after));
                assert_int_equal(after.layout_id, before.layout_id);
                assert_int_equal(after.n, 128);
                fmk_part_info a = {.struct_size = sizeof a}, c = a;
                OK(fmk_weight_part_info(weight, 0, &a));
                OK(fmk_weight_part_info(copy, 0, &c));
                assert_memory_equal(&a, &c, sizeof a);
                memset(again.data, POISON, again.size);
                outputs(&b, copy, &in, &again);
                assert_memory_equal(first.data, again.data, first.size);
                fmk_weight_destroy(copy, b.queue);
                if (memory)
                    storage_free(memory, need);
            }
            fmk_weight_destroy(weight, b.queue);
            release(bytes, size);
            free_matrix(&in);
            free_matrix(&first);
            free_matrix(&again);
            ref_free(&part);
        }
    close_bench(&b);
}

/* Packed bytes come from files: cut short, or with any byte of the header changed, they are refused or they
 * still describe memory that is there. */
static void test_packed_damage(void **state) {
    (void)state;
    struct ref_rng rng = ref_rng_start("weight/damage");
    struct bench b = open_bench(1);
    for (int s = 0; s < NUM_SAMPLES; s++) {
        struct ref_weight part;
        make_sample(&part, s, 64, 256, &rng);
        fmk_weight *weight = create(&b, &part.part, 0), *copy;
        uint64_t size;
        OK(fmk_weight_export(weight, NULL, 0, &size));
        uint8_t *bytes = aligned_alloc(128, (size + 127) / 128 * 128), *exact = malloc(size);
        OK(fmk_weight_export(weight, bytes, size, &size));
        struct matrix in = random_matrix(FMK_F32, 2, 256, 256, &rng), out = matrix(FMK_F32, 2, 64, 64);
        fmk_part packed = {.struct_size = sizeof packed, .format = FMK_FORMAT_PACKED};
        fmk_weight_desc desc = {.struct_size = sizeof desc, .parts = &packed, .num_parts = 1};
        int refused = 0, header = 48 + 104;
        for (int i = 0; i < 8 * header; i++) {
            memcpy(exact, bytes, size);
            exact[i / 8] ^= (uint8_t)(1 << i % 8);
            packed.qweight.data = buffer(exact, size);
            fmk_status status = run_create(&copy, b.queue, &desc);
            refused += status != FMK_OK;
            fmk_weight_info_t info = {.struct_size = sizeof info};
            if (status) {
                assert_null(copy);
                continue;
            }
            OK(fmk_weight_info(copy, &info));
            if (info.n == 64 && info.k == 256 && !info.num_experts)
                outputs(&b, copy, &in, &out);
            fmk_weight_destroy(copy, b.queue);
        }
        if (samples[s].spec.groups == REF_GROUPS_SHUFFLED) {
            /* k_index is the first section, at a multiple of 128: a k that is not there is not read. */
            const int32_t beyond[] = {256, -2, INT32_MAX, INT32_MIN};
            for (int i = 0; i < 4; i++) {
                memcpy(exact, bytes, size);
                memcpy(exact + (header + 127) / 128 * 128, &beyond[i], 4);
                packed.qweight.data = buffer(exact, size);
                REFUSED(fmk_weight_create(&copy, b.queue, &desc), FMK_EFORMAT, "k_index[0]");
                assert_null(copy);
            }
        }
        assert_true(refused > 4 * header); /* all but the words that only the info repeats */
        for (uint64_t cut = 1; cut < size; cut += 1 + cut / 3) {
            packed.qweight.data = buffer(bytes, size - cut);
            REFUSED_AS(fmk_weight_create(&copy, b.queue, &desc), FMK_EFORMAT, FMK_EINVAL, "qweight");
        }
        if (!on_gpu()) { /* which borrows nothing of the host's */
            uint8_t *moved = aligned_alloc(128, (size + 64 + 127) / 128 * 128);
            memcpy(moved + 64, bytes, size);
            packed.qweight.data = buffer(moved + 64, size);
            desc.flags = FMK_WEIGHT_BORROW;
            REFUSED(fmk_weight_create(&copy, b.queue, &desc), FMK_EINVAL, "which is not a multiple of 128");
            desc.flags = 0;
            free(moved);
        }
        packed.qweight.data = buffer(bytes, size);
        packed.bias.data = buffer(bytes, size);
        REFUSED(fmk_weight_create(&copy, b.queue, &desc), FMK_EINVAL, "parts[0].bias is given");
        packed.bias.data = (fmk_buffer){0};
        desc.flags = FMK_WEIGHT_GLU;
        REFUSED(fmk_weight_create(&copy, b.queue, &desc), FMK_EINVAL, "GLU");
        free(exact);
        free(bytes);
        free_matrix(&in);
        free_matrix(&out);
        fmk_weight_destroy(weight, b.queue);
        ref_free(&part);
    }
    close_bench(&b);
}

struct watch {
    uint64_t last, total;
    int calls, cancel_at;
};

static int32_t watch_progress(void *user, uint64_t done, uint64_t total) {
    struct watch *w = user;
    assert_true(done >= w->last && done <= total);
    w->last = done;
    w->total = total;
    return ++w->calls == w->cancel_at;
}

struct account {
    int64_t live, calls;
};

/* On a GPU only its own memory counts: what weights pass through on their way there belongs to the context.
 */
static bool counts(fmk_memory memory) {
    return !on_gpu() || memory == FMK_MEM_DEVICE;
}

static uint64_t account_alloc(void *user, void *stream, uint64_t size, uint64_t align, fmk_memory memory) {
    struct account *account = user;
    assert_ptr_equal(stream, counts(memory) ? test_stream() : stream);
    assert_true(on_gpu() || memory == FMK_MEM_HOST);
    account->live += counts(memory) ? (int64_t)size : 0;
    account->calls++;
    if (memory == FMK_MEM_DEVICE)
        return gpu_buffer(gpu_alloc(size), size).handle;
    return (uint64_t)(uintptr_t)aligned_alloc(align, (size + align - 1) / align * align);
}

static void account_release(void *user, void *stream, uint64_t handle, uint64_t size, fmk_memory memory) {
    struct account *account = user;
    assert_true(on_gpu() || !stream);
    account->live -= counts(memory) ? (int64_t)size : 0;
    if (memory == FMK_MEM_DEVICE)
        gpu_free(gpu_memory(handle));
    else
        free((void *)(uintptr_t)handle);
}

/* Progress ends at the total; cancelled at any call, nothing stays allocated. */
static void test_progress(void **state) {
    (void)state;
    struct ref_rng rng = ref_rng_start("weight/progress");
    struct account account = {0};
    fmk_context_desc desc = context_desc(2);
    desc.staging_bytes = 1 << 20; /* so that a device gets the parts in many slices */
    desc.allocator = (fmk_allocator){account_alloc, account_release, &account};
    struct bench b = bench_of(&desc);
    struct ref_weight parts[2];
    for (int i = 0; i < 2; i++)
        make_sample(&parts[i], 7, 64 * 300, 256, &rng);
    fmk_part own[2];
    fmk_weight_desc wanted = desc_of(own, parts, 2);
    struct watch watch = {0};
    wanted.progress = watch_progress;
    wanted.progress_user = &watch;
    fmk_weight *weight;
    OK(fmk_weight_create(&weight, b.queue, &wanted));
    assert_int_equal(watch.last, watch.total);
    assert_true(watch.calls >= 4 && account.live > 0);
    fmk_weight_destroy(weight, b.queue);
    assert_int_equal(account.live, 0);
    int calls = watch.calls;
    for (int at = 1; at <= calls; at++) {
        watch = (struct watch){.cancel_at = at};
        REFUSED(fmk_weight_create(&weight, b.queue, &wanted), FMK_ECANCELED, "progress");
        assert_null(weight);
        assert_int_equal(account.live, 0);
    }
    for (int i = 0; i < 2; i++)
        ref_free(&parts[i]);
    close_bench(&b);
}

static void test_caller_storage(void **state) {
    (void)state;
    struct ref_rng rng = ref_rng_start("weight/storage");
    struct bench b = open_bench(1);
    struct ref_weight part;
    make_sample(&part, 5, 64, 256, &rng);
    fmk_weight_desc desc = {.struct_size = sizeof desc, .parts = &part.part, .num_parts = 1};
    uint64_t size, align;
    OK(fmk_weight_storage(b.ctx, &desc, &size, &align));
    uint8_t *memory = storage_alloc(size);
    fmk_weight *weight;
    desc.storage = buffer(memory, size - 1);
    REFUSED(run_create(&weight, b.queue, &desc), FMK_EINVAL, "storage.size");
    desc.storage = buffer(memory + 1, size);
    REFUSED(run_create(&weight, b.queue, &desc), FMK_EINVAL, "storage is at address");
    desc.storage = buffer(memory, size);
    OK(run_create(&weight, b.queue, &desc));
    fmk_weight_destroy(weight, b.queue);
    storage_free(memory, size);
    ref_free(&part);
    close_bench(&b);
}

static void keep(void *user, int32_t level, const char *text) {
    assert_int_equal(level, 1);
    snprintf(user, 256, "%s", text);
}

/* A file that declares v1 and holds v2 zeros: seen, used, told. */
static void test_zero_conflict(void **state) {
    (void)state;
    struct ref_rng rng = ref_rng_start("weight/zeros");
    char told[256] = "";
    fmk_context_desc desc = context_desc(1);
    desc.log = keep;
    desc.log_user = told;
    struct bench b = bench_of(&desc);
    struct ref_spec spec = {
        .format = FMK_FORMAT_GPTQ, .n = 64, .k = 256, .group_size = 64, .zeros = REF_ZEROS_ALL_8};
    struct ref_weight part;
    ref_make(&part, &spec, &rng);
    part.part.symmetric = 1;
    fmk_weight *weight = create(&b, &part.part, 0);
    fmk_part_info info = {.struct_size = sizeof info};
    OK(fmk_weight_part_info(weight, 0, &info));
    assert_int_equal(info.zero_declared, 1);
    assert_int_equal(info.zero_detected, 2);
    assert_int_equal(info.zero_used, 2);
    assert_int_equal(info.zero_conflict, 1);
    assert_non_null(strstr(told, "version 2 is used"));
    fmk_weight_destroy(weight, b.queue);
    part.part.zero_point = 1;
    weight = create(&b, &part.part, 0);
    OK(fmk_weight_part_info(weight, 0, &info));
    assert_int_equal(info.zero_used, 1);
    fmk_weight_destroy(weight, b.queue);
    ref_free(&part);
    close_bench(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dequantize),    cmocka_unit_test(test_shards),
        cmocka_unit_test(test_order),         cmocka_unit_test(test_bias_of_shards),
        cmocka_unit_test(test_packed),        cmocka_unit_test(test_packed_damage),
        cmocka_unit_test(test_progress),      cmocka_unit_test(test_caller_storage),
        cmocka_unit_test(test_zero_conflict),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
