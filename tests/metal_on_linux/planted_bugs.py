"""Plants bugs in the GPU kernels, one at a time, and expects the host to find each: a test of the harness itself.

    python tests/metal_on_linux/planted_bugs.py [name ...]

A bug is found by a wrong result, by the runtime's own message, or by a sanitizer, under some schedule. Prints by what.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
INSTANCES = {  # file -> all that is built of it
    "rms_norm": 'instantiate_kernel("rms_norm_wide", rms_norm, RmsNormLaunch::kWide);',
    "linear_tiles": 'instantiate_kernel("linear_tiles_q4_1", linear_tiles, FloatBlocks<Q4_1>);\n'
    'instantiate_kernel("linear_tiles_f32", linear_tiles, HalfBlocks<F32>);',
    "attention_prefill": 'instantiate_kernel("attention_prefill_f16_64", attention_prefill, F16, 64, 32, 16);\n'
    'instantiate_kernel("attention_prefill_f16_64_narrow", attention_prefill, F16, 64, 32, 8);',
    "attention_decode": 'instantiate_kernel("attention_decode_f16_8_4", attention_decode, F16, 8, 4);\n'
    'instantiate_kernel("attention_merge", attention_merge, AttentionMergeLaunch::kThreads);',
}
BARRIER = "threadgroup_barrier(mem_flags::mem_threadgroup);"
# name: file, what is there, what takes its place, which occurrence
BUGS: dict[str, tuple[str, str, str, int]] = {
    "no barrier before the sums are read": ("rms_norm", BARRIER, "", 0),
    "a barrier that half the threads reach": ("rms_norm", BARRIER, f"if (index < 128) {BARRIER}", 0),
    "a lane that leaves out a simd_sum": (
        "rms_norm",
        "squares = simd_sum(squares);",
        "if (lane != 7) squares = simd_sum(squares);",
        0,
    ),
    "a write behind the output": ("rms_norm", "out[row + i] =", "out[row + i + 1] =", 0),
    "a read behind the weights": ("rms_norm", "* weight[i]", "* weight[i + 1]", 0),
    "a sum that nobody writes": ("rms_norm", "if (lane == 0) sums[simdgroup] = squares;", "", 0),
    "a block staged while others multiply": ("linear_tiles", BARRIER, "", 0),
    "a block multiplied while others stage it": ("linear_tiles", BARRIER, "", 1),
    "a lane that leaves out a block's maximum": (
        "linear_tiles",
        "if (Format::kScaled)",
        "if (Format::kScaled && index != 9)",
        0,
    ),
    "a read behind a row, staged as floats": ("linear_tiles", "if (k < width)", "if (k <= width)", 0),
    "a read behind a row, staged as halves": ("linear_tiles", "if (k < width)", "if (k <= width)", 1),
    "floats stored a place too far": ("linear_tiles", "(kBlock / 4 + 1) + index", "(kBlock / 4 + 2) + index", 0),
    "an output behind the last": ("linear_tiles", "o >= p.out_features", "o > p.out_features", 0),
    "a scale that nobody writes": ("linear_tiles", "if (index % 4 == 0)", "if (index % 4 == 0 && row != 3)", 0),
    # The first barrier is of GPUs that copy beside their work.
    "keys stored while others read them": ("attention_prefill", BARRIER, "", 1),
    "keys read while others store them": ("attention_prefill", BARRIER, "", 2),
    "values stored while others read keys": ("attention_prefill", BARRIER, "", 3),
    "values read while others store them": ("attention_prefill", BARRIER, "", 4),
    "a page read behind the last token": ("attention_prefill", "position < end)", "position <= end)", 0),
    "a store behind the staged keys": (
        "attention_prefill",
        "(kParts + 1) + i % kParts",
        "(kParts + 2) + i % kParts",
        0,
    ),
    "a row that sees the future": ("attention_prefill", "position < sees_to[i / 4]", "position <= sees_to[i / 4]", 0),
    "no barrier before simdgroups are joined": ("attention_decode", BARRIER, "", 0),
    "maxima that nobody writes": ("attention_decode", "maxima[slot] = most[i], ", "", 0),
    "a split past the last position": ("attention_decode", "range.end = min(end,", "range.end = max(end,", 0),
    "a partial behind its place": ("attention_decode", "to[2 + d] = value;", "to[2 + d + 1] = value;", 0),
}
BUILDS = {  # flags of the kernels, and of the runtime, which tells the thread sanitizer about its stacks itself
    "plain": (["-O1"], ["-O1"]),
    "address": (["-O1", "-g", "-fsanitize=address,undefined"], ["-O1", "-g", "-fsanitize=address"]),
    "thread": (["-O1", "-g", "-fsanitize=thread"], ["-O1", "-g", "-DFOUNDRY_TSAN_FIBERS"]),
}
SCHEDULES = {"plain": [0, 1, 2, 3], "address": [1], "thread": [1, 2]}


def compile_all(folder: Path, build: str, sources: dict[str, str]) -> Path:
    flags = [os.environ.get("CXX", "g++"), "-std=c++20", "-ffp-contract=off", "-fno-strict-aliasing", "-w"]
    flags += [f"-I{path}" for path in (HERE / "host", ROOT / "metal/translate", ROOT / "metal/include", ROOT / "cpp")]
    kernel_flags, runtime_flags = BUILDS[build]
    objects = []
    for name, text in sources.items():
        metal, cpp, made = (folder / f"{name}.{end}" for end in ("metal", "cpp", f"{build}.o"))
        metal.write_text(text, encoding="utf-8")
        translate = [
            sys.executable,
            str(ROOT / "metal/translate/translate.py"),
            str(metal),
            "--target",
            "host",
            "-o",
            str(cpp),
        ]
        subprocess.run(translate, check=True)
        subprocess.run([*flags, *kernel_flags, "-c", str(cpp), "-o", str(made)], check=True)
        objects.append(made)
    for name in ("runtime", "fiber"):
        made = folder / f"{name}.{build}.o"
        if not made.exists():
            subprocess.run([*flags, *runtime_flags, "-c", str(HERE / f"host/{name}.cpp"), "-o", str(made)], check=True)
        objects.append(made)
    program = folder / f"driver.{build}"
    link = [*flags, *kernel_flags, str(HERE / "planted_driver.cpp"), *map(str, objects), "-o", str(program)]
    subprocess.run(link, check=True)
    return program


def reduced(name: str) -> str:
    """The kernel file, and the headers that are its own, with the instances that the driver runs."""

    def header(match: re.Match[str]) -> str:
        if match[1] in seen:
            return ""
        seen.add(match[1])
        text = (ROOT / f"metal/include/{match[1]}").read_text(encoding="utf-8")
        return own.sub(header, text.replace("#pragma once\n", ""))

    seen: set[str] = set()
    own = re.compile(r'^#include "(linear_\w+\.h)"\n', re.M)
    text = own.sub(header, (ROOT / f"metal/{name}.metal").read_text(encoding="utf-8"))
    return re.split(r"^(?:#define )?instantiate_", text, maxsplit=1, flags=re.M)[0] + INSTANCES[name] + "\n"


def run(program: Path, schedule: int) -> tuple[np.ndarray | None, str]:
    environment = os.environ | {"TSAN_OPTIONS": "halt_on_error=1:exitcode=67", "ASAN_OPTIONS": "detect_leaks=0"}
    done = subprocess.run([program, str(schedule)], capture_output=True, env=environment, check=False, timeout=300)
    if done.returncode != 0:
        said = re.search(
            r"metal on the host: [^(]*|(?:Address|Thread)Sanitizer: [\w -]*", done.stderr.decode(errors="replace")
        )
        return None, said[0].strip() if said else f"exit {done.returncode}"
    return np.frombuffer(done.stdout, np.float32), ""


def find(folder: Path, sources: dict[str, str], expected: np.ndarray) -> str:
    for build, schedules in SCHEDULES.items():
        program = compile_all(folder, build, sources)
        for schedule in schedules:
            result, said = run(program, schedule)
            if result is None:
                return f"{build}, schedule {schedule}: {said}"
            if not np.allclose(result, expected, rtol=1e-4, atol=1e-5):
                return f"{build}, schedule {schedule}: wrong result"
    return ""


def main() -> int:
    wanted = sys.argv[1:] or list(BUGS)
    whole = {name: reduced(name) for name in INSTANCES}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for build, schedules in SCHEDULES.items():  # nothing is found where nothing was planted
            program = compile_all(folder, build, whole)
            for schedule in schedules:
                result, said = run(program, schedule)
                if result is None or not np.isfinite(result).all():
                    print(f"the kernels as they are: {build}, schedule {schedule}: {said or 'not finite'}")
                    return 1
                if build == "plain" and schedule == 0:
                    expected = result
                assert np.array_equal(result, expected), (build, schedule)
        missed = 0
        for bug in wanted:
            file, old, new, nth = BUGS[bug]
            parts = whole[file].split(old)
            if len(parts) <= nth + 1:
                raise SystemExit(f"{bug}: {file}.metal no longer has {old!r}")
            planted = old.join(parts[: nth + 1]) + new + old.join(parts[nth + 1 :])
            found = find(folder, {**whole, file: planted}, expected)
            missed += not found
            print(f"{bug:<44}{found or 'NOT FOUND'}", flush=True)
    print(f"{len(wanted) - missed} of {len(wanted)} planted bugs found")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
