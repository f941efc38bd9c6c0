"""NaN and infinity among the logits: every path says so with the session and the position, and commits nothing."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
from conftest import Tiny
from foundry import CompiledModel, NumericError, Session, _core

PROMPT = [int(i) for i in np.random.default_rng(5).integers(0, 200, 20)]
DEVICES = [name for name in ("cpu", "reference", "metal", "cuda") if name in _core.device_names()]


def damaged(path: Path, folder: Path, **rows: dict[int, object]) -> Path:
    """A copy of an f32 model whose tensors (by name, "__" for ".") have these rows."""
    copy = Path(shutil.copy(path, folder / f"{len(list(folder.iterdir()))}.gguf"))
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(copy).tensors}
    data = np.memmap(copy, mode="r+", dtype=np.uint8)
    for name, values in rows.items():
        tensor = tensors[name.replace("__", ".")]
        cols = int(tensor.shape[0])
        table = data[tensor.data_offset : tensor.data_offset + tensor.n_bytes].view(np.float32).reshape(-1, cols)
        for row, value in values.items():
            table[row] = value
    data.flush()
    return copy


def load(path: Path, device: str = "cpu") -> CompiledModel:
    return CompiledModel.load(path, device, threads=1, page_tokens=8, chunk_tokens=8, check_every_step=True)


@pytest.fixture
def plain(tiny_path: Tiny) -> Path:
    return tiny_path(type="f32", tied=False)


def unseen(session: Session, n: int) -> tuple[list[int], int]:
    """The greedy answer to PROMPT, and the place in it of a token that neither prompt nor answer have before."""
    ids = session.generate(PROMPT, n, ignore_eos=True).token_ids
    return ids, next(i for i in range(2, n - 1) if ids[i] not in PROMPT + ids[:i])


CALLS: dict[str, Callable[[Session, list[int]], object]] = {
    "forward": lambda s, ids: s.forward(ids),
    "forward, all rows": lambda s, ids: s.forward(ids, all_logits=True),
    "batch": lambda s, ids: s.model.forward([(s.model.session(), [1, 2]), (s, ids)]),
    "score": lambda s, ids: s.score(ids),
    "generate": lambda s, ids: s.generate(ids, 4),
    "generate by chance": lambda s, ids: s.generate(ids, 4, temperature=1, seed=1),
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("call", CALLS)
def test_a_nan_is_refused_and_nothing_commits(plain: Path, tmp_path: Path, call: str, device: str) -> None:
    model = load(damaged(plain, tmp_path, token_embd__weight={201: np.nan}), device)
    with model.session() as s, model.session() as beside:
        s.forward(PROMPT)
        with pytest.raises(NumericError, match="position 22") as caught:
            CALLS[call](s, [7, 8, 201])
        assert caught.value.session is s
        assert caught.value.position == len(PROMPT) + 2
        assert s.position == len(PROMPT) and s.token_ids.tolist() == PROMPT
        s.check_consistency()
        beside.forward(PROMPT)
        assert np.array_equal(s.forward([7, 8]), beside.forward([7, 8]))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("sampling", [{}, {"temperature": 1e-3, "seed": 2}])
def test_a_generation_ends_where_the_logits_do(
    plain: Path, tmp_path: Path, device: str, sampling: dict[str, float]
) -> None:
    with load(plain, device).session() as whole:
        ids, at = unseen(whole, 40)
    model = load(damaged(plain, tmp_path, token_embd__weight={ids[at]: np.nan}), device)
    with model.session() as s:
        given = []
        with pytest.raises(NumericError) as caught:
            for piece in s.stream(PROMPT, 40, ignore_eos=True, **sampling):
                given.append(piece.token_id)
        assert given == ids[: at + 1]
        assert (caught.value.session, caught.value.position) == (s, len(PROMPT) + at)
        assert s.position == len(PROMPT) + at  # the token was given, and could not be fed
        s.rewind(len(PROMPT))
        assert s.generate([9], 2, ignore_eos=True).finish_reason == "length"


def test_rows_before_the_first_bad_one_are_named_by_it_alone(plain: Path, tmp_path: Path) -> None:
    model = load(damaged(plain, tmp_path, token_embd__weight={201: np.nan}))
    with model.session() as s, pytest.raises(NumericError) as caught:
        s.forward([*PROMPT, 201, 5, 201], all_logits=True)  # rows behind it see it
    assert caught.value.position == len(PROMPT)


def infinite(plain: Path, tmp_path: Path) -> tuple[CompiledModel, float]:
    """A model whose logit 30 overflows for every prompt, and the sign that it has for PROMPT."""
    row = np.zeros(64, np.float32)
    row[0] = 3e38
    norm = np.ones(64, np.float32)
    norm[0] = 1e4
    model = load(damaged(plain, tmp_path, output__weight={30: row}, output_norm__weight={0: norm}))
    with model.session() as s:
        return model, float(s.forward(PROMPT, allow_nonfinite=True)[30])


def with_logit_30(plain: Path, tmp_path: Path, wanted: float) -> CompiledModel:
    model, sign = infinite(plain, tmp_path)
    if sign == wanted:
        return model
    row, norm = np.zeros(64, np.float32), np.ones(64, np.float32)
    row[0], norm[0] = -3e38, 1e4
    return load(damaged(plain, tmp_path, output__weight={30: row}, output_norm__weight={0: norm}))


def test_plus_infinity_is_refused_and_returned_where_asked_for(plain: Path, tmp_path: Path) -> None:
    model = with_logit_30(plain, tmp_path, math.inf)
    with model.session() as s, model.session() as other:
        with pytest.raises(NumericError):
            s.forward(PROMPT)
        assert s.position == 0
        logits = s.forward(PROMPT, allow_nonfinite=True)
        assert logits[30] == math.inf and s.position == len(PROMPT)
        assert model.forward([(other, PROMPT)], allow_nonfinite=True)[0][30] == math.inf


def test_one_minus_infinity_is_a_probability_of_zero(plain: Path, tmp_path: Path) -> None:
    model = with_logit_30(plain, tmp_path, -math.inf)
    with model.session() as s:
        assert s.forward(PROMPT)[30] == -math.inf
        ends_well = [i for i in range(200) if s.fork().forward([i], allow_nonfinite=True)[30] == -math.inf]
        assert np.isfinite(s.fork().score(ends_well[:1])).all()
        if 30 in ends_well:
            assert s.fork().score([30])[0] == -math.inf
    with model.session() as s:
        assert 30 not in s.generate(PROMPT, 1, temperature=100, seed=3).token_ids


def test_nothing_but_minus_infinity_is_refused(plain: Path, tmp_path: Path) -> None:
    model, sign = infinite(plain, tmp_path)
    row = np.zeros(64, np.float32)
    row[0] = math.copysign(3e38, -sign)
    norm = np.ones(64, np.float32)
    norm[0] = 1e4
    every = dict.fromkeys(range(model.arch.vocab_size), row)
    model = load(damaged(plain, tmp_path, output__weight=every, output_norm__weight={0: norm}))
    with model.session() as s:
        assert (s.forward(PROMPT, allow_nonfinite=True) == -math.inf).all()
        s.rewind(0)
        for call in (s.forward, s.score, s.generate):
            with pytest.raises(NumericError):
                call(PROMPT)
            assert s.position == 0
