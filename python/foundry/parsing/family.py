"""What there is to know of a family of models: how it writes calls and reasoning. ``families`` has the table."""

from __future__ import annotations

from dataclasses import dataclass

from foundry.parsing.forms import Form


@dataclass(frozen=True)
class Writing:
    """How a call is to be written where a grammar binds it: one of the ways that the family's parser reads.

    Attributes:
        call: $NAME, $ARGS and perhaps $INDEX are where the tool's name, its arguments and the call's number stand.
        before, between, after: around all calls.
        several: there may be more than one.
        parameter: of $ARGS, where they are no JSON object: one parameter, with $KEY, $VALUE and
            perhaps $IS_STRING or $TYPE.
        entities: in a parameter's key "&" and a quotation mark are written as XML has them.
        when: a string of the templates that want this way; the first that fits is taken.
    """

    call: str
    before: str = ""
    between: str = ""
    after: str = ""
    several: bool = True
    parameter: str = ""
    entities: bool = False
    when: str = ""


@dataclass(frozen=True)
class Family:
    """How a model writes.

    Attributes:
        name: of the table below; "plain" for a model that writes no calls.
        told_by: strings which a chat template of the family has, all of one of these groups.
        forms: of calls; each has a mark of its own.
        writings: the ways to bind them; the last one fits every template.
        closers: marks around calls that say nothing more.
        others: marks inside calls, which a vocabulary may have as control tokens too.
        frames: marks around the answer's text, which say nothing. The first one opens it, and ends what is before.
        reasoning: the marks around it; those that a template spells go before the family's own.
        calls_end_reasoning: a call inside of the reasoning is one, and ends it.
        id_length: letters and digits of a call's id, where the template wants no other; 0 for any.
    """

    name: str
    told_by: tuple[tuple[str, ...], ...] = ()
    forms: tuple[Form, ...] = ()
    writings: tuple[Writing, ...] = ()
    closers: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    frames: tuple[str, ...] = ()
    reasoning: tuple[str, str] | None = None
    calls_end_reasoning: bool = False
    id_length: int = 0
    harmony: bool = False

    @property
    def marks(self) -> tuple[str, ...]:
        """All of them, each as a token may spell it."""
        opens = [form.opens for form in self.forms if form.opens]
        return tuple(dict.fromkeys([*opens, *self.closers, *self.others, *self.frames, *(self.reasoning or ())]))
