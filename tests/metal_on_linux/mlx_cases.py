"""Launches of MLX's kernels with random inputs, as MLX launches them, and what numpy says they should give.

A case's ``kernel`` is a template's instance as C++ spells it, ``softmax_looped<float, float>``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from math import erf

import numpy as np

Array = np.ndarray
Outputs = dict[int, Array]
NUMPY = {"float": np.float32, "half": np.float16}
BOUNDS = {"float": 1e-5, "half": 1e-3}  # of the largest expected value, or of 1
random = np.random.default_rng(7)


@dataclass(frozen=True, eq=False)
class Case:
    kernel: str
    groups: tuple[int, int, int]
    threads: tuple[int, int, int]  # of a group
    inputs: dict[int, Array]
    outputs: dict[int, tuple[tuple[int, ...], type]]
    expected: Array
    bound: float
    result: Callable[[Outputs], Array] = lambda outputs: next(iter(outputs.values()))
    bools: frozenset[int] = frozenset()
    numbers: dict[int, int] = field(default_factory=dict)


def normal(*shape: int, kind: str = "float") -> Array:
    return random.standard_normal(shape).astype(NUMPY[kind])


def wide(x: Array) -> Array:
    return x.astype(np.float64)


def int32(x: int) -> Array:
    return np.array([x], np.int32)


def int64(*x: int) -> Array:
    return np.array(x, np.int64)


def up_to(n: int, step: int) -> int:
    return (n + step - 1) // step


# Rows: softmax and logsumexp, one block of reads a row or a loop over them.


def rows() -> Iterator[Case]:
    for kind in ("float", "half"):
        for name, width, threads in (
            ("single_row", 1, 32),
            ("single_row", 130, 64),
            ("single_row", 1000, 256),
            ("looped", 5003, 1024),  # always as many: it reads a value of each of 32 simdgroups
        ):
            x = normal(3, width, kind=kind) * 4
            weights = np.exp(wide(x) - wide(x).max(axis=1, keepdims=True))
            common = ((3, 1, 1), (threads, 1, 1), {0: x, 2: int32(width)})
            expected = weights / weights.sum(axis=1, keepdims=True)
            yield Case(f"softmax_{name}<{kind}, float>", *common, {1: (x.shape, NUMPY[kind])}, expected, BOUNDS[kind])
            total = np.log(weights.sum(axis=1)) + wide(x).max(axis=1)
            kernel = "logsumexp" if name == "single_row" else "logsumexp_looped"
            yield Case(f"{kernel}<{kind}, float>", *common, {1: ((3,), NUMPY[kind])}, total, BOUNDS[kind])


# Attention of a few rows: q [heads, rows, dim], k and v [kv_heads, tokens, dim].

HAS_MASK, CAUSAL, BOOL_MASK, FLOAT_MASK, HAS_SINKS, BLOCKS = 20, 22, 23, 24, 25, 26


@dataclass(frozen=True)
class Attention:
    q: Array
    k: Array
    v: Array
    scale: np.float32
    mask: Array | None  # [heads, rows, tokens], bools or what is added
    sinks: Array | None  # [heads]
    causal: bool

    def expected(self) -> Array:
        heads, rows, _ = self.q.shape
        tokens = self.k.shape[1]
        k, v = (np.repeat(wide(x), heads // len(x), axis=0) for x in (self.k, self.v))
        scores = np.einsum("hrd,htd->hrt", wide(self.q), k) * float(self.scale)
        if self.mask is not None:
            scores = np.where(self.mask, scores, -np.inf) if self.mask.dtype == bool else scores + self.mask
        if self.causal:
            last = tokens - rows + np.arange(rows)
            scores = np.where(np.arange(tokens) <= last[:, None], scores, -np.inf)
        if self.sinks is not None:  # a score that has no value
            sinks = np.broadcast_to(wide(self.sinks)[:, None, None], (heads, rows, 1))
            scores = np.concatenate([scores, sinks], axis=2)
        weights = np.exp(scores - scores.max(axis=2, keepdims=True))
        weights /= weights.sum(axis=2, keepdims=True)
        return np.einsum("hrt,htd->hrd", weights[:, :, :tokens], v)

    def bools(self) -> frozenset[int]:
        there = {CAUSAL} if self.causal else set()
        if self.mask is not None:
            there |= {HAS_MASK, BOOL_MASK if self.mask.dtype == bool else FLOAT_MASK}
        return frozenset(there | ({HAS_SINKS} if self.sinks is not None else set()))

    def inputs(self, strides_at: int, masks_at: int) -> dict[int, Array]:
        """What both kernels take, from the strides on and from the masks on."""
        size = np.array([self.k[0].size, self.k.shape[2], self.v[0].size, self.v.shape[2]], np.uint64)
        found = {0: self.q, 1: self.k, 2: self.v}
        found |= {strides_at + i: size[i : i + 1] for i in range(4)} | {strides_at + 4: np.array([self.scale])}
        if self.mask is not None:
            found[masks_at + (self.mask.dtype != bool)] = self.mask
            strides = (1, self.mask.shape[2], self.mask[0].size)
            found |= {masks_at + 2 + i: int32(stride) for i, stride in enumerate(strides)}
        if self.sinks is not None:
            found[masks_at + 5] = self.sinks
        return found


def some_attention(kind: str, rows: int, tokens: int, dim: int, *what: str) -> Attention:
    heads, kv_heads = 4, 2
    q, k, v = (normal(*shape, dim, kind=kind) for shape in ((heads, rows), (kv_heads, tokens), (kv_heads, tokens)))
    mask = None
    if "bools" in what:
        mask = random.random((heads, rows, tokens)) < 0.7
        mask[:, :, 0] = True
    if "floats" in what:
        mask = normal(heads, rows, tokens, kind=kind)
    sinks = normal(heads, kind=kind) if "sinks" in what else None
    return Attention(q, k, v, np.float32(dim**-0.5), mask, sinks, "causal" in what)


def merged(outs: Array, sums: Array, maxima: Array) -> Array:
    """Parts of a softmax [..., blocks], each with its own maximum; outs [..., blocks, dim] are not yet divided."""
    weights = np.exp(wide(maxima) - wide(maxima).max(axis=-1, keepdims=True))
    return (wide(outs) * weights[..., None]).sum(axis=-2) / (wide(sums) * weights).sum(axis=-1)[..., None]


def attention() -> Iterator[Case]:
    shapes = (
        ("float", 1, 1, 64),
        ("half", 1, 77, 128),
        ("half", 3, 200, 64, "causal"),
        ("float", 2, 45, 64, "bools"),
        ("half", 2, 45, 64, "floats"),
        ("float", 1, 70, 96, "sinks"),
    )
    for kind, rows, tokens, dim, *what in shapes:
        one = some_attention(kind, rows, tokens, dim, *what)
        heads, out = len(one.q), (one.q.shape, NUMPY[kind])
        inputs = one.inputs(6, 11) | {4: int32(heads // len(one.k)), 5: int32(tokens), 17: int32(heads)}
        yield Case(
            f"sdpa_vector<{kind}, {dim}, {dim}>",
            (heads, rows, 1),
            (1024, 1, 1),
            inputs,
            {3: out},
            one.expected(),
            BOUNDS[kind],
            bools=one.bools(),
        )
        blocks, kv_heads = 32, len(one.k)
        parts = (heads, rows, blocks)
        yield Case(
            f"sdpa_vector_2pass_1<{kind}, {dim}, {dim}, 4>",
            (kv_heads, 1, blocks),
            (32, heads // kv_heads, rows),
            one.inputs(8, 13) | {7: int32(tokens)},
            {3: ((*parts, dim), NUMPY[kind]), 4: (parts, np.float32), 5: (parts, np.float32)},
            one.expected(),
            BOUNDS[kind],
            result=lambda outputs: merged(outputs[3], outputs[4], outputs[5]),
            bools=one.bools(),
            numbers={BLOCKS: blocks},
        )
    for kind in ("float", "half"):
        outs, sums, maxima = normal(4, 2, 64, 64, kind=kind), np.abs(normal(4, 2, 64)) + 1, normal(4, 2, 64)
        yield Case(
            f"sdpa_vector_2pass_2<{kind}, 64>",
            (4, 2, 1),
            (1024, 1, 1),
            {0: outs, 1: sums, 2: maxima, 4: int32(64)},
            {3: ((4, 2, 64), NUMPY[kind])},
            merged(outs, sums, maxima),
            BOUNDS[kind],
        )


# Affine quantisation: groups of values, each q * scale + bias, packed from the low bits of uint32s.


@dataclass(frozen=True)
class Quantized:
    packed: Array
    scales: Array
    biases: Array
    values: Array  # what they stand for


def some_quantized(rows: int, width: int, group: int, bits: int, kind: str) -> Quantized:
    q = random.integers(0, 2**bits, (rows, width), dtype=np.uint32)
    shifts = np.arange(0, 32, bits, dtype=np.uint32)
    packed = (q.reshape(rows, -1, len(shifts)) << shifts).sum(axis=2, dtype=np.uint32)
    scales = (random.random((rows, width // group)) * 0.2 / 2**bits).astype(NUMPY[kind])
    biases = normal(rows, width // group, kind=kind) * NUMPY[kind](0.1)
    each = (np.repeat(wide(x), group, axis=1) for x in (scales, biases))
    return Quantized(packed, scales, biases, q * next(each) + next(each))


def quantized_products() -> Iterator[Case]:
    """y = x W^T, or x W; the kernels' arguments for batches are bound, and not read."""
    for kind, group, bits in (("float", 32, 4), ("half", 64, 4), ("half", 32, 8)):
        bound = BOUNDS[kind]
        unread = {i: int64(0) for i in range(7, 15)}
        for name, n, k, rows in (
            ("qmv", 20, 448, 2),
            ("qmv", 3, 64, 1),
            ("qmv", 24, 448, 1),
            ("qmv_fast", 16, 1024, 2),
        ):
            w = some_quantized(n, k, group, bits, kind)
            x = normal(rows, k, kind=kind)
            inputs = {0: w.packed, 1: w.scales, 2: w.biases, 3: x, 5: int32(k), 6: int32(n)} | unread
            kernel = f"affine_{name}<{kind}, {group}, {bits}, false>"
            out = {4: ((rows, n), NUMPY[kind])}
            yield Case(kernel, (rows, up_to(n, 8), 1), (32, 2, 1), inputs, out, wide(x) @ w.values.T, bound)
        w, x = some_quantized(80, 128, group, bits, kind), normal(2, 128, kind=kind)
        inputs = {0: w.packed, 1: w.scales, 2: w.biases, 3: x, 5: int32(128), 6: int32(80)} | unread
        yield Case(
            f"affine_qmv_quad<{kind}, {group}, {bits}, 128, false>",
            (2, up_to(80, 64), 1),
            (32, 1, 1),
            inputs,
            {4: ((2, 80), NUMPY[kind])},
            wide(x) @ w.values.T,
            bound,
        )
        w, x = some_quantized(100, 192, group, bits, kind), normal(2, 100, kind=kind)
        inputs = {0: w.packed, 1: w.scales, 2: w.biases, 3: x, 5: int32(100), 6: int32(192)} | unread
        yield Case(
            f"affine_qvm<{kind}, {group}, {bits}, false>",
            (2, up_to(192, 64), 1),
            (32, 2, 1),
            inputs,
            {4: ((2, 192), NUMPY[kind])},
            wide(x) @ w.values,
            bound,
        )
        n, k, rows = 45, 192, 37
        w, x = some_quantized(n, k, group, bits, kind), normal(rows, k, kind=kind)
        inputs = {0: w.packed, 1: w.scales, 2: w.biases, 3: x, 5: int32(k), 6: int32(n), 7: int32(rows)}
        yield Case(
            f"affine_qmm_t<{kind}, {group}, {bits}, false, false>",
            (up_to(n, 32), up_to(rows, 32), 1),
            (32, 2, 2),
            inputs | {i: int64(0) for i in range(8, 16)},
            {4: ((rows, n), NUMPY[kind])},
            wide(x) @ w.values.T,
            bound,
        )


