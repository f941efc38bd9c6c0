"""Stop strings: where an answer ends, what of it is told, and what the history is afterwards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic
from foundry import CompiledModel, Session
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scripted import ScriptedSession, with_vocabulary
from vocabularies import named

WORDS = ["ab", "bc", "cd", "abc", " a", "é", "日本"]
SPECIAL = ["<s>", "<|eom_id|>", "<|x|>"]


def spelled(text: str) -> str:
    return "".join(synthetic.byte_tokens()[b] for b in text.encode())


def words_and_controls() -> dict[str, Any]:
    """Byte-level: bytes below 0xF0, a few words, three control tokens: 250 in all."""
    tokens = [*synthetic.byte_tokens()[:240], *map(spelled, WORDS), *SPECIAL]
    types = [1] * (len(tokens) - len(SPECIAL)) + [3] * len(SPECIAL)
    return named({"model": "gpt2", "tokens": tokens, "token_type": types, "merges": ["a b", "ab c"]})


def answer(model: CompiledModel, tokens: list[str], prompt: str = "x", **options: Any) -> tuple[ScriptedSession, Any]:
    """A session whose answer is these tokens, and what it says."""
    ids = words_and_controls()["tokenizer.ggml.tokens"]
    session = ScriptedSession(model, [ids.index(t if t in SPECIAL else spelled(t)) for t in tokens])
    return session, session.generate(prompt, len(tokens), **options)


@pytest.fixture
def model(tiny: CompiledModel) -> CompiledModel:
    return with_vocabulary(tiny, words_and_controls())


def history(session: Session) -> str:
    return session.model.tokenizer.decode(session.token_ids.tolist())


@pytest.mark.parametrize(
    ("tokens", "stop", "text", "ids"),
    [
        (["ab", "cd"], "cd", "ab", ["ab"]),  # a token of its own
        (["a", "b", "c", "d"], "cd", "ab", ["a", "b"]),  # two tokens
        (["abc", "d"], "cd", "ab", ["ab"]),  # the tail of a token is encoded anew
        (["a", "bc", "cd"], "cc", "ab", ["a", "b"]),
        (["abc"], "c", "ab", ["ab"]),
        (["abc"], "abc", "", []),
        (["日本", "é"], "本", "日", None),  # its bytes, one by one
        (["a", "<|x|>", "b", "c"], "bc", "a", ["a", "<|x|>"]),
        (["a", "<|x|>", "b", "c"], "ab", "", []),  # what is shown counts
    ],
)
def test_the_history_ends_with_the_text_that_was_given(
    model: CompiledModel, tokens: list[str], stop: str, text: str, ids: list[str] | None
) -> None:
    session, out = answer(model, tokens, stop=[stop])
    assert (out.text, out.finish_reason) == (text, "stop")
    assert history(session) == "x" + text
    if ids is not None:
        shown = [model.tokenizer.token(i) for i in session.token_ids[1:].tolist()]
        assert shown == [t if t in SPECIAL else spelled(t) for t in ids]
    session.script = [ord("q")]
    assert session.generate("z", 1).text == "q"
    assert history(session) == "x" + text + "z"


def test_a_stop_string_may_name_a_control_token(model: CompiledModel) -> None:
    session, out = answer(model, ["ab", "<|eom_id|>", "cd"], stop=["<|eom_id|>"], ignore_eos=True)
    assert (out.text, out.finish_reason, history(session)) == ("ab", "stop", "xab")
    session, out = answer(model, ["ab", "<|x|>", "cd"], stop=["<|x|>c"])
    assert (out.text, out.finish_reason, history(session)) == ("ab", "stop", "xab")
    session, out = answer(model, ["ab", "<|x|>", "cd", "<|x|>", "a"], stop=["cd<|x|>"])
    assert (out.text, out.finish_reason, history(session)) == ("ab", "stop", "xab")
    session, out = answer(model, ["abc", "<|x|>", "cd"], stop=["c<|x|>cd"])
    assert (out.text, out.finish_reason, history(session)) == ("ab", "stop", "xab")
    session, out = answer(model, ["ab", "<", "|", "x", "|", ">", "cd"], stop=["<|x|>"])  # spelled by other tokens
    assert out.text == "ab<|x|>cd"


def test_text_is_held_back_only_while_a_stop_string_may_have_begun(model: CompiledModel) -> None:
    ids = words_and_controls()["tokenizer.ggml.tokens"]
    session = ScriptedSession(model, [ids.index(t) for t in ["a", "b", "c", "a", "b", "d", "<|x|>", "e"]])
    pieces = [piece.text for piece in session.stream("x", 9, stop=["abd!", "<|x|>!"])]
    assert pieces == ["", "", "abc", "", "", "", "", "abde", ""]


def shown_before(whole: str, stop: str) -> str:
    return whole[: whole.index(stop.replace("<|x|>", "\0"))].replace("\0", "")


PIECES = st.sampled_from([*"abcdx<|>", *WORDS, "<|x|>"])
STOPS = st.lists(st.text("abcdé日本<|x> ", min_size=1, max_size=4) | st.just("<|x|>a"), min_size=1, max_size=3)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tokens=st.lists(PIECES, min_size=1, max_size=12), stops=STOPS)
def test_any_tokens_and_stops(model: CompiledModel, tokens: list[str], stops: list[str]) -> None:
    """Against the plain definition: after which token a stop string is there, and where the first one begins."""
    session, out = answer(model, tokens, stop=stops)
    for n in range(1, len(tokens) + 1):
        whole = "".join(t.replace("<|x|>", "\0") if t in SPECIAL else t for t in tokens[:n])
        shown = whole.replace("\0", "")
        found = [shown.find(stop) for stop in stops if stop in shown and "<|x|>" not in stop]
        found += [len(shown_before(whole, s)) for s in stops if "<|x|>" in s and s.replace("<|x|>", "\0") in whole]
        if found:
            assert (out.text, out.finish_reason) == (shown[: min(found)], "stop")
            assert history(session) == "x" + out.text
            return
    assert (out.text, out.finish_reason) == ("".join(t for t in tokens if t not in SPECIAL), "length")


def characters() -> dict[str, Any]:
    """Each token but three is a character of its own."""
    tokens = ["<unk>", "<s>", "</s>", *(chr(0x4E00 + i) for i in range(256))]
    fields = {"model": "llama", "tokens": tokens, "scores": [0.0] * 259, "token_type": [2, 3, 3] + [1] * 256}
    return named(fields | {"add_space_prefix": False})


def windowed(path: Path, chunk_tokens: int) -> CompiledModel:
    model = CompiledModel.load(path, threads=1, page_tokens=8, chunk_tokens=chunk_tokens, check_every_step=True)
    return with_vocabulary(model, characters())


PROMPT = [7] * 50
DRAWN: dict[str, Any] = {"temperature": 1.5, "seed": 3, "ignore_eos": True}


@pytest.mark.parametrize("window", [16, 32])
@pytest.mark.parametrize("length", [3, 9, 20, 33])
def test_windows_keep_what_a_stop_string_may_need(
    tiny_path: Callable[..., Path], window: int, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer ends at every place of a page, by stop strings longer than one; nothing is computed again."""
    model = windowed(tiny_path(arch="gemma3", layers=3, window=window, max_seq_len=2048), chunk_tokens=32)
    with model.session(0, 0) as free:
        whole = free.generate(PROMPT, 90, **DRAWN)
    assert len(whole.text) == len(whole.token_ids) == 90
    fed: list[int] = []
    forward = Session.forward
    for at in range(40, 49):
        stop = whole.text[at : at + length]
        ids = [*PROMPT, *whole.token_ids[: whole.text.index(stop)]]
        with model.session(0, 0) as s, model.session(0, 0) as fresh:
            with monkeypatch.context() as patched:
                patched.setattr(Session, "forward", lambda s, ids, *a: fed.append(len(ids)) or forward(s, ids, *a))
                out = s.generate(PROMPT, 90, stop=[stop, stop + "never"], **DRAWN)
            assert out.finish_reason == "stop" and s.token_ids.tolist() == ids
            assert not fed
            assert np.array_equal(s.forward([65, 66]), fresh.forward([*ids, 65, 66]))
            group = s.globals["groups"][1]
            assert group["n_pages"] - group["first_page"] <= window // 8 + 1  # what was held is let go


