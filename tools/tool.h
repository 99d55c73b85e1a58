/* What every verb shares: sentences on stderr and exit statuses, numbers in and out, time, progress. */
#ifndef TOOL_H
#define TOOL_H

#include "ferrumk.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

/* Exit statuses: the library refused or a bound was exceeded; the command line or a file it names is wrong.
 */
enum { EXIT_REFUSED = 1, EXIT_USAGE = 2 };

/* The words in front of every sentence: "ferrumk run". Must outlive the program. */
void set_program(const char *name);
const char *program(void);

/* One sentence on stderr, then the end of the program with that exit status. */
_Noreturn void quit(int exit_status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Goes on when status is FMK_OK, else ends the program with the library's sentence, behind `where` unless
 * that is NULL. FMK_EIO, a file that cannot be read, is EXIT_USAGE; all others are EXIT_REFUSED. */
void check(fmk_status status, const char *where);

/* Memory that is there: ends the program when it is not. `aligned` is aligned to 256 bytes. */
void *allocate(size_t count, size_t size);
void *allocate_aligned(uint64_t bytes);
char *text_of(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The number that `text` spells, within low..high; `option` names it in the sentence otherwise. */
int64_t parse_number(const char *option, const char *text, int64_t low, int64_t high);

/* A list with commas: calls item(user, word) for each of its words, of which there must be one. */
void parse_list(const char *option, const char *text, void (*item)(void *user, char *word), void *user);

/* Seconds since some point in the past. */
double seconds(void);

/* "12.5 GB", in powers of 1000, as disks and memory buses are sold. */
struct human {
    char text[24];
};
struct human human_bytes(uint64_t bytes);

/* A bar on stderr: only on a terminal, and only once the work has taken a second. */
struct progress {
    const char *label;
    double begun, shown;
    bool on_screen;
};
void progress_begin(struct progress *progress, const char *label);
void progress_step(struct progress *progress, uint64_t done, uint64_t total);
void progress_end(struct progress *progress);

/* Prints `value` on stdout and drops it. */
void print_json(json_t *value);

/* Sets key of object and takes value's reference; ends the program when there is no memory. */
void json_put(json_t *object, const char *key, json_t *value);

#endif
