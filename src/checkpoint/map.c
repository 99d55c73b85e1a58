/* Files mapped read-only, and the few path operations that a checkpoint needs. */
#include "map.h"

#include "../error.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static fmk_status io_failure(const char *path, const char *doing) {
    int reason = errno;
    char text[128];
    if (strerror_r(reason, text, sizeof text))
        snprintf(text, sizeof text, "error %d", reason);
    return fmk_fail(reason == ENOMEM ? FMK_ENOMEM : FMK_EIO, "%s: cannot %s it: %s", path, doing, text);
}

static fmk_status map_descriptor(struct fmk_map *map, int file, const char *path) {
    struct stat info;
    if (fstat(file, &info))
        return io_failure(path, "examine");
    if (!S_ISREG(info.st_mode))
        return fmk_fail(FMK_EIO, "%s is not a regular file", path);
    if (info.st_size <= 0)
        return fmk_fail(FMK_EFORMAT, "%s is empty", path);
    if ((uint64_t)info.st_size > SIZE_MAX / 2)
        return fmk_fail(FMK_EIO, "%s has %lld bytes, more than can be mapped", path, (long long)info.st_size);
    void *data = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, file, 0);
    if (data == MAP_FAILED)
        return io_failure(path, "map");
    map->data = data;
    map->size = (size_t)info.st_size;
    return FMK_OK;
}

static fmk_status open_file(struct fmk_map *map, const char *path, bool optional) {
    *map = (struct fmk_map){0};
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY); /* a FIFO must not block */
    if (file < 0)
        return optional && (errno == ENOENT || errno == ENOTDIR) ? FMK_OK : io_failure(path, "open");
    fmk_status status = map_descriptor(map, file, path);
    close(file);
    return status;
}

fmk_status fmk_map_open(struct fmk_map *map, const char *path) {
    return open_file(map, path, false);
}

fmk_status fmk_map_open_optional(struct fmk_map *map, const char *path) {
    return open_file(map, path, true);
}

void fmk_map_close(struct fmk_map *map) {
    if (map->data)
        munmap((void *)(uintptr_t)map->data, map->size);
    *map = (struct fmk_map){0};
}

char *fmk_path_join(const char *dir, size_t dir_size, const char *name) {
    size_t name_size = strlen(name);
    char *path = malloc(dir_size + 1 + name_size + 1);
    if (!path)
        return NULL;
    size_t used = 0;
    if (dir_size) {
        memcpy(path, dir, dir_size);
        used = dir_size;
        if (path[used - 1] != '/')
            path[used++] = '/';
    }
    memcpy(path + used, name, name_size + 1);
    return path;
}

size_t fmk_path_dir(const char *path) {
    const char *slash = strrchr(path, '/');
    if (!slash)
        return 0;
    return slash == path ? 1 : (size_t)(slash - path);
}