def test_a_stop_string_longer_than_all_that_is_promised_is_computed_again(tiny_path: Callable[..., Path]) -> None:
    model = windowed(tiny_path(arch="gemma3", layers=3, window=8, max_seq_len=2048), chunk_tokens=8)
    with model.session(0, 0) as s, model.session(0, 0) as fresh:
        whole = s.generate(PROMPT, 150, **DRAWN)
        s.rewind(0)
        out = s.generate(PROMPT, 150, stop=[whole.text[40:140]], **DRAWN)
        ids = [*PROMPT, *whole.token_ids[:40]]
        assert (out.text, s.token_ids.tolist()) == (whole.text[:40], ids)
        assert np.array_equal(s.forward([65]), fresh.forward([*ids, 65]))


def test_held_pages_are_within_what_was_promised(tiny_path: Callable[..., Path]) -> None:
    """A stop string under way takes no page that another session could have had."""
    path = tiny_path(arch="gemma3", layers=3, window=16, max_seq_len=2048)
    probe = windowed(path, chunk_tokens=32)
    with probe.session(60, 90):
        memory = probe.memory()
        room = memory["total"] - memory["kv"] + memory["promised"] + memory["estimated"]
    model = CompiledModel.load(path, threads=1, page_tokens=8, chunk_tokens=32, memory_limit=room)
    with_vocabulary(model, characters())
    with model.session(60, 90) as s:
        whole = s.generate(PROMPT, 90, **DRAWN)
        s.rewind(0)
        out = s.generate(PROMPT, 90, stop=[whole.text[5:] + "never"], **DRAWN)
        assert (out.text, out.finish_reason) == (whole.text, "length")
        assert model.memory()["kv"] <= model.memory()["promised"]


def test_a_stream_left_while_text_is_held_goes_on(tiny: CompiledModel) -> None:
    with tiny.session() as s, tiny.session() as t:
        whole = s.generate("Hello", 30, temperature=1.0, seed=3)
        s.rewind(0)
        for n, _ in enumerate(s.stream("Hello", 30, temperature=1.0, seed=3, stop=[whole.text[5:20] + "never"])):
            if n == 9:
                break
        ids = [*tiny.tokenizer.encode("Hello"), *whole.token_ids[:9]]
        assert s.token_ids.tolist() == ids
        assert s.generate([65], 5).token_ids == t.generate([*ids, whole.token_ids[9], 65], 5).token_ids


def test_what_does_not_fit_behind_a_stop_string_is_left_out(tiny: CompiledModel) -> None:
    with tiny.session() as s:
        s.forward(list(range(200)) * 2)
        s.forward(list(range(110)))
        s.end_at(509, [1, 2, 3, 4, 5])
        assert s.position == 512 and s.token_ids[-4:].tolist() == [108, 1, 2, 3]
        with pytest.raises(ValueError, match="expected an id"):
            s.end_at(3, [10**6])
        assert s.position == 3
