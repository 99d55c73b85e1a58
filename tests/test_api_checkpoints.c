/* What a caller can get wrong with checkpoints and models: each is a status and a sentence that names the
 * argument, and leaves every handle NULL. */
#include "misuse.h"
#include "tiny_model.h"

static fmk_context *ctx;
static fmk_queue *queue;
static fmk_checkpoint *checkpoint;
static fmk_model *model;
static char *folder, *path;

static int set_up(void **state) {
    (void)state;
    fmk_context_desc desc = context_desc(1);
    OK(fmk_context_create(&ctx, &desc));
    OK(fmk_queue_create(&queue, ctx, NULL));
    folder = tiny_folder();
    path = tiny_safetensors(folder);
    OK(fmk_checkpoint_open(&checkpoint, path));
    OK(fmk_model_load(&model, queue, checkpoint, NULL));
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    fmk_model_destroy(model);
    fmk_checkpoint_close(checkpoint);
    fmk_queue_destroy(queue);
    fmk_context_destroy(ctx);
    tiny_remove(folder);
    free(path);
    return 0;
}

/* ---- checkpoints and models ---- */

static void test_checkpoint(void **state) {
    (void)state;
    fmk_checkpoint *opened = RUBBISH;
    REFUSED(fmk_checkpoint_open(NULL, path), FMK_EINVAL, "out");
    REFUSED(fmk_checkpoint_open(&opened, NULL), FMK_EINVAL, "path");
    assert_null(opened);
    const char *const missing[] = {"", "/nowhere/at/all.gguf", "/dev/null", "/proc/self/mem"};
    for (size_t i = 0; i < COUNT(missing); i++) {
        opened = RUBBISH;
        fmk_status status = fmk_checkpoint_open(&opened, missing[i]);
        assert_true(status == FMK_EIO || status == FMK_EFORMAT || status == FMK_EINVAL ||
                    status == FMK_EUNSUPPORTED || status == FMK_ENOTFOUND);
        assert_true(fmk_last_error()[0]);
        assert_null(opened);
    }
    REFUSED(fmk_checkpoint_open(&opened, "/nowhere/at/all.gguf"), FMK_EIO, "/nowhere/at/all.gguf");

    fmk_checkpoint_info_t info = {.struct_size = sizeof info};
    fmk_entry entry = {.struct_size = sizeof entry};
    fmk_part part = {.struct_size = sizeof part};
    REFUSED(fmk_checkpoint_info(NULL, &info), FMK_EINVAL, "c ");
    REFUSED(fmk_checkpoint_info(checkpoint, NULL), FMK_EINVAL, "out");
    REFUSED(fmk_checkpoint_entry(NULL, 0, &entry), FMK_EINVAL, "c ");
    REFUSED(fmk_checkpoint_entry(checkpoint, 0, NULL), FMK_EINVAL, "out");
    OK(fmk_checkpoint_info(checkpoint, &info));
    REFUSED_AS(fmk_checkpoint_entry(checkpoint, info.num_entries, &entry), FMK_EINVAL, FMK_ENOTFOUND,
               "index");
    REFUSED_AS(fmk_checkpoint_entry(checkpoint, -1, &entry), FMK_EINVAL, FMK_ENOTFOUND, "index");
    const char *name = "model.layers.0.mlp.up_proj";
    REFUSED(fmk_checkpoint_find(NULL, name, &part, NULL), FMK_EINVAL, "c ");
    REFUSED(fmk_checkpoint_find(checkpoint, NULL, &part, NULL), FMK_EINVAL, "name");
    REFUSED(fmk_checkpoint_find(checkpoint, name, NULL, NULL), FMK_EINVAL, "out");
    REFUSED(fmk_checkpoint_find(checkpoint, "no.such.tensor", &part, NULL), FMK_ENOTFOUND, "no.such.tensor");
    REFUSED(fmk_checkpoint_find(checkpoint, "", &part, NULL), FMK_ENOTFOUND, "");
    REFUSED_AS(fmk_checkpoint_find(checkpoint, "model.norm", &part, NULL), FMK_ENOTFOUND, FMK_EINVAL,
               "model.norm");

    fmk_weight *loaded = RUBBISH;
    const char *names[] = {name, "no.such.tensor", NULL};
    REFUSED(fmk_checkpoint_load(NULL, queue, checkpoint, names, 1, NULL), FMK_EINVAL, "out");
    REFUSED(fmk_checkpoint_load(&loaded, NULL, checkpoint, names, 1, NULL), FMK_EINVAL, "queue");
    assert_null(loaded);
    REFUSED(fmk_checkpoint_load(&loaded, queue, NULL, names, 1, NULL), FMK_EINVAL, "c ");
    REFUSED(fmk_checkpoint_load(&loaded, queue, checkpoint, NULL, 1, NULL), FMK_EINVAL, "names");
    REFUSED(fmk_checkpoint_load(&loaded, queue, checkpoint, names + 2, 1, NULL), FMK_EINVAL, "names[0]");
    REFUSED(fmk_checkpoint_load(&loaded, queue, checkpoint, names, 0, NULL), FMK_EINVAL, "count");
    REFUSED(fmk_checkpoint_load(&loaded, queue, checkpoint, names, -1, NULL), FMK_EINVAL, "count");
    REFUSED(fmk_checkpoint_load(&loaded, queue, checkpoint, names, 65, NULL), FMK_EINVAL, "count");
    loaded = RUBBISH;
    REFUSED(fmk_checkpoint_load(&loaded, queue, checkpoint, names, 2, NULL), FMK_ENOTFOUND, "no.such.tensor");
    assert_null(loaded);
    OK(fmk_checkpoint_find(checkpoint, name, &part, NULL));
    fmk_weight_desc with_parts = weight_desc(&part, 1);
    REFUSED(fmk_checkpoint_load(&loaded, queue, checkpoint, names, 1, &with_parts), FMK_EINVAL, "parts");

    float norm[TINY_HIDDEN];
    int64_t count;
    REFUSED(fmk_checkpoint_vector(NULL, "model.norm", norm, TINY_HIDDEN, &count), FMK_EINVAL, "c ");
    REFUSED(fmk_checkpoint_vector(checkpoint, NULL, norm, TINY_HIDDEN, &count), FMK_EINVAL, "name");
    REFUSED(fmk_checkpoint_vector(checkpoint, "model.norm", norm, TINY_HIDDEN - 1, &count), FMK_EINVAL,
            "capacity");
    REFUSED(fmk_checkpoint_vector(checkpoint, "model.norm", norm, -1, &count), FMK_EINVAL, "capacity");
    REFUSED(fmk_checkpoint_vector(checkpoint, "no.such", norm, TINY_HIDDEN, &count), FMK_ENOTFOUND,
            "no.such");
    fmk_checkpoint_close(NULL);
}

