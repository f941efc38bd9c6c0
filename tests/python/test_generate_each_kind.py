"""``foundry generate``, the process itself, on a file of each family and with weights of each format: what Python's
session gives.

Files of a family have a vocabulary of its kind; weights are random, and so is the text.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import families
import hf_directories
import pytest
import synthetic
from families import FAMILIES
from family_vocabularies import tokenizer_of
from foundry import CompiledModel, _core
from foundry.files import open_model
from foundry.models import architectures
from split_files import split

pytestmark = pytest.mark.slow
PROMPT, MOST = "Why is the sky blue?", 12


def told(path: Path) -> str:
    """What the process prints of an answer."""
    command = [sys.executable, "-m", "foundry", "generate", "-m", str(path), PROMPT]
    ended = subprocess.run(
        [*command, "--max-new-tokens", str(MOST), "--temperature", "0"], capture_output=True, timeout=120
    )
    assert ended.returncode == 0, ended.stderr.decode()
    assert f"generation {MOST} tokens" in ended.stderr.decode()
    return ended.stdout.decode()


def in_python(path: Path) -> str:
    """Of a file without a chat template the prompt is text as it is."""
    model = CompiledModel.load(path)
    with model.session() as session:
        if model.tokenizer.chat_template is None:
            answer = session.generate(PROMPT, MOST, temperature=0)
        else:
            answer = session.chat([{"role": "user", "content": PROMPT}], MOST, temperature=0)
    assert len(answer.token_ids) == MOST and len(set(answer.token_ids)) > MOST / 2
    return answer.text


@pytest.mark.parametrize("arch", architectures)
def test_each_family(tmp_path: Path, arch: str) -> None:
    """The large vocabulary that families of Qwen's share is for one of them."""
    tokenizer = None if arch in ("qwen3", "qwen3moe", "qwen3vl") else tokenizer_of(arch)
    family = next((one for one in FAMILIES.values() if one.arch == arch), None)
    if family is None:
        family = families.Family(arch, families.WINDOW, head_norms=families.HEAD_DIM, norms_behind=True)
    # An output layer of its own: with the embedding's, random weights say the last token again.
    path = families.write(tmp_path / "m.gguf", replace(family, tied=False), tokenizer=tokenizer)
    assert told(path) == in_python(path) + "\n"


def test_weights_of_each_format(tmp_path: Path) -> None:
    """One file, whose matrices are of all formats."""
    kinds = tuple(synthetic.TYPES)
    shape = synthetic.Shape(layers=3, tied=False, types=kinds, **synthetic.of_type("q4_k") | {"type": ""})
    path = synthetic.write(tmp_path / "m.gguf", shape)
    found = [kind for kind, _, _ in open_model(str(path)).tensors.values()]
    assert {form.file_name for form in _core.formats() if form.name in kinds} == set(found)
    assert told(path) == in_python(path) + "\n"


def test_a_split_file_and_a_directory_of_one_model(tmp_path: Path) -> None:
    whole = families.write(tmp_path / "m.gguf", FAMILIES["qwen3"])
    directory = hf_directories.write(tmp_path / "hf", "qwen3", shards=2)
    part = split(whole, 3, tmp_path, "part")[1]
    assert told(part) == told(directory) == in_python(whole) + "\n"
