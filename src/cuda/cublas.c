#include "cublas.h"
const struct fmk_cublas *fmk_cublas_open(void) {
    return NULL;
}
