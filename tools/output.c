/* Files that appear complete or not at all: see output.h. */
#include "output.h"
#include "tool.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The unfinished file. A signal handler reads it, so it is a plain array, emptied by its first byte. */
static char unfinished[4096];

static void remove_unfinished(void) {
    if (unfinished[0])
        unlink(unfinished);
    unfinished[0] = 0;
}

static void interrupted(int number) {
    if (unfinished[0])
        unlink(unfinished);
    signal(number, SIG_DFL);
    raise(number);
}

void output_begin(struct output *output, const char *path) {
    static bool registered;
    if (!registered) {
        atexit(remove_unfinished);
        signal(SIGINT, interrupted);
        signal(SIGTERM, interrupted);
        registered = true;
    }
    char name[sizeof unfinished];
    if (snprintf(name, sizeof name, "%s.XXXXXX", path) >= (int)sizeof name)
        quit(EXIT_USAGE, "the path %s is longer than %zu bytes", path, sizeof name - 8);
    int fd = mkstemp(name);
    if (fd < 0)
        quit(EXIT_USAGE, "cannot create %s: %s", path, strerror(errno));
    memcpy(unfinished, name, sizeof name);
    /* mkstemp made it private; a file made by open would have had this mode. */
    mode_t mask = umask(0);
    umask(mask);
    fchmod(fd, 0666 & ~mask);
    *output = (struct output){.file = fdopen(fd, "wb"), .path = path};
    if (!output->file)
        quit(EXIT_REFUSED, "cannot write %s: %s", path, strerror(errno));
}

void output_write(struct output *output, const void *bytes, uint64_t size) {
    if (size && fwrite(bytes, 1, size, output->file) != size)
        quit(EXIT_REFUSED, "cannot write %" PRIu64 " bytes to %s: %s", size, output->path, strerror(errno));
    output->written += size;
}

void output_pad(struct output *output, uint64_t alignment) {
    static const char zeros[64];
    uint64_t missing = (alignment - output->written % alignment) % alignment;
    while (missing) {
        uint64_t size = missing < sizeof zeros ? missing : sizeof zeros;
        output_write(output, zeros, size);
        missing -= size;
    }
}

void output_commit(struct output *output) {
    if (fclose(output->file) || rename(unfinished, output->path))
        quit(EXIT_REFUSED, "cannot write %s: %s", output->path, strerror(errno));
    unfinished[0] = 0;
}
