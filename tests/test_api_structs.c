/* struct_size, for every struct that has one: a shorter input is extended by zeros, a longer one must end in
 * zeros, sizes that cannot be are refused, an output is cut to what the caller has. And the layout of the
 * structs that can never grow. */
#include "samples.h"
#include "tiny_model.h"

#include <assert.h>

static fmk_context *ctx;
static fmk_queue *queue;
static fmk_weight *weight;
static fmk_checkpoint *checkpoint;
static fmk_model *model;
static struct ref_weight source;
static char *folder;
static float in[2 * 256], out[2 * 64];
static void *workspace;
static int32_t ids[2];
static fmk_linear_args args;

enum { N = 64, K = 256, TAIL = 16 };

static int set_up(void **state) {
    (void)state;
    struct ref_rng rng = ref_rng_start("test_api_structs");
    fmk_context_desc desc = context_desc(1);
    OK(fmk_context_create(&ctx, &desc));
    OK(fmk_queue_create(&queue, ctx, NULL));
    make_sample(&source, 0, N, K, &rng);
    fmk_weight_desc made = weight_desc(&source.part, 1);
    OK(fmk_weight_create(&weight, queue, &made));
    args = linear_args(in, out, 2, N, K);
    workspace = give_workspace(weight, &args);
    folder = tiny_folder();
    char *path = tiny_safetensors(folder);
    OK(fmk_checkpoint_open(&checkpoint, path));
    OK(fmk_model_load(&model, queue, checkpoint, NULL));
    free(path);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    fmk_model_destroy(model);
    fmk_checkpoint_close(checkpoint);
    fmk_weight_destroy(weight, queue);
    fmk_queue_destroy(queue);
    fmk_context_destroy(ctx);
    free(workspace);
    ref_free(&source);
    tiny_remove(folder);
    return 0;
}

/* ---- inputs ---- */

static fmk_status create_context(const void *desc) {
    fmk_context *made;
    fmk_status status = fmk_context_create(&made, desc);
    assert_true(status == FMK_OK || made == NULL);
    fmk_context_destroy(made);
    return status;
}

static fmk_status create_weight(const void *desc) {
    fmk_weight *made;
    fmk_status status = fmk_weight_create(&made, queue, desc);
    assert_true(status == FMK_OK || made == NULL);
    fmk_weight_destroy(made, queue);
    return status;
}

static fmk_status storage_of_weight(const void *desc) {
    uint64_t size, align;
    return fmk_weight_storage(ctx, desc, &size, &align);
}

static fmk_status can_run_weight(const void *desc) {
    return fmk_can_run(ctx, desc, &args);
}

static fmk_status load_checkpoint(const void *desc) {
    const char *name = "model.layers.0.mlp.up_proj";
    fmk_weight *made;
    fmk_status status = fmk_checkpoint_load(&made, queue, checkpoint, &name, 1, desc);
    fmk_weight_destroy(made, queue);
    return status;
}

static fmk_status load_model(const void *desc) {
    fmk_model *made;
    fmk_status status = fmk_model_load(&made, queue, checkpoint, desc);
    fmk_model_destroy(made);
    return status;
}

static fmk_status create_of_part(const void *part) {
    fmk_weight_desc desc = weight_desc(part, 1);
    return create_weight(&desc);
}

static fmk_status storage_of_part(const void *part) {
    fmk_weight_desc desc = weight_desc(part, 1);
    return storage_of_weight(&desc);
}

static fmk_status can_run_part(const void *part) {
    fmk_weight_desc desc = weight_desc(part, 1);
    return can_run_weight(&desc);
}

static fmk_status can_run_args(const void *given) {
    fmk_weight_desc desc = weight_desc(&source.part, 1);
    return fmk_can_run(ctx, &desc, given);
}

static fmk_status workspace_of_args(const void *given) {
    uint64_t least, best;
    return fmk_workspace_size(weight, given, &least, &best);
}

static fmk_status prepare_args(const void *given) {
    return fmk_prepare(queue, weight, given);
}

static fmk_status linear_of_args(const void *given) {
    return fmk_linear(queue, weight, given);
}

static fmk_status explain_args(const void *given) {
    return fmk_explain(weight, given, NULL, 0, NULL);
}

