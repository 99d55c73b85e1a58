/* For tests: a one-layer Llama checkpoint of float weights, small enough to be loaded thousands of times. */
#ifndef TINY_MODEL_H
#define TINY_MODEL_H

enum { TINY_HIDDEN = 64, TINY_INNER = 96, TINY_HEADS = 4, TINY_KV_HEADS = 2, TINY_VOCAB = 40 };

/* An empty folder of its own; the answer is to be given to tiny_remove and freed. */
char *tiny_folder(void);
void tiny_remove(char *folder);

/* Write the same model into `folder`: tiny.gguf; model.safetensors with config.json. The answer is the path
 * to open, to be freed. A test that cannot write aborts. */
char *tiny_gguf(const char *folder);
char *tiny_safetensors(const char *folder);

#endif
