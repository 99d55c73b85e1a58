#!/bin/sh
# What scripts/demo does, with a model of a few hundred columns: test_demo.sh FERRUMK DEMO_MODEL DEMO
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
"$2" "$at/source" tiny
"$1" quantize "$at/source" "$at/q4_k_m.gguf" --format q4_k_m
"$1" quantize "$at/source" "$at/gptq" --format gptq
"$1" verify "$at/q4_k_m.gguf"
"$1" verify "$at/gptq"
# Few results scatter above the bound that demo reports on: exit status 1 is that, and no failure here.
status=0
"$3" "$at/q4_k_m.gguf" "$at/gptq" >"$at/out" || status=$?
cat "$at/out"
[ $status -le 1 ]
[ "$(grep -c 'lm_head ' "$at/out")" -ge 2 ]
