#!/bin/sh
# Writes what the header lets a program see of the library's ABI. usage: write.sh LIBRARY INCLUDE_DIR OUTPUT
set -eu
abidw --headers-dir "$2" --drop-private-types --drop-undefined-syms --no-corpus-path --no-comp-dir-path \
    --no-show-locs --type-id-style hash --out-file "$3" "$1"
# Neither where it was built nor what it was linked with.
sed -i "/<elf-needed>/,/<\/elf-needed>/d; s|path='[^']*/src/|path='src/|" "$3"
