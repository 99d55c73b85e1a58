/* What nvcc made of kernels/NAME.cu, two images of each: NAME.sm80.fatbin and NAME.sm90.fatbin; of some the
 * second alone. */
#ifndef FMK_CUDA_EMBED_H
#define FMK_CUDA_EMBED_H

#define FMK_IMAGE(name, image)                                                                               \
    extern const unsigned char fmk_##name##_##image[] __attribute__((visibility("hidden")))
#define FMK_IMAGES(name)                                                                                     \
    FMK_IMAGE(name, sm80);                                                                                   \
    FMK_IMAGE(name, sm90)

FMK_IMAGES(dense_one);
FMK_IMAGES(dense_mma);
FMK_IMAGE(int4_few, sm90);
FMK_IMAGE(int4_once, sm90);
FMK_IMAGES(int4_mma);
FMK_IMAGES(int4_many);
FMK_IMAGES(q4k_mma);
FMK_IMAGES(q6k_mma);
FMK_IMAGES(plain);
FMK_IMAGES(decode);
FMK_IMAGES(rows);
FMK_IMAGES(pack);
FMK_IMAGE(int4_wgmma, sm90);

#endif
