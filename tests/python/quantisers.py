"""Simple quantisers for the formats that the package gguf can read but not write: the nearest codes for scales that fit
the largest value of each group. Engines' own search longer; these are for models of random weights."""

from __future__ import annotations

from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

Kind = gguf.GGMLQuantizationType
Array = npt.NDArray[Any]

IQ4_VALUES = np.array(gguf.quants.IQ4_NL.kvalues, np.float32)


def quantise(values: Array, kind: Kind) -> Array:
    """[rows, cols] f32 -> [rows, bytes of a row]."""
    own = QUANTISERS.get(kind)
    if own is None:
        return gguf.quants.quantize(values, kind)
    elements, _ = gguf.GGML_QUANT_SIZES[kind]
    blocks = np.ascontiguousarray(values, np.float32).reshape(-1, elements)
    return own(blocks).reshape(len(values), -1)


def _halves(scales: Array) -> tuple[Array, Array]:
    """[n] -> bytes of f16 [n, 2], and what they hold."""
    half = scales.astype(np.float16).reshape(-1, 1)
    return half.view(np.uint8), half.astype(np.float32)


def _over(values: Array, scales: Array) -> Array:
    """values / scales, 0 where the scale is."""
    return np.divide(values, scales, out=np.zeros(np.broadcast(values, scales).shape, np.float32), where=scales != 0)


def _nibbles(q: Array, side: int) -> Array:
    """Codes [n, k]: `side` in low halves, the next `side` in high ones, and so on."""
    q = q.astype(np.uint8).reshape(len(q), -1, 2, side)
    low, high = q[:, :, 0] & 15, q[:, :, 1] & 15
    return (low | high << 4).reshape(len(q), -1)


def _bits(q: Array, bit: int) -> Array:
    """One bit of each of 256 codes: byte i has value i of each 32."""
    parts = (q.astype(np.uint8).reshape(len(q), 8, 32) >> bit & 1) << np.arange(8, dtype=np.uint8)[:, None]
    return np.bitwise_or.reduce(parts, axis=1)


def _crumbs(q: Array) -> Array:
    """The low two bits of 256 codes: four times 32 in 32 bytes."""
    parts = (q.astype(np.uint8).reshape(len(q), 2, 4, 32) & 3) << np.array([0, 2, 4, 6], np.uint8)[:, None]
    return np.bitwise_or.reduce(parts, axis=2).reshape(len(q), 64)


def _with_minima(blocks: Array, group: int, most: int, most_scale: int) -> tuple[Array, ...]:
    """x ~ d s q - m t: bytes of d and m, s, t and q."""
    g = blocks.reshape(len(blocks), -1, group)
    minima = np.maximum(-g.min(axis=2), 0)
    scales = (g.max(axis=2) + minima) / most
    d_bytes, d = _halves(scales.max(axis=1) / most_scale)
    m_bytes, m = _halves(minima.max(axis=1) / most_scale)
    s = np.rint(_over(scales, d)).clip(0, most_scale)
    t = np.rint(_over(minima, m)).clip(0, most_scale)
    q = np.rint(_over(g + (m * t)[:, :, None], (d * s)[:, :, None])).clip(0, most)
    return d_bytes, m_bytes, s.astype(np.uint8), t.astype(np.uint8), q.reshape(blocks.shape)


def _six_bits(s: Array, t: Array) -> Array:
    """Q4_K's and Q5_K's twelve bytes of scales and minima."""
    first = s[:, :4] | s[:, 4:] >> 4 << 6
    second = t[:, :4] | t[:, 4:] >> 4 << 6
    return np.concatenate([first, second, s[:, 4:] & 15 | (t[:, 4:] & 15) << 4], axis=1)


def _signed(blocks: Array, group: int, most: float, most_scale: int) -> tuple[Array, Array, Array]:
    """x ~ d s u: bytes of d, s, and u, which is near `most` in size for the largest of a group."""
    g = blocks.reshape(len(blocks), -1, group)
    scales = np.abs(g).max(axis=2) / most
    d_bytes, d = _halves(scales.max(axis=1) / most_scale)
    s = np.rint(_over(scales, d)).clip(0, most_scale)
    return d_bytes, s, _over(g, (d * s)[:, :, None]).reshape(blocks.shape)


