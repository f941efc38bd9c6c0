"""Where Foundry keeps what it has fetched and compiled: the user's cache directory."""

from __future__ import annotations

from pathlib import Path

from platformdirs import user_cache_dir


def models_dir() -> Path:
    """Fetched models: those of packages as files, those of the hub in hub/owner/repo/."""
    return Path(user_cache_dir("foundry")) / "models"


def kernels_dir() -> Path:
    """A GPU's compiled kernels, between runs."""
    return Path(user_cache_dir("foundry")) / "kernels"


def kernel_library() -> str:
    """Kernels compiled with the wheel, beside the extension: on a Mac, where Xcode was at hand. Else empty."""
    from foundry import _core

    path = Path(str(_core.__file__)).parent / "kernels.metallib"
    return str(path) if path.exists() else ""