def quantization() -> Iterator[Case]:
    for kind, group, bits in (("float", 32, 4), ("half", 64, 4), ("float", 128, 8)):
        w = some_quantized(4, 256, group, bits, kind)
        yield Case(
            f"affine_dequantize<{kind}, {group}, {bits}>",
            (4 * 256 * bits // 8 // 32, 1, 1),
            (32, 1, 1),
            {0: w.packed, 1: w.scales, 2: w.biases},
            {3: ((4, 256), NUMPY[kind])},
            w.values,
            BOUNDS[kind],
        )
        x = normal(4, 256, kind=kind)
        yield Case(
            f"affine_quantize<{kind}, {group}, {bits}>",
            (4 * 256 // (group // 32) // 32, 1, 1),
            (32, 1, 1),
            {0: x},
            {
                1: ((4, 256 * bits // 8), np.uint8),
                2: ((4, 256 // group), NUMPY[kind]),
                3: ((4, 256 // group), NUMPY[kind]),
            },
            nearest(x, group, bits),
            BOUNDS[kind],
            result=partial(dequantized, group=group, bits=bits),
        )


def dequantized(outputs: Outputs, group: int, bits: int) -> Array:
    packed, *each = outputs[1], *(np.repeat(wide(outputs[i]), group, axis=1) for i in (2, 3))
    q = packed[..., None] >> np.arange(0, 8, bits, dtype=np.uint8) & np.uint8(2**bits - 1)
    return q.reshape(len(packed), -1) * each[0] + each[1]


def nearest(x: Array, group: int, bits: int) -> Array:
    """As affine_quantize has it: zero is a value, and so is the end of a group's range that is farther from it."""
    groups = wide(x).reshape(-1, group)
    low, high = groups.min(axis=1, keepdims=True), np.maximum(groups.max(axis=1, keepdims=True), 0)
    edge = np.where(-low > high, low, high)
    scale = np.where(-low > high, 1, -1) * (high - low) / (2**bits - 1)
    scale = edge / np.rint(edge / scale)
    return (np.clip(np.floor((groups - edge) / scale + 0.5), 0, 2**bits - 1) * scale + edge).reshape(x.shape)


# A value each, in groups of 8 bytes a thread.


UNARY: dict[str, Callable[[Array], Array]] = {
    "Abs": np.abs,
    "Ceil": np.ceil,
    "Erf": np.vectorize(erf),
    "Exp": np.exp,
    "Expm1": np.expm1,
    "Floor": np.floor,
    "Negative": np.negative,
    "Round": np.rint,
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "Sin": np.sin,
    "Square": np.square,
    "Tanh": np.tanh,
}
OF_POSITIVES: dict[str, Callable[[Array], Array]] = {
    "Log": np.log,
    "Log1p": np.log1p,
    "Rsqrt": lambda x: 1 / np.sqrt(x),
    "Sqrt": np.sqrt,
}
BINARY: dict[str, Callable[[Array, Array], Array]] = {
    "Add": np.add,
    "Divide": np.divide,
    "LogAddExp": np.logaddexp,
    "Maximum": np.maximum,
    "Minimum": np.minimum,
    "Multiply": np.multiply,
    "Subtract": np.subtract,
}


def elementwise() -> Iterator[Case]:
    for kind in ("float", "half"):
        n, each = 203, 8 // NUMPY[kind]().itemsize
        launch = ((up_to(n, 32 * each), 1, 1), (32, 1, 1))
        size, out, bound = np.array([n], np.uint32), ((n,), NUMPY[kind]), BOUNDS[kind]
        for name, function in (UNARY | OF_POSITIVES).items():
            x = normal(n, kind=kind)
            x = np.abs(x) + NUMPY[kind](0.1) if name in OF_POSITIVES else x
            kernel = f"unary_v<{kind}, {kind}, {name}>"
            yield Case(kernel, *launch, {0: x, 2: size}, {1: out}, function(wide(x)), bound)
        a, b = normal(n, kind=kind), np.abs(normal(n, kind=kind)) + NUMPY[kind](0.5)
        for name, function in BINARY.items():
            if name == "LogAddExp" and kind == "half":
                continue  # `which ? half : float` is a float in MSL, and nothing in C++
            for form, left, right in (("vv", a, b), ("sv", a[:1], b), ("vs", a, b[:1])):
                kernel = f"binary_{form}<{kind}, {kind}, {name}>"
                expected = function(wide(left), wide(right))
                yield Case(kernel, *launch, {0: left, 1: right, 3: size}, {2: out}, expected, bound)
        which = random.random(n) < 0.5
        kernel = f"ternary_v<{kind}, Select, false, false>"
        yield Case(kernel, *launch, {0: which, 1: a, 2: b, 4: size}, {3: out}, np.where(which, a, b), bound)


# Matrices and rows without quantisation.


def products() -> Iterator[Case]:
    for kind in ("float", "half"):
        unread = {7: np.float32([1]), 8: np.float32([0]), 9: int32(1), 10: int32(1)}
        unread |= {11: int64(0), 12: int64(0), 13: int64(0), 14: int32(1), 2: normal(1, kind=kind)}
        # Left out: more than one simdgroup along k, and columns that end before a threadgroup's last simdgroup. There
        # these kernels have a barrier that some lanes skip; Apple's GPUs let it pass, MSL and the host don't.
        for shape, n, k in (((4, 1, 1, 32, 4, 4), 50, 300), ((8, 1, 1, 32, 4, 4), 9, 1500)):
            bm, bn, sm, _, tm, _ = shape
            mat, x = normal(n, k, kind=kind), normal(k, kind=kind)
            yield Case(
                f"gemv<{kind}, {', '.join(map(str, shape))}, false, false>",
                (up_to(n, bm * sm * tm), 1, 1),
                (32, bn, bm),
                {0: mat, 1: x, 4: int32(k), 5: int32(n), 6: int32(k)} | unread,
                {3: ((n,), NUMPY[kind])},
                wide(mat) @ wide(x),
                BOUNDS[kind],
            )
        bm, bn, _, sn, _, tn = shape = (1, 4, 8, 4, 4, 4)
        n, k = 128, 530
        mat, x = normal(k, n, kind=kind), normal(k, kind=kind)
        yield Case(
            f"gemv_t<{kind}, {', '.join(map(str, shape))}, false, false>",
            (up_to(n, bn * sn * tn), 1, 1),
            (32, bn, bm),
            {0: mat, 1: x, 4: int32(k), 5: int32(n), 6: int32(n)} | unread,
            {3: ((n,), NUMPY[kind])},
            wide(x) @ wide(mat),
            BOUNDS[kind],
        )


def transforms() -> Iterator[Case]:
    x = normal(3, 512)
    hadamard = np.ones((1, 1))
    while len(hadamard) < 512:
        hadamard = np.block([[hadamard, hadamard], [hadamard, -hadamard]])
    yield Case(
        "hadamard_n<float, 512, 16, 4>",
        (1, 3, 1),
        (32, 1, 1),
        {0: x, 2: np.float32([512**-0.5])},
        {1: (x.shape, np.float32)},
        wide(x) @ hadamard * 512**-0.5,
        BOUNDS["float"],
    )
    for inclusive, reverse in ((True, False), (False, True)):
        x = normal(3, 1301)
        along = wide(x)[:, ::-1] if reverse else wide(x)
        sums = np.cumsum(along, axis=1) - (0 if inclusive else along)
        flags = ", ".join(str(flag).lower() for flag in (inclusive, reverse))
        yield Case(
            f"contiguous_scan<float, float, CumSum<float>, 4, {flags}>",
            (1, 3, 1),
            (128, 1, 1),
            {0: x, 2: np.array([1301], np.uint64)},
            {1: (x.shape, np.float32)},
            sums[:, ::-1] if reverse else sums,
            BOUNDS["float"],
        )


# Headers of mlx/backend/metal/kernels, in the order that they need, and what is run of them.
UNITS: dict[str, tuple[tuple[str, ...], Callable[[], Iterator[Case]]]] = {
    "rows": (("utils.h", "softmax.h", "logsumexp.h"), rows),
    "attention": (("utils.h", "sdpa_vector.h"), attention),
    "quantized": (
        ("utils.h", "steel/gemm/gemm.h", "quantized_utils.h", "quantized.h"),
        lambda: [*quantized_products(), *quantization()],
    ),
    "elementwise": (
        ("utils.h", "unary_ops.h", "unary.h", "binary_ops.h", "binary.h", "ternary_ops.h", "ternary.h"),
        elementwise,
    ),
    "products": (("utils.h", "gemv.h"), products),
    "transforms": (("utils.h", "hadamard.h", "scan.h"), transforms),
}
