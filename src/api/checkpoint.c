/* The exported checkpoint functions: check arguments, call inward. */
#include "../abi.h"
#include "../checkpoint/checkpoint.h"
#include "../error.h"
#include "../load.h"

static fmk_status require(const void *argument, const char *name) {
    return argument ? FMK_OK : fmk_fail(FMK_EINVAL, "%s is NULL", name);
}

fmk_status fmk_checkpoint_open(fmk_checkpoint **out, const char *path) {
    fmk_status status = require(out, "out");
    if (status)
        return status;
    *out = NULL;
    if ((status = require(path, "path")))
        return status;
    return *path ? fmk_checkpoint_open_path(out, path) : fmk_fail(FMK_EINVAL, "path is empty");
}

fmk_status fmk_checkpoint_info(fmk_checkpoint *c, fmk_checkpoint_info_t *out) {
    fmk_status status = require(c, "c");
    if (status)
        return status;
    fmk_checkpoint_info_t info;
    fmk_checkpoint_describe(c, &info);
    return fmk_struct_out(out, &info, sizeof info, "out");
}

fmk_status fmk_checkpoint_entry(fmk_checkpoint *c, int32_t index, fmk_entry *out) {
    fmk_status status = require(c, "c");
    if (status)
        return status;
    fmk_checkpoint_info_t info;
    fmk_checkpoint_describe(c, &info);
    if (index < 0 || index >= info.num_entries)
        return fmk_fail(FMK_EINVAL, "index is %d; the checkpoint has %d entries", index, info.num_entries);
    fmk_entry entry;
    status = fmk_checkpoint_entry_at(c, index, &entry);
    return status ? status : fmk_struct_out(out, &entry, sizeof entry, "out");
}

fmk_status fmk_checkpoint_find(fmk_checkpoint *c, const char *name, fmk_part *out, int32_t *num_experts) {
    fmk_part part;
    int32_t experts = 0;
    fmk_status status = require(c, "c");
    if (!status)
        status = require(name, "name");
    if (!status)
        status = fmk_checkpoint_part(c, name, &part, &experts, NULL);
    if (!status)
        status = fmk_struct_out(out, &part, sizeof part, "out");
    if (!status && num_experts)
        *num_experts = experts;
    return status;
}

fmk_status fmk_checkpoint_load(fmk_weight **out, fmk_queue *queue, fmk_checkpoint *c,
                               const char *const *names, int32_t count, const fmk_weight_desc *desc) {
    fmk_status status = require(out, "out");
    if (status)
        return status;
    *out = NULL;
    if ((status = require(queue, "queue")) || (status = require(c, "c")) ||
        (status = require(names, "names")))
        return status;
    fmk_weight_desc given = {0};
    if (desc && (status = fmk_struct_in(&given, sizeof given, desc, "desc")))
        return status;
    if (given.parts || given.num_parts || given.num_experts)
        return fmk_fail(FMK_EINVAL,
                        "desc has parts or num_experts; they come from the checkpoint: leave them 0");
    if (given.source && given.source != c)
        return fmk_fail(FMK_EINVAL, "desc.source is another checkpoint; leave it NULL");
    return fmk_load_weight(out, queue, c, names, count, &given);
}

fmk_status fmk_checkpoint_vector(fmk_checkpoint *c, const char *name, float *out, int64_t capacity,
                                 int64_t *count) {
    fmk_status status = require(c, "c");
    if (!status)
        status = require(name, "name");
    if (!status)
        status = require(count, "count");
    return status ? status : fmk_checkpoint_floats(c, name, out, capacity, count);
}

void fmk_checkpoint_close(fmk_checkpoint *c) {
    fmk_checkpoint_release(c);
}
