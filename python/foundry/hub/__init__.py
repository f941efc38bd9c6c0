"""From a model's name to a file on this machine: a path, the default model, or ``owner/repo[:file]`` of a hub."""

from __future__ import annotations

import os
import re
from pathlib import Path

from foundry.hub.advice import telling_how_to_mend
from foundry.hub.cache import KeptModel, kept_models, remove
from foundry.hub.choosing import NAMED, READABLE, choose
from foundry.hub.files import Progress
from foundry.hub.packaged import DEFAULT_MODEL, PACKAGED, PackagedModel, pull_packaged
from foundry.hub.places import kernel_library, kernels_dir, models_dir
from foundry.hub.repository import pull_from_hub

__all__ = [
    "DEFAULT_MODEL",
    "NAMED",
    "PACKAGED",
    "READABLE",
    "KeptModel",
    "PackagedModel",
    "Progress",
    "choose",
    "kept_models",
    "kernel_library",
    "kernels_dir",
    "models_dir",
    "pull",
    "remove",
    "telling_how_to_mend",
]

REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)  # owner/repo, as the hub spells them


def pull(
    model: str = DEFAULT_MODEL, progress: Progress | None = None, *, verify: bool = False, token: str | None = None
) -> Path:
    """The model's file, fetched if it isn't here yet; of a split model the first one, with all others beside it; or the
    directory, where the hub has config.json, safetensors and tokenizer.json and no GGUF file.

    What is here is not asked of the hub again, but for "owner/repo", whose best file the hub tells. A fetch that was
    cut goes on where it ended, in the next call too. A file is checked against the hub's sum before it has its name.

    Args:
        model: a path to a GGUF file, or to a directory with config.json; "smollm2"; or on the hub (extra ``hub``)
            "owner/repo", "owner/repo:file.gguf", "owner/repo:Q4_K_M", which is the file that has this in its name, or
            "owner/repo:config.json", which is the directory also beside GGUF files.
        progress: called with (bytes so far, bytes in all) while something is fetched.
        verify: look at the sums of files that are here, and fetch again what differs or what the hub has anew.
        token: for private and gated repositories; by default HF_TOKEN, or the one that ``hf auth login`` keeps.

    Raises:
        ValueError: no such file, model or repository; the nearest are named.
        ModelFormatError: what was fetched is not what was asked for.
        PermissionError: the hub wants a token that may read it.
        ConnectionError: it could not be fetched.
        OSError: it could not be kept: a full disk, no permission.
    """
    path = Path(model).expanduser()
    if path.is_file() or (path / "config.json").is_file():
        return path
    if model in PACKAGED:
        return pull_packaged(PACKAGED[model], progress, verify)
    repo, _, file = model.partition(":")
    if REPO.fullmatch(repo) and (file or not _is_meant_as_path(path)):
        return pull_from_hub(repo, file, progress, verify, token)
    names = ", ".join(PACKAGED)
    raise ValueError(
        f"model: expected the path of a GGUF file, owner/repo[:file] or one of {names}; "
        f"found {model!r}{_what_is_there(model, path)}"
    )


def _is_meant_as_path(path: Path) -> bool:
    """Of a name that could be the hub's: it ends as a path does, or it or its folder is there."""
    return path.suffix.lower() == ".gguf" or os.path.lexists(path) or path.parent.is_dir()


def _what_is_there(model: str, path: Path) -> str:
    if path.is_dir():
        files = sorted(file.name for file in path.iterdir() if file.suffix.lower() == ".gguf")
        return f", a folder that holds {', '.join(files[:8]) or 'no GGUF file'}" if model else ""
    if os.path.lexists(path):
        return ", which is no file" if path.exists() else ", a link to nothing"
    if path.parent.is_dir() and len(path.parts) > 1:
        hub = f" ({model}:<file> asks the hub)" if REPO.fullmatch(model) else ""
        return f", and the folder {path.parent} has no such file{hub}"
    return ""
