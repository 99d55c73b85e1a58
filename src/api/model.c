/* The exported model functions: check arguments, call inward. */
#include "../abi.h"
#include "../error.h"
#include "../model.h"

static fmk_status require(const void *argument, const char *name) {
    return argument ? FMK_OK : fmk_fail(FMK_EINVAL, "%s is NULL", name);
}

fmk_status fmk_model_load(fmk_model **out, fmk_queue *queue, fmk_checkpoint *c, const fmk_weight_desc *desc) {
    fmk_status status = require(out, "out");
    if (status)
        return status;
    *out = NULL;
    fmk_weight_desc given = {0};
    if ((status = require(queue, "queue")) || (status = require(c, "c")))
        return status;
    if (desc && (status = fmk_struct_in(&given, sizeof given, desc, "desc")))
        return status;
    if (given.parts || given.num_parts || given.num_experts)
        return fmk_fail(FMK_EINVAL,
                        "desc has parts or num_experts; they come from the checkpoint: leave them 0");
    if (given.flags & ~(uint32_t)FMK_WEIGHT_BORROW)
        return fmk_fail(FMK_EINVAL, "desc.flags is %#x; only FMK_WEIGHT_BORROW is accepted for a model",
                        given.flags);
    if (given.storage.handle)
        return fmk_fail(FMK_EINVAL,
                        "desc.storage is set; the weights of a model use the context's allocator");
    if (given.source && given.source != c)
        return fmk_fail(FMK_EINVAL, "desc.source is another checkpoint; leave it NULL");
    return fmk_model_make(out, queue, c, &given);
}

fmk_status fmk_model_info(fmk_model *model, fmk_model_info_t *out) {
    fmk_status status = require(model, "model");
    if (status)
        return status;
    const fmk_model_info_t *info = fmk_model_described(model);
    return fmk_struct_out(out, info, sizeof *info, "out");
}

fmk_status fmk_model_weight(fmk_model *model, int32_t layer, fmk_role role, fmk_weight **out) {
    fmk_status status = require(out, "out");
    if (status)
        return status;
    *out = NULL;
    status = require(model, "model");
    return status ? status : fmk_model_find_weight(model, layer, role, out);
}

fmk_status fmk_model_vector(fmk_model *model, int32_t layer, fmk_role role, const float **data,
                            int64_t *count) {
    fmk_status status = require(data, "data");
    if (!status)
        status = require(count, "count");
    if (status)
        return status;
    *data = NULL;
    *count = 0;
    status = require(model, "model");
    return status ? status : fmk_model_find_vector(model, layer, role, data, count);
}

void fmk_model_destroy(fmk_model *model) {
    fmk_model_free(model);
}