static void test_model(void **state) {
    (void)state;
    fmk_model *loaded = RUBBISH;
    fmk_model_info_t info = {.struct_size = sizeof info};
    REFUSED(fmk_model_load(NULL, queue, checkpoint, NULL), FMK_EINVAL, "out");
    REFUSED(fmk_model_load(&loaded, NULL, checkpoint, NULL), FMK_EINVAL, "queue");
    assert_null(loaded);
    loaded = RUBBISH;
    REFUSED(fmk_model_load(&loaded, queue, NULL, NULL), FMK_EINVAL, "c ");
    assert_null(loaded);
    REFUSED(fmk_model_info(NULL, &info), FMK_EINVAL, "model");
    REFUSED(fmk_model_info(model, NULL), FMK_EINVAL, "out");
    fmk_weight *role = RUBBISH;
    REFUSED(fmk_model_weight(NULL, 0, FMK_ROLE_O, &role), FMK_EINVAL, "model");
    assert_null(role);
    REFUSED(fmk_model_weight(model, 0, FMK_ROLE_O, NULL), FMK_EINVAL, "out");
    const struct {
        int32_t layer;
        fmk_role role;
        const char *word;
    } wrongs[] = {
        {1, FMK_ROLE_O, "layer"},
        {-1, FMK_ROLE_O, "layer"},
        {INT32_MAX, FMK_ROLE_DOWN, "layer"},
        {0, 0, "role"},
        {0, 12, "role"},
        {0, -1, "role"},
        {0, INT32_MAX, "role"},
        {0, FMK_ROLE_INPUT_NORM, "role"},
    };
    for (size_t i = 0; i < COUNT(wrongs); i++) {
        role = RUBBISH;
        REFUSED_AS(fmk_model_weight(model, wrongs[i].layer, wrongs[i].role, &role), FMK_EINVAL, FMK_ENOTFOUND,
                   wrongs[i].word);
        assert_null(role);
    }
    const float *norm;
    int64_t count;
    OK(fmk_model_vector(model, 0, FMK_ROLE_INPUT_NORM, &norm, &count));
    assert_int_equal(count, TINY_HIDDEN);
    REFUSED(fmk_model_vector(NULL, 0, FMK_ROLE_INPUT_NORM, &norm, &count), FMK_EINVAL, "model");
    REFUSED(fmk_model_vector(model, 0, FMK_ROLE_INPUT_NORM, NULL, &count), FMK_EINVAL, "data");
    REFUSED(fmk_model_vector(model, 0, FMK_ROLE_INPUT_NORM, &norm, NULL), FMK_EINVAL, "count");
    REFUSED_AS(fmk_model_vector(model, 1, FMK_ROLE_INPUT_NORM, &norm, &count), FMK_EINVAL, FMK_ENOTFOUND,
               "layer");
    REFUSED_AS(fmk_model_vector(model, 0, FMK_ROLE_O, &norm, &count), FMK_EINVAL, FMK_ENOTFOUND, "role");
    assert_int_equal(fmk_model_vector(model, 0, FMK_ROLE_Q_NORM, &norm, &count), FMK_ENOTFOUND);
    fmk_model_destroy(NULL);
}

