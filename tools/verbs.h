/* The verbs. Each parses its own arguments (argv[0] is "ferrumk VERB") and answers the exit status. */
#ifndef VERBS_H
#define VERBS_H

int verb_devices(int argc, char **argv);
int verb_inspect(int argc, char **argv);
int verb_run(int argc, char **argv);
int verb_verify(int argc, char **argv);
int verb_explain(int argc, char **argv);
int verb_bench(int argc, char **argv);
int verb_quantize(int argc, char **argv);

#endif
