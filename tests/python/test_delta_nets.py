"""Qwen3.5 and 3.6: what a file says of delta nets is done or refused by name, and each of their peculiarities shows."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import families
import numpy as np
import pytest
from families import FAMILIES, HEAD_DIM, HEADS, HIDDEN, LAYERS, Array
from foundry import CompiledModel, ModelFormatError
from foundry.models import qwen35
from foundry.models.decoder import Layer
from test_families import BOUND, ORACLE, logits_of, off_by

DENSE, MOE = "qwen35", "qwen35moe"
K_HEADS, V_HEADS, HEAD_K, HEAD_V = FAMILIES[DENSE].delta
KEYS = K_HEADS * HEAD_K

SSM = "qwen35.ssm"
SENSELESS: list[tuple[Mapping[str, Any], str]] = [
    ({"ssm.conv_kernel": None}, f"{SSM}.conv_kernel: expected a whole number from 2 below 9, found None"),
    ({"ssm.conv_kernel": 1}, f"{SSM}.conv_kernel: expected a whole number from 2 below 9, found 1"),
    ({"ssm.conv_kernel": 9}, f"{SSM}.conv_kernel: expected a whole number from 2 below 9, found 9"),
    ({"ssm.conv_kernel": 3}, r'"blk.0.ssm_conv1d.weight": expected \[128, 3\], found \[128, 4\]'),
    ({"ssm.state_size": None}, f"{SSM}.state_size: expected a whole number from 1 below 257, found None"),
    ({"ssm.state_size": 257}, f"{SSM}.state_size: expected a whole number from 1 below 257, found 257"),
    ({"ssm.group_count": 0}, f"{SSM}.group_count: expected a whole number from 1 below 4097, found 0"),
    ({"ssm.group_count": 3}, f"{SSM}.time_step_rank: expected a multiple of the 3 heads of Q and K .*, found 4"),
    ({"ssm.time_step_rank": 5000}, f"{SSM}.time_step_rank: expected a whole number from 1 below 4097, found 5000"),
    ({"ssm.inner_size": 65}, f"{SSM}.inner_size: expected 4 heads .* of 1 to 256 values each, found 65"),
    ({"ssm.inner_size": 1028}, f"{SSM}.inner_size: expected 4 heads .* of 1 to 256 values each, found 1028"),
    ({"ssm.inner_size": 128}, r'"blk.0.attn_qkv.weight": expected \[192, 64\], found \[128, 64\]'),
    ({"ssm.dt_b_c_rms": True}, f"{SSM}.dt_b_c_rms: expected 0, found True, which is not supported"),
    ({"full_attention_interval": 0}, "qwen35.full_attention_interval: expected a whole number from 1"),
    ({"full_attention_interval": 5}, "full_attention_interval: expected a layer that attends among the first 4"),
    ({"full_attention_interval": 2}, "no tensor|found 'blk.1"),
    ({"attention.recurrent_layers": [True, True, False]}, "recurrent_layers: expected yes or no for each of 4 layers"),
    ({"attention.recurrent_layers": [True] * 4}, "expected a layer that attends among the first 4, found none"),
    ({"nextn_predict_layers": 4}, "nextn_predict_layers: expected a whole number from 0 below 4, found 4"),
    ({"nextn_predict_layers": 1}, "expected a layer that attends among the first 3, found none"),
    ({"attention.sliding_window": 24}, "attention.sliding_window: expected 0, found 24, which is not supported"),
    ({"attention.key_length": 18, "attention.value_length": 18}, "key_length: expected a multiple of 4, found 18"),
]


@pytest.mark.parametrize(("keys", "said"), SENSELESS, ids=str)
def test_a_key_that_makes_no_sense_is_refused_by_name(tmp_path: Path, keys: Mapping[str, Any], said: str) -> None:
    path = families.write(tmp_path / "m.gguf", FAMILIES[DENSE], keys)
    with pytest.raises(ModelFormatError, match=said):
        CompiledModel.load(path)


def of_all(end: str, change: Callable[[Array], Array]) -> Callable[[dict[str, Array]], dict[str, Array]]:
    return lambda tensors: {
        name: np.ascontiguousarray(change(values)) for name, values in tensors.items() if name.endswith(end)
    }


def exchanged(one: str, other: str) -> Callable[[dict[str, Array]], dict[str, Array]]:
    def change(tensors: dict[str, Array]) -> dict[str, Array]:
        changed = {}
        for name in tensors:
            if name.endswith(f"{one}.weight"):
                partner = name.replace(one, other)
                changed[name], changed[partner] = tensors[partner], tensors[name]
        return changed

    return change


def side_by_side(values: Array) -> Array:
    """Heads of V as they were before the converter: those of one head of K one behind the other."""
    v = values[2 * KEYS :].reshape(V_HEADS // K_HEADS, K_HEADS, HEAD_V, HIDDEN)
    return np.concatenate([values[: 2 * KEYS], v.swapaxes(0, 1).reshape(-1, HIDDEN)])


BROKEN: dict[str, tuple[str, Callable[[dict[str, Array]], dict[str, Array]]]] = {
    "q for k": (
        DENSE,
        of_all("attn_qkv.weight", lambda w: np.concatenate([w[KEYS : 2 * KEYS], w[:KEYS], w[2 * KEYS :]])),
    ),
    "v before q and k": (DENSE, of_all("attn_qkv.weight", lambda w: np.roll(w, V_HEADS * HEAD_V, axis=0))),
    "heads of v side by side": (DENSE, of_all("attn_qkv.weight", side_by_side)),
    "alpha for beta": (DENSE, exchanged("ssm_alpha", "ssm_beta")),
    "taps from the newest on": (DENSE, of_all("ssm_conv1d.weight", lambda w: w[:, ::-1])),
    "the logarithm of the decay": (DENSE, of_all("ssm_a", lambda a: np.log(-a))),
    "no decay": (DENSE, of_all("ssm_a", lambda a: 0 * a)),
    "z twice": (DENSE, of_all("attn_gate.weight", lambda w: 2 * w)),
    "the gate before q": (
        DENSE,
        of_all("attn_q.weight", lambda w: w.reshape(HEADS, 2, HEAD_DIM, HIDDEN)[:, ::-1].reshape(w.shape)),
    ),
    "gates behind all of q": (
        DENSE,
        of_all("attn_q.weight", lambda w: w.reshape(HEADS, 2, HEAD_DIM, HIDDEN).swapaxes(0, 1).reshape(w.shape)),
    ),
    "norms less one": (DENSE, of_all("attn_norm.weight", lambda w: w - 1)),
    "the shared expert's gate": (MOE, of_all("ffn_gate_inp_shexp.weight", lambda w: 0 * w)),
    "the shared expert": (MOE, of_all("ffn_down_shexp.weight", lambda w: 0 * w)),
}


@pytest.mark.parametrize("what", BROKEN)
def test_each_peculiarity_shows(tmp_path: Path, what: str) -> None:
    name, change = BROKEN[what]
    changed = change(families.tensors_of(FAMILIES[name]))
    assert changed
    off = off_by(name, logits_of(families.write(tmp_path / "m.gguf", FAMILIES[name], tensors=changed)))
    print(f"\n{what}: {off:.1e} of the range")
    assert off > 10 * BOUND


class Recording:
    """A graph whose ops get other arguments, or are left out."""

    def __init__(self, graph: Any, **changes: Callable[..., int]) -> None:
        self._graph, self._changes = graph, changes

    def __getattr__(self, name: str) -> Any:
        changed = self._changes.get(name)
        if changed is None:
            return getattr(self._graph, name)
        return lambda *args, **more: changed(getattr(self._graph, name), *args, **more)


LEFT_OUT: dict[str, tuple[str, dict[str, Callable[..., int]]]] = {
    "silu behind the convolution": (
        DENSE,
        {"short_conv": lambda op, *args, **more: op(*args, **{**more, "silu": False})},
    ),
    "the gate of attention": (DENSE, {"sigmoid_gate": lambda op, x, *args: x}),
    "the gate of the shared expert": (
        MOE,
        {"sigmoid_gate": lambda op, x, gate, heads, name: x if "shared" in name else op(x, gate, heads, name)},
    ),
}


@pytest.mark.parametrize("what", LEFT_OUT)
def test_what_is_left_out_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    name, changes = LEFT_OUT[what]
    made = Layer.__init__

    def init(layer: Layer, *args: Any) -> None:
        made(layer, *args)
        layer.graph = Recording(layer.graph, **changes)  # type: ignore[assignment]

    monkeypatch.setattr(Layer, "__init__", init)
    path = families.write(tmp_path / "m.gguf", FAMILIES[name])
    assert off_by(name, logits_of(path)) > 10 * BOUND


def test_the_epsilon_of_lengths_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qwen35, "LENGTH_EPS", 1e-2)
    assert off_by(DENSE, logits_of(families.write(tmp_path / "m.gguf", FAMILIES[DENSE]))) > 10 * BOUND


@pytest.mark.parametrize("name", [DENSE, "qwen35, taps of 3, other heads", MOE])
def test_odd_chunks_are_those_of_transformers(tmp_path: Path, name: str) -> None:
    """A prompt in pieces that no boundary of pages, of taps or of rows a kernel takes at a time falls in with."""
    path = families.write(tmp_path / "m.gguf", FAMILIES[name])
    whole = logits_of(path)
    for chunk in (1, 5, 11):
        model = CompiledModel.load(path, kv_dtype="f32", threads=2, page_tokens=8, chunk_tokens=chunk)
        with model.session() as s:
            parts, at = [], 0
            for n in (1, 2, 3, 13, 8, 1, 30, 42):
                parts.append(s.forward(ORACLE["ids"][at : at + n], all_logits=True))
                at += n
        assert np.array_equal(np.concatenate(parts), whole)
    assert off_by(name, whole) < BOUND


def test_which_layers_attend_may_be_said_of_each(tmp_path: Path) -> None:
    said = {"full_attention_interval": None, "attention.recurrent_layers": [True, True, True, False]}
    assert off_by(DENSE, logits_of(families.write(tmp_path / "m.gguf", FAMILIES[DENSE], said))) < BOUND
    said["full_attention_interval"] = 3
    assert off_by(DENSE, logits_of(families.write(tmp_path / "m.gguf", FAMILIES[DENSE], said))) < BOUND


@pytest.mark.parametrize("name", [DENSE, MOE])
def test_layers_that_draft_tokens_are_left(tmp_path: Path, name: str) -> None:
    """One behind the others, with tensors of its own, as the converter writes it."""
    tensors = families.tensors_of(FAMILIES[name])
    draft = {
        key.replace(f"blk.{LAYERS - 1}.", f"blk.{LAYERS}."): values
        for key, values in tensors.items()
        if key.startswith(f"blk.{LAYERS - 1}.")
    }
    draft[f"blk.{LAYERS}.nextn.eh_proj.weight"] = np.ones((HIDDEN, 2 * HIDDEN), np.float32)
    keys = {"block_count": LAYERS + 1, "nextn_predict_layers": 1}
    path = families.write(tmp_path / "m.gguf", FAMILIES[name], keys, draft)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert off_by(name, logits_of(path)) < BOUND
    assert CompiledModel.load(path).arch.n_layers == LAYERS
    without = {"block_count": LAYERS, "nextn_predict_layers": None}
    with pytest.raises(ModelFormatError, match=r"and no others, found .blk\.4"):
        CompiledModel.load(families.write(tmp_path / "m.gguf", FAMILIES[name], without, draft))


def test_a_mixture_need_not_say_how_large_other_layers_are(tmp_path: Path) -> None:
    for said in (None, 96):
        keys = {"feed_forward_length": said}
        assert off_by(MOE, logits_of(families.write(tmp_path / "m.gguf", FAMILIES[MOE], keys))) < BOUND
    path = families.write(tmp_path / "m.gguf", FAMILIES[DENSE], {"feed_forward_length": None})
    with pytest.raises(ModelFormatError, match=r"qwen35\.feed_forward_length: expected a whole number"):
        CompiledModel.load(path)