static int32_t cancel(void *user, uint64_t done, uint64_t total) {
    assert_true(done <= total);
    return ++*(int32_t *)user == 3;
}

static void test_cancel(void **state) {
    (void)state;
    int32_t calls = 0;
    fmk_weight_desc desc = {.struct_size = sizeof desc, .progress = cancel, .progress_user = &calls};
    fmk_model *made = RUBBISH;
    assert_int_equal(fmk_model_load(&made, queue, checkpoint, &desc), FMK_ECANCELED);
    assert_null(made);
    assert_int_equal(calls, 3);
}

/* A borrowing weight keeps the map, a model its weights and the map, a retained weight outlives its model. */
static void test_checkpoint_lifetimes(void **state) {
    (void)state;
    fmk_checkpoint *c;
    fmk_weight *borrowed, *kept;
    fmk_model *m;
    fmk_weight_desc desc = {.struct_size = sizeof desc, .flags = FMK_WEIGHT_BORROW};
    const char *name = "model.layers.0.mlp.up_proj.weight";
    OK(fmk_checkpoint_open(&c, path));
    OK(fmk_checkpoint_load(&borrowed, queue, c, &name, 1, &desc));
    OK(fmk_model_load(&m, queue, c, &desc));
    fmk_checkpoint_close(c);
    OK(fmk_model_weight(m, 0, FMK_ROLE_DOWN, &kept));
    OK(fmk_weight_retain(kept));
    fmk_model_destroy(m);
    fmk_weight *weights[] = {borrowed, kept};
    for (int i = 0; i < 2; i++) {
        fmk_weight_info_t info = {.struct_size = sizeof info};
        OK(fmk_weight_info(weights[i], &info));
        float *values = malloc((size_t)(info.n * info.k) * sizeof *values);
        assert_non_null(values);
        fmk_buffer all = buffer(values, (size_t)(info.n * info.k) * sizeof *values);
        OK(fmk_weight_dequantize(queue, weights[i], 0, &all, FMK_F32, 0));
        assert_true(values[0] == -1.0f); /* as tiny_model.c writes them */
        free(values);
        fmk_weight_destroy(weights[i], queue);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_checkpoint),
        cmocka_unit_test(test_model),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_checkpoint_lifetimes),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
