/* Random weights in any format, for measurements, and conversion between float types. */
#ifndef SYNTHETIC_H
#define SYNTHETIC_H

#include "device.h"

/* Bytes of a dtype's element. */
uint64_t dtype_size(fmk_dtype dtype);

/* out [n][k] = in [n][k], rounded to nearest, by way of a dense weight; the device is the CPU. */
void convert(struct device *device, const void *in, fmk_dtype in_type, void *out, fmk_dtype out_type,
             int64_t n, int64_t k);

/* A part and the memory it points to. */
struct synthetic {
    fmk_part part;
    void *qweight, *scales, *qzeros;
};

/* format: one of synthetic_formats; the device is the CPU. Some rows are drawn and quantized; they repeat
 * over N. */
extern const char synthetic_formats[];
bool synthetic_knows(const char *format);
void synthetic_make(struct synthetic *synthetic, struct device *device, const char *format, int64_t n,
                    int64_t k, int32_t group_size);
void synthetic_free(struct synthetic *synthetic);

#endif
