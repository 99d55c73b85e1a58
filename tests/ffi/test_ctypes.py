"""Projections through the C ABI from Python's ctypes alone, checked against plain loops.

usage: test_ctypes.py LIBRARY
"""
import array
import ctypes
import math
import random
import struct
import sys
from ctypes import POINTER, byref, c_char_p, c_float, c_int32, c_int64, c_uint32, c_uint64, c_void_p, sizeof

F16, BF16, F32, I32 = 1, 2, 3, 4
DENSE, GPTQ, Q4_K, Q6_K = 1, 2, 5, 6
EINVAL, EUNSUPPORTED = -1, -3
CPU = 1
EXACT = 8


class Buffer(ctypes.Structure):
    _fields_ = [("handle", c_uint64), ("offset", c_uint64), ("size", c_uint64)]


class Tensor(ctypes.Structure):
    _fields_ = [("data", Buffer), ("expert_stride", c_uint64), ("dtype", c_int32), ("memory", c_int32)]


class Part(ctypes.Structure):
    _fields_ = [("struct_size", c_uint32), ("format", c_int32), ("n", c_int64), ("k", c_int64),
                ("n_begin", c_int64), ("n_end", c_int64), ("k_begin", c_int64), ("k_end", c_int64),
                ("group_size", c_int32), ("zero_point", c_int32), ("symmetric", c_int32), ("reserved", c_int32),
                ("qweight", Tensor), ("scales", Tensor), ("qzeros", Tensor), ("g_idx", Tensor), ("bias", Tensor),
                ("n_order", Tensor)]


Progress = ctypes.CFUNCTYPE(c_int32, c_void_p, c_uint64, c_uint64)


class WeightDesc(ctypes.Structure):
    _fields_ = [("struct_size", c_uint32), ("flags", c_uint32), ("parts", POINTER(Part)), ("num_parts", c_int32),
                ("num_experts", c_int32), ("apply_bias", c_int32), ("reserved", c_int32), ("storage", Buffer),
                ("source", c_void_p), ("progress", Progress), ("progress_user", c_void_p)]


class ContextDesc(ctypes.Structure):
    """Its first fields: struct_size says that the others are not told."""
    _fields_ = [("struct_size", c_uint32), ("backend", c_int32), ("device", c_int32), ("cpu_threads", c_int32)]


class WeightInfo(ctypes.Structure):
    _fields_ = [("struct_size", c_uint32), ("glu", c_int32), ("borrowed", c_int32), ("num_parts", c_int32),
                ("num_experts", c_int32), ("act_order", c_int32), ("n", c_int64), ("k", c_int64),
                ("bytes", c_uint64), ("packed_size", c_uint64), ("layout_id", c_uint64)]


class LinearArgs(ctypes.Structure):
    _fields_ = [("struct_size", c_uint32), ("flags", c_uint32), ("m", c_int64), ("in_type", c_int32),
                ("out_type", c_int32), ("addend_type", c_int32), ("act", c_int32), ("act_alpha", c_float),
                ("act_limit", c_float), ("in_stride", c_int64), ("out_stride", c_int64), ("addend_stride", c_int64),
                ("in_", Buffer), ("out", Buffer), ("addend", Buffer), ("in_rows", Buffer), ("m_dev", Buffer),
                ("workspace", Buffer), ("routing", c_void_p)]


library = ctypes.CDLL(sys.argv[1])
library.fmk_build_info.restype = c_char_p
library.fmk_last_error.restype = c_char_p
library.fmk_status_name.restype = c_char_p
for name in ("fmk_context_destroy", "fmk_queue_destroy", "fmk_weight_destroy"):
    getattr(library, name).restype = None


def check(status):
    if status:
        raise RuntimeError(f"{library.fmk_status_name(status).decode()}: {library.fmk_last_error().decode()}")


def view(values):
    """The buffer of an array, which must outlive it."""
    address, count = values.buffer_info()
    return Buffer(address, 0, count * values.itemsize)


def half(bits):
    return struct.unpack("<e", struct.pack("<H", bits))[0]


def dense(n, k):
    values = array.array("f", (random.gauss(0, 1) for _ in range(n * k)))
    return Part(format=DENSE, qweight=Tensor(view(values), dtype=F32)), [values], list(values)


