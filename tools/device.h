/* The options --backend, --device, --threads and --disable, the context they ask for, its memory, and
 * projections on it. */
#ifndef DEVICE_H
#define DEVICE_H

#include "driver.h"
#include "ferrumk.h"

#include <argp.h>
#include <stdbool.h>

struct device_options {
    const char *backend; /* a word of --backend */
    int32_t index;       /* of a GPU */
    int32_t threads;
    const char *disable;
};

/* A child for a verb's argp; its input is a struct device_options. */
extern const struct argp device_argp;

struct device {
    fmk_context *context;
    fmk_queue *queue;
    fmk_context_info_t info;
    bool reference;           /* --backend reference: every call gets FMK_LINEAR_REFERENCE */
    const struct driver *gpu; /* calls are enqueued, on memory of the device; NULL: the CPU */
    uint64_t workspace, workspace_size;
    double marks[DRIVER_MARKS]; /* of the CPU */
};

/* FMK_BACKEND_*, or a sentence and the end when there is none of that name; "reference" is the CPU. */
fmk_backend backend_of_name(const char *name);
const char *backend_name(fmk_backend backend);

/* f32, f16 or bf16 as FMK_F32 and so on, or a sentence and the end: the words of --type. */
fmk_dtype type_of_name(const char *name);

void device_open(struct device *device, const struct device_options *options);
/* The CPU, whatever --backend says. */
void device_open_cpu(struct device *device, const struct device_options *options);
void device_close(struct device *device);

/* Memory for the buffers of calls, aligned to 256 bytes. What is read has been waited for. */
uint64_t device_allocate(struct device *device, uint64_t bytes);
void device_free(struct device *device, uint64_t memory);
void device_write(struct device *device, uint64_t to, const void *from, uint64_t bytes);
void device_read(struct device *device, void *to, uint64_t from, uint64_t bytes);
fmk_buffer device_buffer(const struct device *device, uint64_t memory);
void device_wait(struct device *device);

/* Mark i, below DRIVER_MARKS, is the moment at which the calls before it are done; after device_wait, the
 * seconds between two. */
void device_mark(struct device *device, int i);
double device_seconds(const struct device *device, int from, int to);

/* Opens a checkpoint, or ends the program with the library's sentence. */
fmk_checkpoint *open_checkpoint(const char *path);

/* The matrix of that name, alone, as a weight that is ready. */
fmk_weight *load_matrix(struct device *device, fmk_checkpoint *checkpoint, const char *name);

/* One projection with float rows on both sides, ready to be run over and over. */
struct projection {
    struct device *device;
    fmk_weight *weight;
    fmk_linear_args args;
    fmk_routing routing;
};

/* in: [m][k], out: [m][n], in the device's memory. `expert` counts only for a weight that has experts. Sizes
 * the workspace, which all projections of a device share: set all up before running the first. */
void projection_set(struct projection *projection, struct device *device, fmk_weight *weight, int64_t m,
                    uint32_t flags, int32_t expert, uint64_t in, uint64_t out);
/* Of in and out, instead of float. */
void projection_set_type(struct projection *projection, fmk_dtype type);
/* After a change of args (an activation, gathered rows). */
void projection_prepare(struct projection *projection);
void projection_run(struct projection *projection);

/* fmk_explain's text, to be freed. */
char *projection_explain(struct projection *projection);

/* The kernels of all parts and their formats, each named once: "cpu.q4_k.x8.avx2 + cpu.portable"; to be
 * freed. */
char *projection_kernels(struct projection *projection);
char *projection_formats(struct projection *projection);

#endif
