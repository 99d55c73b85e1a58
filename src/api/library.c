/* What the library says about itself. */
#include "ferrumk.h"

uint32_t fmk_version(void) {
    return FMK_VERSION_MAJOR << 16 | FMK_VERSION_MINOR << 8 | FMK_VERSION_PATCH;
}

const char *fmk_build_info(void) {
    return "ferrumk " FERRUMK_VERSION "; backends: " FERRUMK_BACKENDS "; " FERRUMK_COMPILERS;
}