def _nearest_iq4(u: Array) -> Array:
    return np.abs(u[..., None] - IQ4_VALUES).argmin(axis=-1)


def q6_k(blocks: Array) -> Array:
    d, s, u = _signed(blocks, 16, 32, 127)
    q = (np.rint(u).clip(-32, 31) + 32).astype(np.uint8)
    high = (q.reshape(-1, 2, 4, 32) >> 4) << np.array([0, 2, 4, 6], np.uint8)[:, None]
    high = np.bitwise_or.reduce(high, axis=2).reshape(len(q), 64)
    return np.concatenate([_nibbles(q, 64), high, s.astype(np.int8).view(np.uint8), d], axis=1)


def q5_k(blocks: Array) -> Array:
    d, m, s, t, q = _with_minima(blocks, 32, 31, 63)
    return np.concatenate([d, m, _six_bits(s, t), _bits(q, 4), _nibbles(q, 32)], axis=1)


def q4_k(blocks: Array) -> Array:
    d, m, s, t, q = _with_minima(blocks, 32, 15, 63)
    return np.concatenate([d, m, _six_bits(s, t), _nibbles(q, 32)], axis=1)


def q3_k(blocks: Array) -> Array:
    d, s, u = _signed(blocks, 16, 4, 31)
    q = np.rint(u).clip(-4, 3) + 4
    six = (s + 32).astype(np.uint8)
    low = six[:, :8] & 15 | (six[:, 8:] & 15) << 4
    high = (six.reshape(-1, 4, 4) >> 4) << np.array([0, 2, 4, 6], np.uint8)[:, None]
    return np.concatenate([_bits(q, 2), _crumbs(q), low, np.bitwise_or.reduce(high, axis=1), d], axis=1)


def q2_k(blocks: Array) -> Array:
    d, m, s, t, q = _with_minima(blocks, 16, 3, 15)
    return np.concatenate([s | t << 4, _crumbs(q), d, m], axis=1)


def iq4_nl(blocks: Array) -> Array:
    d, u = _halves(np.abs(blocks).max(axis=1) / 113)
    return np.concatenate([d, _nibbles(_nearest_iq4(_over(blocks, u)), 16)], axis=1)


def iq4_xs(blocks: Array) -> Array:
    d, s, u = _signed(blocks, 32, 113, 31)
    six = (s + 32).astype(np.uint16)
    high = np.bitwise_or.reduce(six >> 4 << np.arange(0, 16, 2, dtype=np.uint16), axis=1).astype(np.uint16)
    low = (six[:, ::2] & 15 | (six[:, 1::2] & 15) << 4).astype(np.uint8)
    return np.concatenate([d, high.reshape(-1, 1).view(np.uint8), low, _nibbles(_nearest_iq4(u), 16)], axis=1)


def _on_grid(blocks: Array, of: Any, group: int, unit: float) -> tuple[Array, Array, Array, Array]:
    """Of IQ2 and IQ3: f16 scales, scales of four bits of each group, places in the grid, and signs, a bit each.

    Args:
        of: the class of the package gguf that has the grid.
        unit: x = scale * (2 s + 1) * unit * magnitude.
    """
    of.init_grid()
    grid = of.grid.reshape(of.grid_shape).astype(np.float32)
    n = grid.shape[1]
    most = np.abs(blocks).reshape(len(blocks), -1, group).max(axis=2)
    d, wide = _halves(most.max(axis=1) / (31 * unit * grid.max()))
    s = np.rint((_over(most / (unit * grid.max()), wide) - 1) / 2).clip(0, 15).astype(np.uint8)
    each = np.repeat(wide.reshape(-1, 1) * (2.0 * s + 1) * unit, group, axis=1)
    u = (np.abs(blocks) / np.where(each == 0, 1, each)).reshape(-1, n)
    places = np.argmin((grid**2).sum(axis=1) - 2 * u @ grid.T, axis=1).reshape(len(blocks), -1)
    return d, s, places, (blocks < 0).astype(np.uint8)


