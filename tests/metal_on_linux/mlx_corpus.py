"""Runs MLX's kernels on the host, translated as Foundry's are. Apple's GPUs run them daily, so what is wrong is ours.

    python tests/metal_on_linux/mlx_corpus.py [unit ...]

The package mlx-metal (MIT) brings its kernels as headers; they are fetched, not kept. Each instance that mlx_cases.py
names runs in order and under shuffled schedules, which must all give the same bits, and is held to numpy in float64.
"""

from __future__ import annotations

import ctypes
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from api_truth import fetch
from check_spaces import clang
from mlx_cases import UNITS, Array, Case, Outputs
from translator import FOLDER, translate

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
BUILD = ROOT / "build" / "mlx_corpus"
KERNELS = "mlx/backend/metal/kernels"
SCHEDULES = (0, 1, 2)
MARGIN = 256  # bytes of NaN before and behind each buffer
MOST_BUFFERS = 31

# Headers about the compiler's own functions, or with an overload for each address space, which are all one here.
STAND_INS = {
    "bf16_math.h": "",
    "logging.h": """namespace mlx {
struct os_log {
  constexpr os_log(const char*, const char*) {}
  template <class... T>
  void log_debug(const char*, T...) const {}
};
}  // namespace mlx
""",
    "complex.h": """template <class T>
struct complex_t {
  T real, imag;
  constexpr complex_t(T real = T(0), T imag = T(0)) : real(real), imag(imag) {}
};
typedef complex_t<float> complex64_t;
"""
    + "".join(
        f"inline {kind} operator{op}(complex64_t, complex64_t) {{ __builtin_trap(); }}\n"
        for kind, ops in (("complex64_t", ("+", "-", "*", "/", "%")), ("bool", ("==", "!=", "<", ">")))
        for op in ops
    )
    + "inline complex64_t operator-(complex64_t) { __builtin_trap(); }\n",
    "steel/utils/type_traits.h": """template <class T>
struct pointer_element;
template <class T>
struct pointer_element<T*> {
  using type = std::remove_cv_t<T>;
};
template <class T>
using pointer_element_t = typename pointer_element<T>::type;
""",
}


def translate_headers(names: list[str], include: Path) -> int:
    """These and what they include, into BUILD; how many there are of MLX's own."""
    ahead, seen, own = [f"{KERNELS}/{name}" for name in names], set(), 0
    while ahead:
        header = ahead.pop()
        if header in seen:
            continue
        seen.add(header)
        out = BUILD / header
        out.parent.mkdir(parents=True, exist_ok=True)
        stand_in = STAND_INS.get(header.removeprefix(f"{KERNELS}/"))
        if stand_in is not None:
            out.write_text(f"#pragma once\n{stand_in}", encoding="utf-8")
            continue
        own += 1
        out.write_text(translate(include / header, "host", foreign=True), encoding="utf-8")
        ahead += re.findall(r'#include "([^"]+)"', (include / header).read_text(encoding="utf-8"))
    return own


def unit_source(headers: tuple[str, ...], kernels: list[str]) -> str:
    lines = ["#include <metal_simdgroup_matrix>", "using namespace metal;"]
    lines += ['#pragma push_macro("instantiate_kernel")']  # MLX has its own
    lines += [f'#include "{KERNELS}/{header}"' for header in headers]
    lines += ['#pragma pop_macro("instantiate_kernel")']
    for kernel in kernels:
        name, arguments = kernel.removesuffix(">").split("<", 1)
        lines.append(f'instantiate_kernel("{kernel}", {name}, {arguments});')
    return "\n".join([*lines, ""])


def compile_one(source: Path) -> Path:
    made = source.with_suffix(".o")
    flags = ["-std=c++20", "-O1", "-fPIC", "-ffp-contract=off", "-fno-strict-aliasing", "-w"]
    flags += [f"-I{path}" for path in (HERE / "host", FOLDER, ROOT / "cpp", BUILD)]
    subprocess.run([clang(), *flags, "-c", str(source), "-o", str(made)], check=True)
    return made


