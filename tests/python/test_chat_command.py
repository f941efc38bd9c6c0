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
from foundry.cli.chat.commands import parse
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
    for command in ("/help", "/clear", "/rewind", "/fork", "/system", "/save", "/load", "/plan", "/exit", "/quit"):
        assert command in err
    assert talk(b"/quit\nnever said\n") == (0, [], "")
    status, lines, _ = talk(b"/exot\n /exit\n")
    assert status == 1 and lines[0]["error"]["message"].startswith("/exot: expected one of /help, /clear, /rewind")
    assert lines[1]["usage"]["completion_tokens"] == 4  # behind a space it is a message


def test_what_is_a_command() -> None:
    assert [parse(line) for line in ("/help", "/exit ", "/Foo\t")] == [("help", ""), ("exit", ""), ("Foo", "")]
    assert parse("/system Be brief. ") == ("system", "Be brief.") and parse("/save  a b.json") == ("save", "a b.json")
    assert parse("/system One\ntwo") == ("system", "One\ntwo")
    assert not any(map(parse, ("/", "/etc/passwd", "/etc/passwd is a file", " /help", "a /help", "/2", "//help")))


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


def test_rewind_takes_turns_back_with_their_memory(talk: Callable[..., Any]) -> None:
    status, lines, err = talk(b"One\nTwo\nThree\n/rewind 2\nTwo\n/rewind\n/rewind\n/rewind\nOne\n")
    assert status == 1
    one, two, _, again, failed, anew = lines
    assert (again["text"], again["usage"]["prompt_tokens"]) == (two["text"], two["usage"]["prompt_tokens"])
    assert again["usage"]["cached_tokens"] > one["usage"]["prompt_tokens"]  # the first turn is not computed again
    assert (
        failed["error"]["message"]
        == "/rewind: expected a number of turns from 1 to those there are, found 1 of 0 turns"
    )
    assert anew["text"] == one["text"] and anew["usage"]["cached_tokens"] == 0
    assert "1 turn left, " in err and "0 turns left, 0 tokens" in err


def test_a_fork_goes_on_by_itself(talk: Callable[..., Any]) -> None:
    """Both answer as a conversation does that was never forked, and compute nothing twice."""
    status, lines, err = talk(b"One\n/fork\nTwo\n/fork 1\nThree\n/fork 2\nFour\n/fork 3\n")
    assert status == 1 and "conversation 2 of 2, 1 turn;" in err and "conversation 1 of 2, 1 turn;" in err
    _, two, three, four, failed = lines
    assert failed["error"]["message"] == "/fork: expected a conversation from 1 to 2, found 3"
    forked = [plain["text"] for plain in talk(b"One\nTwo\nFour\n")[1]][1:]
    assert [two["text"], four["text"]] == forked and three["text"] == talk(b"One\nThree\n")[1][1]["text"]
    assert three["usage"]["cached_tokens"] > 0 and four["usage"]["cached_tokens"] >= two["usage"]["prompt_tokens"]


def test_the_system_message_may_change(talk: Callable[..., Any]) -> None:
    status, lines, err = talk(b"Hello\n/clear\n/system Be brief\nHello\n/system\n/clear\nHello\n")
    assert status == 0 and err.endswith("Be brief\n")
    before, after, cleared = lines
    brief = talk(b"Hello\n", "--system", "Be brief")[1][0]
    for answer in (after, cleared):
        assert (answer["text"], answer["usage"]["prompt_tokens"]) == (brief["text"], brief["usage"]["prompt_tokens"])
    assert before["usage"]["prompt_tokens"] < brief["usage"]["prompt_tokens"]


def test_a_saved_conversation_goes_on(talk: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "a chat.json"
    _, before, _ = talk(f"One\nTwo\n/save {path}\nThree\n".encode(), "--system", "Be brief")
    assert json.loads(path.read_text())["messages"] == [
        {"role": "system", "content": "Be brief"},
        {"role": "user", "content": "One"},
        {"role": "assistant", "content": before[0]["text"]},
        {"role": "user", "content": "Two"},
        {"role": "assistant", "content": before[1]["text"]},
    ]
    status, (after,), err = talk(f"/load {path}\nThree\n".encode())
    assert status == 0 and "2 turns, " in err and "computed with the next message" not in err
    assert after["text"] == before[2]["text"] and after["usage"] == before[2]["usage"]
    context_of_it = path.with_name("a chat.json.kv")
    for damage in (lambda: context_of_it.write_bytes(b"none"), context_of_it.unlink):
        damage()
        status, (anew,), err = talk(f"/load {path}\nThree\n".encode())
        assert status == 0 and "2 turns, 0 tokens of them ready" in err and "computed with the next message: " in err
        assert anew["text"] == after["text"] and anew["usage"]["cached_tokens"] == 0
    assert sorted(file.name for file in tmp_path.iterdir() if not file.name.endswith(".gguf")) == ["a chat.json"]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"\xff", "found what is no JSON"),
        (b"{", "found what is no JSON"),
        (b"5", "found no list of messages"),
        (b'{"messages": 5}', "found no list of messages"),
        (b'[{"role": "user"}]', "found a message without text"),
        (b'[{"role": "user", "content": "Hi"}]', "no turns of user and assistant: user"),
        (
            b'[{"role": "assistant", "content": "Hi"}, {"role": "user", "content": "Hi"}]',
            "no turns of user and assistant",
        ),
    ],
)
def test_what_is_no_conversation_changes_nothing(
    talk: Callable[..., Any], tmp_path: Path, content: bytes, found: str
) -> None:
    path = tmp_path / "chat.json"
    path.write_bytes(content)
    status, (first, failed, second), _ = talk(f"One\n/load {path}\nTwo\n".encode())
    assert status == 1 and failed["error"]["type"] == "ValueError"
    assert f"{path}: expected a conversation as /save writes it, found" in failed["error"]["message"]
    assert found in failed["error"]["message"]
    assert [first["text"], second["text"]] == [answer["text"] for answer in talk(b"One\nTwo\n")[1]]


def test_files_that_there_can_be_none_of(talk: Callable[..., Any], tmp_path: Path) -> None:
    status, (saved, loaded, bare, answer), _ = talk(
        f"/save {tmp_path}/none/chat.json\n/load {tmp_path}/none.json\n/save\nHello\n".encode()
    )
    assert status == 1 and saved["error"]["type"] == loaded["error"]["type"] == "FileNotFoundError"
    assert bare["error"]["message"] == "/save: expected FILE behind it, found nothing"
    assert answer["usage"]["completion_tokens"] == 4


def test_plan_of_a_chat(talk: Callable[..., Any]) -> None:
    limit = 16 << 20
    status, _, err = talk(b"Hello\n/fork\n/plan\n", "--memory-limit", str(limit))
    assert status == 0
    for part in ("weights  ", "K/V of all conversations", "page tables", "estimated beside it", "limit  "):
        assert part in err
    assert (
        "16.0 MiB" in err and " of them shared; 260 tokens promised" in err and "another one of up to 512 tokens" in err
    )
