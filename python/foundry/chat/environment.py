"""Jinja as ``transformers`` sets it up (utils/chat_template_utils.py), in a sandbox that counts what a template takes.

Jinja's sandbox keeps a template from Python's insides. Here loops, calls, operators, filters, literals and output go
through ``chat.budget`` as well: in the syntax tree where Jinja has no hook for it.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from jinja2 import nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from foundry.chat import given
from foundry.chat.budget import BudgetError, budget
from foundry.chat.limits import FILTERS, check_call, check_format, check_join, check_operation

_MOST_INDENT = 64  # of JSON
# Filters that keep track of what is given; others build their text of pieces that don't.
_EXACT = {"attr", "d", "default", "first", "last", "max", "min", "random", "replace", "string", "trim"}


class RefusedError(Exception):
    """The template called raise_exception."""


class TemplateEnvironment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_Generation, loopcontrols],
            optimized=False,  # nothing is worked out while a template is compiled
            finalize=_printed,
        )
        del self.globals["lipsum"]
        self.globals |= {
            "raise_exception": _refuse,
            "strftime_now": _now,
            "dict": _Dict(),
            "namespace": _Namespace,
        }
        self.filters["tojson"] = _to_json
        self.tests = {name: _counted(function) for name, function in self.tests.items()}
        self.filters = {name: _bounded(name, function) for name, function in self.filters.items()}

    # What the tree is given to call.
    tick = staticmethod(lambda: None)  # the call itself counts
    made = staticmethod(lambda value: value)  # what is returned counts

    @staticmethod
    def joined(*values: Any) -> str:
        """a ~ b"""
        budget().fits(sum(map(budget().extent, values)))
        return given.join(_spelled(value) for value in values)

    @staticmethod
    def concat(pieces: Iterable[str]) -> str:
        """What macros, blocks and {% set %} hold."""
        listed = list(pieces)
        budget().fits(sum(map(len, listed)))
        text: str = budget().made(given.join(listed))
        return text

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree: nodes.Template = _Counting().visit(super()._parse(source, name, filename))
        return tree

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        budget().tick()
        check_operation(operator, left, right)
        made = budget().made(super().call_binop(context, operator, left, right))
        return made if operator == "+" or not budget().marked else given.derived(made, left, right)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        wrapped: Callable[..., str] | None = super().wrap_str_format(value)
        if wrapped is None:
            return None

        def call(*args: Any, **kwargs: Any) -> str:
            values = [inner for v in args for inner in (v.values() if isinstance(v, dict) else [v])]
            check_format(str(value.__self__), [*values, *kwargs.values()])
            return wrapped(*args, **kwargs)

        return call

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        budget().tick()
        args = check_call(__obj, args, kwargs)
        made = budget().made(super().call(__context, __obj, *args, **kwargs))
        if not budget().marked or type(made) is not str:
            return made
        of, name = getattr(__obj, "__self__", None), getattr(__obj, "__name__", "")
        if type(of) is str and name == "join" and args:
            return given.join(args[0], of)
        own = {key: value for key, value in kwargs.items() if key not in ("_loop_vars", "_block_vars")}  # Jinja's
        if type(of) is str and name == "replace" and not own:
            return given.replaced(of, *args)
        return made if isinstance(__obj, Macro) else given.derived(made, of, args, own)


class _Counting(NodeTransformer):
    """Puts calls of the environment where values are made and loops turn."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(_call("tick", [], node), lineno=node.lineno))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _call("joined", node.nodes, node)

    def visit_List(self, node: nodes.Expr) -> nodes.Node:
        self.generic_visit(node)
        return _call("made", [node], node)

    visit_Dict = visit_List

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        self.generic_visit(node)
        return node if node.ctx == "store" else _call("made", [node], node)

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        return _call("made", [node], node) if isinstance(node.arg, nodes.Slice) else node


def _call(name: str, arguments: list[nodes.Expr], at: nodes.Node) -> nodes.Call:
    function = nodes.EnvironmentAttribute(name, lineno=at.lineno)
    return nodes.Call(function, arguments, [], None, None, lineno=at.lineno)


