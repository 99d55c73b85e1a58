#!/usr/bin/env python3
"""Checkpoints written by the official packages gguf and safetensors, read back by the library.

    test_checkpoint_official.py --library build/src/libferrumk.so

K-quants must dequantize to what gguf.dequantize says, bit for bit; GPTQ and Marlin to the published formulas.
Exit status 77: the packages are not there.
"""

import argparse
import ctypes as c
import json
import pathlib
import shutil
import sys
import tempfile
import unittest

try:
    import gguf
    import numpy as np
    import safetensors
    from safetensors.numpy import save_file
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

MATRIX, VECTOR, UNSUPPORTED = 1, 2, 3
DENSE, GPTQ, GPTQ_V2, MARLIN, Q4_K, Q6_K = 1, 2, 3, 4, 5, 6
F16, BF16, F32 = 1, 2, 3


class Buffer(c.Structure):
    _fields_ = [("handle", c.c_uint64), ("offset", c.c_uint64), ("size", c.c_uint64)]


class Tensor(c.Structure):
    _fields_ = [("data", Buffer), ("expert_stride", c.c_uint64), ("dtype", c.c_int32), ("memory", c.c_int32)]


class Part(c.Structure):
    _fields_ = [("struct_size", c.c_uint32), ("format", c.c_int32), ("n", c.c_int64), ("k", c.c_int64),
                ("n_begin", c.c_int64), ("n_end", c.c_int64), ("k_begin", c.c_int64), ("k_end", c.c_int64),
                ("group_size", c.c_int32), ("zero_point", c.c_int32), ("symmetric", c.c_int32),
                ("reserved", c.c_int32)] + [(name, Tensor) for name in
                                            ("qweight", "scales", "qzeros", "g_idx", "bias", "n_order")]


class Info(c.Structure):
    _fields_ = [("struct_size", c.c_uint32), ("container", c.c_int32), ("num_files", c.c_int32),
                ("num_entries", c.c_int32), ("bytes", c.c_uint64), ("architecture", c.c_char_p),
                ("quantization", c.c_char_p)]


class Entry(c.Structure):
    _fields_ = [("struct_size", c.c_uint32), ("kind", c.c_int32), ("format", c.c_int32), ("dtype", c.c_int32),
                ("name", c.c_char_p), ("format_name", c.c_char_p), ("n", c.c_int64), ("k", c.c_int64),
                ("num_experts", c.c_int32), ("group_size", c.c_int32), ("act_order", c.c_int32),
                ("symmetric", c.c_int32), ("zero_declared", c.c_int32), ("zero_detected", c.c_int32),
                ("bytes", c.c_uint64)]


class ContextDesc(c.Structure):
    """Its first fields: struct_size says that the others are not told."""
    _fields_ = [("struct_size", c.c_uint32), ("backend", c.c_int32)]


CPU = 1


class Checkpoint:
    """One open checkpoint, and a queue of the CPU to make weights on."""

    def __init__(self, path):
        self.handle, self.context, self.queue = c.c_void_p(), c.c_void_p(), c.c_void_p()
        succeed(library.fmk_checkpoint_open(c.byref(self.handle), str(path).encode()))
        desc = ContextDesc(struct_size=c.sizeof(ContextDesc), backend=CPU)
        succeed(library.fmk_context_create(c.byref(self.context), c.byref(desc)))
        succeed(library.fmk_queue_create(c.byref(self.queue), self.context, None))
        self.info = Info(struct_size=c.sizeof(Info))
        succeed(library.fmk_checkpoint_info(self.handle, c.byref(self.info)))
        self.entries = {}
        for i in range(self.info.num_entries):
            entry = Entry(struct_size=c.sizeof(Entry))
            succeed(library.fmk_checkpoint_entry(self.handle, i, c.byref(entry)))
            self.entries[entry.name.decode()] = entry

    def __enter__(self):
        return self

    def __exit__(self, *_):
        library.fmk_queue_destroy(self.queue)
        library.fmk_context_destroy(self.context)
        library.fmk_checkpoint_close(self.handle)

    def values(self, *names, expert=0):
        """The matrices, concatenated along N, as float32."""
        shape = [(self.entries[name].n, self.entries[name].k) for name in names]
        out = np.empty((sum(n for n, _ in shape), shape[0][1]), np.float32)
        weight = c.c_void_p()
        array = (c.c_char_p * len(names))(*[name.encode() for name in names])
        succeed(library.fmk_checkpoint_load(c.byref(weight), self.queue, self.handle, array, len(names), None))
        succeed(library.fmk_weight_dequantize(self.queue, weight, expert,
                                              c.byref(Buffer(out.ctypes.data, 0, out.nbytes)), F32,
                                              c.c_int64(0)))
        library.fmk_weight_destroy(weight, None)
        return out

    def vector(self, name):
        count = c.c_int64()
        succeed(library.fmk_checkpoint_vector(self.handle, name.encode(), None, c.c_int64(0), c.byref(count)))
        out = np.empty(count.value, np.float32)
        succeed(library.fmk_checkpoint_vector(self.handle, name.encode(),
                                              out.ctypes.data_as(c.POINTER(c.c_float)), count, c.byref(count)))
        return out

    def find_status(self, name):
        part = Part(struct_size=c.sizeof(Part))
        return library.fmk_checkpoint_find(self.handle, name.encode(), c.byref(part), None)


