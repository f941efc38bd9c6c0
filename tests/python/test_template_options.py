"""Variables of chat templates, by keyword and on the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from foundry import CompiledModel
from foundry.cli import main
from test_vocabulary import with_tokens

USER = {"role": "user", "content": "Hi"}
TEMPLATE = (
    "{{ enable_thinking }}{{ depth + 1 if depth is defined }}{{ tools | tojson }}{{ documents | length if documents }}"
    "{{ messages[-1].content }}"
)


@pytest.fixture
def model(tiny: CompiledModel) -> CompiledModel:
    tiny.tokenizer.chat_template = TEMPLATE
    return tiny


def prompt(model: CompiledModel, **named: Any) -> str:
    """The text that a chat's prompt holds."""
    with model.session() as s:
        s.chat([USER], 1, **named)
        return model.tokenizer.decode(s.token_ids.tolist())


def test_a_chat_takes_the_templates_variables_by_name(model: CompiledModel) -> None:
    assert model.tokenizer.template_variables >= {"enable_thinking", "depth", "tools", "documents", "messages"}
    assert prompt(model, enable_thinking=False, depth=2, temperature=0.0, top_k=1) == "False3nullHi"
    tools = [{"type": "function", "function": {"name": "a"}}]
    assert prompt(model, tools=tools, documents=[{}, {}]) == json.dumps(tools) + "2Hi"
    assert prompt(model, template_variables={"enable_thinking": True, "other": 1}) == "TruenullHi"


def test_a_name_that_is_nothing_is_told(model: CompiledModel) -> None:
    with model.session() as s:
        with pytest.raises(TypeError, match="found the keyword 'enable_thinkin'"):
            s.chat([USER], 1, enable_thinkin=False)
        with pytest.raises(TypeError, match="did you mean temperature"):
            s.chat([USER], 1, temprature=1)
        with pytest.raises(ValueError, match="found depth twice"):
            s.chat([USER], 1, depth=1, template_variables={"depth": 2})
        assert s.position == 0


def test_the_command_line_hands_them_over(
    tiny_path: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = with_tokens(tiny_path(), tmp_path / "a.gguf", 259, chat_template=TEMPLATE)
    (tmp_path / "tools.json").write_text('[{"a": 1}]')

    def tokens(*options: str) -> int:
        status = main(["generate", "-m", str(path), "Hi", "-n", "1", "--json", *options])
        out, err = capsys.readouterr()
        if status:
            raise ValueError(out + err)
        found: int = json.loads(out)["usage"]["prompt_tokens"]
        return found

    assert tokens() == len("nullHi")
    assert tokens("--template-variable", "enable_thinking=false") == len("FalsenullHi")
    assert tokens("--template-variable", "depth=41", "--template-variable", "enable_thinking=a=b") == len("a=b42nullHi")
    assert tokens("--tools", str(tmp_path / "tools.json")) == len('[{"a": 1}]Hi')
    assert tokens("--raw", "--no-parse-special") == 2
    for wrong, named in (
        (["--template-variable", "x"], "expected NAME=VALUE, found 'x'"),
        (["--template-variable", "messages=1"], "expected a variable of the template's own"),
        (["--tools", str(path)], "tools"),
        (["--documents", str(tmp_path / "none.json")], "none.json"),
    ):
        with pytest.raises(ValueError, match=named):
            tokens(*wrong)