class _Generation(Extension):
    """{% generation %} marks what an assistant said, for training; here it is its content."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_content"), [], [], body).set_lineno(line)

    def _content(self, caller: Macro) -> str:
        text: str = caller()
        return text


class _Dict:
    """dict(), and nothing else of the type."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


class _Namespace(Namespace):
    """The one thing that a template may change. It prints as nothing of what it holds, which may hold itself."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, *given = args
        attributes = dict(*given, **kwargs)
        for name in attributes:
            _check_attribute(name)
        Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_attribute(name)
        super().__setitem__(name, value)

    def __repr__(self) -> str:
        return "<Namespace>"


def _check_attribute(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"expected attributes of a namespace without a first underscore, found {name!r}")


def _refuse(reason: Any) -> None:
    raise RefusedError(str(reason)[:1000])


def _now(form: str) -> str:
    if len(form) > 256:
        raise BudgetError(f"expected a time's format of at most 256 characters, found {len(form)}")
    return datetime.now().strftime(form)


@pass_context
def _printed(context: Context, value: Any) -> str:
    """Every {{ value }}. That it wants the context keeps Jinja from working values out while it compiles."""
    budget().tick()
    budget().extent(value)
    text: str = budget().made(_spelled(value))
    return text


def _spelled(value: Any) -> str:
    if isinstance(value, str):
        return value
    text: str = given.derived(str(value), value) if budget().marked else str(value)
    return text


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """JSON as it is, where Jinja's own filter escapes HTML."""
    for size in (indent, *(map(len, separators or ()))):
        if (len(size) if isinstance(size, str) else size or 0) > _MOST_INDENT:
            raise BudgetError(f"expected indents and separators of at most {_MOST_INDENT} characters, found more")
    options: dict[str, Any] = {"ensure_ascii": ensure_ascii, "indent": indent, "sort_keys": sort_keys}
    encoder = json.JSONEncoder(separators=separators, **options)
    if indent is None:
        return encoder.encode(value)
    pieces, size = [], 0
    for piece in encoder.iterencode(value):
        budget().tick()
        size += len(piece)
        budget().fits(size)
        pieces.append(piece)
    return "".join(pieces)


def _counted(function: Any) -> Callable[..., Any]:
    """The test: a filter may ask it of each entry."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        budget().tick()
        return function(*args, **kwargs)

    return call


def _bounded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The filter, with what goes in and comes out counted."""
    own = 1 if hasattr(function, "jinja_pass_arg") else 0  # a context or the like comes before the value
    check = FILTERS.get(name)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        budget().tick()
        values = args[own:]
        for value in (*values, *kwargs.values()):
            budget().extent(value)
        if name in ("join", "sum") and values:
            separator = values[1] if len(values) > 1 else kwargs.get("d", "")
            values = (check_join(separator if name == "join" else "", values[0]), *values[1:])
        if check is not None:
            check(*values, **kwargs)
        made = budget().made(function(*args[:own], *values, **kwargs))
        return _tracked(name, made, values, kwargs) if budget().marked and isinstance(made, str) else made

    return call


def _tracked(name: str, made: str, values: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """What a filter made, and of it what is given. A mistake here is found where the text in all is compared."""
    exact = made
    if name == "join":
        separator = values[1] if len(values) > 1 else kwargs.get("d", "")
        exact = given.join(map(_spelled, values[0]), _spelled(separator))
    elif name == "replace" and len(values) > 2:
        exact = given.replaced(_spelled(values[0]), _spelled(values[1]), _spelled(values[2]))
    elif name == "safe" and isinstance(values[0], given.Given):
        exact = values[0]
    if exact is not made and exact == made:
        return exact
    if isinstance(made, given.Given):
        return made if name in _EXACT else given.Given(made)
    if type(made) is not str:  # Markup, which escapes what is added to it
        budget().lost |= given.holds((values, kwargs))
        return made
    tracked: str = given.derived(made, values, kwargs)
    return tracked
