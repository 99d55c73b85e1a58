"""Compiles and runs the programs that README.md, docs/embedding.md, docs/cuda.md and docs/vulkan.md print: their
first C block is the example's file, byte for byte. That of docs/cuda.md runs on the emulated GPU (tests/emulator),
where it was built, that of docs/vulkan.md where the library has Vulkan.

usage: documents.py SOURCE_DIR LIBRARY_DIR COMPILER [CUDA_INCLUDE_DIR EMULATOR_DIR] [vulkan]
"""
import os
import re
import struct
import subprocess
import sys
import tempfile

source, library, compiler, *cuda = sys.argv[1:]
vulkan = cuda[-1:] == ["vulkan"]
if vulkan:
    cuda.pop()
VALUE = 0.75


def write_gguf(path):
    """One f32 tensor of 8 x 256, filled with VALUE."""
    name = b"blk.0.attn_q.weight"
    header = b"GGUF" + struct.pack("<IQQ", 3, 1, 0)
    header += struct.pack("<Q", len(name)) + name + struct.pack("<IQQIQ", 2, 256, 8, 0, 0)
    header += bytes(-len(header) % 32)
    with open(path, "wb") as file:
        file.write(header + struct.pack("<f", VALUE) * 256 * 8)


def block_of(document):
    text = open(os.path.join(source, document)).read()
    found = re.search(r"^```c\n(.*?)^```$", text, re.S | re.M)
    assert found, f"{document} holds no block of C"
    return found[1]


def check(document, example):
    block = block_of(document)
    assert block == open(os.path.join(source, "examples", example)).read(), \
        f"the first block of C in {document} is not examples/{example}"
    return block


def run(work, document, example, *arguments, flags=(), libraries=()):
    block = check(document, example)
    program = os.path.join(work, example[:-2])
    with open(program + ".c", "w") as file:
        file.write(block)
    subprocess.run([compiler, "-std=c11", "-Wall", "-Wextra", "-Werror", "-I" + os.path.join(source, "include"),
                    *flags, program + ".c", "-o", program, "-L" + library, "-Wl,-rpath," + library, "-lferrumk",
                    *libraries, "-lm"], check=True)
    result = subprocess.run([program, *arguments], check=True, capture_output=True, text=True)
    print(f"{document}: {result.stdout}", end="")
    return result.stdout


with tempfile.TemporaryDirectory() as work:
    gguf = os.path.join(work, "model.gguf")
    write_gguf(gguf)
    output = run(work, "README.md", "readme.c", gguf, "blk.0.attn_q.weight")
    assert output == f"W[0][0] = {VALUE}\n", output
    run(work, "docs/embedding.md", "embed.c")
    check("docs/cuda.md", "cuda.c")
    check("docs/vulkan.md", "vulkan.c")
    if vulkan:
        run(work, "docs/vulkan.md", "vulkan.c", libraries=["-lvulkan"])
    if cuda:
        include, emulator = cuda
        # In front of a driver that the machine may have.
        os.environ["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, [emulator, os.environ.get("LD_LIBRARY_PATH")]))
        run(work, "docs/cuda.md", "cuda.c", flags=["-isystem", include], libraries=["-L" + emulator, "-lcuda"])

# From nothing to a result in few lines: those from the first call to fmk_linear that are not blank.
lines = block_of("README.md").split("\n")
first = next(i for i, line in enumerate(lines) if "fmk_context_create(" in line)
last = next(i for i, line in enumerate(lines) if "fmk_linear(" in line)
count = sum(1 for line in lines[first:last + 1] if line.strip())
assert count <= 15, f"context, weight and linear take {count} lines in README.md"
