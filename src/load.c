/* Matrices of a checkpoint as one weight. */
#include "load.h"

#include "error.h"
#include "weight.h"

#include <stdio.h>

fmk_status fmk_load_weight(fmk_weight **out, fmk_queue *queue, fmk_checkpoint *c, const char *const *names,
                           int32_t count, const fmk_weight_desc *desc) {
    fmk_part parts[FMK_MAX_PARTS];
    fmk_weight_desc whole = *desc;
    if (count < 1 || count > FMK_MAX_PARTS)
        return fmk_fail(FMK_EINVAL, "count is %d; 1 to %d is accepted", count, FMK_MAX_PARTS);
    for (int32_t i = 0; i < count; i++) {
        int32_t experts = 0;
        if (!names[i])
            return fmk_fail(FMK_EINVAL, "names[%d] is NULL", i);
        fmk_status status = fmk_checkpoint_part(c, names[i], &parts[i], &experts, NULL);
        if (status)
            return fmk_fail_in(status, "names[%d]", i);
        if (i && experts != whole.num_experts)
            return fmk_fail(FMK_EINVAL, "%.64s has %d experts and %.64s %d; the same number is expected",
                            names[0], whole.num_experts, names[i], experts);
        whole.num_experts = experts;
    }
    whole.struct_size = sizeof whole;
    whole.parts = parts;
    whole.num_parts = count;
    whole.source = c;
    fmk_weight_desc checked;
    fmk_part first;
    fmk_status status = fmk_context_alive(queue->ctx);
    if (!status)
        status = fmk_weight_desc_read(queue->ctx, &whole, &checked, &first);
    if (!status)
        status = fmk_weight_pack(out, queue, &checked);
    if (!status || status == FMK_ECANCELED)
        return status;
    char joined[256];
    size_t used = 0;
    for (int32_t i = 0; i < count && used < sizeof joined; i++)
        used += (size_t)snprintf(joined + used, sizeof joined - used, "%s%s", i ? " + " : "", names[i]);
    return fmk_fail_in(status, "%s", joined);
}
