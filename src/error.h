/* The calling thread's error sentence. */
#ifndef FMK_ERROR_H
#define FMK_ERROR_H

#include "ferrumk.h"

/* Sets this thread's sentence and answers `status`, so that a check reads
 *     return fmk_fail(FMK_EINVAL, "in_stride %lld is less than k %lld", ...);
 * The sentence names the argument, its value and what would be accepted. */
fmk_status fmk_fail(fmk_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Puts a name in front of this thread's sentence ("parts[1]: ..."); answers `status`. */
fmk_status fmk_fail_in(fmk_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* As fmk_fail(FMK_ENOMEM), with the size that was asked for and what it was for. */
fmk_status fmk_no_memory(uint64_t bytes, const char *what);

#endif
