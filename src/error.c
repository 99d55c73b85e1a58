/* Thread-local error sentences: a fixed buffer, so that reporting a failed allocation allocates nothing. */
#include "error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { SENTENCE = 512 };

static _Thread_local char sentence[SENTENCE];

fmk_status fmk_fail(fmk_status status, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    return status;
}

fmk_status fmk_fail_in(fmk_status status, const char *format, ...) {
    char inner[SENTENCE];
    memcpy(inner, sentence, sizeof inner);
    va_list args;
    va_start(args, format);
    int used = vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    if (used >= 0 && used < SENTENCE)
        snprintf(sentence + used, sizeof sentence - (size_t)used, ": %s", inner);
    return status;
}

fmk_status fmk_no_memory(uint64_t bytes, const char *what) {
    return fmk_fail(FMK_ENOMEM, "no memory: %llu bytes for %s", (unsigned long long)bytes, what);
}

const char *fmk_last_error(void) {
    return sentence;
}

const char *fmk_status_name(fmk_status status) {
    switch (status) {
    case FMK_OK:
        return "FMK_OK";
    case FMK_EINVAL:
        return "FMK_EINVAL";
    case FMK_ENOMEM:
        return "FMK_ENOMEM";
    case FMK_EUNSUPPORTED:
        return "FMK_EUNSUPPORTED";
    case FMK_ENODEVICE:
        return "FMK_ENODEVICE";
    case FMK_EFORMAT:
        return "FMK_EFORMAT";
    case FMK_EIO:
        return "FMK_EIO";
    case FMK_EDEVICE:
        return "FMK_EDEVICE";
    case FMK_EWORKSPACE:
        return "FMK_EWORKSPACE";
    case FMK_ENOTFOUND:
        return "FMK_ENOTFOUND";
    case FMK_ECANCELED:
        return "FMK_ECANCELED";
    case FMK_ELOST:
        return "FMK_ELOST";
    case FMK_EFORKED:
        return "FMK_EFORKED";
    case FMK_EAGAIN:
        return "FMK_EAGAIN";
    case FMK_ENOTPREPARED:
        return "FMK_ENOTPREPARED";
    default:
        return "unknown status";
    }
}
