/* Loading of peers: see peers.h. */
#include "peers.h"
#include "tool.h"

#include <dlfcn.h>
#include <string.h>

const struct bench_peer *const *peers_of_file(const char *path) {
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library)
        quit(EXIT_USAGE, "--peer: %s", dlerror());
    bench_peers_function *function;
    void *found = dlsym(library, "bench_peers");
    memcpy(&function, &found, sizeof found);
    const struct bench_peer *const *peers = function ? function(BENCH_PEER_VERSION) : NULL;
    if (!peers)
        quit(EXIT_USAGE, "--peer %s: it holds no peers of version %d", path, BENCH_PEER_VERSION);
    return peers;
}
