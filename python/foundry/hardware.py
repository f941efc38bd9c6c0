"""The devices of this machine, and the compiler that NVIDIA's want."""

from __future__ import annotations

from typing import NamedTuple

from foundry import _core


class Device(NamedTuple):
    """``name`` is what ``device=`` takes; the others are of GPUs with memory of their own, elsewhere "" and 0."""

    name: str
    model: str
    memory_bytes: int


def devices() -> list[Device]:
    """What ``device=`` takes on this machine, beside "auto"."""
    gpus = {gpu.name: gpu for gpu in _core.gpus()}
    return [
        Device(name, gpu.model, gpu.memory_bytes) if gpu else Device(name, "", 0)
        for name in _core.device_names()
        for gpu in [gpus.get(name.removesuffix(":strict"))]
    ]


def compiler_for(device: str) -> str:
    """Path of NVRTC, where the device may be one of NVIDIA's: of the extra ``cuda``, of conda or of a toolkit; ""
    leaves it to the system's loader."""
    if not device.startswith("cuda") and (device != "auto" or not _core.gpus()):
        return ""
    try:
        from cuda.pathfinder import load_nvidia_dynamic_lib
    except ImportError:
        return ""
    try:
        return load_nvidia_dynamic_lib("nvrtc").abs_path or ""
    except RuntimeError:  # there is none
        return ""
