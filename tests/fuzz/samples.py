"""The whole models that ``damaged_models.py`` damages, in memory: GGUF files of every format and of every family, parts
of split ones, and directories in Hugging Face's form."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import families
import hf_directories
import split_files
import synthetic


@dataclass(frozen=True)
class Sample:
    """A model's files by name, and which of them is opened; "" is the folder."""

    files: Mapping[str, bytes]
    opened: str

    def write(self, folder: Path) -> Path:
        for name, data in self.files.items():
            (folder / name).write_bytes(data)
        return folder / self.opened


# Of each with how many files.
DIRECTORIES = {
    **{"qwen3": 1, "llama yarn": 3, "gemma2": 1, "phi3 long": 2, "smollm3": 1, "starcoder2": 2},
    **{"qwen3moe": 2, "granitemoe shared": 1, "gpt-oss": 2, "lfm2moe": 1, "qwen35": 1},
}


def groups() -> dict[str, list[Sample]]:
    """What is damaged, in groups that are each damaged equally often."""
    shapes = [synthetic.Shape(layers=1, **synthetic.of_type(kind)) for kind in synthetic.TYPES]
    shapes += [
        synthetic.Shape(layers=2, type="f16", rope_factors=True, tied=False),
        synthetic.Shape(arch="gemma3", layers=3, type="bf16", window=16),
    ]
    found: dict[str, list[Sample]] = {}
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "x.gguf"
        found["a format"] = [
            Sample({"x.gguf": synthetic.write(path, shape).read_bytes()}, "x.gguf") for shape in shapes
        ]
        of_families = families.FAMILIES.values()
        found["a family"] = [
            Sample({"x.gguf": families.write(path, one).read_bytes()}, "x.gguf") for one in of_families
        ]
        found["a part"] = []
        for count, empty in ((2, False), (3, True), (4, False)):
            whole = synthetic.write(path, synthetic.Shape(layers=2, type="q8_0", tied=count == 2))
            parts = split_files.split(whole, count, Path(name), first_is_empty=empty)
            found["a part"].append(Sample({part.name: part.read_bytes() for part in parts}, parts[0].name))
        found["a directory"] = []
        for family, shards in DIRECTORIES.items():
            folder = hf_directories.write(Path(name) / family.replace(" ", "-"), family, shards)
            files = {one.name: one.read_bytes() for one in sorted(folder.iterdir())}
            found["a directory"].append(Sample(files, ""))
    return found
