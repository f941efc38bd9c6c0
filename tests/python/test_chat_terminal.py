"""``foundry chat`` through a pseudo-terminal: what a person types, and what the screen then shows."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

STEERING = re.compile(rb"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|[()][A-Z0-9]|[=>78])")
UP, CTRL_C, CTRL_D = "\x1b[A", "\x03", "\x04"
# Each prompt asks the terminal to bracket pastes, so that is where one begins.
ASKS, PROMPT = b"\x1b[?2004h", "<prompt>"


class Screen:
    """A chat in a terminal of its own; ``home`` has its history file."""

    def __init__(self, home: Path, *options: str, answers_to: int | None = None) -> None:
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 150, 0, 0))
        environment = {"HOME": str(home), "TERM": "xterm-256color", "LC_ALL": "C.UTF-8", "PATH": os.environ["PATH"]}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "foundry", "chat", *options],
            stdin=theirs,
            stdout=theirs if answers_to is None else answers_to,
            stderr=theirs,
            env=environment | {"XDG_STATE_HOME": str(home / "state")},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(theirs)
        self._fd = ours
        self.seen = ""
        self._at = 0

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def wait_for(self, text: str, seconds: float = 30) -> str:
        """All that came before ``text``, since what the last wait found."""
        until = time.monotonic() + seconds
        while (found := self.seen.find(text, self._at)) < 0:
            ready, _, _ = select.select([self._fd], [], [], max(0.0, until - time.monotonic()))
            assert ready, f"expected {text!r}, found {self.seen[self._at :]!r}"
            try:
                raw = os.read(self._fd, 65536)
            except OSError:  # Linux says so where the other end is closed
                raw = b""
            assert raw, f"expected {text!r}, found the end behind {self.seen[self._at :]!r}"
            if b"\x1b[6n" in raw:
                os.write(self._fd, b"\x1b[1;1R")  # a terminal tells where its cursor is
            raw = raw.replace(ASKS, PROMPT.encode())
            self.seen += STEERING.sub(b"", raw).decode(errors="replace")
        before = self.seen[self._at : found]
        self._at = found + len(text)
        return before

    def say(self, text: str) -> str:
        """Sends a line once the prompt is there; gives what the screen shows up to the next closing line."""
        self.wait_for(PROMPT)
        self.type(text + "\r")
        return self.wait_for("finish: ")

    def command(self, text: str, answer: str) -> str:
        self.wait_for(PROMPT)
        self.type(text + "\r")
        return self.wait_for(answer)

    def end(self) -> int:
        self.type(CTRL_D)
        return self.process.wait(30)


@pytest.fixture
def model(tiny_path: Callable[..., Path]) -> str:
    return str(tiny_path())


@pytest.fixture
def start(model: str, tmp_path: Path) -> Iterator[Callable[..., Screen]]:
    screens: list[Screen] = []

    def begin(*options: str, answers_to: int | None = None) -> Screen:
        screens.append(Screen(tmp_path, "-m", model, "-n", "4", *options, answers_to=answers_to))
        return screens[-1]

    yield begin
    for screen in screens:
        screen.process.kill()
        screen.process.wait()
        os.close(screen._fd)


def test_a_conversation_and_its_end(start: Callable[..., Screen]) -> None:
    screen = start()
    screen.wait_for("Ctrl-D ends, /help tells more.")
    assert "generation 4 tokens" in screen.say("Hello")
    screen.command("/rewind", "0 turns left, 0 tokens")
    screen.command("/plan", "this conversation: 0 of 512 tokens, 0 B of K/V; 260 tokens promised")
    screen.command("/bogus", "foundry: /bogus: expected one of /help")
    assert "generation 4 tokens" in screen.say("Hello again")
    screen.wait_for(PROMPT)
    assert screen.end() == 0


def test_a_paste_of_many_lines_is_one_message(start: Callable[..., Screen]) -> None:
    """The same as those lines with Alt-Enter between them; a line alone is a shorter prompt."""
    screen = start()
    screen.wait_for(PROMPT)
    screen.type("\x1b[200~one\ntwo\nthree\x1b[201~\r")
    pasted = screen.wait_for("finish: ")
    screen.command("/clear", PROMPT)
    screen.type("one\x1b\rtwo\x1b\rthree\r")
    typed = screen.wait_for("finish: ")
    prompts = [re.findall(r"prompt (\d+) tokens", shown) for shown in (pasted, typed)]
    assert prompts[0] == prompts[1] and len(prompts[0]) == 1
    assert int(prompts[0][0]) > len("one\ntwo\nthree")


def test_history_of_the_last_chat(start: Callable[..., Screen], tmp_path: Path) -> None:
    first = start()
    first.command("/system Remember me", PROMPT)
    assert first.end() == 0
    files = [path for path in tmp_path.rglob("chat_history")]
    assert len(files) == 1 and files[0].stat().st_mode & 0o777 == 0o600
    again = start()
    again.wait_for(PROMPT)
    again.type(UP)
    again.wait_for("/system Remember me")
    again.type("!\r")
    again.command("/system", "Remember me!")
    silent = start("--no-history")
    silent.command("/system Forget me", PROMPT)
    assert silent.end() == 0 and "Forget me" not in files[0].read_text()


def test_ctrl_c_at_the_prompt_drops_the_line_alone(start: Callable[..., Screen]) -> None:
    screen = start()
    screen.wait_for(PROMPT)
    screen.type("Never mind")
    screen.wait_for("Never mind")
    screen.type(CTRL_C)
    screen.wait_for("Ctrl-D or /exit ends the chat")
    assert "generation 4 tokens" in screen.say("Hello")


def test_ctrl_c_stops_an_answer_and_not_the_chat(start: Callable[..., Screen], tmp_path: Path) -> None:
    """What was said so far is part of the conversation."""
    screen = start("-n", "-1", "--ignore-eos", "--max-seq-len", "200000", "--logit-bias", f"{ord('x')}=1000")
    screen.wait_for(PROMPT)
    screen.type("Go on\r")
    screen.wait_for("xxx")
    screen.type(CTRL_C)
    screen.wait_for("stopped; what was said so far stays in the conversation")
    screen.command(f"/save {tmp_path}/chat.json", "saved: ")
    said = json.loads((tmp_path / "chat.json").read_text())["messages"]
    assert [message["role"] for message in said] == ["user", "assistant"] and set(said[1]["content"]) == {"x"}
    screen.command("/rewind", "0 turns left, 0 tokens")
    screen.wait_for(PROMPT)
    assert screen.end() == 0


def test_answers_that_would_steer_the_terminal_are_shown(start: Callable[..., Screen], model: str) -> None:
    """Of token 27, the escape character, alone; a pipe gets the character."""
    options = ("--logit-bias", "27=1000")
    assert "␛␛␛␛" in start(*options).say("Hello")
    command = [sys.executable, "-m", "foundry", "chat", "-m", model, "-n", "4", *options]
    piped = subprocess.run(command, input=b"Hello\n", capture_output=True, check=True)
    assert piped.stdout == b"\x1b\x1b\x1b\x1b\n"


def test_answers_into_a_file_while_a_person_types(start: Callable[..., Screen], tmp_path: Path) -> None:
    with open(tmp_path / "answers", "wb") as file:
        screen = start("--json", answers_to=file.fileno())
    screen.command("Hello", "\n")
    screen.wait_for(PROMPT)
    assert screen.end() == 0
    assert json.loads((tmp_path / "answers").read_text())["usage"]["completion_tokens"] == 4


def test_a_signal_ends_a_chat_through_pipes(model: str) -> None:
    command = [
        sys.executable,
        "-m",
        "foundry",
        "chat",
        "-m",
        model,
        "-n",
        "-1",
        "--ignore-eos",
        "--max-seq-len",
        "200000",
    ]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(b"Go on\n")
    process.stdin.flush()
    assert process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and err.endswith(b"foundry: interrupted\n")
