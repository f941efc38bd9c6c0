"""``foundry embed``: the library's rows, as numbers that come back exactly."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from foundry import CompiledModel
from foundry.cli import main
from test_embeddings import write

TEXTS = ["One", "Two and two"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "m.gguf")


def test_rows_are_the_librarys(path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    model = CompiledModel.load(path)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("\n".join(TEXTS).encode())))
    for texts, options, expected in (
        (TEXTS, (), model.embed(TEXTS)),
        (["-"], (), model.embed(TEXTS)),
        (TEXTS, ("--no-normalize", "--dimensions", "8"), model.embed(TEXTS, normalize=False, dimensions=8)),
        (TEXTS, ("--pooling", "mean"), model.embed(TEXTS, pooling="mean")),
    ):
        assert main(["embed", *texts, "-m", str(path), *options]) == 0
        found = np.float32([json.loads(line) for line in capsys.readouterr().out.splitlines()])
        assert np.array_equal(found, expected)
    assert main(["embed", *TEXTS, "-m", str(path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["pooling"], told["dimensions"]) == ("last", 64)
    assert np.array_equal(np.float32(told["embeddings"]), model.embed(TEXTS))


def test_what_can_not_be_done_is_one_line(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["embed", "One", "-m", str(path), "--pooling", "max"]) == 1
    assert "pooling: expected mean, cls, last" in capsys.readouterr().err
    assert main(["embed", "One", "a" * 300, "-m", str(path), "--json"]) == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["type"] == "ContextOverflowError" and error["message"].startswith("text 1: needed 301 tokens")
