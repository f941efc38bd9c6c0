"""The command line as a person meets it: what it prints, where, and its exit status."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import foundry
import pytest
from foundry.cli import main
from foundry.cli.arguments import kv_types, size


@pytest.fixture
def model(tiny_path: Callable[..., Path]) -> str:
    return str(tiny_path())


def test_generate(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "Hello", "-m", model, "-n", "8", "--raw"]) == 0
    out, err = capsys.readouterr()
    assert out.endswith("\n")
    for part in ("prompt 5 tokens", "generation 8 tokens", "first token", "KV", "capacity 64", "pages added 0"):
        assert part in err, err
    assert main(["generate", "Hello", "-m", model, "-n", "8", "--raw", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["text"] + "\n" == out
    assert answer["finish_reason"] == "length"
    used = {"prompt_tokens": 5, "completion_tokens": 8, "cached_tokens": 0, "replayed_tokens": 0}
    assert answer["usage"] == used
    assert answer["session"]["capacity"] == 64 and answer["session"]["position"] == 12
    assert answer["timings"]["prompt_s"] > 0


def test_generate_with_the_chat_template_and_from_a_pipe(
    model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hello"))
    assert main(["generate", "-", "-m", model, "-n", "2", "--json", "--system", "Be brief"]) == 0
    templated = "<|im_start|>system\nBe brief<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    expected = len(templated) - 5 * len("<|im_start|>") + 5 + 2 * (len("<|im_start|>") - len("<|im_end|>"))
    assert json.loads(capsys.readouterr().out)["usage"]["prompt_tokens"] == expected


def test_chat(model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hello\n\nAgain\n"))
    assert main(["chat", "-m", model, "-n", "4", "--json"]) == 0
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert first["usage"]["cached_tokens"] == 0
    assert second["usage"]["cached_tokens"] >= first["usage"]["prompt_tokens"]


def test_chat_that_fills_the_context_says_so(
    model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("x" * 600 + "\n"))
    assert main(["chat", "-m", model]) == 1
    assert "available 512" in capsys.readouterr().err


def test_plan(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["plan", "-m", model, "--prompt-tokens", "100", "-n", "50"]
    assert main([*arguments, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["reserved_tokens"] == 150 and plan["fits"]
    parts = ("weights", "kv", "page_tables", "workspace", "logits", "sampling")
    assert plan["total"] == sum(plan[part] for part in parts)
    assert main(arguments) == 0
    assert "K/V for 150 tokens" in capsys.readouterr().out
    limit = str(plan["total"] + plan["estimated"] - 1)
    assert main([*arguments, "--memory-limit", limit]) == 1
    assert "does not fit" in capsys.readouterr().out


def test_inspect_and_pull(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", model, "--tensors"]) == 0
    out = capsys.readouterr().out
    assert "llama.block_count" in out and "259 entries" in out and "token_embd.weight" in out
    assert main(["inspect", model, "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert about["tensors"]["token_embd.weight"] == {"type": "Q8_0", "shape": [259, 64], "bytes": 259 * 2 * 34}
    assert about["metadata"]["general.architecture"] == "llama"
    assert main(["pull", model]) == 0
    assert capsys.readouterr().out == model + "\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["generate", "Hi", "-m", "nothing"], "expected the path of a GGUF file"),
        (["generate", "", "-m", "MODEL"], "prompt: expected text"),
        (["generate", "", "--raw", "-m", "MODEL"], "prompt: expected text"),
        (["generate", "Hi", "-m", "MODEL", "-n", "9" * 20], "max_new_tokens: expected a whole number"),
        (["generate", "Hi", "-m", "MODEL", "--top-k", "9" * 20], "top_k: expected a whole number"),
        (["generate", "Hi", "-m", "MODEL", "--seed", "9" * 20], "seed: expected a whole number"),
        (["generate", "Hi", "-m", "MODEL", "--threads", "9" * 20], "threads: expected a whole number"),
        (["generate", "Hi", "-m", "MODEL", "--memory-limit", "1e30"], "memory_limit: expected a whole number"),
        (["generate", "Hi", "-m", "MODEL", "--kv-dtype", "q9_9"], "q9_9"),
        (["plan", "-m", "MODEL", "--prompt-tokens", "513"], "context: needed 513 tokens, available 512"),
        (["generate", "Hi", "-m", "MODEL", "--device", "\udcff"], "device: expected Unicode"),
        (["generate", "\udcff", "-m", "MODEL"], "half a surrogate pair"),
        (["generate", "Hi", "-m", "MODEL", "--temperature", "-1"], "temperature"),
        (["generate", "Hi", "-m", "MODEL", "--device", "tpu"], "tpu"),
        (["generate", "Hi", "-m", "MODEL", "--memory-limit", "1K"], "memory"),
        (["generate", "x" * 600, "--raw", "-m", "MODEL"], "context: needed 600 tokens, available 512"),
        (["generate", "Hi", "-m", "MODEL", "-n", "-2"], "max_new_tokens"),
    ],
)
def test_what_goes_wrong_is_one_line(
    model: str, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert main([model if a == "MODEL" else a for a in arguments]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("foundry: ") and err.count("\n") == 1 and said in err, err
    assert main([*(model if a == "MODEL" else a for a in arguments), "--json"]) == 1
    out, err = capsys.readouterr()
    assert err == "" and said in json.loads(out)["error"]["message"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["generate", "Hi", "--top-k", "1e30"],
            "--top-k: invalid int value: '1e30' (see foundry generate --help)",
        ),
        (["plan", "--memory-limit", "lots"], "argument --memory-limit: expected bytes such as 8G"),
        (["plan", "--memory-limit", "1e999"], "argument --memory-limit: expected bytes such as 8G"),
        (["generate", "Hi", "--bogus"], "unrecognized arguments: --bogus"),
        (["nothing"], "invalid choice: 'nothing'"),
        ([], "the following arguments are required: command (see foundry --help)"),
    ],
)
def test_wrong_usage_is_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("foundry: ") and err.count("\n") == 1 and said in err, err
    assert main([*arguments, "--json"]) == 2
    out, err = capsys.readouterr()
    error = json.loads(out)["error"]
    assert err == "" and error["type"] == "UsageError"
    assert said in error["message"] or "required" in error["message"]


def test_files_with_names_that_are_no_text(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = str(tmp_path / "\udcff.gguf")
    try:
        Path(odd).symlink_to(model)
    except (OSError, UnicodeError):
        pytest.skip("this file system takes no such name")
    for command in (["generate", "Hi", "-m", odd], ["inspect", odd]):
        assert main(command) == 1
        assert capsys.readouterr().err.startswith("foundry: path: expected Unicode")


def test_bytes_that_are_no_text(model: str) -> None:
    command = [sys.executable, "-m", "foundry", "generate", "-m", model, "-n", "3", "--raw"]
    environment = os.environ | {"PYTHONIOENCODING": "utf-8"}
    run = subprocess.run([*command, "-"], input=b"\xff\xfe", capture_output=True, env=environment, check=False)
    assert run.returncode == 1 and run.stderr == b"foundry: standard input: expected UTF-8, found byte 0xff at 0\n"
    run = subprocess.run([*command, b"\xff\xfe"], capture_output=True, check=False)
    assert run.returncode == 1 and run.stderr.startswith(b"foundry: text: expected Unicode")
    chat = [sys.executable, "-m", "foundry", "chat", "-m", model]
    run = subprocess.run(chat, input=b"\xff\n", capture_output=True, env=environment, check=False)
    assert run.returncode == 1 and b"expected UTF-8, found byte 0xff at 0\n" in run.stderr
    environment["PYTHONIOENCODING"] = "ascii"  # a terminal that shows nothing else
    run = subprocess.run([*command, "x", "--temperature", "9"], capture_output=True, env=environment, check=False)
    assert run.returncode == 0 and b"Traceback" not in run.stderr and run.stdout.isascii()


def test_streams_that_are_closed(model: str) -> None:
    command = f"{sys.executable} -m foundry"
    for line, status in (
        (f"{command} generate Hi -m {model} -n 2 >&-", 0),
        (f"{command} generate - -m {model} <&-", 1),
        (f"{command} chat -m {model} <&-", 0),
        (f"{command} generate Hi -m nothing 2>&-", 1),
    ):
        run = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False)
        assert run.returncode == status and "Traceback" not in run.stderr and run.stdout == "", run


def test_an_answer_of_no_tokens_has_no_first_one(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "Hi", "-m", model, "-n", "0", "--raw"]) == 0
    err = capsys.readouterr().err
    assert "first token" not in err and "generation 0 tokens" in err


def test_a_truncated_file(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = Path(model).read_bytes()
    cut = tmp_path / "cut.gguf"
    for n in (0, 3, 100, len(whole) // 2, len(whole) - 1):
        cut.write_bytes(whole[:n])
        assert main(["generate", "Hi", "-m", str(cut)]) == 1
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and "cut.gguf" in err, err


def test_bytes_and_types() -> None:
    assert [size(t) for t in ("8G", "512 MiB", "1000", "1.5k", "2gb")] == [8 << 30, 512 << 20, 1000, 1536, 2 << 30]
    assert kv_types("f16") == "f16" and kv_types("f16,f32") == ("f16", "f32")


CONSOLE_SCRIPT = "import sys; from foundry.cli import main; sys.exit(main())"


@pytest.mark.parametrize("start", [["-m", "foundry"], ["-c", CONSOLE_SCRIPT]])
def test_ctrl_c_while_modules_load(tmp_path: Path, start: list[str]) -> None:
    """``tokenizers`` is played by a module that sends the signal while it is imported."""
    (tmp_path / "tokenizers.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, *start, "inspect"], capture_output=True, text=True, env=environment, check=False
    )
    assert (run.returncode, run.stdout, run.stderr) == (130, "", "foundry: interrupted\n")


def test_names_load_when_they_are_used() -> None:
    code = "import foundry, sys; assert 'numpy' not in sys.modules; foundry.Session; assert 'numpy' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert {*foundry.__all__, "__version__"} <= {*dir(foundry)} and all(getattr(foundry, n) for n in foundry.__all__)
    with pytest.raises(AttributeError, match="nonsense"):
        foundry.nonsense  # noqa: B018


@pytest.mark.model
def test_ctrl_c(smollm2_path: Path) -> None:
    """In the middle of an answer: what was said stays, one line says why it ends, and the status is a shell's 130."""
    command = [sys.executable, "-u", "-m", "foundry", "generate", "Tell me a long story.", "-n", "4000"]
    environment: dict[str, Any] = os.environ | {"PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [*command, "-m", str(smollm2_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    assert process.stdout is not None
    assert process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err.decode() == "foundry: interrupted\n"
