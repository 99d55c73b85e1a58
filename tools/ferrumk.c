/* ferrumk: the command. A table of verbs, each in a file of its own, over the public header alone. */
#include "tool.h"
#include "verbs.h"

#include <argp.h>
#include <string.h>

static const struct {
    const char *name, *summary;
    int (*run)(int argc, char **argv);
} verbs[] = {
    {"devices", "the backends of this machine", verb_devices},
    {"inspect", "what a checkpoint holds", verb_inspect},
    {"run", "one projection over activations from a file", verb_run},
    {"verify", "every projection of a checkpoint against the reference", verb_verify},
    {"explain", "which kernel a projection gets, and why not a better one", verb_explain},
    {"bench", "speed of formats and shapes, with cold weights", verb_bench},
    {"quantize", "an f32, f16 or bf16 checkpoint to Q4_K, Q6_K, Q4_K_M or GPTQ", verb_quantize},
};
enum { NUM_VERBS = sizeof verbs / sizeof *verbs };

static void help(FILE *stream) {
    fprintf(stream, "Usage: ferrumk VERB [OPTION...]\n\n");
    for (int i = 0; i < NUM_VERBS; i++)
        fprintf(stream, "  %-10s %s\n", verbs[i].name, verbs[i].summary);
    fprintf(stream, "\n  ferrumk VERB --help   the options of a verb\n"
                    "  ferrumk --version     the library and how it was built\n\n"
                    "Exit status: 0 success, 1 refused or above a bound, 2 wrong command line or file.\n");
}

int main(int argc, char **argv) {
    argp_err_exit_status = EXIT_USAGE;
    if (argc < 2) {
        help(stderr);
        return EXIT_USAGE;
    }
    const char *word = argv[1];
    if (!strcmp(word, "--help") || !strcmp(word, "-h") || !strcmp(word, "help")) {
        help(stdout);
        return 0;
    }
    if (!strcmp(word, "--version") || !strcmp(word, "-V")) {
        puts(fmk_build_info());
        return 0;
    }
    for (int i = 0; i < NUM_VERBS; i++) {
        if (strcmp(word, verbs[i].name))
            continue;
        char *name = text_of("ferrumk %s", word);
        set_program(name);
        argv[1] = name;
        return verbs[i].run(argc - 1, argv + 1);
    }
    quit(EXIT_USAGE, "\"%s\" is not a verb; \"ferrumk --help\" lists them", word);
}
