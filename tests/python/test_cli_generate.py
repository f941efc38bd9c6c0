"""What ``foundry generate`` prints as JSON, and its options beside what Python gives with the same ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from foundry import CompiledModel
from foundry.cli import main

Run = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def model(tiny_path: Callable[..., Path]) -> str:
    return str(tiny_path())


@pytest.fixture
def run(model: str, capsys: pytest.CaptureFixture[str]) -> Run:
    """Generates from "Hello"; gives the JSON of each line that it printed."""

    def generate(*options: str, status: int = 0, model: str = model) -> list[dict[str, Any]]:
        assert main(["generate", "Hello", "--raw", "-m", model, "-n", "12", "--ignore-eos", *options]) == status
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return generate


def test_json_lines_have_the_tokens_and_then_the_result(run: Run) -> None:
    options = ("--temperature", "1", "--seed", "5")
    *tokens, result = run("--json-lines", *options)
    (whole,) = run("--json", *options)
    assert [token["token_id"] for token in tokens if token["token_id"] is not None] == whole["token_ids"]
    assert "".join(token["text"] for token in tokens) == whole["text"] == result["text"]
    used = {"prompt_tokens": 5, "completion_tokens": 12, "cached_tokens": 0, "replayed_tokens": 0}
    assert result["usage"] == whole["usage"] == used
    assert (result["finish_reason"], result["seed"]) == ("length", 5) and result["timings"]["prompt_s"] > 0
    assert run("--json-lines")[-1]["seed"] is None  # nothing is drawn


def test_json_lines_tell_a_drawn_seed_that_repeats_the_answer(run: Run) -> None:
    result = run("--json-lines", "--temperature", "1")[-1]
    assert run("--json-lines", "--temperature", "1", "--seed", str(result["seed"]))[-1]["text"] == result["text"]


def test_json_lines_come_as_the_tokens_do(model: str) -> None:
    """The first is there while the answer is far from its end."""
    command = [sys.executable, "-m", "foundry", "generate", "Hello", "--raw", "-m", model, "-n", "-1"]
    environment = os.environ | {"PYTHONUNBUFFERED": ""}
    options = ["--ignore-eos", "--json-lines", "--max-seq-len", "1000000"]
    with subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    ) as process:
        assert process.stdout is not None
        assert "token_id" in json.loads(process.stdout.readline())
        assert process.poll() is None
        process.kill()


def test_an_error_is_the_last_of_json_lines(run: Run) -> None:
    (error,) = run("--json-lines", "--memory-limit", "1K", status=1)
    assert error["error"]["type"] == "MemoryLimitError"


def test_log_probabilities(run: Run) -> None:
    *tokens, result = run("--json-lines", "--logprobs", "2")
    (whole,) = run("--json", "--logprobs", "2")
    assert "logprobs" not in result  # the lines before it have them
    found = [(token["logprob"], token["top"]) for token in tokens if token["token_id"] is not None]
    assert found == [(one["logprob"], one["top"]) for one in whole["logprobs"]] and len(found) == 12
    assert all(len(top) == 2 and top[0][1] == logprob for logprob, top in found)  # greedy: the most likely one


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--repetition-penalty", "1.8"], {"repetition_penalty": 1.8}),
        (["--presence-penalty", "3"], {"presence_penalty": 3}),
        (["--frequency-penalty", "2.5"], {"frequency_penalty": 2.5}),
        (["--logit-bias", "65=4", "--logit-bias", "66=-inf"], {"logit_bias": {65: 4.0, 66: float("-inf")}}),
        (["--temperature", "3", "--top-n-sigma", "0.5"], {"temperature": 3, "top_n_sigma": 0.5}),
        (["--temperature", "3", "--top-k", "2"], {"temperature": 3, "top_k": 2}),
        (["--temperature", "3", "--top-p", "0.3"], {"temperature": 3, "top_p": 0.3}),
        (["--temperature", "3", "--min-p", "0.6"], {"temperature": 3, "min_p": 0.6}),
    ],
    ids=lambda value: value[-2] if isinstance(value, list) else "",
)
def test_options_of_sampling_are_pythons(run: Run, model: str, options: list[str], named: dict[str, Any]) -> None:
    (found,) = run("--json", "--seed", "11", *options)
    (plain,) = run("--json", "--seed", "11", "--temperature", str(named.get("temperature", 0)))
    with CompiledModel.load(model).session() as session:
        expected = session.generate("Hello", 12, seed=11, ignore_eos=True, **named).token_ids
    assert found["token_ids"] == expected != plain["token_ids"]


def test_a_bias_that_makes_no_sense(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    for said in ("65", "=1", "a=1", "65=much"):
        assert main(["generate", "Hi", "-m", model, "--logit-bias", said]) == 2
        assert f"--logit-bias: expected TOKEN=X such as 42=-1.5, found {said!r}" in capsys.readouterr().err
    assert main(["generate", "Hi", "-m", model, "--logit-bias=-1=1"]) == 1
    assert "logit_bias: expected a whole number" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "named", "context"),
    [
        (["--rope-base", "500"], {"rope_base": 500.0}, 512),
        (["--rope-scaling", "linear:4"], {"rope_scaling": "linear:4"}, 2048),
        (["--rope-scaling", "yarn:4:128"], {"rope_scaling": "yarn:4:128"}, 512),
        (["--rope-scaling", "yarn:8", "--max-seq-len", "600"], {"rope_scaling": "yarn:8", "max_seq_len": 600}, 600),
        (["--max-seq-len", "64"], {"max_seq_len": 64}, 64),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
@pytest.mark.filterwarnings("ignore:the context is")
def test_options_of_rope_and_context_are_pythons(
    tiny_path: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    named: dict[str, Any],
    context: int,
) -> None:
    """Of a model whose answers tell a rope from another: also in the plan, whose run fills that context."""
    path = str(tiny_path(type="f32", seed=3))
    command = ["generate", "Hello there, all of you", "--raw", "-m", path, "-n", "-1", "--ignore-eos", "--json"]
    assert main([*command, *options]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["finish_reason"] == "context" and found["session"]["position"] == context
    with CompiledModel.load(path, **named).session() as session:
        assert session.generate("Hello there, all of you", -1, ignore_eos=True).token_ids == found["token_ids"]
    assert main(["plan", path, "-n", "-1", "--json", *options]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["reserved_tokens"] == context and {one["max_seq_len"] for one in plan["contexts"]} == {context}
    if "max_seq_len" not in named:
        with CompiledModel.load(path).session() as session:
            plain = session.generate("Hello there, all of you", -1, ignore_eos=True).token_ids
        assert plain != found["token_ids"][: len(plain)]


def test_a_chat_template_of_the_callers(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "template.jinja"
    path.write_text("{{ messages[0].content | upper }}{{ mood }}", encoding="utf-8")
    command = ["generate", "hello", "-m", model, "-n", "4", "--json", "--chat-template", str(path)]
    assert main([*command, "--template-variable", "mood=!"]) == 0
    templated = json.loads(capsys.readouterr().out)
    assert main(["generate", "HELLO!", "--raw", "-m", model, "-n", "4", "--json"]) == 0
    raw = json.loads(capsys.readouterr().out)
    assert (templated["token_ids"], templated["usage"]) == (raw["token_ids"], raw["usage"])
    for content, said in ((b"\xff", "expected UTF-8 in"), (b"{% for %}", "chat_template")):
        path.write_bytes(content)
        assert main(command) == 1
        assert said in json.loads(capsys.readouterr().out)["error"]["message"]
    path.unlink()
    assert main(command) == 1
    assert json.loads(capsys.readouterr().out)["error"]["type"] == "FileNotFoundError"