def gptq(n, k, group=32):
    """Symmetric: every stored zero is 7, so the real one is 8."""
    words = array.array("I", (random.getrandbits(32) for _ in range(k // 8 * n)))
    zeros = array.array("I", [0x77777777] * (k // group * n // 8))
    scales = array.array("H", (0x2000 + random.getrandbits(10) for _ in range(k // group * n)))
    values = [half(scales[j // group * n + i]) * ((words[j // 8 * n + i] >> 4 * (j % 8) & 15) - 8)
              for i in range(n) for j in range(k)]
    part = Part(format=GPTQ, group_size=group, qweight=Tensor(view(words), dtype=I32),
                scales=Tensor(view(scales), dtype=F16), qzeros=Tensor(view(zeros), dtype=I32))
    return part, [words, zeros, scales], values


def q4_k(n, k):
    blocks, values = array.array("B"), []
    for _ in range(n * k // 256):
        d, dmin = 0x1000 + random.getrandbits(10), 0x1000 + random.getrandbits(10)
        s, q = random.randbytes(12), random.randbytes(128)
        blocks.frombytes(struct.pack("<HH", d, dmin) + s + q)
        for j in range(8):
            if j < 4:
                scale, least = s[j] & 63, s[j + 4] & 63
            else:
                scale = s[j + 4] & 15 | s[j - 4] >> 6 << 4
                least = s[j + 4] >> 4 | s[j] >> 6 << 4
            for i in range(32):
                code = q[j // 2 * 32 + i] >> 4 * (j % 2) & 15
                values.append(half(d) * scale * code - half(dmin) * least)
    return Part(format=Q4_K, qweight=Tensor(view(blocks))), [blocks], values


def q6_k(n, k):
    blocks, values = array.array("B"), []
    for _ in range(n * k // 256):
        low, high, scales = random.randbytes(128), random.randbytes(64), random.randbytes(16)
        d = 0x1000 + random.getrandbits(10)
        blocks.frombytes(low + high + scales + struct.pack("<H", d))
        signed = struct.unpack("16b", scales)
        for w in range(256):
            h, quarter, i = w // 128, w % 128 // 32, w % 32
            nibble = low[64 * h + 32 * (quarter % 2) + i] >> 4 * (quarter // 2) & 15
            code = nibble | (high[32 * h + i] >> 2 * quarter & 3) << 4
            values.append(half(d) * signed[w // 16] * (code - 32))
    return Part(format=Q6_K, qweight=Tensor(view(blocks))), [blocks], values


def project(queue, weight, rows, n, k, flags):
    """Multiplies random rows; answers the input and the output."""
    x = array.array("f", (random.gauss(0, 1) for _ in range(rows * k)))
    out = array.array("f", [math.nan] * (rows * n))
    args = LinearArgs(struct_size=sizeof(LinearArgs), flags=flags, m=rows, in_type=F32, out_type=F32, in_=view(x),
                      out=view(out))
    least, best = c_uint64(), c_uint64()
    check(library.fmk_workspace_size(weight, byref(args), byref(least), byref(best)))
    memory = ctypes.create_string_buffer(best.value + 256)
    args.workspace = Buffer((ctypes.addressof(memory) + 255) // 256 * 256, 0, best.value)
    check(library.fmk_linear(queue, weight, byref(args)))
    return x, out


def relative_error(x, values, out, rows, n, k):
    error = norm = 0.0
    for r in range(rows):
        for i in range(n):
            want = math.fsum(x[r * k + j] * values[i * k + j] for j in range(k))
            error += (out[r * n + i] - want) ** 2
            norm += want ** 2
    return math.sqrt(error / norm)


def main():
    random.seed(1)
    print(library.fmk_build_info().decode())
    ctx, queue = c_void_p(), c_void_p()
    check(library.fmk_context_create(byref(ctx), byref(ContextDesc(struct_size=sizeof(ContextDesc), backend=CPU))))
    check(library.fmk_queue_create(byref(queue), ctx, None))
    n, k, rows = 64, 512, 2
    for make in (dense, gptq, q4_k, q6_k):
        part, memory, values = make(n, k)
        part.struct_size, part.n, part.k = sizeof(Part), n, k
        seen = []
        desc = WeightDesc(struct_size=sizeof(WeightDesc), parts=ctypes.pointer(part), num_parts=1,
                          progress=Progress(lambda _, done, total: seen.append((done, total)) or 0))
        weight = c_void_p()
        check(library.fmk_weight_create(byref(weight), queue, byref(desc)))
        assert seen and seen[-1][0] == seen[-1][1], seen
        info = WeightInfo(struct_size=sizeof(WeightInfo))
        check(library.fmk_weight_info(weight, byref(info)))
        assert (info.n, info.k, info.num_parts) == (n, k, 1) and info.layout_id

        got = array.array("f", [math.nan] * (n * k))
        check(library.fmk_weight_dequantize(queue, weight, 0, byref(view(got)), F32, c_int64(0)))
        worst = max(abs(a - b) / (abs(b) + 1e-3) for a, b in zip(got, values))
        assert worst < 1e-4, f"{make.__name__}: dequantized values are off by {worst}"
        # Activations rounded to 8 bits: about 0.5 %, give or take two tokens and weights that are all but
        # constant along runs of 32.
        for flags, bound in ((0, 1e-2), (EXACT, 1e-6)):
            x, out = project(queue, weight, rows, n, k, flags)
            # `got` is bit for bit what the format says; sums are compared over it.
            error = relative_error(x, got, out, rows, n, k)
            print(f"{make.__name__:6} flags {flags}: relative error {error:.1e}")
            assert error <= bound
        library.fmk_weight_destroy(weight, queue)
        del memory

    # Refusals reach Python as a number and a sentence.
    part.n = -1
    weight = c_void_p(1)
    desc.parts = ctypes.pointer(part)
    assert library.fmk_weight_create(byref(weight), queue, byref(desc)) == EINVAL
    assert weight.value is None and b"n " in library.fmk_last_error(), library.fmk_last_error()
    # What the garbage collector may do: parents first.
    library.fmk_context_destroy(ctx)
    library.fmk_queue_destroy(queue)


main()
