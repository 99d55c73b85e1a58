/* What a safetensors checkpoint says about its quantization: quantize_config.json, quant_config.json, or
 * quantization_config in config.json. Which modules are quantized is read off the tensors that are there,
 * so `lm_head` and `modules_in_block_to_quantize` decide nothing and only their types are checked. */
#ifndef FMK_CHECKPOINT_QUANT_CONFIG_H
#define FMK_CHECKPOINT_QUANT_CONFIG_H

#include "json.h"

enum fmk_quant_method {
    FMK_QUANT_NONE,
    FMK_QUANT_GPTQ,
    FMK_QUANT_GPTQ_V2,
    FMK_QUANT_MARLIN,
    FMK_QUANT_AWQ,
    FMK_QUANT_OTHER /* `name` says which */
};

/* 0 = not told, in every field. */
struct fmk_quant_numbers {
    int32_t bits;       /* 2..8 */
    int32_t group_size; /* -1, or 8 and more */
    int32_t symmetric;  /* 1 yes, -1 no */
    int32_t act_order;  /* 1 yes, -1 no: what desc_act declares; the data decides */
};

struct fmk_quant_config {
    enum fmk_quant_method method;
    char name[32]; /* "gptq", "marlin", "awq", or what the file calls it */
    struct fmk_quant_numbers numbers;
    struct fmk_quant_rule *rules; /* `dynamic`, in the file's order */
    size_t num_rules;
};

/* `object` is the configuration itself. To be freed in any case. */
fmk_status fmk_quant_config_read(const json_t *object, struct fmk_quant_config *config);
void fmk_quant_config_free(struct fmk_quant_config *config);

/* The numbers for one module: of the first rule that matches, else the general ones. *skipped: the rule says
 * that the module is not quantized. Safe from several threads at once. */
fmk_status fmk_quant_config_for(const struct fmk_quant_config *config, const char *module,
                                struct fmk_quant_numbers *numbers, bool *skipped);

#endif