def succeed(status):
    if status:
        raise AssertionError(library.fmk_last_error().decode())


def same_bits(got, want):
    np.testing.assert_array_equal(np.ascontiguousarray(got, np.float32).view(np.uint32),
                                  np.ascontiguousarray(want, np.float32).view(np.uint32))


def blocks(rng, kind, *shape):
    """Random blocks of a K-quant with scales that are finite."""
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    raw = rng.integers(0, 256, (*shape[:-1], shape[-1] // elements, size), np.uint8)
    places = {gguf.GGMLQuantizationType.Q4_K: (0, 2), gguf.GGMLQuantizationType.Q6_K: (208,)}.get(kind, ())
    for place in places:
        scale = rng.normal(0, 0.01, raw.shape[:-1]).astype(np.float16)
        raw[..., place:place + 2] = scale[..., None].view(np.uint8)
    return raw.reshape(*shape[:-1], -1)


def to_bf16(values):
    return (np.ascontiguousarray(values, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def from_bf16(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


def pack_rows(codes):
    """[k][n] codes, eight along K to a word."""
    k, n = codes.shape
    words = codes.reshape(k // 8, 8, n).astype(np.uint32)
    return sum(words[:, i] << np.uint32(4 * i) for i in range(8)).view(np.int32)


def pack_columns(zeros):
    groups, n = zeros.shape
    padded = np.zeros((groups, -(-n // 8) * 8), np.uint32)
    padded[:, :n] = zeros
    words = padded.reshape(groups, -1, 8)
    return sum(words[:, :, i] << np.uint32(4 * i) for i in range(8)).view(np.int32)


def make_gptq(rng, k, n, group_size, version=1, symmetric=True, act_order=False):
    """Tensors of one module, and its values [n][k]."""
    size = k if group_size < 0 else group_size
    groups = -(-k // size)
    codes = rng.integers(0, 16, (k, n), np.uint32)
    scales = rng.normal(0, 0.02, (groups, n)).astype(np.float16)
    zeros = np.full((groups, n), 8, np.uint32) if symmetric else rng.integers(1, 16, (groups, n), np.uint32)
    g_idx = np.arange(k, dtype=np.int32) // size
    if act_order:
        g_idx = rng.permutation(g_idx)
    values = scales.astype(np.float32)[g_idx] * (codes.astype(np.float32) - zeros.astype(np.float32)[g_idx])
    tensors = {"qweight": pack_rows(codes), "qzeros": pack_columns((zeros - (version == 1)) & 15),
               "scales": scales, "g_idx": g_idx}
    return tensors, values.T


def make_marlin(rng, k, n, group_size):
    """B and s by the published permutations, and the values [n][k]."""
    groups = 1 if group_size < 0 else k // group_size
    codes = rng.integers(0, 16, (k, n), np.uint32)
    scales = rng.normal(0, 0.02, (groups, n)).astype(np.float16)
    b = np.zeros((k // 16, 2 * n), np.uint32)
    interleave = (0, 2, 4, 6, 1, 3, 5, 7)
    for lane in range(32):
        rows = [2 * (lane % 4) + d for d in (0, 1, 8, 9)]
        for j in range(4):
            column = 16 * j + lane // 4
            word = np.zeros((k // 16, n // 64), np.uint32)
            tile = codes.reshape(k // 16, 16, n // 64, 64)
            picked = [tile[:, r, :, column] for r in rows] + [tile[:, r, :, column + 8] for r in rows]
            for p in range(8):
                word |= picked[interleave[p]] << np.uint32(4 * p)
            b.reshape(k // 16, n // 64, 128)[:, :, 4 * lane + j] = word
    if groups > 1:
        order = [i + 8 * j for i in range(8) for j in range(8)]
    else:
        order = [2 * i + d for i in range(4) for d in (0, 1, 8, 9, 16, 17, 24, 25)]
    stored = scales.reshape(groups, -1, len(order))[:, :, order].reshape(groups, n)
    values = np.repeat(scales.astype(np.float32), k // groups, 0) * (codes.astype(np.float32) - 8)
    return {"B": b.view(np.int32), "s": np.ascontiguousarray(stored)}, values.T


class FolderTest(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="ferrumk-official-"))
        self.rng = np.random.default_rng(1)

    def tearDown(self):
        shutil.rmtree(self.folder)


class Gguf(FolderTest):
    def write(self, name, tensors, **options):
        writer = gguf.GGUFWriter(str(self.folder / name), "llama", **options)
        writer.add_file_type(15)
        writer.add_array("tokenizer.ggml.tokens", ["a", "bc", "def"])
        for tensor, (data, kind) in tensors.items():
            writer.add_tensor(tensor, data, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()

    def test_types(self):
        kinds = gguf.GGMLQuantizationType
        f32 = self.rng.normal(size=(6, 64)).astype(np.float32)
        bias = self.rng.normal(size=6).astype(np.float32)
        q4, q6 = blocks(self.rng, kinds.Q4_K, 6, 512), blocks(self.rng, kinds.Q6_K, 5, 512)
        stack = blocks(self.rng, kinds.Q4_K, 3, 4, 256)
        self.write("types.gguf", {
            "f32.weight": (f32, None), "f32.bias": (bias, None), "norm.weight": (bias, None),
            "f16.weight": (f32.astype(np.float16), None),
            "bf16.weight": (to_bf16(f32).view(np.uint8), kinds.BF16),
            "blk.0.attn_q.weight": (q4, kinds.Q4_K), "blk.0.attn_v.weight": (q6, kinds.Q6_K),
            "blk.0.ffn_up_exps.weight": (stack, kinds.Q4_K)})
        with Checkpoint(self.folder / "types.gguf") as opened:
            self.assertEqual(opened.info.architecture, b"llama")
            self.assertEqual(opened.info.quantization, b"q4_k_m")
            self.assertEqual(list(opened.entries), ["f32", "norm", "f16", "bf16", "blk.0.attn_q",
                                                    "blk.0.attn_v", "blk.0.ffn_up_exps"])
            for name, kind, dtype in (("f32", b"F32", F32), ("f16", b"F16", F16), ("bf16", b"BF16", BF16)):
                entry = opened.entries[name]
                self.assertEqual((entry.kind, entry.format, entry.format_name, entry.dtype, entry.n, entry.k),
                                 (MATRIX, DENSE, kind, dtype, 6, 64))
            entry = opened.entries["blk.0.ffn_up_exps"]
            self.assertEqual((entry.format, entry.n, entry.k, entry.num_experts), (Q4_K, 4, 256, 3))
            self.assertEqual(opened.entries["norm"].kind, VECTOR)
            same_bits(opened.vector("norm.weight"), bias)
            same_bits(opened.values("f32"), f32)
            same_bits(opened.values("f16"), f32.astype(np.float16))
            same_bits(opened.values("bf16"), from_bf16(to_bf16(f32)))
            want_q, want_v = gguf.dequantize(q4, kinds.Q4_K), gguf.dequantize(q6, kinds.Q6_K)
            same_bits(opened.values("blk.0.attn_q.weight".removesuffix(".weight")), want_q)
            same_bits(opened.values("blk.0.attn_q", "blk.0.attn_v"), np.concatenate([want_q, want_v]))
            for expert in range(3):
                same_bits(opened.values("blk.0.ffn_up_exps", expert=expert),
                          gguf.dequantize(stack[expert], kinds.Q4_K))

    def test_every_other_type_is_listed(self):
        # Q8_1 is never stored, and the package's size of it is that of an older ggml
        kinds = {kind: (elements, size) for kind, (elements, size) in gguf.GGML_QUANT_SIZES.items()
                 if kind.name not in ("F32", "F16", "BF16", "Q4_K", "Q6_K", "Q8_1")}
        self.write("others.gguf", {
            f"{kind.name}.weight": (self.rng.integers(0, 256, (2, 2 * 256 // elements * size), np.uint8), kind)
            for kind, (elements, size) in kinds.items()})
        with Checkpoint(self.folder / "others.gguf") as opened:
            self.assertEqual(len(opened.entries), len(kinds))
            for kind in kinds:
                entry = opened.entries[kind.name]
                self.assertEqual((entry.kind, entry.format, entry.format_name), (UNSUPPORTED, 0, kind.name.encode()))
                self.assertEqual((entry.n, entry.k), (2, 512))
                self.assertEqual(opened.find_status(kind.name), -3)

    def test_split(self):
        tensors = {f"blk.{i}.attn_q.weight": (self.rng.normal(size=(4, 32)).astype(np.float32), None)
                   for i in range(5)}
        self.write("split.gguf", tensors, split_max_tensors=2)
        files = sorted(self.folder.iterdir())
        self.assertEqual([file.name for file in files], [f"split-0000{i}-of-00003.gguf" for i in (1, 2, 3)])
        for path in [*files, self.folder]:
            with Checkpoint(path) as opened:
                self.assertEqual(opened.info.num_files, 3)
                self.assertEqual(opened.info.architecture, b"llama")
                for name, (data, _) in tensors.items():
                    same_bits(opened.values(name.removesuffix(".weight")), data)


class Safetensors(FolderTest):
    def write(self, name, modules, **tensors):
        save_file({f"{module}.{tensor}": np.ascontiguousarray(data) for module, made in modules.items()
                   for tensor, data in made.items()} | tensors, str(self.folder / name))

    def config(self, name="quantize_config.json", **values):
        (self.folder / name).write_text(json.dumps(values))

    def check_gptq(self, opened, name, values, version, symmetric, act_order, group_size):
        entry = opened.entries[name]
        self.assertEqual((entry.kind, entry.format, entry.n, entry.k, entry.group_size),
                         (MATRIX, GPTQ if version == 1 else GPTQ_V2, *values.shape, group_size))
        self.assertEqual((entry.act_order, entry.symmetric, entry.dtype), (act_order, symmetric, F16))
        same_bits(opened.values(name), values)

    def test_gptq(self):
        for version, symmetric, act_order, group_size, k in (
                (1, True, False, 64, 256), (1, False, False, 32, 128), (2, True, False, 128, 256),
                (2, False, True, 32, 256), (1, True, True, 64, 256), (1, True, False, -1, 128),
                (1, False, False, 64, 96)):
            with self.subTest(version=version, symmetric=symmetric, act_order=act_order, group_size=group_size):
                tensors, values = make_gptq(self.rng, k, 40, group_size, version, symmetric, act_order)
                self.write("model.safetensors", {"a.q_proj": tensors})
                self.config(bits=4, group_size=group_size, desc_act=act_order, sym=symmetric, quant_method="gptq",
                            checkpoint_format="gptq_v2" if version == 2 else "gptq")
                with Checkpoint(self.folder) as opened:
                    self.assertEqual(opened.info.quantization, b"gptq")
                    self.check_gptq(opened, "a.q_proj", values, version, symmetric, act_order, group_size)

    def test_gptq_without_config(self):
        tensors, values = make_gptq(self.rng, 256, 40, 64, 1, True, True)
        self.write("model.safetensors", {"a.q_proj": tensors})
        with Checkpoint(self.folder / "model.safetensors") as opened:
            self.assertEqual(opened.info.quantization, b"")
            self.check_gptq(opened, "a.q_proj", values, 1, True, True, 64)

    def test_dynamic(self):
        four, values = make_gptq(self.rng, 256, 40, 32)
        general, other = make_gptq(self.rng, 256, 40, 128)
        eight = {"qweight": np.zeros((64, 40), np.int32), "qzeros": np.zeros((2, 10), np.int32),
                 "scales": np.zeros((2, 40), np.float16)}
        dense = self.rng.normal(size=(40, 256)).astype(np.float16)
        self.write("model.safetensors", {"l.0.up": four, "l.1.up": general, "l.0.down": eight,
                                         "l.0.gate": {"weight": dense}})
        self.config("config.json", model_type="llama", quantization_config={
            "bits": 4, "group_size": 128, "sym": True, "quant_method": "gptq",
            "dynamic": {r"-:.*gate": {}, r"+:.*\.0\.up": {"group_size": 32}, r".*down$": {"bits": 8}}})
        with Checkpoint(self.folder) as opened:
            self.assertEqual(opened.info.architecture, b"llama")
            self.check_gptq(opened, "l.0.up", values, 1, True, False, 32)
            self.check_gptq(opened, "l.1.up", other, 1, True, False, 128)
            same_bits(opened.values("l.0.gate"), dense)
            entry = opened.entries["l.0.down"]
            self.assertEqual((entry.kind, entry.format_name), (UNSUPPORTED, b"GPTQ 8-bit"))

    def test_marlin(self):
        for group_size, k, n in ((128, 256, 128), (-1, 256, 192)):
            with self.subTest(group_size=group_size):
                tensors, values = make_marlin(self.rng, k, n, group_size)
                tensors["workspace"] = np.zeros(16, np.int32)
                self.write("model.safetensors", {"a.q_proj": tensors})
                self.config(bits=4, group_size=group_size, sym=True, desc_act=False, is_marlin_format=True)
                with Checkpoint(self.folder) as opened:
                    self.assertEqual(opened.info.quantization, b"marlin")
                    self.assertEqual(list(opened.entries), ["a.q_proj"])
                    entry = opened.entries["a.q_proj"]
                    self.assertEqual((entry.kind, entry.format, entry.n, entry.k, entry.group_size),
                                     (MATRIX, MARLIN, n, k, group_size))
                    same_bits(opened.values("a.q_proj"), values)

    def test_awq(self):
        self.write("model.safetensors", {"a": {"qweight": np.zeros((128, 8), np.int32),
                                               "qzeros": np.zeros((1, 8), np.int32),
                                               "scales": np.zeros((1, 64), np.float16)}})
        for config in (None, {"quant_method": "awq", "bits": 4, "group_size": 128}):
            if config:
                self.config("config.json", quantization_config=config)
            with Checkpoint(self.folder) as opened:
                self.assertEqual((opened.entries["a"].kind, opened.entries["a"].format_name), (UNSUPPORTED, b"AWQ"))
                self.assertEqual(opened.find_status("a"), -3)

    def test_dense_and_shards(self):
        weight = self.rng.normal(size=(8, 48)).astype(np.float32)
        bias = self.rng.normal(size=8).astype(np.float32)
        self.write("model-00001-of-00002.safetensors", {"a": {"weight": weight, "bias": bias}})
        self.write("model-00002-of-00002.safetensors", {"b": {"weight": weight.astype(np.float16)},
                                                        "norm": {"weight": bias}},
                   positions=np.arange(4))
        names = {"a.weight": 1, "a.bias": 1, "b.weight": 2, "norm.weight": 2, "positions": 2}
        index = self.folder / "model.safetensors.index.json"
        index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": {
            name: f"model-0000{file}-of-00002.safetensors" for name, file in names.items()}}))
        for path in (index, self.folder):
            with Checkpoint(path) as opened:
                self.assertEqual((opened.info.num_files, set(opened.entries)), (2, {"a", "b", "norm", "positions"}))
                same_bits(opened.values("a", "b"), np.concatenate([weight, weight.astype(np.float16)]))
                same_bits(opened.vector("norm"), bias)
                self.assertEqual(opened.entries["positions"].kind, UNSUPPORTED)

    def test_bf16(self):
        bits = to_bf16(self.rng.normal(size=(8, 48)))
        header = json.dumps({"w.weight": {"dtype": "BF16", "shape": [8, 48], "data_offsets": [0, bits.nbytes]}})
        path = self.folder / "model.safetensors"
        path.write_bytes(len(header).to_bytes(8, "little") + header.encode() + bits.tobytes())
        with safetensors.safe_open(str(path), "np") as check:
            self.assertEqual(list(check.keys()), ["w.weight"])
        with Checkpoint(path) as opened:
            self.assertEqual(opened.entries["w"].dtype, BF16)
            same_bits(opened.values("w"), from_bf16(bits))


def main():
    global library
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", required=True)
    arguments, rest = parser.parse_known_args()
    library = c.CDLL(arguments.library)
    library.fmk_last_error.restype = c.c_char_p
    for name in ("fmk_queue_destroy", "fmk_context_destroy", "fmk_checkpoint_close", "fmk_weight_destroy"):
        getattr(library, name).restype = None
    unittest.main(argv=[sys.argv[0], *rest])


if __name__ == "__main__":
    main()
