/* Any bytes as the configs beside a safetensors file, and as an index of several. */
#include "fuzz.h"

#include "checkpoint/quant_config.h"
#include "checkpoint/safetensors.h"

static void read_index(const uint8_t *data, size_t size) {
    struct fmk_index index;
    if (!fmk_index_read(data, size, &index))
        for (size_t i = 0; i < index.num_files; i++)
            if (fmk_index_file(&index, index.files[i]) != (int32_t)i)
                abort();
    fmk_index_free(&index);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const modules[] = {"lm_head", "model.layers.10.mlp.down_proj",
                                          "model.layers.3.self_attn.q_proj"};
    read_index(data, size);
    json_t *root = NULL;
    if (fmk_json_object(data, size, "the config", &root))
        return 0;
    struct fmk_settings settings = {0};
    struct fmk_strings strings = {0};
    if (!fmk_json_settings(root, &settings, &strings))
        fmk_settings_find(&settings, "model_type");
    free(settings.items);
    fmk_strings_free(&strings);
    struct fmk_quant_config config;
    fmk_status status = fmk_quant_config_read(root, &config);
    for (size_t i = 0; i < 3 && !status; i++) {
        struct fmk_quant_numbers numbers;
        bool skipped = false;
        if (!fmk_quant_config_for(&config, modules[i], &numbers, &skipped) &&
            (numbers.bits < 0 || numbers.bits == 1 || numbers.bits > 8 || numbers.group_size < -1))
            abort();
    }
    fmk_quant_config_free(&config);
    json_decref(root);
    return 0;
}
