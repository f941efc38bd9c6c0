"""What tests share: tiny models made on the spot, SmolLM2 fetched once, and real text.

``FOUNDRY_DEVICE`` names the device of every model whose test names none ("shadow", in a build with
``FOUNDRY_TEST_DEVICES``; "cuda:strict"), else it is "cpu". ``FOUNDRY_NEEDS_DEVICES``, by commas, are those that must be
there: without one of them the run fails, where it would else skip what is about it and look well.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import foundry
import pytest
import real_text as corpus
import synthetic
from foundry import CompiledModel
from foundry._core import device_names
from foundry.contexts import plan_contexts

Tiny = Callable[..., Path]

device = os.environ.get("FOUNDRY_DEVICE", "cpu")  # and not "auto", which may be a GPU
CompiledModel.load.__defaults__ = (device, *(CompiledModel.load.__defaults__ or ())[1:])  # `device` is the first
if device == "cpu":
    for planned in (CompiledModel.plan_file, plan_contexts):
        planned.__kwdefaults__ = {**(planned.__kwdefaults__ or {}), "device": device}


def needed_devices() -> list[str]:
    return [name for name in os.environ.get("FOUNDRY_NEEDS_DEVICES", "").split(",") if name]


def pytest_sessionstart() -> None:
    known = device_names()
    # "metal:any" is taken where it is named, and never listed: the tests themselves fail without it.
    missing = [name for name in needed_devices() if name not in known and not name.startswith("metal:any")]
    if missing:
        pytest.exit(f"expected the devices {', '.join(missing)}, found {', '.join(known)}", returncode=1)


def exact_devices() -> list[str]:
    """The devices here on which bits depend on tokens alone; GPUs keep to that in their strict mode."""
    names = ["metal:strict" if name == "metal" else name for name in device_names()]
    return [name for name in names if not name.startswith("cuda") or name.endswith(":strict")]


def is_gpu(device: str) -> bool:
    return device.startswith(("metal", "cuda"))


def room_of(model: CompiledModel) -> int:
    """The least memory limit that such a model can be loaded with."""
    return model.memory()["total"] + model.memory()["estimated"]


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_is_heard() -> None:
    """Jobs in the background of a script, as some CI runs are, begin with SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """Makes a tiny model of a synthetic.Shape's fields, once for each."""
    folder = tmp_path_factory.mktemp("tiny")
    made: dict[synthetic.Shape, Path] = {}

    def make(**fields: object) -> Path:
        shape = synthetic.Shape(**fields)  # type: ignore[arg-type]
        if shape not in made:
            made[shape] = synthetic.write(folder / f"{len(made)}.gguf", shape)
        return made[shape]

    return make


@pytest.fixture
def tiny(tiny_path: Tiny) -> CompiledModel:
    """Pages of 8 tokens, checked at every step."""
    return CompiledModel.load(tiny_path(), threads=1, page_tokens=8, check_every_step=True)


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    return foundry.pull()


@pytest.fixture(scope="session")
def smollm2(smollm2_path: Path) -> CompiledModel:
    return CompiledModel.load(smollm2_path)


@pytest.fixture(scope="session")
def real_text() -> str:
    return corpus.real_text()
