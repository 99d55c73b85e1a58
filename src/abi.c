/* struct_size: zero-extended copies in, truncated copies out. */
#include "abi.h"

#include "error.h"

#include <string.h>

enum { LARGEST_STRUCT = 4096 }; /* more than any descriptor will be: a larger number is garbage */

static fmk_status check_size(const void *given, size_t size, const char *name, uint32_t *told) {
    if (!given)
        return fmk_fail(FMK_EINVAL, "%s is NULL", name);
    memcpy(told, given, sizeof *told);
    if (*told < sizeof *told || *told > LARGEST_STRUCT)
        return fmk_fail(FMK_EINVAL, "%s.struct_size is %u; set it to sizeof, %zu in this version", name,
                        *told, size);
    return FMK_OK;
}

fmk_status fmk_struct_in(void *dst, size_t size, const void *src, const char *name) {
    uint32_t told = 0;
    fmk_status status = check_size(src, size, name, &told);
    if (status)
        return status;
    for (size_t i = size; i < told; i++)
        if (((const unsigned char *)src)[i])
            return fmk_fail(
                FMK_EUNSUPPORTED,
                "%s has a non-zero field at byte %zu, after the %zu bytes that this version knows", name, i,
                size);
    size_t common = told < size ? told : size;
    memcpy(dst, src, common);
    memset((char *)dst + common, 0, size - common);
    return FMK_OK;
}

fmk_status fmk_struct_out(void *dst, const void *src, size_t size, const char *name) {
    uint32_t told = 0;
    fmk_status status = check_size(dst, size, name, &told);
    if (status)
        return status;
    uint32_t common = told < size ? told : (uint32_t)size;
    memcpy(dst, src, common);
    memcpy(dst, &common, sizeof common);
    return FMK_OK;
}
