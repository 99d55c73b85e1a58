#!/usr/bin/env python3
"""Writes the fuzzers' seed corpus, a few small files for each, into the folder given: gguf/, safetensors/ and
config/. Needs nothing but Python."""

import json
import pathlib
import struct
import sys


def text(value):
    return struct.pack("<Q", len(value)) + value.encode()


def gguf(version, keys, tensors, alignment=32):
    """keys: (name, type, packed value); tensors: (name, dims, type, bytes)."""
    out = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(keys))
    for name, kind, value in keys:
        out += text(name) + struct.pack("<I", kind) + value
    offset = 0
    for name, dims, kind, size in tensors:
        out += text(name) + struct.pack(f"<I{len(dims)}qIQ", len(dims), *dims, kind, offset)
        offset += -(-size // alignment) * alignment
    return out + bytes(-len(out) % alignment) + bytes(offset)


def gguf_seeds():
    architecture = ("general.architecture", 8, text("llama"))
    every = [(f"k{kind}", kind, struct.pack(form, 1)) for kind, form in enumerate("<B <b <H <h <I <i <f <?".split())]
    every += [("k8", 8, text("value")), ("k10", 10, struct.pack("<Q", 1)), ("k12", 12, struct.pack("<d", 1)),
              ("k9", 9, struct.pack("<IQ3I", 4, 3, 1, 2, 3)),
              ("s9", 9, struct.pack("<IQ", 8, 2) + text("a") + text("bc"))]
    tensors = [("token_embd.weight", (256, 2), 12, 288), ("blk.0.attn_q.weight", (256, 1), 14, 210),
               ("blk.0.attn_q.bias", (1,), 0, 4), ("blk.0.ffn_up_exps.weight", (8, 2, 3), 1, 96),
               ("norm.weight", (4,), 30, 8), ("q.weight", (32, 1), 8, 34)]
    yield "empty", gguf(3, [], [])
    yield "keys", gguf(2, [architecture, *every], [])
    yield "tensors", gguf(3, [architecture, ("general.file_type", 4, struct.pack("<I", 15))], tensors)
    yield "aligned", gguf(3, [("general.alignment", 4, struct.pack("<I", 64))], tensors[:2], 64)
    yield "split", gguf(3, [("split.no", 2, struct.pack("<H", 0)), ("split.count", 2, struct.pack("<H", 2))],
                        tensors[:1])


def safetensors(**tensors):
    """name=(dtype, shape, bytes)"""
    header, offset = {}, 0
    for name, (dtype, shape, size) in tensors.items():
        header[name.replace("__", ".")] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    return json.dumps(header, separators=(",", ":")).encode() + b"\n" + bytes(offset)


def safetensors_seeds():
    yield "empty", b"{}\n"
    yield "metadata", b'{"__metadata__":{"format":"pt"}}\n'
    yield "dense", safetensors(a__weight=("F16", [2, 4], 16), a__bias=("F32", [2], 8), n__weight=("BF16", [3], 6),
                               s=("F32", [], 4), i=("I64", [1], 8), z=("F16", [0], 0))
    yield "gptq", safetensors(p__qweight=("I32", [4, 8], 128), p__scales=("F16", [2, 8], 32),
                              p__qzeros=("I32", [2, 1], 8), p__g_idx=("I32", [32], 128), p__bias=("F16", [8], 16))
    yield "awq", safetensors(p__qweight=("I32", [16, 1], 64), p__scales=("F16", [1, 8], 16),
                             p__qzeros=("I32", [1, 1], 4))
    yield "marlin", safetensors(p__B=("I32", [8, 128], 4096), p__s=("F16", [1, 64], 128), p__workspace=("I32", [2], 8))


def config_seeds():
    gptq = {"bits": 4, "group_size": 128, "desc_act": True, "sym": True, "quant_method": "gptq",
            "checkpoint_format": "gptq_v2", "lm_head": False,
            "dynamic": {r"-:.*down": {}, r"+:.*\.1[0-9]\..*": {"bits": 8, "group_size": 64}, "(a|b)*c": {"sym": False}}}
    seeds = {"gptq": gptq, "marlin": {"is_marlin_format": True, "group_size": -1},
             "awq": {"zero_point": True, "q_group_size": 128, "w_bit": 4, "version": "GEMM"},
             "model": {"model_type": "llama", "hidden_size": 64, "rope_parameters": {"rope_theta": 1e6},
                       "quantization_config": gptq},
             "index": {"weight_map": {"a": "1.safetensors", "b": "2.safetensors", "c": "1.safetensors"}}}
    for name, value in seeds.items():
        yield name, json.dumps(value).encode()


def main():
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(f"{__doc__}\nusage: {sys.argv[0]} FOLDER")
    for kind, seeds in (("gguf", gguf_seeds()), ("safetensors", safetensors_seeds()), ("config", config_seeds())):
        folder = pathlib.Path(sys.argv[1]) / kind
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in seeds:
            (folder / name).write_bytes(data)


if __name__ == "__main__":
    main()
