"""Texts for comparing tokenizers: seeded, of many scripts, with spaces, numbers and special tokens in all places."""

from __future__ import annotations

import random
from collections.abc import Sequence

_RANGES = [
    (0x20, 0x7E),
    (0x00, 0x1F),
    (0x80, 0x24F),  # Latin, and a few controls
    (0x300, 0x36F),  # combining marks
    (0x370, 0x5FF),
    (0x600, 0x6FF),
    (0x900, 0xDFF),  # scripts of India
    (0xE00, 0x109F),
    (0x1100, 0x11FF),
    (0x1F00, 0x1FFF),
    (0x2000, 0x206F),  # spaces and punctuation
    (0x2070, 0x24FF),  # numbers, symbols
    (0x2500, 0x27FF),
    (0x3000, 0x30FF),
    (0x4E00, 0x9FFF),
    (0xAC00, 0xD7A3),
    (0xF900, 0xFAFF),
    (0xFF00, 0xFFEF),
    (0x10400, 0x1044F),
    (0x1D400, 0x1D7FF),
    (0x1F300, 0x1FAFF),
    (0x20000, 0x20100),
    (0x0, 0x3FFFF),
]
# Symbols of Unicode 16, which the library's regular expressions and llama.cpp don't know alike.
_YOUNG = {chr(c) for c in [*range(0x1F8B2, 0x1F8C2), *range(0x1CC00, 0x1CEB4), *range(0x10D40, 0x10D90)]}
_SPACES = [
    " ",
    " ",
    "  ",
    "   ",
    " " * 7,
    "\n",
    "\n\n",
    "\r\n",
    "\t",
    " \n",
    "\n ",
    "\u00a0",
    "\u3000",
    "\u2028",
    "\x85",
]
_WORDS = [
    "the",
    "The",
    "don't",
    "I'LL",
    "we've",
    "'s",
    "'S",
    "it’s",
    "naïve",
    "ÉCOLE",
    "HTTPServer",
    "snake_case",
    "Ünï",
]
_WORDS += [
    "<0x0A>",
    "▁",
    "▁a",
    "http://a.b/c?d=e&f",
    "x += 1;",
    "{'a': [1, 2]}",
    "</b>",
    "日本語",
    "안녕하세요",
    "привет",
    "שלום",
]
_WORDS += [
    "مرحبا",
    "नमस्ते",
    "ไทย",
    "👩‍👩‍👧",
    "🇩🇪",
    "e\u0301",
    "ﬁ",
    "ſ",
    "'ſ",
    "Kelvin",
    "İi",
    "IMGIMGABCZ",
    "=====",
    "!!!",
    "...",
    "…",
]


def texts(n: int, special: Sequence[str], seed: int = 12) -> list[str]:
    """``n`` of them. ``special`` tokens are in one of ten pieces, often beside spaces or cut."""
    draw = random.Random(seed)
    return ["".join(_piece(draw, special) for _ in range(draw.randint(1, 12))) for _ in range(n)]


def _piece(draw: random.Random, special: Sequence[str]) -> str:
    kind = draw.randrange(10)
    if kind < 3:
        return draw.choice(_WORDS)
    if kind < 5:
        return draw.choice(_SPACES)
    if kind == 5:
        return "".join(draw.choice("0123456789") for _ in range(draw.randint(1, 11))) + draw.choice(
            ["", "", "²", "½", "٣"]
        )
    if kind == 6 and special:
        token = draw.choice(special)
        return draw.choice([token, token, f" {token}", f"{token} ", f"{token}\n", token[: draw.randrange(len(token))]])
    first, last = draw.choice(_RANGES)
    made = [chr(draw.randint(first, last)) for _ in range(draw.randint(1, 6))]
    return "".join(c for c in made if not "\ud800" <= c <= "\udfff" and c not in _YOUNG)
