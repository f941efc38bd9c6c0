"""Rewrites a .metal file for a C++ compiler: for the host (fibers), for CUDA, or for a check of address spaces.

    translate.py FILE.metal --target host|cuda|check -o OUT
    translate.py HEADER.h --target cuda -o OUT

Lines keep their numbers. Only what no macro can express is rewritten: `threadgroup` arrays in kernel bodies, function
constants, the attributes of kernel parameters (they become a table of bindings), and, for CUDA, the address spaces
themselves. MSL that is not ours (`foreign`) need not be in our dialect, and may have kernels in its headers.
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

BUILTINS = {
    "threadgroup_position_in_grid": "group",
    "thread_position_in_threadgroup": "thread_in_group",
    "thread_index_in_threadgroup": "thread_index",
    "thread_position_in_grid": "global",
    "threads_per_threadgroup": "group_size",
    "threadgroups_per_grid": "grid_size",
    "threads_per_grid": "grid_threads",
    "simdgroup_index_in_threadgroup": "simdgroup",
    "thread_index_in_simdgroup": "lane",
    "simdgroups_per_threadgroup": "simdgroups",
    "quadgroup_index_in_threadgroup": "quadgroup",
    "thread_index_in_quadgroup": "quad_lane",
}
MOST_BUFFERS = 31
ATTRIBUTE = r"\[\[\s*(\w+)\s*(?:\(\s*(\d+)\s*\))?\s*(,\s*function_constant\(\w+\)\s*)?\]\]"
SPACES = r"\b(?:device|constant|threadgroup|thread)\b"


class DialectError(Exception):
    """The file breaks a rule of the dialect; the message has file and line."""


@dataclass
class Kernel:
    name: str
    bindings: list[tuple[str, int]]  # kind, buffer index
    begin: int  # of its parameters
    parameters_end: int
    body: int
    end: int


@dataclass
class Source:
    path: Path
    text: str
    code: str = ""  # the text with comments and strings' insides blanked
    edits: list[tuple[int, int, str]] = field(default_factory=list)

    def fail(self, at: int, what: str) -> None:
        raise DialectError(f"{self.path}:{self.text.count(chr(10), 0, at) + 1}: {what}")

    def replace(self, begin: int, end: int, by: str) -> None:
        self.edits.append((begin, end, by + "\n" * self.text.count("\n", begin, end)))

    def edited(self) -> str:
        text = self.text
        for begin, end, by in sorted(self.edits, reverse=True):
            text = text[:begin] + by + text[end:]
        return text


def without_comments(text: str) -> str:
    return re.sub(r"//[^\n]*|/\*.*?\*/", lambda m: re.sub(r"[^\n]", " ", m[0]), text, flags=re.S)


def closing(source: Source, at: int) -> int:
    """Index of the bracket that closes the one at ``at``."""
    pairs = {"(": ")", "{": "}"}
    depth = 0
    for i in range(at, len(source.code)):
        if source.code[i] == source.code[at]:
            depth += 1
        elif source.code[i] == pairs[source.code[at]]:
            depth -= 1
            if depth == 0:
                return i
    source.fail(at, "a bracket that nothing closes")
    raise AssertionError


def parameters(code: str) -> list[str]:
    found, depth, current = [], 0, ""
    for character in code:
        depth += (character in "(<[") - (character in ")>]")
        if character == "," and depth == 0:
            found.append(current)
            current = ""
        else:
            current += character
    return [*found, current]


def kernels(source: Source, foreign: bool) -> list[Kernel]:
    found = []
    word = r"(?:\bkernel|\[\[\s*kernel\b[^\]]*\]\])" if foreign else r"\bkernel"
    for match in re.finditer(rf"{word}\s+void\s+(\w+)\s*\(", source.code):
        begin = match.end() - 1
        end = closing(source, begin)
        body = source.code.index("{", end)
        bindings: list[tuple[str, int]] = []
        for parameter in parameters(source.code[begin + 1 : end]):
            attribute = re.search(ATTRIBUTE, parameter)
            if attribute is None and foreign:  # MSL counts them
                bindings.append(("buffer", len(bindings)))
                continue
            if attribute is None:
                source.fail(begin, f"{match[1]}: a parameter without an attribute: {' '.join(parameter.split())}")
                raise AssertionError
            kind, index, needed = attribute[1], int(attribute[2] or 0), attribute[3] is None
            if kind == "buffer":
                if re.search(r"\b(device|constant)\b", parameter) is None:
                    source.fail(begin, f"{match[1]}: buffer({index}) is in neither device nor constant")
                if index >= MOST_BUFFERS or {("buffer", index), ("optional_buffer", index)}.intersection(bindings):
                    source.fail(begin, f"{match[1]}: buffer({index}) is past {MOST_BUFFERS - 1}, or bound twice")
                bindings.append(("buffer" if needed else "optional_buffer", index))
            elif kind == "threadgroup":
                bindings.append(("room", index))
            elif kind in BUILTINS:
                bindings.append((BUILTINS[kind], 0))
            else:
                source.fail(begin, f"{match[1]}: unknown attribute [[{kind}]]")
        found.append(Kernel(match[1], bindings, begin, end, body, closing(source, body)))
    return found


def lint_pointers(source: Source) -> None:
    """Every pointer and reference that is a parameter, a result, a variable or a member names its address space."""
    why = "a pointer or reference without an address space"
    for match in re.finditer(r"\b(?!(?:if|for|while|switch)\b)\w+\s*\(", source.code):
        end = closing(source, match.end() - 1)
        if re.compile(r"\s*(?:const\s*)?\{").match(source.code, end + 1) is None:
            continue  # not the parameters of a function with a body
        at = match.end()
        for parameter in parameters(source.code[at:end]):
            if re.search(r"[*&]", parameter.split("=")[0]) and not re.search(SPACES, parameter):
                source.fail(at + len(parameter) - len(parameter.lstrip()), why)
            at += len(parameter) + 1
    before = r"[;{}]\s*(?:template\s*<[^;{}]*?>\s*)?(?:(?:METAL_FUNC|static|constexpr|const)\s+)*"
    kind = r"(?!(?:return|else|case|using|typedef)\b)[A-Za-z_][\w:]*(?:<[^;{}()]*>)?(?:\s+const)?"
    for match in re.finditer(rf"{before}({kind}\s*[*&]+\s*(?:const\s+)?\w+\s*[=;(,])", source.code):
        source.fail(match.start(1), why)


def lint(source: Source, found: list[Kernel]) -> None:
    """Rules that Apple's compiler or another GPU would enforce later, or not at all."""
    rules = (
        (r"\bdouble\b", "double is no type of MSL"),
        (r"\bstd::", "no standard library here"),
        (r"\b\d+\.?\d*h\b", "no h literals: half(1.0f)"),
        (r"(?<![\w:.>])(?:exp|exp2|log|sin|cos|tanh)\s*\(", "say fast:: or precise::"),
        (r"\bthrow\b|\btry\b|\bnew\b", "no exceptions, no new"),
        (r"\[[&=]?\]\s*\(", "no lambdas"),
    )
    for pattern, why in rules:
        if source.path.suffix == ".h" and "std::" in pattern:
            continue  # headers that the host shares
        for match in re.finditer(pattern, source.code):
            source.fail(match.start(), why)
    for match in re.finditer(r"^[^#\n]*\bthreadgroup\s+[\w:<>, ]+?\s+\w+\s*\[[^\]]*\]\s*;", source.code, re.M):
        if not any(kernel.body < match.start() < kernel.end for kernel in found):
            source.fail(match.start(), "a threadgroup array outside a kernel's body")
    waits = [kernel for kernel in found if "WAIT_FOR_INPUTS()" in source.code[kernel.body : kernel.end]]
    if 0 < len(waits) < len(found):
        source.fail(waits[0].begin, "WAIT_FOR_INPUTS() in some kernels of a file: it is in all of them or in none")
    lint_pointers(source)


