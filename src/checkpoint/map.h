/* Files mapped read-only. */
#ifndef FMK_CHECKPOINT_MAP_H
#define FMK_CHECKPOINT_MAP_H

#include "ferrumk.h"

#include <stdbool.h>
#include <stddef.h>

struct fmk_map {
    const uint8_t *data; /* NULL = not mapped */
    size_t size;
};

/* FMK_EIO with the system's reason where the file cannot be opened or mapped, or is no regular file;
 * FMK_EFORMAT where it is empty. A file that another process shortens while it is mapped raises SIGBUS in
 * whoever reads the lost part, as with any mapping. */
fmk_status fmk_map_open(struct fmk_map *map, const char *path);
/* As fmk_map_open; a file that does not exist leaves *map empty and is no failure. */
fmk_status fmk_map_open_optional(struct fmk_map *map, const char *path);
void fmk_map_close(struct fmk_map *map);

/* dir/name, to be freed; `dir` is the first dir_size bytes. NULL = no memory. */
char *fmk_path_join(const char *dir, size_t dir_size, const char *name);
/* Bytes of `path` before its last component, without the slash; 0 = it has only one. */
size_t fmk_path_dir(const char *path);

#endif