def _signs(negative: Array) -> Array:
    """[n, 256] -> [n, 32], a bit of eight values each."""
    return np.packbits(negative.reshape(len(negative), -1, 8), axis=2, bitorder="little")[..., 0]


def _even_signs(negative: Array, blocks: Array) -> Array:
    """Seven bits of each eight: an odd number of negative values loses the smallest one's sign."""
    groups, values = negative.reshape(-1, 8).copy(), np.abs(blocks).reshape(-1, 8)
    odd = groups.sum(axis=1) % 2 == 1
    smallest = values.argmin(axis=1)
    groups[np.arange(len(groups))[odd], smallest[odd]] ^= 1
    return _signs(groups.reshape(negative.shape)) & 127


def _words(even: Array, s: Array) -> Array:
    """Of each 32 values: four times seven bits of signs and four of the scale, as bytes [n, 8, 4]."""
    four = even.reshape(len(even), 8, 4).astype(np.uint32) << np.array([0, 7, 14, 21], np.uint32)
    return (np.bitwise_or.reduce(four, axis=2) | s.astype(np.uint32) << 28)[..., None].view(np.uint8)


def _four_bits(s: Array) -> Array:
    return s[:, ::2] | s[:, 1::2] << 4


def iq2_xxs(blocks: Array) -> Array:
    d, s, q, negative = _on_grid(blocks, gguf.quants.IQ2_XXS, 32, 1 / 8)
    codes = q.astype(np.uint8).reshape(len(q), 8, 4)
    both = np.concatenate([codes, _words(_even_signs(negative, blocks), s)], axis=2)
    return np.concatenate([d, both.reshape(len(q), -1)], axis=1)


def iq2_xs(blocks: Array) -> Array:
    d, s, q, negative = _on_grid(blocks, gguf.quants.IQ2_XS, 16, 1 / 8)
    codes = (q | _even_signs(negative, blocks).astype(np.int64) << 9).astype(np.uint16)
    return np.concatenate([d, codes.view(np.uint8), _four_bits(s)], axis=1)


def iq2_s(blocks: Array) -> Array:
    d, s, q, negative = _on_grid(blocks, gguf.quants.IQ2_S, 16, 1 / 8)
    high = (q >> 8).reshape(len(q), -1, 4) << np.array([0, 2, 4, 6])
    parts = [q & 255, _signs(negative), np.bitwise_or.reduce(high, axis=2), _four_bits(s)]
    return np.concatenate([d, *(part.astype(np.uint8) for part in parts)], axis=1)


def iq3_xxs(blocks: Array) -> Array:
    d, s, q, negative = _on_grid(blocks, gguf.quants.IQ3_XXS, 32, 1 / 4)
    words = _words(_even_signs(negative, blocks), s).reshape(len(q), -1)
    return np.concatenate([d, q.astype(np.uint8), words], axis=1)


def iq3_s(blocks: Array) -> Array:
    d, s, q, negative = _on_grid(blocks, gguf.quants.IQ3_S, 32, 1)
    high = np.packbits((q >> 8).astype(np.uint8), axis=1, bitorder="little")
    return np.concatenate([d, (q & 255).astype(np.uint8), high, _signs(negative), _four_bits(s)], axis=1)


QUANTISERS = {
    Kind.Q6_K: q6_k,
    Kind.Q5_K: q5_k,
    Kind.Q4_K: q4_k,
    Kind.Q3_K: q3_k,
    Kind.Q2_K: q2_k,
    Kind.IQ4_NL: iq4_nl,
    Kind.IQ4_XS: iq4_xs,
    Kind.IQ3_S: iq3_s,
    Kind.IQ3_XXS: iq3_xxs,
    Kind.IQ2_S: iq2_s,
    Kind.IQ2_XS: iq2_xs,
    Kind.IQ2_XXS: iq2_xxs,
}
