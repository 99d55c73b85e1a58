/* Puts the kernels' images into the library, as nvcc wrote them. */
#include "embed.h"

#define EMBED(name, image)                                                                                   \
    __asm__(".pushsection .rodata.fmk_images, \"a\", %progbits\n"                                            \
            ".balign 16\n"                                                                                   \
            ".globl fmk_" #name "_" #image "\n"                                                              \
            ".hidden fmk_" #name "_" #image "\n"                                                             \
            ".type fmk_" #name "_" #image ", %object\n"                                                      \
            "fmk_" #name "_" #image ":\n"                                                                    \
            ".incbin \"" #name "." #image ".fatbin\"\n"                                                      \
            ".size fmk_" #name "_" #image ", . - fmk_" #name "_" #image "\n"                                 \
            ".popsection\n")

EMBED(dense_one, sm80);
EMBED(dense_one, sm90);
EMBED(dense_mma, sm80);
EMBED(dense_mma, sm90);
EMBED(int4_few, sm90);
EMBED(int4_once, sm90);
EMBED(int4_mma, sm80);
EMBED(int4_mma, sm90);
EMBED(int4_many, sm80);
EMBED(int4_many, sm90);
EMBED(q4k_mma, sm80);
EMBED(q4k_mma, sm90);
EMBED(q6k_mma, sm80);
EMBED(q6k_mma, sm90);
EMBED(plain, sm80);
EMBED(plain, sm90);
EMBED(decode, sm80);
EMBED(decode, sm90);
EMBED(rows, sm80);
EMBED(rows, sm90);
EMBED(pack, sm80);
EMBED(pack, sm90);
EMBED(int4_wgmma, sm90);
