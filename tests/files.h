/* For tests of checkpoints: files made byte by byte in a folder of their own. */
#ifndef FMK_TESTS_FILES_H
#define FMK_TESTS_FILES_H

#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What cannot be written in a test is the test's end. */
static inline void must(int good) {
    if (!good) {
        perror("test files");
        exit(1);
    }
}

struct bytes {
    uint8_t data[1 << 16];
    size_t size;
};

static inline void put(struct bytes *b, const void *data, size_t size) {
    must(b->size + size <= sizeof b->data);
    if (data)
        memcpy(b->data + b->size, data, size);
    else
        memset(b->data + b->size, 0, size);
    b->size += size;
}

static inline void put_u32(struct bytes *b, uint32_t value) {
    put(b, &value, sizeof value);
}

static inline void put_u64(struct bytes *b, uint64_t value) {
    put(b, &value, sizeof value);
}

static inline void put_text(struct bytes *b, const char *text) {
    put(b, text, strlen(text));
}

/* ---- GGUF ---- */

static inline void put_name(struct bytes *b, const char *text) {
    put_u64(b, strlen(text));
    put_text(b, text);
}

static inline void put_header(struct bytes *b, uint32_t version, uint64_t tensors, uint64_t keys) {
    b->size = 0;
    put_text(b, "GGUF");
    put_u32(b, version);
    put_u64(b, tensors);
    put_u64(b, keys);
}

static inline void put_key_u32(struct bytes *b, const char *key, uint32_t value) {
    put_name(b, key);
    put_u32(b, 4);
    put_u32(b, value);
}

static inline void put_key_u16(struct bytes *b, const char *key, uint16_t value) {
    put_name(b, key);
    put_u32(b, 2);
    put(b, &value, sizeof value);
}

static inline void put_key_f32(struct bytes *b, const char *key, float value) {
    put_name(b, key);
    put_u32(b, 6);
    put(b, &value, sizeof value);
}

static inline void put_key_text(struct bytes *b, const char *key, const char *value) {
    put_name(b, key);
    put_u32(b, 8);
    put_name(b, value);
}

static inline void put_tensor(struct bytes *b, const char *name, uint32_t dims, const int64_t *dim,
                              uint32_t type, uint64_t offset) {
    put_name(b, name);
    put_u32(b, dims);
    put(b, dim, dims * sizeof *dim);
    put_u32(b, type);
    put_u64(b, offset);
}

/* Padding to `alignment`, then `size` zero bytes of data. */
static inline void put_data(struct bytes *b, size_t alignment, size_t size) {
    while (b->size % alignment)
        put(b, NULL, 1);
    put(b, NULL, size);
}

/* ---- safetensors ---- */

/* A file with this header and `data_size` zero bytes of data. */
static inline void put_safetensors(struct bytes *b, const char *header, size_t data_size) {
    b->size = 0;
    put_u64(b, strlen(header));
    put_text(b, header);
    put(b, NULL, data_size);
}

/* ---- folders ---- */

static inline const char *path_in(const char *folder, const char *name) {
    static char paths[4][512]; /* the last four answers hold */
    static int turn;
    char *path = paths[turn++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static inline void write_bytes(const char *folder, const char *name, const void *data, size_t size) {
    FILE *file = fopen(path_in(folder, name), "wb");
    must(file && fwrite(data, 1, size, file) == size && fclose(file) == 0);
}

static inline void write_text(const char *folder, const char *name, const char *text) {
    write_bytes(folder, name, text, strlen(text));
}

static inline char *make_folder(void) {
    const char *base = getenv("TMPDIR");
    char *folder = malloc(512);
    must(folder && snprintf(folder, 512, "%s/ferrumk-files-XXXXXX", base ? base : "/tmp") < 512);
    must(mkdtemp(folder) != NULL);
    return folder;
}

static inline void empty_folder(const char *folder) {
    DIR *dir = opendir(folder);
    must(dir != NULL);
    for (struct dirent *entry; (entry = readdir(dir));)
        unlink(path_in(folder, entry->d_name)); /* "." and ".." are refused */
    closedir(dir);
}

static inline void remove_folder(char *folder) {
    empty_folder(folder);
    rmdir(folder);
    free(folder);
}

#endif