static fmk_status linear_of_routing(const void *routing) {
    fmk_linear_args routed = args;
    routed.routing = routing;
    return fmk_linear(queue, weight, &routed);
}

static fmk_status sort_by_ids(const void *routing) {
    int32_t offsets[2], pairs[2];
    fmk_routing sorted = {.struct_size = sizeof sorted,
                          .kind = FMK_ROUTE_SORTED,
                          .top_k = 1,
                          .offsets = buffer(offsets, sizeof offsets),
                          .pairs = buffer(pairs, sizeof pairs)};
    return fmk_route_sort(queue, routing, 2, 1, &sorted);
}

static fmk_status look_up_rows(const void *given) {
    return fmk_rows(queue, weight, given);
}

static fmk_status quantize(const void *given) {
    return fmk_quantize(ctx, given);
}

static fmk_status size_of_quantize(const void *given) {
    uint64_t size[3];
    return fmk_quantize_size(given, &size[0], &size[1], &size[2]);
}

struct input {
    const char *name;
    fmk_status (*call)(const void *);
    const void *valid;
    size_t size;
    size_t least; /* the required fields of `valid` end here */
};

#define END_OF(type, field) (offsetof(type, field) + sizeof((type *)0)->field)

static void check_input(const struct input *input) {
    unsigned char longer[1024];
    assert_true(input->size + TAIL <= sizeof longer);
    memset(longer, 0, sizeof longer);
    memcpy(longer, input->valid, input->size);
    uint32_t size = (uint32_t)input->size;
    print_message("%s\n", input->name);
    OK(input->call(longer));

    /* From a newer header: fields that this version does not know, unused and used. */
    uint32_t told = size + TAIL;
    memcpy(longer, &told, sizeof told);
    OK(input->call(longer));
    for (size_t at = 0; at < TAIL; at += TAIL - 1) {
        memset(longer + size, 0, TAIL);
        longer[size + at] = 1;
        REFUSED(input->call(longer), FMK_EUNSUPPORTED, "");
        assert_true(fmk_last_error()[0]);
    }
    memset(longer + size, 0, TAIL);

    /* From an older header: what lies after it is not read. */
    told = (uint32_t)input->least;
    memset(longer + told, 0xee, sizeof longer - told);
    memcpy(longer, &told, sizeof told);
    OK(input->call(longer));

    memcpy(longer, input->valid, input->size);
    const uint32_t garbage[] = {0, 1, 3, 1u << 20, 0x7fffffff, 0xffffffff};
    for (size_t i = 0; i < sizeof garbage / sizeof garbage[0]; i++) {
        memcpy(longer, &garbage[i], sizeof garbage[i]);
        REFUSED(input->call(longer), FMK_EINVAL, "struct_size");
    }
}

