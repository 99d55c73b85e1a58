/* What every verb shares: see tool.h. */
#include "tool.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *program_name = "ferrumk";

void set_program(const char *name) {
    program_name = name;
}

const char *program(void) {
    return program_name;
}

void quit(int exit_status, const char *format, ...) {
    va_list list;
    va_start(list, format);
    fflush(stdout);
    fprintf(stderr, "%s: ", program_name);
    vfprintf(stderr, format, list);
    fputc('\n', stderr);
    va_end(list);
    exit(exit_status);
}

void check(fmk_status status, const char *where) {
    if (status == FMK_OK)
        return;
    int exit_status = status == FMK_EIO ? EXIT_USAGE : EXIT_REFUSED;
    if (where)
        quit(exit_status, "%s: %s", where, fmk_last_error());
    quit(exit_status, "%s", fmk_last_error());
}

void *allocate(size_t count, size_t size) {
    void *memory = calloc(count ? count : 1, size ? size : 1);
    if (!memory)
        quit(EXIT_REFUSED, "no memory for %zu x %zu bytes", count, size);
    return memory;
}

void *allocate_aligned(uint64_t bytes) {
    void *memory = NULL;
    if (bytes > SIZE_MAX || posix_memalign(&memory, 256, bytes ? (size_t)bytes : 1))
        quit(EXIT_REFUSED, "no memory for %" PRIu64 " bytes", bytes);
    return memory;
}

char *text_of(const char *format, ...) {
    char *text;
    va_list list;
    va_start(list, format);
    if (vasprintf(&text, format, list) < 0)
        quit(EXIT_REFUSED, "no memory for a line of text");
    va_end(list);
    return text;
}

int64_t parse_number(const char *option, const char *text, int64_t low, int64_t high) {
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (end == text || *end)
        quit(EXIT_USAGE, "%s \"%s\" is not a whole number", option, text);
    if (errno || value < low || value > high)
        quit(EXIT_USAGE, "%s %s is outside of %" PRId64 "..%" PRId64, option, text, low, high);
    return value;
}

void parse_list(const char *option, const char *text, void (*item)(void *user, char *word), void *user) {
    char *copy = text_of("%s", text), *rest = copy, *word;
    bool any = false;
    while ((word = strsep(&rest, ","))) {
        if (!*word)
            quit(EXIT_USAGE, "%s \"%s\" has an empty item", option, text);
        item(user, word);
        any = true;
    }
    free(copy);
    if (!any)
        quit(EXIT_USAGE, "%s needs at least one item", option);
}

double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

struct human human_bytes(uint64_t bytes) {
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
    double value = (double)bytes;
    size_t unit = 0;
    while (value >= 999.5 && unit + 1 < sizeof units / sizeof *units) {
        value /= 1000;
        unit++;
    }
    struct human human;
    snprintf(human.text, sizeof human.text, "%.*f %s", unit && value < 99.95 ? 1 : 0, value, units[unit]);
    return human;
}

void progress_begin(struct progress *progress, const char *label) {
    *progress = (struct progress){.label = label, .begun = seconds()};
}

void progress_step(struct progress *progress, uint64_t done, uint64_t total) {
    enum { WIDTH = 40 };
    double now = seconds();
    if (!isatty(STDERR_FILENO) || now - progress->begun < 1 || now - progress->shown < 0.1)
        return;
    double part = total ? (double)done / (double)total : 1;
    if (part > 1)
        part = 1;
    char bar[WIDTH + 1];
    for (int i = 0; i < WIDTH; i++)
        bar[i] = i < part * WIDTH ? '#' : '.';
    bar[WIDTH] = 0;
    double left = part > 0 ? (now - progress->begun) * (1 - part) / part : 0;
    fprintf(stderr, "\r%-24.24s [%s] %3.0f %%  %4.0f s left ", progress->label, bar, 100 * part, left);
    fflush(stderr);
    progress->shown = now;
    progress->on_screen = true;
}

void progress_end(struct progress *progress) {
    if (progress->on_screen)
        fprintf(stderr, "\r%100s\r", "");
    progress->on_screen = false;
}

void print_json(json_t *value) {
    if (json_dumpf(value, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9)))
        quit(EXIT_REFUSED, "cannot write the JSON");
    putchar('\n');
    json_decref(value);
}

void json_put(json_t *object, const char *key, json_t *value) {
    if (!value || json_object_set_new(object, key, value))
        quit(EXIT_REFUSED, "no memory for the JSON");
}