def threadgroup_arrays(source: Source, kernel: Kernel, target: str) -> None:
    pattern = r"\bthreadgroup\s+([\w:<>, ]+?)\s+(\w+)\s*((?:\[[^\]]*\]\s*)*);"
    for match in re.finditer(pattern, source.code[kernel.body : kernel.end]):
        at, (kind, name, sizes) = kernel.body + match.start(), match.groups()
        size = re.fullmatch(r"\[([^\]]*)\]\s*", sizes)
        if size is None:
            source.fail(at, "a threadgroup variable that is no array of one dimension")
            raise AssertionError
        by = {
            "host": f"{kind} (&{name})[{size[1]}] = *static_cast<{kind}(*)[{size[1]}]>("
            f"metal_host::threadgroup_memory({at}, sizeof({kind}) * ({size[1]}), alignof({kind})));",
            "cuda": f"__shared__ {kind} {name}[{size[1]}];",
            "check": f"static threadgroup {kind} {name}[{size[1]}];",
        }[target]
        source.replace(at, kernel.body + match.end(), by)


def without_attributes(source: Source, begin: int, end: int) -> None:
    """All but the declarations of function constants, which have their own rewriting."""
    for attribute in re.finditer(r"\[\[(?!\s*function_constant).*?\]\]", source.code[begin:end]):
        source.replace(begin + attribute.start(), begin + attribute.end(), "")


