/* Peers (peer.h) out of shared objects. */
#ifndef BENCH_PEERS_H
#define BENCH_PEERS_H

#include "peer.h"

/* What a file holds; ends with NULL. It stays loaded for good: peers may have threads. Ends the program with
 * a sentence where there is no such file, or nothing of this version in it. */
const struct bench_peer *const *peers_of_file(const char *path);

#endif
