"""Bounds of single operations: what would take long or make much is refused before it is done."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from string import Formatter
from typing import Any

from foundry.chat.budget import MOST_HEAVY, MOST_STEPS, MOST_WIDTH, BudgetError, budget, check_bits

_DIGITS = re.compile(r"\d+")
_PERCENT = re.compile(r"[-#0 +]*(\*|\d*)(?:\.(\*|\d*))?")
_ENCODINGS = {"utf-8", "utf8", "ascii", "latin-1"}  # others take time that grows with the square of the text
_SEQUENCES = (str, bytes, list, tuple)


def check_operation(operator: str, left: Any, right: Any) -> None:
    """Of ``left operator right``."""
    if operator == "+" and isinstance(left, _SEQUENCES) and isinstance(right, _SEQUENCES):
        budget().fits(len(left) + len(right))
    elif operator == "*":
        for sequence, times in ((left, right), (right, left)):
            if isinstance(sequence, _SEQUENCES) and isinstance(times, int):
                budget().fits(budget().extent(sequence) * max(times, 0))
        if isinstance(left, int) and isinstance(right, int):
            check_bits(left.bit_length() + right.bit_length())
    elif operator == "**" and isinstance(left, int) and isinstance(right, int):
        check_bits(left.bit_length() * max(right, 0))
    elif operator == "%" and isinstance(left, str | bytes):
        check_percent(left.decode("latin-1") if isinstance(left, bytes) else left, right)


def check_width(value: Any) -> None:
    """Of a number that says how long something becomes."""
    if isinstance(value, int) and abs(value) > MOST_WIDTH:
        raise BudgetError(f"expected widths and counts up to {MOST_WIDTH}, found a larger one")


def check_percent(form: str, values: Any) -> None:
    """Of ``form % values``."""
    specs, widths, at = 0, 0, form.find("%")
    while at >= 0:
        at += 1
        if form[at : at + 1] == "(":  # a key, which may hold parentheses
            depth = 1
            while depth and at + 1 < len(form):
                at += 1
                depth += {"(": 1, ")": -1}.get(form[at], 0)
            at += 1
        found = _PERCENT.match(form, at)
        assert found is not None  # every part is optional
        specs += 1
        for number in found.groups():
            if number == "*":
                for value in values if isinstance(values, tuple) else (values,):
                    check_width(value)
                    widths += value if isinstance(value, int) else 0
            elif number:
                check_width(_number(number))
                widths += _number(number)
        at = form.find("%", max(found.end() + 1, at + 1))
    largest = max(map(budget().extent, values.values()), default=0) if isinstance(values, dict) else 0
    budget().fits(len(form) + widths + specs * largest + (0 if largest else budget().extent(values)))


def check_format(form: str, values: Sequence[Any]) -> None:
    """Of ``form.format(*values)``."""
    for _, _, spec, _ in Formatter().parse(form):
        for number in _DIGITS.findall(spec or ""):
            check_width(_number(number))
        if "{" not in (spec or ""):
            continue
        for value in values:  # any of them may be the width
            check_width(value)
            if not isinstance(value, int | float | str):
                raise BudgetError("expected widths that are numbers, found one inside another value")
            for number in _DIGITS.findall(str(value)):
                check_width(_number(number))
    largest = max(map(budget().extent, values), default=0)
    budget().fits(len(form) + form.count("{") * max(largest, 1))


def check_replace(text: Any, old: Any, new: Any) -> None:
    text, old, new = str(text), str(old), str(new)
    budget().fits(len(text) + text.count(old) * len(new))


def check_join(separator: Any, entries: Iterable[Any]) -> list[Any]:
    """The entries, which may have been a generator's."""
    listed = []
    for entry in entries:
        budget().tick()
        listed.append(entry)
    budget().fits(budget().extent(listed) + len(listed) * len(str(separator)))
    return listed


