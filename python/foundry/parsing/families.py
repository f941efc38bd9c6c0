"""How families of models write calls and reasoning: a table of marks, and which family a chat template is of.

A template spells the marks that its model was trained to write; a family is told by them alone. The formats are those
of the families' own documents and chat templates:

- hermes: github.com/NousResearch/Hermes-Function-Calling; Qwen 2.5 and 3 (qwen.readthedocs.io, "Function Calling"),
  SmolLM3 and Granite 4 write the same
- qwen-xml: the templates of Qwen3-Coder and Qwen3.5
- llama: llama.com/docs/model-cards-and-prompt-formats, Llama 3.1 to 3.3, "JSON based tool calling"
- mistral: docs.mistral.ai and mistral-common, tokenizers v3 (a JSON list), v11 and v13 (name and arguments); [THINK] of
  Magistral
- deepseek: the templates of DeepSeek-R1, V3 and V3.1; deepseek-dsml: V3.2 and V4
- gemma: ai.google.dev/gemma/docs, FunctionGemma and Gemma 4
- granite: ibm.com/granite/docs, 3.0 to 3.3
- harmony: see ``harmony``
- glm: the templates of GLM-4.5 to 4.7; kimi: of Kimi-K2; functionary: of functionary-medium-v3.1
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from foundry.parsing import harmony
from foundry.parsing.braces import BracesForm
from foundry.parsing.forms import EitherForm, Form, JsonForm, NamedForm, TaggedForm


@dataclass(frozen=True)
class Family:
    """How a model writes.

    Attributes:
        name: of the table below; "plain" for a model that writes no calls.
        told_by: strings which a chat template of the family has, all of one of these groups.
        forms: of calls; each has a mark of its own.
        closers: marks around calls that say nothing more.
        others: marks inside calls, which a vocabulary may have as control tokens too.
        reasoning: the marks around it.
        calls_end_reasoning: a call inside of the reasoning is one, and ends it.
        id_length: letters and digits of a call's id, where the template wants no other; 0 for any.
    """

    name: str
    told_by: tuple[tuple[str, ...], ...] = ()
    forms: tuple[Form, ...] = ()
    closers: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    reasoning: tuple[str, str] | None = None
    calls_end_reasoning: bool = False
    id_length: int = 0
    harmony: bool = False

    @property
    def marks(self) -> tuple[str, ...]:
        """All of them, each as a token may spell it."""
        opens = [form.opens for form in self.forms if form.opens]
        return tuple(dict.fromkeys([*opens, *self.closers, *self.others, *(self.reasoning or ())]))


_DEEPSEEK = ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁end｜>", "<｜tool▁outputs▁begin｜>")
_KIMI = ("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>", "<|tool_call_end|>")
_QWEN = TaggedForm(
    opens="<tool_call>",
    lead="<function=",
    name_end=">",
    parameter="<parameter=",
    key=r"(?P<key>[^<>\n]+)",
    key_end=">",
    value_end="</parameter>",
    close="</function>",
    lines=True,
)


def _dsml(space: str) -> TaggedForm:
    tag = "｜DSML｜" + space
    return TaggedForm(
        opens=f"<{tag}invoke",
        lead='name="',
        name_end='"',
        empty="/>",
        parameter=f"<{tag}parameter",
        key=r'\s*name="(?P<key>[^"]*)"(?:\s+string="(?P<string>true|false)")?',
        key_end=">",
        value_end=f"</{tag}parameter>",
        close=f"</{tag}invoke>",
    )


# A template is of the first one that it tells of: those whose marks are part of another's come later.
FAMILIES: Sequence[Family] = (
    Family("harmony", (("<|channel|>", "<|message|>", "<|start|>"),), others=harmony.MARKS, harmony=True),
    Family(
        "gemma",
        (("<|tool_call>",),),
        (BracesForm("<|tool_call>", '<|"|>'),),
        ("<tool_call|>",),
        ('<|"|>', "<|channel>", "<channel|>"),
    ),
    Family(
        "functiongemma",
        (("<start_function_call>",),),
        (BracesForm("<start_function_call>", "<escape>"),),
        ("<end_function_call>",),
        ("<escape>",),
    ),
    Family(
        "deepseek-dsml",
        (("｜DSML｜",),),
        (_dsml(""), _dsml(" ")),
        tuple(f"<{end}｜DSML｜{name}>" for name in ("function_calls", "tool_calls", " calls") for end in ("", "/")),
        ("｜DSML｜",),
    ),
    Family(
        "deepseek",
        (("<｜tool▁call▁begin｜>",), ("<｜tool▁calls▁begin｜>",)),
        (
            NamedForm(
                opens="<｜tool▁call▁begin｜>",
                header=r"(?:function<｜tool▁sep｜>)?(?P<name>[^\s<｜`]+)(?:<｜tool▁sep｜>|\s*```(?:json)?)\s*",
                tail="```",
                marks=_DEEPSEEK,
            ),
        ),
        _DEEPSEEK,
        ("<｜tool▁sep｜>",),
    ),
    Family(
        "kimi",
        (("<|tool_call_begin|>",),),
        (
            NamedForm(
                opens="<|tool_call_begin|>",
                header=r"\s*(?P<id>(?:functions\.)?(?P<name>[^\s<|:]+)(?::\d+)?)\s*<\|tool_call_argument_begin\|>\s*",
                marks=_KIMI,
            ),
        ),
        _KIMI,
        ("<|tool_call_argument_begin|>",),
    ),
    Family(
        "mistral",
        (("[TOOL_CALLS]",),),
        (
            EitherForm(
                JsonForm("[TOOL_CALLS]"),
                NamedForm(
                    opens="[TOOL_CALLS]",
                    header=r"\s*(?P<name>[^\s\[\]{}]+)\s*(?:\[CALL_ID\](?P<id>\w+))?(?:\[ARGS\])?\s*",
                    marks=("[THINK]", "[/THINK]"),
                ),
            ),
        ),
        others=("[ARGS]", "[CALL_ID]", "[THINK]", "[/THINK]"),
        id_length=9,
    ),
    Family(
        "qwen-xml",
        (("<function=", "<parameter="),),
        (_QWEN, replace(_QWEN, opens="<function=", lead="")),
        ("</tool_call>",),
        calls_end_reasoning=True,
    ),
    Family(
        "functionary",
        (("<function=", "</function>"),),
        (NamedForm("<function=", r"(?P<name>[^\s<>{}]+)>\s*"),),
        ("</function>",),
        ("<|eom_id|>",),
    ),
    Family(
        "glm",
        (("<arg_key>",),),
        (
            TaggedForm(
                opens="<tool_call>",
                lead="",
                name_end="",
                name_ends=("\n", "<arg_key>"),
                parameter="<arg_key>",
                key=r"\s*(?P<key>[^<>]+?)\s*</arg_key>\s*",
                key_end="<arg_value>",
                value_end="</arg_value>",
                close="</tool_call>",
            ),
        ),
        others=("</tool_call>", "</arg_key>", "<arg_value>", "</arg_value>"),
    ),
    Family("granite", (("<|tool_call|>",),), (JsonForm("<|tool_call|>"), JsonForm("<tool_call>")), ("</tool_call>",)),
    Family("hermes", (("<tool_call>",),), (JsonForm("<tool_call>"),), ("</tool_call>",)),
    Family(
        "llama",
        (("<|python_tag|>",), ('"parameters": dictionary of argument name',)),
        (JsonForm("<|python_tag|>", more=";"), JsonForm("", more=";")),
    ),
)
PLAIN = Family("plain")
# The marks around reasoning; a template has one of them where it parts an earlier answer's, or begins one.
REASONING: Sequence[tuple[str, str]] = (
    ("<|channel>thought", "<channel|>"),
    ("[THINK]", "[/THINK]"),
    ("<think>", "</think>"),
)


def family_named(name: str) -> Family:
    """Raises ValueError for a name that is not in the table."""
    for family in (*FAMILIES, PLAIN):
        if family.name == name:
            return family
    raise ValueError(f"family: expected one of {', '.join(one.name for one in (*FAMILIES, PLAIN))}, found {name!r}")


def family_of(template: str | None) -> Family:
    """Whose marks a chat template spells, with its reasoning's."""
    if template is None:
        return PLAIN
    told = (one for one in FAMILIES if any(all(mark in template for mark in group) for group in one.told_by))
    family = next(told, PLAIN)
    if family.harmony:
        return family
    return replace(family, reasoning=next((pair for pair in REASONING if _spells(template, pair)), None))


def _spells(template: str, pair: tuple[str, str]) -> bool:
    return any(mark in template for mark in pair)