static void test_inputs(void **state) {
    (void)state;
    fmk_context_desc context = context_desc(1);
    fmk_weight_desc desc = weight_desc(&source.part, 1), none = {.struct_size = sizeof none};
    fmk_routing routing = {.struct_size = sizeof routing};
    fmk_routing by_ids = {
        .struct_size = sizeof by_ids, .kind = FMK_ROUTE_IDS, .top_k = 1, .ids = buffer(ids, sizeof ids)};
    float rows_out[2 * K], values[K] = {1};
    fmk_rows_args rows = {.struct_size = sizeof rows,
                          .out_type = FMK_F32,
                          .m = 2,
                          .ids = buffer(ids, sizeof ids),
                          .out = buffer(rows_out, sizeof rows_out)};
    unsigned char block[144];
    fmk_quantize_args quantized = {.struct_size = sizeof quantized,
                                   .format = FMK_FORMAT_Q4_K,
                                   .n = 1,
                                   .k = K,
                                   .in_type = FMK_F32,
                                   .in = values,
                                   .qweight = block};
    const struct input inputs[] = {
        {"context_create", create_context, &context, sizeof context, END_OF(fmk_context_desc, disable)},
        {"weight_create", create_weight, &desc, sizeof desc, END_OF(fmk_weight_desc, num_parts)},
        {"weight_storage", storage_of_weight, &desc, sizeof desc, END_OF(fmk_weight_desc, num_parts)},
        {"can_run desc", can_run_weight, &desc, sizeof desc, END_OF(fmk_weight_desc, num_parts)},
        {"checkpoint_load", load_checkpoint, &none, sizeof none, END_OF(fmk_weight_desc, flags)},
        {"model_load", load_model, &none, sizeof none, END_OF(fmk_weight_desc, flags)},
        {"weight_create part", create_of_part, &source.part, sizeof source.part, END_OF(fmk_part, qweight)},
        {"weight_storage part", storage_of_part, &source.part, sizeof source.part, END_OF(fmk_part, qweight)},
        {"can_run part", can_run_part, &source.part, sizeof source.part, END_OF(fmk_part, qweight)},
        {"can_run args", can_run_args, &args, sizeof args, END_OF(fmk_linear_args, out)},
        {"workspace_size", workspace_of_args, &args, sizeof args, END_OF(fmk_linear_args, out)},
        {"prepare", prepare_args, &args, sizeof args, END_OF(fmk_linear_args, out)},
        {"linear", linear_of_args, &args, sizeof args, END_OF(fmk_linear_args, workspace)},
        {"explain", explain_args, &args, sizeof args, END_OF(fmk_linear_args, out)},
        {"linear routing", linear_of_routing, &routing, sizeof routing, END_OF(fmk_routing, kind)},
        {"route_sort", sort_by_ids, &by_ids, sizeof by_ids, END_OF(fmk_routing, ids)},
        {"rows", look_up_rows, &rows, sizeof rows, sizeof rows},
        {"quantize", quantize, &quantized, sizeof quantized, END_OF(fmk_quantize_args, qweight)},
        {"quantize_size", size_of_quantize, &quantized, sizeof quantized, END_OF(fmk_quantize_args, in_type)},
    };
    for (size_t i = 0; i < sizeof inputs / sizeof inputs[0]; i++)
        check_input(&inputs[i]);
}

/* Parts are walked by the first one's struct_size. */
static void test_parts_from_a_newer_header(void **state) {
    (void)state;
    struct {
        fmk_part part;
        uint64_t unknown;
    } parts[2] = {{.part = source.part}, {.part = source.part}};
    parts[0].part.struct_size = parts[1].part.struct_size = sizeof parts[0];
    fmk_weight_desc desc = weight_desc(&parts[0].part, 2);
    fmk_weight *made;
    fmk_weight_info_t info = {.struct_size = sizeof info};
    OK(fmk_weight_create(&made, queue, &desc));
    OK(fmk_weight_info(made, &info));
    assert_int_equal(info.n, 2 * N);
    fmk_weight_destroy(made, queue);

    parts[1].unknown = 1;
    REFUSED(fmk_weight_create(&made, queue, &desc), FMK_EUNSUPPORTED, "parts[1]");
    assert_null(made);
}

/* ---- outputs ---- */

static fmk_status info_of_context(void *info) {
    return fmk_context_info(ctx, info);
}

static fmk_status info_of_weight(void *info) {
    return fmk_weight_info(weight, info);
}

static fmk_status info_of_part(void *info) {
    return fmk_weight_part_info(weight, 0, info);
}

static fmk_status info_of_checkpoint(void *info) {
    return fmk_checkpoint_info(checkpoint, info);
}

static fmk_status entry_of_checkpoint(void *entry) {
    return fmk_checkpoint_entry(checkpoint, 0, entry);
}

static fmk_status part_of_checkpoint(void *part) {
    return fmk_checkpoint_find(checkpoint, "model.layers.0.mlp.up_proj", part, NULL);
}

static fmk_status info_of_model(void *info) {
    return fmk_model_info(model, info);
}