def check_call(function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
    """Of a method of text, bytes or a number. Returns the arguments to call with."""
    of, name = getattr(function, "__self__", None), getattr(function, "__name__", "")
    for value in (*args, *kwargs.values()):
        if isinstance(value, int):
            check_bits(value.bit_length())
    if isinstance(of, int):
        for value in (*args, *kwargs.values()):
            check_width(value)
    if not isinstance(of, str | bytes):
        return args
    if name in ("center", "ljust", "rjust", "zfill"):
        for value in args[:1]:
            check_width(value)
    elif name == "expandtabs":
        for value in (*args, *kwargs.values()):
            check_width(value)
            tab = "\t" if isinstance(of, str) else b"\t"
            budget().fits(len(of) + of.count(tab) * (value if isinstance(value, int) else 0))  # type: ignore[arg-type]
    elif name == "replace" and len(args) >= 2:
        check_replace(of, *args[:2])
    elif name == "join" and args:
        return (check_join(of, args[0]), *args[1:])
    elif name in ("strip", "lstrip", "rstrip", "rfind", "rindex", "rsplit", "rpartition"):
        _check_steps(of, *args[:1])
    elif name == "translate":
        for table in args:
            largest = max(map(budget().extent, table.values()), default=1) if isinstance(table, dict) else 1
            budget().fits(len(of) * max(largest, 1))
    elif name in ("encode", "decode"):
        for value in (*args[:1], *(v for k, v in kwargs.items() if k == "encoding")):
            if str(value).lower() not in _ENCODINGS:
                raise BudgetError(f"expected an encoding of {', '.join(sorted(_ENCODINGS))}, found {str(value)[:80]!r}")
    return args


def _check_steps(text: Any, other: Any = None, *_: Any, **__: Any) -> None:
    """Of an operation that may go through ``other`` for each character of ``text``."""
    if isinstance(other, str | bytes) and len(str(text)) * len(other) > MOST_STEPS:
        raise BudgetError(f"expected at most {MOST_STEPS} steps to look for one text in another, found more")


def _lines(text: Any) -> int:
    return str(text).count("\n") + 1


def _center(value: Any, width: Any = 80) -> None:
    check_width(width)


def _indent(value: Any, width: Any = 4, *_: Any, **__: Any) -> None:
    check_width(width)
    budget().fits(len(str(value)) + _lines(value) * (len(width) if isinstance(width, str) else int(width)))


def _rows(value: Any, count: Any, fill_with: Any = None) -> None:
    check_width(count)


def _round(value: Any, precision: Any = 0, method: Any = "common") -> None:
    if isinstance(precision, int):
        check_width(1000 * precision)  # both ways are by powers of ten


def _sum(value: Any, attribute: Any = None, start: Any = 0) -> None:
    if isinstance(start, list | tuple) and hasattr(value, "__len__") and len(value) > 1000:
        raise BudgetError("expected at most 1000 lists to join in one, found more")


def _format(value: Any, *args: Any, **kwargs: Any) -> None:
    check_percent(str(value), kwargs or args)


def _replace(value: Any, old: Any, new: Any, count: Any = None) -> None:
    check_replace(value, old, new)


def _heavy(value: Any, *_: Any, **__: Any) -> None:
    if budget().extent(value) > MOST_HEAVY:
        raise BudgetError(f"expected at most {MOST_HEAVY} characters or entries for such a filter, found more")


# By filter, called with what the filter is given.
FILTERS: dict[str, Callable[..., None]] = {
    "batch": _rows,
    "center": _center,
    "format": _format,
    "indent": _indent,
    "pprint": _heavy,
    "replace": _replace,
    "round": _round,
    "slice": _rows,
    "striptags": _heavy,
    "sum": _sum,
    "trim": _check_steps,
    "urlize": _heavy,
    "wordwrap": _heavy,
    "xmlattr": _heavy,
}


def _number(digits: str) -> int:
    return int(digits[:20])  # longer ones are too large anyhow
