/* The writers of `ferrumk quantize`: one for each container. */
#ifndef QUANTIZE_H
#define QUANTIZE_H

#include "quantize_source.h"

enum gguf_mix { MIX_Q4_K, MIX_Q6_K, MIX_Q4_K_M };
void write_gguf(struct source *source, const char *path, enum gguf_mix mix);
void write_gptq(struct source *source, const char *directory, int32_t group_size, bool symmetric);

#endif
