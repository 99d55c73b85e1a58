/* Loops that do nothing but multiply, or nothing but read: what a core gives at most. */
#ifndef BENCH_CPU_PEAK_H
#define BENCH_CPU_PEAK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct peak {
    const char *name;
    bool (*present)(void);
    /* Does `rounds` rounds, and answers how many operations that was; `panel` is PEAK_PANEL_BYTES of the
     * calling thread's own, zeros. */
    double (*run)(int64_t rounds, void *panel);
};

/* What a second-level cache holds with room to spare. */
enum { PEAK_PANEL_BYTES = 512 << 10 };

/* Ends with a NULL name; empty where there are none for this architecture. */
extern const struct peak peaks[];

/* Reads `streams` runs of memory side by side, PEAK_TURN bytes of each in turn, by the widest loads there
 * are, and asks for what lies `ahead` bytes further on (0: leaves that to the processor). They lie one behind
 * the other; `run` is a multiple of PEAK_TURN, `from` of 64. Answers something that depends on all bytes. */
enum { PEAK_TURN = 1024 };
uint64_t peak_read(const void *from, size_t run, int streams, size_t ahead);

#endif