static void test_outputs(void **state) {
    (void)state;
    const struct {
        const char *name;
        fmk_status (*call)(void *);
        uint32_t size;
    } outputs[] = {
        {"context_info", info_of_context, sizeof(fmk_context_info_t)},
        {"weight_info", info_of_weight, sizeof(fmk_weight_info_t)},
        {"weight_part_info", info_of_part, sizeof(fmk_part_info)},
        {"checkpoint_info", info_of_checkpoint, sizeof(fmk_checkpoint_info_t)},
        {"checkpoint_entry", entry_of_checkpoint, sizeof(fmk_entry)},
        {"checkpoint_find", part_of_checkpoint, sizeof(fmk_part)},
        {"model_info", info_of_model, sizeof(fmk_model_info_t)},
    };
    for (size_t i = 0; i < sizeof outputs / sizeof outputs[0]; i++) {
        print_message("%s\n", outputs[i].name);
        unsigned char whole[1024], got[1024];
        const uint32_t sizes[] = {outputs[i].size, outputs[i].size + TAIL, outputs[i].size - 8, 12, 4};
        for (size_t j = 0; j < sizeof sizes / sizeof sizes[0]; j++) {
            memset(got, 0xee, sizeof got);
            memcpy(got, &sizes[j], sizeof sizes[j]);
            OK(outputs[i].call(got));
            if (j == 0)
                memcpy(whole, got, sizeof got);
            uint32_t written = sizes[j] < outputs[i].size ? sizes[j] : outputs[i].size, told;
            memcpy(&told, got, sizeof told);
            assert_int_equal(told, written);
            assert_memory_equal(got + sizeof told, whole + sizeof told, written - sizeof told);
            for (size_t at = written; at < sizeof got; at++)
                assert_int_equal(got[at], 0xee);
        }
        const uint32_t garbage[] = {0, 1, 3, 1u << 20, 0xffffffff};
        for (size_t j = 0; j < sizeof garbage / sizeof garbage[0]; j++) {
            memset(got, 0xee, sizeof got);
            memcpy(got, &garbage[j], sizeof garbage[j]);
            REFUSED(outputs[i].call(got), FMK_EINVAL, "struct_size");
            for (size_t at = sizeof garbage[j]; at < sizeof got; at++)
                assert_int_equal(got[at], 0xee);
        }
    }
}

/* ---- what cannot grow ---- */

static_assert(sizeof(fmk_buffer) == 24, "a buffer is three numbers");
static_assert(offsetof(fmk_buffer, handle) == 0, "");
static_assert(offsetof(fmk_buffer, offset) == 8, "");
static_assert(offsetof(fmk_buffer, size) == 16, "");
static_assert(sizeof(fmk_tensor) == 40, "a tensor is a buffer, a stride and two kinds");
static_assert(offsetof(fmk_tensor, data) == 0, "");
static_assert(offsetof(fmk_tensor, expert_stride) == 24, "");
static_assert(offsetof(fmk_tensor, dtype) == 32, "");
static_assert(offsetof(fmk_tensor, memory) == 36, "");
static_assert(sizeof(fmk_allocator) == 3 * sizeof(void *), "two functions and what they are given");
static_assert(sizeof(fmk_status) == 4 && sizeof(fmk_format) == 4 && sizeof(fmk_dtype) == 4,
              "enums are 32 bits");

/* Growing happens at the end: these are the sizes of the first version, and no field of it moves. */
static void test_first_version_fits(void **state) {
    (void)state;
    assert_true(sizeof(fmk_part) >= 312);
    assert_true(sizeof(fmk_weight_desc) >= 80);
    assert_true(sizeof(fmk_routing) >= 136);
    assert_true(sizeof(fmk_linear_args) >= 216);
    assert_true(sizeof(fmk_rows_args) >= 80);
    assert_true(sizeof(fmk_context_desc) >= 80);
    assert_true(sizeof(fmk_quantize_args) >= 80);
    assert_int_equal(offsetof(fmk_part, qweight), 72);
    assert_int_equal(offsetof(fmk_part, n_order), 272);
    assert_int_equal(offsetof(fmk_weight_desc, storage), 32);
    assert_int_equal(offsetof(fmk_weight_desc, progress_user), 72);
    assert_int_equal(offsetof(fmk_routing, ids), 40);
    assert_int_equal(offsetof(fmk_linear_args, in), 64);
    assert_int_equal(offsetof(fmk_linear_args, routing), 208);
    assert_int_equal(offsetof(fmk_rows_args, out), 56);
    assert_int_equal(offsetof(fmk_context_desc, allocator), 24);
    assert_int_equal(offsetof(fmk_context_desc, log_user), 72);
    assert_int_equal(offsetof(fmk_quantize_args, qzeros), 72);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_inputs),
        cmocka_unit_test(test_parts_from_a_newer_header),
        cmocka_unit_test(test_outputs),
        cmocka_unit_test(test_first_version_fits),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
