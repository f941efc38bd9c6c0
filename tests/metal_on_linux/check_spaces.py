"""Holds the kernels to MSL's address spaces and to the dialect, and plants faults that must be refused.

    python tests/metal_on_linux/check_spaces.py

Each metal/*.metal, translated, goes through clang's parser with check/ for <metal_stdlib>, where device, constant and
threadgroup are address spaces of clang's own. A fault counts as refused only if the message is the one expected.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from translator import DialectError, translate

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
WARNINGS = ["all", "extra", "error", "conversion", "double-promotion", "no-unused-parameter"]
FLAGS = ["-fsyntax-only", "-std=c++17", "-x", "c++", "-nostdinc++", *(f"-W{warning}" for warning in WARNINGS)]

PROBE = """#include "kernel.h"
using namespace metal;

struct Pair {{
  float a, b;
  METAL_FUNC float sum() const {{ return a + b; }}
}};
METAL_FUNC float first(device const float* x) {{ return x[0]; }}
METAL_FUNC float first(device const float* x, uint from) {{ return first(x + from); }}
{outside}
template <uint kThreads>
kernel void probe(device const float* in [[buffer(0)]], device float* out [[buffer(1)]],
                  constant uint& n [[buffer(2)]], device const Pair* pairs [[buffer(3)]],
                  {parameter} uint index [[thread_index_in_threadgroup]]) {{
  threadgroup float shared[kThreads];
  shared[index] = in[index];
  {inside}
  threadgroup_barrier(mem_flags::mem_threadgroup);
  out[index] = shared[kThreads - 1 - index] + first(in, 0) + float(min(n, index));
}}
instantiate_kernel("probe", probe, 32);
"""


@dataclass(frozen=True)
class Fault:
    said: str  # what the message must have
    inside: str = ""
    outside: str = ""
    parameter: str = ""


SPACE = "address space"
FAULTS = {
    "a device pointer assigned to a threadgroup one": Fault(
        "cannot initialize a variable of type 'threadgroup", "threadgroup const float* x = in; shared[0] = x[0];"
    ),
    "a threadgroup array where device is expected": Fault("no matching function", "shared[0] = first(shared);"),
    "a variable's address where device is expected": Fault(
        "no matching function", "float x = 0.0f; shared[0] = first(&x);"
    ),
    "a cast from device to threadgroup": Fault(SPACE, "shared[0] = *(threadgroup const float*)in;"),
    "a cast from device to thread": Fault(SPACE, "shared[0] = *(thread const float*)in;"),
    "a cast from constant to device": Fault(SPACE, "shared[0] = float(*(device const uint*)&n);"),
    "a reference to another space": Fault(SPACE, "threadgroup const float& x = in[0]; shared[0] = x;"),
    "a method of a thread's object on a device one": Fault(
        "cannot initialize object parameter", "shared[0] = pairs[0].sum();"
    ),
    "pointers of two spaces compared": Fault("distinct pointer types", "if (&shared[0] == in) return;"),
    "a write to constant": Fault("const-qualified", "n = 1;"),
    "a write through const": Fault("read-only", "in[0] = 1.0f;"),
    "a pointer parameter without a space": Fault("without an address space", outside="METAL_FUNC void f(float* x) {}"),
    "a reference parameter without a space": Fault(
        "without an address space", outside="METAL_FUNC void f(const Pair& x) {}"
    ),
    "a pointer result without a space": Fault("without an address space", outside="float* f();"),
    "a pointer variable without a space": Fault(
        "without an address space", "float x = 0.0f; float* y = &x; *y = 1.0f;"
    ),
    "a pointer member without a space": Fault("without an address space", outside="struct Bad { const float* x; };"),
    "a buffer without a space": Fault("neither device nor constant", parameter="const float* x [[buffer(4)]],"),
    "a buffer bound twice": Fault("bound twice", parameter="device float* x [[buffer(1)]],"),
    "a buffer past the last": Fault("past 30", parameter="device float* x [[buffer(31)]],"),
    "a parameter without an attribute": Fault("without an attribute", parameter="uint x,"),
    "an attribute that MSL has not": Fault("unknown attribute", parameter="uint x [[thread_number]],"),
    "a threadgroup array outside a kernel": Fault(
        "outside a kernel's body", outside="METAL_FUNC void f() { threadgroup float x[4]; x[0] = 1.0f; }"
    ),
    "a threadgroup variable that is no array": Fault("no array", "threadgroup float x; x = 1.0f;"),
    "a variable in device": Fault(SPACE, "device float x = 1.0f; shared[0] = x;"),
    "min of two types": Fault("ambiguous", "shared[0] = float(min(n, 1));"),
    "max of a float and a whole number": Fault("ambiguous", "shared[0] = max(in[0], 0);"),
    "double": Fault("double is no type", "double x = 1.0f; shared[0] = float(x);"),
    "a sum that a literal widens to double": Fault("to .double.", "shared[0] = in[0] * 0.5;"),
    "half's own literal": Fault("no h literals", "half x = 1.0h; shared[0] = float(x);"),
    "exp without its precision": Fault("say fast:: or precise::", "shared[0] = exp(in[0]);"),
    "a name of the standard library": Fault("no standard library", "shared[0] = std::sqrt(in[0]);"),
    "a function that calls itself": Fault(
        "recursion", outside="METAL_FUNC uint f(uint x) { return x == 0 ? 0 : f(x - 1); }"
    ),
    "functions that call each other": Fault(
        "recursion",
        outside="METAL_FUNC uint g(uint x);\nMETAL_FUNC uint f(uint x) { return x == 0 ? 0 : g(x); }\n"
        "METAL_FUNC uint g(uint x) { return f(x - 1); }",
    ),
    "a static method that calls itself": Fault(
        "recursion", outside="struct Bad { static METAL_FUNC uint f(uint x) { return x == 0 ? 0 : Bad::f(x - 1); } };"
    ),
    "a kernel that waits for its inputs beside one that doesn't": Fault(
        "in all of them or in none",
        "WAIT_FOR_INPUTS();",
        outside="kernel void other(device float* out [[buffer(0)]]) { out[0] = 0.0f; }",
    ),
    "a lambda": Fault("no lambdas", "shared[0] = [](float x) { return x; }(in[0]);"),
    "an exception": Fault("no exceptions", "if (n == 0) throw 1;"),
    "memory from new": Fault("no exceptions, no new", "thread float* x = new float[4]; x[0] = 1.0f;"),
    "a sum by many threads in memory that is none of atomics": Fault(
        "no matching function", "threadgroup uint sum[1]; atomic_fetch_add_explicit(sum, 1u, memory_order_relaxed);"
    ),
    "a sum by many threads in a thread's own memory": Fault(
        "no matching function", "atomic_uint sum; atomic_fetch_add_explicit(&sum, 1u, memory_order_relaxed);"
    ),
    "a barrier that does not say of what": Fault("no matching function", "threadgroup_barrier();"),
    "a barrier by number": Fault("no matching function", "simdgroup_barrier(2);"),
    "a tile loaded from a thread's own memory": Fault(
        "no matching function", "half x[64]; simdgroup_matrix<half, 8, 8> tile; simdgroup_load(tile, x);"
    ),
    "bits taken for a type of another size": Fault("sizes differ", "shared[0] = float(as_type<ushort>(in[0]));"),
}


def clang() -> str:
    """The newest clang++ on PATH."""
    found = {}
    for folder in map(Path, os.environ["PATH"].split(os.pathsep)):
        for path in folder.glob("clang++*"):
            if version := re.fullmatch(r"clang\+\+(?:-(\d+))?", path.name):
                found[int(version[1] or 0)] = str(path)
    if not found:
        raise SystemExit("no clang++ on PATH")
    return found[max(found)]


def casts_between_spaces(tree: str) -> Iterator[str]:
    """MSL refuses them; clang has the address spaces, but lets a C-style cast through."""
    line = ""
    for node in tree.splitlines():
        for line_at in re.finditer(r"\bline:(\d+)", node):
            line = line_at[1]
        if "<AddressSpaceConversion>" in node:
            to = re.search(r"'([^']*)'", node)
            yield f"near line {line}: a cast to another address space: {to[1] if to else node}\n"


def recursions(tree: str) -> Iterator[str]:
    """Apple's compiler refuses them. Functions, and template instances, are told apart by clang's addresses."""
    caller, first, names = "", {}, {}
    calls: dict[str, set[str]] = {}
    for node in tree.splitlines():
        declared = re.match(r"\W*(?:Function|CXXMethod)Decl (0x\w+) (?:parent 0x\w+ )?(?:prev (0x\w+) )?", node)
        if declared:
            caller = first[declared[1]] = first.get(declared[2], declared[1])
            name = re.search(r"(\w+) '", node)
            names[caller] = name[1] if name else node
        for called in re.findall(r"(?:DeclRefExpr .* (?:Function|CXXMethod)|MemberExpr .*(?:->|\.)\w+) (0x\w+)", node):
            calls.setdefault(caller, set()).add(called)
    calls = {caller: {first.get(called, called) for called in all_called} for caller, all_called in calls.items()}
    for caller, ahead in calls.items():
        reached: set[str] = set()
        while ahead:
            reached |= ahead
            ahead = set().union(*(calls.get(called, set()) for called in ahead)) - reached
        if caller in reached:
            yield f"{names.get(caller, caller)}: recursion\n"


def refusal(path: Path, compiler: str) -> str:
    """What the dialect's lint or clang says against a kernel file or a header's text; empty for a good one."""
    try:
        text = translate(path, "check")
    except DialectError as error:
        return f"{error}\n"
    if path.suffix == ".h":  # clang sees it in the files that include it
        return ""
    includes = [f"-I{HERE / 'check'}", f"-I{ROOT / 'metal/include'}", f"-I{ROOT / 'cpp'}"]
    command = [compiler, *FLAGS, *includes, "-Xclang", "-ast-dump", "-fno-color-diagnostics", "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return done.stderr
    return "".join([*casts_between_spaces(done.stdout), *recursions(done.stdout)])


def refusals_of_probes(compiler: str) -> Iterator[tuple[str, Fault, str]]:
    with tempfile.TemporaryDirectory() as folder:
        probe = Path(folder) / "probe.metal"
        for name, fault in {"nothing": Fault(""), **FAULTS}.items():
            text = PROBE.format(inside=fault.inside, outside=fault.outside, parameter=fault.parameter)
            probe.write_text(text, encoding="utf-8")
            yield name, fault, refusal(probe, compiler)


def main() -> int:
    compiler = clang()
    kernels = sorted([*ROOT.glob("metal/*.metal"), *ROOT.glob("metal/nvidia/*.metal")])
    headers = sorted(ROOT.glob("metal/include/*.h"))
    against = {path: refusal(path, compiler) for path in (*kernels, *headers)}
    for path, said in against.items():
        print(f"{path.name}: {said}" if said else "", end="")
    clean = sum(not against[path] for path in kernels)
    refused = 0
    for name, fault, said in refusals_of_probes(compiler):
        if name == "nothing":
            if said:
                raise SystemExit(f"the probe without a fault is refused:\n{said}")
            continue
        as_expected = re.search(fault.said, said) is not None and said != ""
        refused += as_expected
        if not as_expected:
            print(f"not refused as it should be: {name}\n{said}")
    print(f"{clean} kernel files clean, {refused} of {len(FAULTS)} planted faults refused")
    return 1 if any(against.values()) or refused < len(FAULTS) else 0


if __name__ == "__main__":
    sys.exit(main())
