/* JSON as checkpoints use it, on top of jansson. */
#ifndef FMK_CHECKPOINT_JSON_H
#define FMK_CHECKPOINT_JSON_H

#include "tensors.h"

#include <jansson.h>

/* An object, to be freed with json_decref; duplicate keys, more than one value and anything else than an
 * object are refused. */
fmk_status fmk_json_object(const uint8_t *data, size_t size, const char *what, json_t **out);

/* Adds every value of `object` and of objects in it, named with dots: "rope_parameters.rope_theta". Deeper
 * than four levels is left out. Sorted when done. */
fmk_status fmk_json_settings(const json_t *object, struct fmk_settings *settings,
                             struct fmk_strings *strings);

#endif
