"""Directories in Hugging Face's form from a hub: what is read of one is fetched, gone on with, checked, kept and let go
of as a GGUF file is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import foundry
import hf_directories
import numpy as np
import pytest
import test_embedding_directories
from foundry import CompiledModel, ModelFormatError, hub
from foundry.cli import main
from foundry.hub.choosing import choose, directory_in
from played_hub import Hub
from test_hub_fetching import KIB, held, played  # noqa: F401  # a fixture

REPO = "owner/model"
SMALL = ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
SHARDS = tuple(f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3))
READ = (*SMALL, "model.safetensors.index.json", *SHARDS)
OTHERS = ("README.md", "pytorch_model.bin", "consolidated.safetensors", "onnx/model.onnx", "LICENSE")


@pytest.fixture
def local(tmp_path: Path) -> Path:
    return hf_directories.write(tmp_path / "local", "qwen3", shards=3)


@pytest.fixture
def there(played: Hub, local: Path) -> Iterator[Hub]:  # noqa: F811
    """The directory on the hub, among what is of no use here; git holds its small files itself."""
    files = {file.name: file.read_bytes() for file in local.iterdir()}
    assert set(files) == set(READ)
    played.repositories[REPO] = files | {name: b"x" * KIB for name in OTHERS}
    played.small = {*SMALL, "model.safetensors.index.json"}
    yield played


def test_a_directory_is_fetched_and_run(there: Hub, local: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told: list[tuple[int, int]] = []
    path = foundry.pull(REPO, lambda done, of: told.append((done, of)))
    files = there.repositories[REPO]
    total = sum(len(files[name]) for name in READ)
    assert told[-1] == (total, total) and [name for name, _ in there.asked] == list(READ)
    assert {name: (path / name).read_bytes() for name in READ} == {name: files[name] for name in READ}
    assert held() == {f"hub/{REPO}/{name}{end}" for name in READ for end in ("", ".sha256")}
    with CompiledModel.load(path).session() as ours, CompiledModel.load(local).session() as theirs:
        assert np.array_equal(ours.forward([5, 6, 7]), theirs.forward([5, 6, 7]))
    assert main(["pull", REPO, "--json"]) == 0  # asks, and fetches nothing again
    assert json.loads(capsys.readouterr().out) == {"path": str(path), "bytes": total}
    assert len(there.asked) == len(READ)
    assert main(["generate", "Hi", "-m", f"{REPO}:config.json", "-n", "3", "--json"]) == 0


def test_an_embedding_models_modules_come_with_it(played: Hub, tmp_path: Path) -> None:  # noqa: F811
    local = test_embedding_directories.write(tmp_path / "local")
    files = {str(path.relative_to(local)): path.read_bytes() for path in local.rglob("*") if path.is_file()}
    more = {"2_Normalize/config.json": b"{}", "onnx/1_Pooling/config.json": b"{}", "README.md": b"x"}
    played.repositories[REPO] = files | more
    played.small = {name for name in files if name.endswith(".json")}
    model = CompiledModel.load(foundry.pull(REPO))
    assert {"modules.json", "1_Pooling/config.json"} <= {name for name, _ in played.asked} <= set(files)
    assert model.pooling == "last"
    assert np.array_equal(model.embed("One"), CompiledModel.load(local).embed("One"))


def test_what_was_cut_is_gone_on_with(there: Hub) -> None:
    there.cuts = [1 << 30] * 6 + [20 * KIB, *[0] * 20]  # in the second shard
    with pytest.raises(ConnectionError):
        foundry.pull(REPO)
    assert all(model.unfinished for model in hub.kept_models())
    with pytest.raises(ValueError, match=r"found none"):  # it is not taken for whole
        choose(REPO, [name.removeprefix(f"hub/{REPO}/") for name in held()], "config.json.")
    there.cuts, there.asked = [], []
    path = foundry.pull(REPO)
    (second, asked), (third, whole) = there.asked
    assert (second, third, whole) == (SHARDS[1], SHARDS[2], "") and asked.startswith("bytes=")
    assert (path / SHARDS[1]).read_bytes() == there.repositories[REPO][SHARDS[1]]


def test_sums_are_checked(there: Hub) -> None:
    """Of a shard the hub's sha256, of a small file git's id; and of what is here, where that is asked for."""
    for name in (SHARDS[0], "config.json"):
        good = there.repositories[REPO][name]
        there.garbled = True
        with pytest.raises(ModelFormatError, match=r"config.json: expected git id .*nothing is kept"):
            foundry.pull(REPO)
        there.garbled = False
        path = foundry.pull(REPO)
        (path / name).write_bytes(good[:-1] + b"?")
        assert foundry.pull(REPO, verify=True) == path and (path / name).read_bytes() == good
        hub.remove(REPO)


def test_what_is_here_needs_no_network(there: Hub) -> None:
    path = foundry.pull(REPO)
    there.close()
    assert foundry.pull(REPO) == foundry.pull(f"{REPO}:config.json") == foundry.pull(REPO, verify=True) == path
    (path / SHARDS[2]).write_bytes(b"x")
    with pytest.raises(ModelFormatError, match=r"expected sha256 .*, found .*; it can't be fetched again"):
        foundry.pull(REPO, verify=True)
    with pytest.raises(ModelFormatError, match=rf"`foundry pull {REPO}:config.json` checks the file"):
        CompiledModel.load(path)


def test_list_and_rm(there: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    path = foundry.pull(REPO)
    total = sum(len(there.repositories[REPO][name]) for name in READ)
    assert main(["list", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["models"] == [{"name": f"{REPO}:config.json", "path": str(path), "bytes": total, "unfinished": False}]
    assert hub.remove(f"{REPO}:config.json") > total and held() == set() and not path.exists()


def test_a_gguf_file_comes_before_the_directory(there: Hub) -> None:
    there.repositories[REPO]["any.gguf"] = b"x" * KIB
    assert foundry.pull(REPO).name == "any.gguf"
    assert foundry.pull(f"{REPO}:config.json").is_dir()
    assert [model.name for model in hub.kept_models()] == [f"{REPO}:any.gguf", f"{REPO}:config.json"]
    hub.remove(f"{REPO}:config.json")
    assert held() == {f"hub/{REPO}/any.gguf", f"hub/{REPO}/any.gguf.sha256"}


@pytest.mark.parametrize("missing", ["tokenizer.json", "model.safetensors.index.json", SHARDS[0], SHARDS[2]])
def test_a_directory_that_lacks_a_file_is_refused_by_it(there: Hub, missing: str) -> None:
    del there.repositories[REPO][missing]
    said = missing if missing == "tokenizer.json" else "model.safetensors, or model.safetensors.index.json and all"
    with pytest.raises(ValueError, match=rf"expected a GGUF file, or a directory with .*, found no GGUF .* no {said}"):
        foundry.pull(REPO)
    assert there.asked == []


def test_what_is_read_of_a_directory() -> None:
    small = ["tokenizer.json", "config.json", "vocab.json", "optimizer.safetensors"]
    assert directory_in([*small, "model.safetensors"]) == ("config.json", "tokenizer.json", "model.safetensors")
    assert directory_in([*READ, *OTHERS]) == READ
    both = directory_in([*READ, "model.safetensors"])  # as they are opened: the whole one
    assert both == (*SMALL, "model.safetensors")
    assert directory_in(small) == directory_in(["config.json", "model.safetensors"]) == ()