def function_constants(source: Source, target: str) -> None:
    pattern = r"^constant\s+(\w+)\s+(\w+)\s*\[\[\s*function_constant\((\d+)\)\s*\]\]\s*;"
    for match in re.finditer(pattern, source.code, re.M):
        kind, name, index = match.groups()
        by = {
            "host": f"static constexpr metal_host::Constant<{kind}, {index}> {name}{{}};",
            "cuda": f"static constexpr {kind} {name} = (FOUNDRY_CONSTANTS >> {index} & 1) != 0;",
            "check": f"extern constant {kind} {name};",
        }[target]
        source.replace(match.start(), match.end(), by)


def bindings_of(kernel: Kernel, target: str) -> str:
    if target == "cuda":
        listed = ", ".join(f"metal_cuda::Bind<metal_cuda::Kind::{kind}, {index}>" for kind, index in kernel.bindings)
        return f"using bindings_of_{kernel.name} = metal_cuda::Bindings<{listed}>;"
    listed = ", ".join(f"metal_host::Bind{{metal_host::Kind::{kind}, {index}}}" for kind, index in kernel.bindings)
    return f"static constexpr metal_host::Bind bindings_of_{kernel.name}[] = {{{listed}}};"


def translate(path: Path, target: str, foreign: bool = False) -> str:
    source = Source(path, path.read_text(encoding="utf-8"))
    source.code = without_comments(source.text)
    found = kernels(source, foreign)
    if not foreign:
        lint(source, found)
    function_constants(source, target)
    for kernel in found:
        threadgroup_arrays(source, kernel, target)
        without_attributes(source, kernel.begin, kernel.parameters_end)
    if foreign:  # helpers may have them too
        rest = [0, *(at for kernel in found for at in (kernel.begin, kernel.parameters_end)), len(source.code)]
        for begin, end in zip(rest[::2], rest[1::2], strict=True):
            without_attributes(source, begin, end)
    tables = [bindings_of(kernel, target) for kernel in found] if target != "check" else []
    if path.suffix == ".h":
        if target == "cuda":
            without_spaces(source)
        return "\n".join([*tables, f'#line 1 "{path.name}"', source.edited()]) if tables else source.edited()
    namespace = re.search(r"^using namespace metal;", source.code, re.M)
    if namespace is None:
        source.fail(0, "expected `using namespace metal;`")
        raise AssertionError
    tail = []
    if target != "check":
        source.replace(namespace.start(), namespace.end(), "namespace metal {")
        tail.append("}  // namespace metal")
    if target == "cuda":
        without_spaces(source)
    return "\n".join(["#include <metal_stdlib>", *tables, f'#line 1 "{path.name}"', source.edited(), *tail, ""])


def without_spaces(source: Source) -> None:
    """`device` and `constant` occur inside CUDA's own macros, so they can't be macros themselves."""
    taken = [(begin, end) for begin, end, _ in source.edits]
    for match in re.finditer(SPACES, source.code):
        line = source.code[source.code.rfind("\n", 0, match.start()) + 1 : match.start()]
        if not line.lstrip().startswith("#") and not any(b <= match.start() < e for b, e in taken):
            source.replace(match.start(), match.end(), "")
    for match in re.finditer(r"\bkernel\b(?=\s+void)", source.code):
        source.replace(match.start(), match.end(), "static __device__")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--target", choices=("host", "cuda", "check"), required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    try:
        text = translate(arguments.file, arguments.target)
    except DialectError as error:
        print(error, file=sys.stderr)
        return 1
    arguments.output.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