def build(cases: dict[str, list[Case]]) -> ctypes.CDLL:
    sources = [HERE / "mlx_launch.cpp", HERE / "host/runtime.cpp", HERE / "host/fiber.cpp"]
    for unit, of_unit in cases.items():
        metal, translated = BUILD / f"{unit}.metal", BUILD / f"{unit}.cpp"
        kernels = sorted({case.kernel for case in of_unit})
        metal.write_text(unit_source(UNITS[unit][0], kernels), encoding="utf-8")
        translated.write_text(translate(metal, "host", foreign=True), encoding="utf-8")
        sources.append(translated)
    here = [BUILD / source.name for source in sources]
    for source, copy in zip(sources, here, strict=True):
        if source != copy:
            copy.write_text(f'#include "{source}"\n', encoding="utf-8")
    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compile_one, here))
    library = BUILD / "kernels.so"
    subprocess.run([clang(), "-shared", *map(str, objects), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


class Placed:
    """An array's bytes in memory of its own, NaN around them."""

    def __init__(self, x: Array) -> None:
        self.memory = np.full(x.nbytes + 2 * MARGIN + 64, 0xFF, np.uint8)
        self.begin = MARGIN + -(self.memory.ctypes.data + MARGIN) % 64
        self.array = self.memory[self.begin : self.begin + x.nbytes].view(x.dtype).reshape(x.shape)
        self.array[...] = x

    def is_untouched_around(self) -> bool:
        behind = self.begin + self.array.nbytes
        return bool((self.memory[: self.begin] == 0xFF).all() and (self.memory[behind:] == 0xFF).all())


def run(library: ctypes.CDLL, case: Case, seed: int) -> Outputs:
    placed = {i: Placed(np.ascontiguousarray(x)) for i, x in case.inputs.items()}
    outputs = {i: Placed(np.empty(shape, kind)) for i, (shape, kind) in case.outputs.items()}
    for out in outputs.values():
        out.array.view(np.uint8)[...] = 0xFF
    buffers, lengths = (ctypes.c_void_p * MOST_BUFFERS)(), (ctypes.c_uint64 * MOST_BUFFERS)()
    for i, one in (placed | outputs).items():
        buffers[i], lengths[i] = one.array.ctypes.data, one.array.nbytes
    numbers = [value for pair in case.numbers.items() for value in pair]
    library.launch(
        case.kernel.encode(),
        buffers,
        lengths,
        (ctypes.c_uint32 * 3)(*case.groups),
        (ctypes.c_uint32 * 3)(*case.threads),
        ctypes.c_uint64(seed),
        ctypes.c_uint32(sum(1 << bit for bit in case.bools)),
        (ctypes.c_int32 * len(numbers))(*numbers),
        ctypes.c_uint32(len(case.numbers)),
    )
    for one in (placed | outputs).values():
        assert one.is_untouched_around(), f"{case.kernel}: a write outside a buffer"
    for i, one in placed.items():
        assert one.array.tobytes() == np.ascontiguousarray(case.inputs[i]).tobytes(), (
            f"{case.kernel}: input {i} written"
        )
    return {i: one.array for i, one in outputs.items()}


def error(library: ctypes.CDLL, case: Case) -> float:
    """Of the first schedule's result, beside the bound; the other schedules' must be the same bits."""
    first, *others = (run(library, case, seed) for seed in SCHEDULES)
    for other in others:
        for i in first:
            assert first[i].tobytes() == other[i].tobytes(), f"{case.kernel}: bits depend on the schedule"
    result = case.result(first).astype(np.float64)
    worst = np.abs(result - case.expected).max() / max(1.0, np.abs(case.expected).max())
    return float(worst) / case.bound if np.isfinite(result).all() else np.inf


def main() -> int:
    wanted = sys.argv[1:] or list(UNITS)
    include = fetch("mlx-metal") / "mlx/include"
    n_headers = translate_headers([name for unit in wanted for name in UNITS[unit][0]], include)
    cases = {unit: list(UNITS[unit][1]()) for unit in wanted}
    library = build(cases)
    wrong = 0
    for unit, of_unit in cases.items():
        errors = {case: error(library, case) for case in of_unit}
        for case, of_case in errors.items():
            if not of_case <= 1:
                wrong += 1
                print(f"{case.kernel} {case.groups} x {case.threads}: {of_case:.3g} times its bound")
        print(f"{unit:<12}{len(errors):>4} cases, at most {max(errors.values()):.2f} of their bound", flush=True)
    kernels = {case.kernel for of_unit in cases.values() for case in of_unit}
    templates = {kernel.split("<")[0] for kernel in kernels}
    n_cases = sum(map(len, cases.values()))
    print(
        f"MLX on the host: {n_headers} of its headers, {len(templates)} kernels in {len(kernels)} instances, "
        f"{n_cases - wrong} of {n_cases} cases right under {len(SCHEDULES)} schedules"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
