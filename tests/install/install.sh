#!/bin/sh
# Installs into an empty folder, moves it elsewhere, and builds and runs the embedding example against it: by
# find_package (shared and static) and by pkg-config (shared and static).
# usage: install.sh SOURCE_DIR BUILD_DIR
set -eu
source=$1
build=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
say() { echo "-- $*"; }

say "cmake --install"
cmake --install "$build" --prefix "$work/first" >"$work/log" || { cat "$work/log"; exit 1; }
mv "$work/first" "$work/prefix"
prefix=$work/prefix
(cd "$prefix" && find . -type f -o -type l | sort)
for file in include/ferrumk.h lib/libferrumk.so lib/libferrumk.so.0 lib/libferrumk.a lib/pkgconfig/ferrumk.pc \
    lib/cmake/ferrumk/ferrumk-config.cmake share/doc/ferrumk/LICENSE; do
    [ -e "$prefix/$file" ] || { echo "not installed: $file"; exit 1; }
done
if grep -rIl -e "$source/include" -e "$source/src" -e "$build" "$prefix"; then
    echo "the files above name the folder they were built in"
    exit 1
fi

say "find_package"
cmake -S "$source/examples" -B "$work/cmake" -G Ninja -DCMAKE_PREFIX_PATH="$prefix" >"$work/log" ||
    { cat "$work/log"; exit 1; }
cmake --build "$work/cmake" >"$work/log" || { cat "$work/log"; exit 1; }
"$work/cmake/embed"
"$work/cmake/embed_static"

say "pkg-config"
export PKG_CONFIG_PATH="$prefix/lib/pkgconfig"
version=$(sed -n 's/^#define FMK_VERSION_[A-Z]* //p' "$prefix/include/ferrumk.h" | paste -sd.)
[ "$(pkg-config --modversion ferrumk)" = "$version" ] || { echo "ferrumk.pc is not of version $version"; exit 1; }
# shellcheck disable=SC2046 # split on purpose
cc -std=c11 "$source/examples/embed.c" $(pkg-config --cflags --libs ferrumk) -lm -o "$work/embed"
LD_LIBRARY_PATH=$prefix/lib "$work/embed"
# shellcheck disable=SC2046
cc -std=c11 "$source/examples/embed.c" $(pkg-config --cflags ferrumk) "$prefix/lib/libferrumk.a" \
    $(pkg-config --static --libs-only-l ferrumk | sed 's/-lferrumk//') -pthread -lm -o "$work/embed_static"
"$work/embed_static"
if readelf -d "$work/embed_static" | grep -q libferrumk; then
    echo "the static program needs libferrumk.so"
    exit 1
fi
