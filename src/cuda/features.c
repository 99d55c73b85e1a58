#include "features.h"

#include <stdio.h>
#include <string.h>

static const struct {
    uint32_t bit;
    const char *name;
} words[] = {
    {FMK_CUDA_SM90, "sm90"},
    {FMK_CUDA_SM90A, "sm90a"},
    {FMK_CUDA_CUBLAS, "cublas"},
};
enum { WORDS = sizeof words / sizeof words[0] };

uint32_t fmk_cuda_features_of(const char *list) {
    uint32_t features = 0;
    while (list && *list) {
        size_t length = strcspn(list, ", ");
        for (int i = 0; i < WORDS; i++)
            if (strlen(words[i].name) == length && !memcmp(words[i].name, list, length))
                features |= words[i].bit;
        list += length;
        list += strspn(list, ", ");
    }
    return features;
}

void fmk_cuda_feature_names(uint32_t features, char *text, size_t cap) {
    size_t used = 0;
    text[0] = 0;
    for (int i = 0; i < WORDS; i++)
        if (features & words[i].bit && used < cap) {
            int wrote = snprintf(text + used, cap - used, "%s%s", used ? "," : "", words[i].name);
            used += wrote > 0 ? (size_t)wrote : 0;
        }
}
