"""What has to be built first: llama.cpp in an environment of its own, and the program that measures the machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
REQUIREMENTS = HERE / "requirements.txt"
# As pip builds it by default, but for this very machine's processor, without a GPU and without image models.
CMAKE_ARGS = "-DGGML_NATIVE=ON -DGGML_METAL=OFF -DGGML_CUDA=OFF -DLLAVA_BUILD=OFF"
# The same with its CUDA back end, for the GPUs of this machine alone; it wants a toolkit.
CUDA_CMAKE_ARGS = "-DGGML_NATIVE=ON -DGGML_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES=native -DLLAVA_BUILD=OFF"


def pinned() -> str:
    lines = REQUIREMENTS.read_text().splitlines()
    return next(line for line in lines if line and not line.startswith("#"))


def llama_cpp_python(folder: Path, cmake_args: str = CMAKE_ARGS) -> str:
    """The interpreter of the environment that has the pinned llama.cpp; the first call builds it, in minutes."""
    place = folder / pinned().replace("==", "-")
    python = place / "bin" / "python"
    if not (place / "built").exists():
        print(f"building {pinned()} in {place}: this takes minutes, once", flush=True)
        venv.create(place, with_pip=True, clear=True)
        environment = os.environ | {"CMAKE_ARGS": cmake_args, "FORCE_CMAKE": "1"}
        environment.setdefault("CMAKE_BUILD_PARALLEL_LEVEL", str(os.cpu_count()))
        command = [str(python), "-m", "pip", "install", "-q", "--no-binary", "llama-cpp-python", "--no-cache-dir"]
        subprocess.run([*command, "-r", str(REQUIREMENTS)], env=environment, check=True)
        (place / "built").write_text(cmake_args)
    return str(python)


def limits_program(folder: Path) -> Path:
    """limits.cpp, compiled for this very machine."""
    source, program = HERE / "limits.cpp", folder / "limits"
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        folder.mkdir(parents=True, exist_ok=True)
        native = "-mcpu=native" if os.uname().machine in ("arm64", "aarch64") else "-march=native"
        options = ["-std=c++20", "-O3", native, "-ffp-contract=fast", "-pthread"]
        command = [os.environ.get("CXX", "c++"), *options, str(source), "-o", str(program)]
        subprocess.run(command, check=True)
    return program


def limits(program: Path, threads: int, seconds: float) -> dict[str, Any]:
    """What the machine allows in this minute: bytes and operations a second (limits.cpp)."""
    done = subprocess.run([str(program), str(threads), str(seconds)], check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def foundry_revision() -> str:
    """The commit that is checked out, marked where files differ from it."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude=*"], cwd=HERE, capture_output=True, text=True
    )
    return done.stdout.strip() or "an unknown revision"


def compiler() -> str:
    done = subprocess.run([os.environ.get("CXX", "c++"), "--version"], capture_output=True, text=True)
    return done.stdout.splitlines()[0] if done.stdout else "unknown"


def interpreters(engines: list[str], folder: Path) -> dict[str, str]:
    return {name: llama_cpp_python(folder) if name == "llama_cpp" else sys.executable for name in engines}
