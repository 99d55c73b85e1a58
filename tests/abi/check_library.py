"""Checks the built libraries against the header and against what they promise to whoever links them.

usage: check_library.py CHECK HEADER LIBRARY, where CHECK is one of the functions below
"""
import re
import subprocess
import sys

# docs/abi.md names these.
GLIBC_CEILING = (2, 34)
NEEDED = {"libc.so.6", "libm.so.6", "libjansson.so.4", "libpcre2-8.so.0",
          "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}
# Never called: a library neither ends its host, prints, nor reads its environment.
FORBIDDEN = {"abort", "exit", "_exit", "quick_exit", "__assert_fail", "raise", "signal", "sigaction",
             "printf", "__printf_chk", "fprintf", "__fprintf_chk", "vfprintf", "__vfprintf_chk", "puts",
             "putchar", "putc", "fputs", "fputc", "perror", "stdout", "stderr", "getenv", "secure_getenv",
             "setenv"}


def tool(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def declared(header):
    text = re.sub(r"/\*.*?\*/", "", open(header).read(), flags=re.S)
    names = re.findall(r"FMK_API\b[^;]*?\b(fmk_\w+)\s*\(", text)
    assert len(names) == len(set(names)) > 30, names
    return set(names)


def compare(header_names, library_names):
    errors = [f"the header declares {name}, the library does not define it"
              for name in sorted(header_names - library_names)]
    errors += [f"the library exports {name}, the header does not declare it"
               for name in sorted(library_names - header_names)]
    return errors


def symbols(header, library):
    """The shared library exports the header's functions, with their version, and nothing else."""
    exported = {}
    for line in tool("nm", "-D", "--defined-only", library).splitlines():
        kind, name = line.split()[1:]
        if kind != "A":
            exported[name.partition("@")[0]] = (kind, name)
    errors = compare(declared(header), set(exported))
    errors += [f"{name} is not a function of version FERRUMK_0" for kind, name in exported.values()
               if kind != "T" or not name.endswith("@@FERRUMK_0")]
    return errors


def archive(header, library):
    """The static library's only global definitions are the header's functions."""
    lines = tool("nm", "-g", "--defined-only", library).splitlines()
    return compare(declared(header), {line.split()[2] for line in lines if len(line.split()) == 3})


def dynamic(header, library):
    """Name, dependencies and hardening of the shared library."""
    section = tool("readelf", "-dW", library)
    headers = tool("readelf", "-lW", library)
    errors = [f"needs {name}" for name in re.findall(r"\(NEEDED\).*\[(.*)\]", section) if name not in NEEDED]
    if "(SONAME)             Library soname: [libferrumk.so.0]" not in section:
        errors.append("soname is not libferrumk.so.0")
    flags = re.search(r"\(FLAGS_1\)\s+Flags: (.*)", section)
    errors += [f"is not linked with -z {flag.lower()}" for flag in ("NOW", "NODELETE")
               if not flags or flag not in flags[1].split()]
    if "(TEXTREL)" in section:
        errors.append("has text relocations")
    if "GNU_RELRO" not in headers:
        errors.append("is not linked with -z relro")
    if not re.search(r"GNU_STACK.* RW +0x", headers):
        errors.append("wants an executable stack")
    return errors


def calls(header, library):
    """What the library calls of others: nothing newer than the glibc ceiling, nothing forbidden."""
    errors = []
    for line in tool("nm", "-D", "--undefined-only", library).splitlines():
        name, _, version = line.split()[-1].partition("@")
        number = re.fullmatch(r"GLIBC_(\d+)\.(\d+)(?:\.\d+)?", version)
        if number and tuple(map(int, number.groups())) > GLIBC_CEILING:
            errors.append(f"needs {name} of {version}, above the ceiling of glibc {GLIBC_CEILING}")
        if name in FORBIDDEN:
            errors.append(f"calls {name}")
        if version.startswith(("GLIBCXX", "CXXABI")):
            errors.append(f"needs the C++ runtime: {name}")
    return errors


def main():
    check, header, library = sys.argv[1:]
    errors = {"symbols": symbols, "archive": archive, "dynamic": dynamic, "calls": calls}[check](header, library)
    for error in errors:
        print(f"{library}: {error}")
    sys.exit(1 if errors else 0)


main()
