"""``foundry serve`` as a process: its line, its answers, and its end on SIGTERM."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from conftest import Tiny
from served import CHAT, chat, events_of, process


def test_a_process_says_where_it_is_and_ends_its_streams_on_sigterm(tiny_path: Tiny) -> None:
    path = tiny_path(max_seq_len=4096)
    with process(str(path), "--alias", "tiny", "--threads", "1", "--grace-seconds", "0.2") as (served, line):
        assert line["model"] == "tiny"
        assert line["context"] == 4096
        with httpx.Client(base_url=str(line["url"]), timeout=60) as client:
            assert client.get("/health").json() == {"status": "ok"}
            body = {"model": "tiny", "stream": True, **chat(max_tokens=4000, ignore_eos=True)}
            with client.stream("POST", CHAT, json=body) as answer:
                events = events_of(answer)
                for _ in range(5):
                    next(events)
                began = time.monotonic()
                served.send_signal(signal.SIGTERM)
                *_, last, done = events
        assert done == "[DONE]"
        assert json.loads(last)["choices"][0]["finish_reason"] == "length"
        assert served.wait(30) == 0
        assert time.monotonic() - began < 30


def test_what_makes_no_sense_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "foundry", "serve", str(tmp_path / "none.gguf")]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert found.returncode == 1
    assert found.stderr.count("\n") == 1


@pytest.mark.model
@pytest.mark.slow
def test_scores_over_http_are_those_of_the_library(smollm2_path: Path) -> None:
    import foundry
    import numpy as np

    text = "The river rose in the night, and the people of the town carried sand to the wall."
    with (
        process(str(smollm2_path), "--alias", "s") as (_, line),
        foundry.CompiledModel.load(smollm2_path).session() as s,
    ):
        ids = s.model.tokenizer.encode_prompt(text)
        scores = s.score(ids)
        body = {"model": "s", "prompt": ids, "max_tokens": 1, "temperature": 0, "logprobs": 1, "echo": True}
        found = httpx.post(f"{line['url']}/v1/completions", json=body, timeout=120).json()["choices"][0]["logprobs"]
        assert np.array_equal(np.float32(found["token_logprobs"][1 : len(ids)]), scores[1:])


def test_the_template_and_the_context_are_those_that_the_command_line_names(tiny_path: Tiny, tmp_path: Path) -> None:
    """As for the other commands: read as UTF-8, before the model is loaded, and told as they tell it."""
    template = tmp_path / "é.jinja"
    template.write_text("é{% for m in messages %}<{{ m.content }}>{% endfor %}", encoding="utf-8")
    path = str(tiny_path(max_seq_len=4096))
    options = ["--threads", "1", "--chat-template", str(template), "--max-seq-len", "512"]
    with process(path, "--alias", "tiny", *options) as (_, line):
        assert line["context"] == 512
        body = {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}]}
        found = httpx.post(f"{line['url']}/tokenize", json=body, timeout=60).json()
        ids = found["tokens"]
        text = httpx.post(f"{line['url']}/detokenize", json={"model": "tiny", "tokens": ids}, timeout=60).json()
        assert text["prompt"] == "é<Hello>"
    template.write_bytes(b"\xff")
    command = [sys.executable, "-m", "foundry", "serve", path, "--chat-template", str(template)]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert told.returncode == 1
    assert told.stderr == f"foundry: --chat-template: expected UTF-8 in {template}, found byte 0xff at 0\n"
