#!/bin/sh
# Compares the shared library's ABI with the baseline in the tree. An addition is allowed, a change is not.
# usage: compare.sh LIBRARY INCLUDE_DIR
set -eu
baseline=$(dirname "$0")/ferrumk.abi
command -v abidiff >/dev/null || { echo "no abidiff here (package abigail-tools)"; exit 77; }
status=0
abidiff --headers-dir2 "$2" --drop-private-types "$baseline" "$1" || status=$?
# Bit 0 and 1: abidiff itself failed. Bit 2: something differs. Bit 3: incompatibly.
if [ $((status & 11)) -ne 0 ]; then
    echo "the ABI differs from tests/abi/ferrumk.abi; if that is meant, see docs/abi.md and scripts/abi-baseline"
    exit 1
fi
