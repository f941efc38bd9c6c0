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
- glm: the templates of GLM-4.5 to 4.7; kimi: of Kimi-K2; kimi-k3: of Kimi-K3; functionary: of functionary-medium-v3.1;
  nemotron: of Nemotron-Nano-v2; apriel: of Apriel-1.6; minimax: of MiniMax-M2; minimax-m1: of MiniMax-M1
- cohere: docs.cohere.com and the templates of Command R7B, Command A and later; command-r: of Command R and R+
- pythonic, olmo, lfm2: see ``pythonic``
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from foundry.parsing import harmony
from foundry.parsing.braces import BracesForm
from foundry.parsing.family import Family, Writing
from foundry.parsing.forms import BareForm, EitherForm, JsonForm, NamedForm, TaggedForm
from foundry.parsing.pythonic import PythonicForm

_BARE = BareForm((("{", JsonForm("", more=";")), ("[", PythonicForm(""))))
_NAMED = '{"name": "$NAME", "arguments": $ARGS}'
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
_QWEN_CALL = "<function=$NAME>\n$ARGS</function>"
_QWEN_PARAMETER = "<parameter=$KEY>\n$VALUE\n</parameter>\n"
_GLM_PARAMETER = "<arg_key>$KEY</arg_key>\n<arg_value>$VALUE</arg_value>\n"


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


def _dsml_writing(space: str, calls: str) -> Writing:
    tag = "｜DSML｜" + space
    return Writing(
        f'<{tag}invoke name="$NAME">\n$ARGS</{tag}invoke>\n',
        before=f"<{tag}{calls}>\n",
        after=f"</{tag}{calls}>",
        parameter=f'<{tag}parameter name="$KEY" string="$IS_STRING">$VALUE</{tag}parameter>\n',
        when=f"{tag}{calls}",
    )


