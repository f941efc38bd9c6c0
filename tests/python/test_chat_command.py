"""``foundry chat`` as a person meets it: commands, turns that fail, and standard input as it comes."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from foundry.cli import main
from foundry.cli.chat import is_command
from foundry.cli.standard_input import Lines, everything


@pytest.fixture
def model(tiny_path: Callable[..., Path]) -> str:
    return str(tiny_path())


@pytest.fixture
def talk(model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Says lines to a chat; gives its exit status, the JSON that it printed and what else it said."""

    def run(said: bytes, *options: str) -> tuple[int, list[dict[str, Any]], str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(said), encoding="utf-8"))
        status = main(["chat", "-m", model, "-n", "4", "--json", *options])
        out, err = capsys.readouterr()
        return status, [json.loads(line) for line in out.splitlines()], err

    return run


def test_a_line_too_long_is_dropped_and_the_chat_goes_on(talk: Callable[..., Any]) -> None:
    status, lines, _ = talk(b"Hello\n" + b"x" * 600 + b"\nAgain\n")
    first, failed, second = lines
    assert status == 1
    assert failed["error"]["type"] == "ContextOverflowError" and "available 512" in failed["error"]["message"]
    status, plain, _ = talk(b"Hello\nAgain\n")
    assert status == 0
    assert [first["text"], second["text"]] == [answer["text"] for answer in plain]
    assert second["usage"]["prompt_tokens"] == plain[1]["usage"]["prompt_tokens"]  # the long line is not in the history


def test_a_turn_that_fails_is_told_on_stderr(
    model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("x" * 600 + "\nHi\n"))
    assert main(["chat", "-m", model, "-n", "2"]) == 1
    out, err = capsys.readouterr()
    assert err.count("foundry: context: needed ") == 1 and "generation 2 tokens" in err and out.strip()


def test_a_full_context_is_told_and_a_new_conversation_begins(talk: Callable[..., Any]) -> None:
    status, lines, _ = talk(b"Hello\nMore\n/clear\nHello\n", "-n", "-1", "--ignore-eos")
    first, full, overflow, again = lines[0], lines[1], lines[2], lines[3]
    assert status == 1 and first["finish_reason"] == "context"
    assert full["error"]["message"].startswith("the conversation has filled the model's context of 512 tokens; /clear")
    assert overflow["error"]["type"] == "ContextOverflowError"
    assert again["text"] == first["text"] and again["usage"]["cached_tokens"] == 0


def test_commands_are_not_sent_to_the_model(talk: Callable[..., Any]) -> None:
    status, lines, err = talk(b"/help\nHello\n/exit\nnever said\n")
    assert status == 0 and len(lines) == 1 and lines[0]["usage"]["completion_tokens"] == 4
    for command in ("/help", "/clear", "/exit", "/quit"):
        assert command in err
    assert talk(b"/quit\nnever said\n") == (0, [], "")
    status, lines, _ = talk(b"/exot\n /exit\n")
    assert status == 1 and lines[0]["error"]["message"].startswith("/exot: expected one of /help, /clear, /exit")
    assert lines[1]["usage"]["completion_tokens"] == 4  # behind a space it is a message


def test_what_is_a_command() -> None:
    assert all(map(is_command, ("/help", "/exit ", "/Foo\t")))
    assert not any(map(is_command, ("/", "/etc/passwd", "/help me", " /help", "a /help", "/2", "//help")))


def test_a_line_that_is_no_text_is_dropped(talk: Callable[..., Any]) -> None:
    status, lines, _ = talk("grün\n".encode() + b"ab\xff\nHello\n")
    assert status == 1 and len(lines) == 3
    assert lines[1]["error"]["message"] == "standard input: expected UTF-8, found byte 0xff at 8"
    assert lines[2]["usage"]["completion_tokens"] == 4


@pytest.mark.parametrize(
    ("given", "prompt"),
    [
        (b"Hello", "Hello"),
        (b"Hello\n", "Hello"),
        (b"Hello\n\n", "Hello\n"),  # one line break ends the last line, and no more than one
        (b"\xef\xbb\xbfHello", "Hello"),
        (b"a\r\nb\r\n", "a\nb"),
        (b"a\rb", "a\rb"),
        (b"\xef\xbb\xbf", ""),
        (b"a\xef\xbb\xbfb", "a\ufeffb"),  # a mark inside is a character
    ],
)
def test_a_prompt_from_standard_input(
    model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, given: bytes, prompt: str
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given), encoding="utf-8"))
    assert everything() == prompt
    if prompt:
        answers = []
        for source in ("-", prompt):
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given), encoding="utf-8"))
            assert main(["generate", source, "-m", model, "-n", "3", "--json"]) == 0
            answer = json.loads(capsys.readouterr().out)
            answers.append((answer["text"], answer["usage"]["prompt_tokens"]))
        assert answers[0] == answers[1]


def test_lines_of_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xef\xbb\xbfone\r\n\ntwo"), encoding="utf-8"))
    lines = Lines()
    assert [lines.next() for _ in range(4)] == ["one", "", "two", None]


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("locale", ["C", "C.UTF-8", "POSIX"])
def test_bytes_that_are_no_text_are_told_by_their_place_in_the_input(model: str, raw: bool, locale: str) -> None:
    """Not by that in the rendered template, whatever the locale makes of them."""
    command = [sys.executable, "-m", "foundry", "generate", "-", "-m", model, *(["--raw"] if raw else [])]
    run = subprocess.run(
        command, input="grün ".encode() + b"\xe9t\xe9", capture_output=True, env={"LC_ALL": locale}, check=False
    )
    assert run.returncode == 1
    assert run.stderr == b"foundry: standard input: expected UTF-8, found byte 0xe9 at 6\n"


def test_an_answer_tells_its_seed_and_repeats_by_it(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    def answer(*options: str) -> dict[str, Any]:
        assert main(["generate", "Hello", "-m", model, "-n", "12", "--json", "--ignore-eos", *options]) == 0
        return dict(json.loads(capsys.readouterr().out))

    first, second = answer("--temperature", "1"), answer("--temperature", "1", "--seed", "-1")
    assert first["seed"] != second["seed"] and first["token_ids"] != second["token_ids"]
    again = answer("--temperature", "1", "--seed", str(first["seed"]))
    assert (again["seed"], again["token_ids"]) == (first["seed"], first["token_ids"])
    greedy = answer()
    assert greedy["seed"] is None and answer("--seed", "7")["token_ids"] == greedy["token_ids"]
    assert main(["generate", "Hello", "-m", model, "-n", "2", "--temperature", "1", "--seed", "7"]) == 0
    assert "| seed 7 |" in capsys.readouterr().err


def test_warnings_are_a_line_of_foundrys(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(Path(model).read_bytes().replace(b"llama.rope.freq_base", b"llama.rope.wobbled_x"))
    assert main(["generate", "Hello", "-m", str(path), "-n", "2"]) == 0
    err = capsys.readouterr().err
    assert err.count("foundry: warning: ") == 1 and "llama.rope.wobbled_x" in err
