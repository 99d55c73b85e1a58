#!/bin/sh
# The header alone compiles as C11 and as C++11 without a warning, and its declarations are usable from both.
# usage: header.sh INCLUDE_DIR
set -eu
include=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/alone.c" <<'END'
#include "ferrumk.h"
uint32_t size_of_args(void);
uint32_t size_of_args(void) { fmk_linear_args args = {0}; return (uint32_t)sizeof args + args.struct_size; }
END
cat >"$work/alone.cpp" <<'END'
#include "ferrumk.h"
#include "ferrumk.h"
uint32_t size_of_args();
uint32_t size_of_args() { fmk_linear_args args = fmk_linear_args(); return (uint32_t)sizeof args + args.struct_size; }
END
tried=0
for compiler in "gcc -std=c11 alone.c -Wstrict-prototypes -Wmissing-prototypes" "clang -std=c11 alone.c -Wdocumentation" \
    "g++ -std=c++11 alone.cpp" "clang++ -std=c++11 alone.cpp"; do
    command -v "${compiler%% *}" >/dev/null || { echo "no ${compiler%% *} here"; continue; }
    echo "$compiler"
    # shellcheck disable=SC2086 # split on purpose
    (cd "$work" && $compiler -I"$include" -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wundef -Werror -c -o alone.o)
    tried=$((tried + 1))
done
[ $tried -ge 2 ]