# A template is of the first one that it tells of: those whose marks are part of another's come later.
FAMILIES: Sequence[Family] = (
    Family(
        "harmony",
        (("<|channel|>", "<|message|>", "<|start|>"),),
        writings=(
            Writing("<|channel|>commentary to=functions.$NAME <|constrain|>json<|message|>$ARGS", several=False),
        ),
        others=harmony.MARKS,
        harmony=True,
    ),
    Family(
        "gemma",
        (("<|tool_call>",),),
        (BracesForm("<|tool_call>", '<|"|>'),),
        (Writing("<|tool_call>call:$NAME$ARGS<tool_call|>"),),
        closers=("<tool_call|>",),
        others=('<|"|>', "<|channel>", "<channel|>"),
    ),
    Family(
        "functiongemma",
        (("<start_function_call>",),),
        (BracesForm("<start_function_call>", "<escape>"),),
        (Writing("<start_function_call>call:$NAME$ARGS<end_function_call>"),),
        closers=("<end_function_call>",),
        others=("<escape>",),
    ),
    Family(
        "deepseek-dsml",
        (("｜DSML｜",),),
        (_dsml(""), _dsml(" ")),
        (_dsml_writing("", "function_calls"), _dsml_writing(" ", "calls"), _dsml_writing("", "tool_calls")),
        closers=tuple(
            f"<{end}｜DSML｜{name}>" for name in ("function_calls", "tool_calls", " calls") for end in ("", "/")
        ),
        others=("｜DSML｜",),
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
        (
            Writing(
                "<｜tool▁call▁begin｜>function<｜tool▁sep｜>$NAME\n```json\n$ARGS\n```<｜tool▁call▁end｜>",
                before="<｜tool▁calls▁begin｜>",
                between="\n",
                after="<｜tool▁calls▁end｜>",
                when="```json",
            ),
            Writing(
                "<｜tool▁call▁begin｜>$NAME<｜tool▁sep｜>$ARGS<｜tool▁call▁end｜>",
                before="<｜tool▁calls▁begin｜>",
                after="<｜tool▁calls▁end｜>",
            ),
        ),
        closers=_DEEPSEEK,
        others=("<｜tool▁sep｜>",),
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
        (
            Writing(
                "<|tool_call_begin|>functions.$NAME:$INDEX<|tool_call_argument_begin|>$ARGS<|tool_call_end|>",
                before="<|tool_calls_section_begin|>",
                after="<|tool_calls_section_end|>",
            ),
        ),
        closers=_KIMI,
        others=("<|tool_call_argument_begin|>",),
    ),
    Family(
        "kimi-k3",
        (("<|open|>", "<|close|>", "<|sep|>"),),
        (
            TaggedForm(
                opens="<|open|>call",
                lead='tool="',
                name_end='"',
                head_end="<|sep|>",
                parameter="<|open|>argument",
                key=r'\s*key="(?P<key>[^"]*)"(?:\s+type="(?P<type>\w+)")?',
                key_end="<|sep|>",
                value_end="<|close|>argument<|sep|>",
                close="<|close|>call<|sep|>",
                entities=True,
            ),
        ),
        (
            Writing(
                '<|open|>call tool="$NAME" index="$INDEX"<|sep|>$ARGS<|close|>call<|sep|>',
                before="<|open|>response<|sep|><|close|>response<|sep|><|open|>tools<|sep|>",
                after="<|close|>tools<|sep|>",
                parameter='<|open|>argument key="$KEY" type="$TYPE"<|sep|>$VALUE<|close|>argument<|sep|>',
                entities=True,
            ),
        ),
        closers=("<|open|>tools<|sep|>", "<|close|>tools<|sep|>"),
        others=("<|open|>", "<|close|>", "<|sep|>"),
        frames=("<|open|>response<|sep|>", "<|close|>response<|sep|>", "<|close|>message<|sep|>"),
        reasoning=("<|open|>think<|sep|>", "<|close|>think<|sep|>"),  # its template puts them together
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
        (Writing("[TOOL_CALLS]$NAME[ARGS]$ARGS", when="[ARGS]"), Writing(_NAMED, "[TOOL_CALLS][", ", ", "]")),
        others=("[ARGS]", "[CALL_ID]", "[THINK]", "[/THINK]"),
        id_length=9,
    ),
    Family(
        "qwen-xml",
        (("<function=", "<parameter="),),
        (_QWEN, replace(_QWEN, opens="<function=", lead="")),
        (
            Writing(
                f"<seed:tool_call>\n{_QWEN_CALL}\n</seed:tool_call>",
                between="\n",
                parameter="<parameter=$KEY>$VALUE</parameter>\n",
                when="<seed:tool_call>",
            ),
            Writing(f"<tool_call>\n{_QWEN_CALL}\n</tool_call>", between="\n", parameter=_QWEN_PARAMETER),
        ),
        closers=("</tool_call>", "<seed:tool_call>", "</seed:tool_call>"),
        calls_end_reasoning=True,
    ),
    Family(
        "functionary",
        (("<function=", "</function>"),),
        (NamedForm("<function=", r"(?P<name>[^\s<>{}]+)>\s*"),),
        (Writing("<function=$NAME>$ARGS</function>"),),
        closers=("</function>",),
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
        (
            Writing(
                "<tool_call>$NAME\n$ARGS</tool_call>", between="\n", parameter=_GLM_PARAMETER, when="</arg_key>\\n"
            ),
            Writing("<tool_call>$NAME$ARGS</tool_call>", parameter=_GLM_PARAMETER.replace("\n", "")),
        ),
        others=("</tool_call>", "</arg_key>", "<arg_value>", "</arg_value>"),
    ),
    Family(
        "granite",
        (("<|tool_call|>",),),
        (JsonForm("<|tool_call|>"), JsonForm("<tool_call>")),
        (Writing(_NAMED, "<|tool_call|>[", ", ", "]"),),
        closers=("</tool_call>",),
    ),
    Family(
        "nemotron",
        (("<TOOLCALL>",),),
        (JsonForm("<TOOLCALL>"),),
        (Writing(_NAMED, "<TOOLCALL>[", ", ", "]</TOOLCALL>"),),
        closers=("</TOOLCALL>",),
    ),
    Family(
        "minimax-m1",
        (("<tool_calls>", "<beginning_of_sentence>"),),
        (JsonForm("<tool_calls>", follows=True),),
        (Writing(_NAMED, "<tool_calls>\n", "\n", "\n</tool_calls>"),),
        closers=("</tool_calls>",),
        reasoning=("<think>", "</think>"),  # which its template has no need to spell
    ),
    Family(
        "apriel",
        (("<tool_calls>",),),
        (JsonForm("<tool_calls>"),),
        (Writing(_NAMED, "<tool_calls>[", ", ", "]</tool_calls>"),),
        closers=("</tool_calls>",),
    ),
    Family(
        "hermes",
        (("<tool_call>",),),
        (JsonForm("<tool_call>"),),
        (Writing(f"<tool_call>\n{_NAMED}\n</tool_call>", between="\n"),),
        closers=("</tool_call>",),
    ),
    Family(
        "cohere",
        (("<|START_ACTION|>",),),
        (JsonForm("<|START_ACTION|>", name="tool_name", id="tool_call_id"),),
        (
            Writing(
                '{"tool_call_id": "$INDEX", "tool_name": "$NAME", "parameters": $ARGS}',
                before="<|START_ACTION|>[\n    ",
                between=",\n    ",
                after="\n]<|END_ACTION|>",
            ),
        ),
        closers=("<|END_ACTION|>",),
    ),
    Family(
        "command-r",
        (("Action:", "```json", "tool_name"),),
        tuple(JsonForm(f"Action:{space}```json", name="tool_name", tail="```") for space in (" ", "", "\n")),
        (
            Writing(
                '{"tool_name": "$NAME", "parameters": $ARGS}',
                before="Action: ```json\n[\n    ",
                between=",\n    ",
                after="\n]```",
            ),
        ),
    ),
    Family(
        "minimax",
        (("minimax:tool_call",),),
        (
            TaggedForm(
                opens="<invoke",
                lead='name="',
                name_end='"',
                empty="/>",
                parameter="<parameter",
                key=r'\s*name="(?P<key>[^"]*)"',
                key_end=">",
                value_end="</parameter>",
                close="</invoke>",
            ),
        ),
        (
            Writing(
                '<invoke name="$NAME">\n$ARGS</invoke>\n',
                before="<minimax:tool_call>\n",
                after="</minimax:tool_call>",
                parameter='<parameter name="$KEY">$VALUE</parameter>\n',
            ),
        ),
        closers=("<minimax:tool_call>", "</minimax:tool_call>"),
        calls_end_reasoning=True,
    ),
    Family(
        "olmo",
        (("<functions>", "<function_calls>"),),
        (PythonicForm("<function_calls>", listed=False),),
        (Writing("$NAME($ARGS)", "<function_calls>", "\n", "</function_calls>"),),
        closers=("</function_calls>",),
    ),
    Family(
        "lfm2",
        (("<|tool_call_start|>",),),
        (PythonicForm("<|tool_call_start|>"),),
        (Writing("$NAME($ARGS)", "<|tool_call_start|>[", ", ", "]<|tool_call_end|>"),),
        closers=("<|tool_call_end|>",),
    ),
    Family(
        "pythonic",
        (("[func_name1(",), ("<|python_start|>", "(params")),
        (PythonicForm("<|python_start|>"), _BARE),
        (Writing("$NAME($ARGS)", "[", ", ", "]"),),
        closers=("<|python_end|>",),
    ),
    Family(
        "llama",
        (("<|python_tag|>",), ('"parameters": dictionary of argument name',)),
        (JsonForm("<|python_tag|>", more=";"), PythonicForm("<|python_start|>"), _BARE),
        (Writing('{"name": "$NAME", "parameters": $ARGS}', several=False),),
        closers=("<|python_end|>",),
    ),
)
# Its template knows nothing of tools: somebody may have told the model of them, and a grammar may bind it.
PLAIN = Family("plain", forms=(BareForm((("{", JsonForm("", more=";")),)),), writings=(Writing(_NAMED, several=False),))
# The marks around reasoning; a template has one of them where it parts an earlier answer's, or begins one.
REASONING: Sequence[tuple[str, str]] = (
    ("<|channel>thought", "<channel|>"),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<seed:think>", "</seed:think>"),
    ("<think>", "</think>"),
)


def family_named(name: str) -> Family:
    """Raises ValueError for a name that is not in the table."""
    for family in (*FAMILIES, PLAIN):
        if family.name == name:
            return family
    raise ValueError(f"family: expected one of {', '.join(one.name for one in (*FAMILIES, PLAIN))}, found {name!r}")


def family_of(template: str | None) -> Family:
    """Whose marks a chat template spells, with its reasoning's, and the one way of writing calls that it wants."""
    if template is None:
        return PLAIN
    told = (one for one in FAMILIES if any(all(mark in template for mark in group) for group in one.told_by))
    family = next(told, PLAIN)
    writing = next((one for one in family.writings if one.when in template), family.writings[-1])
    reasoning = None if family.harmony else _reasoning(template, family)
    return replace(family, writings=(writing,), reasoning=reasoning)


def _reasoning(template: str, family: Family) -> tuple[str, str] | None:
    return next((pair for pair in REASONING if any(mark in template for mark in pair)), family.reasoning)
