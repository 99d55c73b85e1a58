#!/bin/sh
# Compiles linear.rs with rustc alone and runs it. usage: rust.sh LIBRARY_DIR
set -eu
command -v rustc >/dev/null || { echo "no rustc here"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
rustc --edition 2021 -D warnings -L "$1" -C link-arg=-Wl,-rpath,"$1" -o "$work/linear" "$(dirname "$0")/linear.rs"
"$work/linear"
