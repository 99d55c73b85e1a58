#!/bin/sh
# Compares the shared library's ABI with the baseline in the tree. New functions are allowed, and nothing else:
# a struct that has grown is let through by writing the baseline anew.
# usage: compare.sh LIBRARY INCLUDE_DIR
set -eu
baseline=$(dirname "$0")/ferrumk.abi
command -v abidiff >/dev/null || { echo "no abidiff here (package abigail-tools)"; exit 77; }
current=$(mktemp)
trap 'rm -f "$current"' EXIT
"$(dirname "$0")"/write.sh "$1" "$2" "$current"
abidiff --no-added-syms "$baseline" "$current" || {
    echo "the ABI differs from tests/abi/ferrumk.abi; if that is meant, see docs/abi.md and scripts/abi-baseline"
    exit 1
}
