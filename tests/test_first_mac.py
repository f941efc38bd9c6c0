"""The script for the first Mac, as far as it can be run from here: what becomes of its steps, and its figures."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / ".ci" / "first_mac.py"
pytestmark = pytest.mark.skipif(not SCRIPT.exists(), reason="a source distribution has no .ci")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("first_mac", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "first_mac", module)
    spec.loader.exec_module(module)
    return module


def test_a_step_that_fails_is_kept_with_what_it_said_and_the_rest_goes_on(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = [
        script.Step("good", "echo 12 passed", r"\d+ passed"),
        script.Step("wrong words", "echo nothing was run", r"\d+ passed"),
        script.Step("wrong end", "echo 12 passed; exit 3", r"\d+ passed"),
        script.Step("late", "echo began; exec sleep 60", minutes=0.01),
        script.Step("counted", "echo words; echo '{\"decode_tokens_per_s\": 40.5}'", figures=True),
    ]
    monkeypatch.setattr(script, "steps", lambda device: made)
    monkeypatch.setattr(script.sys, "platform", "darwin")
    monkeypatch.setattr(script.platform, "machine", lambda: "arm64")
    monkeypatch.setattr(sys, "argv", ["first_mac.py", "--any", "--out", str(tmp_path / "out.json")])
    assert script.main() == 1
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["device"] == "metal:any"
    assert [step["ok"] for step in report["steps"]] == [True, False, False, False, True]
    assert report["steps"][1]["said"] == "nothing was run\n"
    assert "began" in report["steps"][3]["said"] and "no end after" in report["steps"][3]["said"]
    assert report["steps"][4]["figures"] == {"decode_tokens_per_s": 40.5}


def test_the_steps_need_the_device_and_name_what_exists(script: ModuleType) -> None:
    made = {step.name: step.command for step in script.steps("metal:any")}
    for name in ("kernels against the reference", "whole models", "random programs"):
        assert "FOUNDRY_NEEDS_DEVICES=metal:any,metal:any:strict" in made[name]
    for command in made.values():
        for word in command.split():
            if word.startswith(("tests/python/", ".ci/")):
                assert (SCRIPT.parents[1] / word).exists(), word


def test_figures_of_a_model(script: ModuleType, tmp_path: Path) -> None:
    sys.path.insert(0, str(SCRIPT.parents[1] / "tests" / "python"))
    try:
        import synthetic
    finally:
        sys.path.pop(0)
    path = synthetic.write(tmp_path / "tiny.gguf", synthetic.Shape(max_seq_len=256))
    found = script.figures("cpu", str(path), prompt=64, decode=16)
    assert found["device"].startswith("cpu:")
    assert found["prompt_tokens_per_s"] == pytest.approx(64 / found["prompt_s"], rel=0.5)
    assert all(found[name] > 0 for name in ("first_token_s", "decode_tokens_per_s"))
