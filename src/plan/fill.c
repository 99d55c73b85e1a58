#include "fill.h"

#include "../error.h"

fmk_status fmk_progress(struct fmk_progress *progress, uint64_t bytes) {
    const fmk_weight_desc *desc = progress->desc;
    progress->done += bytes;
    if (desc->progress && desc->progress(desc->progress_user, progress->done, progress->total))
        return fmk_fail(FMK_ECANCELED, "progress answered non-zero after %llu of %llu bytes",
                        (unsigned long long)progress->done, (unsigned long long)progress->total);
    return FMK_OK;
}
