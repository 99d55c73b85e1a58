/* What nvcc made of kernels/NAME.cu, two images of each: NAME.sm80.fatbin and NAME.sm90.fatbin. */
#ifndef FMK_CUDA_EMBED_H
#define FMK_CUDA_EMBED_H

#define FMK_IMAGES(name)                                                                                     \
    extern const unsigned char fmk_##name##_sm80[] __attribute__((visibility("hidden")));                    \
    extern const unsigned char fmk_##name##_sm90[] __attribute__((visibility("hidden")))

FMK_IMAGES(dense_one);
FMK_IMAGES(dense_mma);
FMK_IMAGES(int4_mma);
FMK_IMAGES(q4k_mma);
FMK_IMAGES(q6k_mma);
FMK_IMAGES(plain);
FMK_IMAGES(decode);
FMK_IMAGES(rows);
FMK_IMAGES(pack);

#endif
