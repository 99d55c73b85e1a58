/* Names of the Llama and Qwen families' tensors: Hugging Face's and GGUF's. Entry names, as the library gives
 * them: without .weight. */
#ifndef NAMES_H
#define NAMES_H

#include <stdbool.h>

/* What a tensor is, where quantizing makes a difference. */
enum tensor_role { ROLE_OTHER, ROLE_EMBEDDING, ROLE_HEAD, ROLE_Q, ROLE_K, ROLE_V, ROLE_DOWN };

struct tensor_name {
    enum tensor_role role;
    int layer;       /* -1 = of no layer */
    char *hf, *gguf; /* NULL where the name is neither's; to be freed */
};

/* Recognises either spelling. A final .bias is carried along. */
struct tensor_name tensor_name(const char *entry);
void tensor_name_free(struct tensor_name *name);

#endif
