#include "features.h"

#include <stdio.h>
#include <string.h>

static const struct {
    uint32_t bit;
    const char *name;
} words[] = {
    {FMK_VK_IMPORT, "import"},
    {FMK_VK_SUBGROUPS, "subgroups"},
    {FMK_VK_COOPMAT, "coopmat"},
    {FMK_VK_FLOAT16, "float16"},
};
enum { WORDS = sizeof words / sizeof words[0] };

uint32_t fmk_vk_features_of(const char *list) {
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

void fmk_vk_feature_names(uint32_t features, char *text, size_t cap) {
    size_t used = 0;
    text[0] = 0;
    for (int i = 0; i < WORDS; i++)
        if (features & words[i].bit && used < cap) {
            int wrote = snprintf(text + used, cap - used, "%s%s", used ? "," : "", words[i].name);
            used += wrote > 0 ? (size_t)wrote : 0;
        }
}
