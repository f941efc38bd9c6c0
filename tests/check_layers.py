"""Includes and imports point down the house: a file uses its own room and the rooms before it, never one after it.

Run from anywhere: `python tests/check_layers.py [root]`. Exit status 1 and one line a fault if a rule is broken.
The order, and the few rules beside it:

- C++: formats.def, metal/include, base, memory.h, formats, files, device.h, gguf, graph, kv, device, engine, bindings.
  `device/memory.h` and `device/device.h` are rungs of their own: they are the interface, kv speaks the one, and the
  weights and the engine the other.
  `formats/formats.def` lies below all: a table, which kernels and the core share, and which includes nothing.
- kv knows buffers, not models or graphs: it includes neither files, gguf nor graph.
- In the engine no two files are a knot: ENGINE_RUNGS is its own order.
- Outside the device room, these two are all that is seen of it, and kv sees `device/memory.h` alone. Inside, one
  device includes no other (reference, cpu, metal, cuda); gpu/ is what GPUs share, and the files directly in device/
  join them.
- Nothing in C++ follows the process's locale, which is the caller's: no streams, and no C functions for floats as text.
- Python: the list PYTHON_ORDER. A module that is not on it is a fault: give it its place.
  Imports under `if TYPE_CHECKING:` are names for the type checker, and free.
Tests and benches may include anything, and nothing of theirs may be included by the house.
"""

import ast
import re
import sys
from pathlib import Path

CPP_ORDER = [
    "formats.def",
    "metal/include",
    "base",
    "memory.h",
    "formats",
    "files",
    "device.h",
    "gguf",
    "graph",
    "kv",
    "device",
    "engine",
    "bindings",
]
CPP_FORBIDDEN = {"kv": {"files", "gguf", "graph", "device.h"}}
# The engine's own order: a file includes headers of its own rung and of those before. Generations are a session's.
ENGINE_RUNGS = [
    ["dry"],
    ["sampler", "weights", "step_plan"],
    ["logit_edits"],
    ["step", "request"],
    ["ahead"],
    ["scheduler", "scheduler_ahead"],
    ["model"],
    ["saved"],
    ["generation", "session", "batch"],
    ["embedding"],
]
PYTHON_ORDER = [
    "_core",
    "errors",
    "checks",
    "models",
    "files",
    "capacity",
    "machine",
    "hardware",
    "memory",
    "hub",
    "chat",
    "tokenizer",
    "parsing",
    "sampling",
    "structured",
    "answer",
    "generate",
    "choices",
    "asynchronous",
    "token_ids",
    "embedding",
    "session",
    "model",
    "contexts",
    "__init__",
    "server",
    "cli",
    "__main__",
]
OF_THE_LOCALE = re.compile(
    r"<(sstream|iostream|fstream|iomanip|locale|clocale)>|\b(strto(f|d|ld)|sto(f|d|ld)|sscanf|setlocale|is(alpha|alnum|space))\("
    r"|printf\([^;]*%[^;%]*[aefgAEFG]\b"
)
INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"')
SOURCES = {".h", ".cpp", ".inl", ".mm", ".cu", ".cuh", ".metal", ".def"}


def room_of(path: str) -> str | None:
    """The room of a path as an #include writes it ("kv/kv.h", "params.h"); None if it is in none."""
    if path in ("device/device.h", "device/memory.h", "formats/formats.def"):
        return Path(path).name
    first, _, rest = path.partition("/")
    if not rest:
        return "metal/include"
    return first if first in CPP_ORDER else None


def device_of(path: str) -> str | None:
    """The device's name for device/<name>/..., None for the files directly in device/ and for other rooms."""
    parts = path.split("/")
    return parts[1] if parts[0] == "device" and len(parts) > 2 else None


def engine_fault(source: str, target: str) -> str | None:
    rung = {name: i for i, names in enumerate(ENGINE_RUNGS) for name in names}
    here, there = (Path(path).stem for path in (source, target))
    for name in (here, there):
        if name not in rung:
            return f"{name} has no place in ENGINE_RUNGS"
    return f"points up: {there} comes after {here}" if rung[there] > rung[here] else None


def include_fault(source: str, target: str) -> str | None:
    """Why `source` may not include `target`; both as an #include writes them. None when it may."""
    here, there = room_of(source), room_of(target)
    if here is None or there is None:
        return "is in no room of the house"
    if CPP_ORDER.index(there) > CPP_ORDER.index(here):
        return f"points up: {there} comes after {here}"
    if here == there == "engine":
        return engine_fault(source, target)
    if there in CPP_FORBIDDEN.get(here, set()):
        return f"{here} knows nothing of {there}"
    if there == "device" and here != "device":
        return "only device/device.h is seen outside the device room"
    shared = device_of(target) == "gpu" and device_of(source) in ("metal", "cuda")
    if device_of(source) and device_of(target) and device_of(source) != device_of(target) and not shared:
        return "one device uses another"
    return None


def cpp_faults(root: Path) -> list[str]:
    faults = []
    for base in (root / "cpp", root / "metal" / "include"):
        for file in sorted(base.rglob("*")):
            if file.suffix not in SOURCES:
                continue
            source = file.relative_to(base).as_posix()
            for number, line in enumerate(file.read_text().splitlines(), 1):
                if found := OF_THE_LOCALE.search(line):
                    faults.append(f"{file.relative_to(root)}:{number}: {found[0]}: follows the process's locale")
                match = INCLUDE.match(line)
                if not match:
                    continue
                target = match[1]
                beside = (file.parent / target).resolve()  # #include "kernels.inl", from the same folder
                if beside.is_file() and beside.is_relative_to(base.resolve()):
                    target = beside.relative_to(base.resolve()).as_posix()
                if fault := include_fault(source, target):
                    faults.append(f'{file.relative_to(root)}:{number}: "{match[1]}": {fault}')
    return faults


def imports_of(tree: ast.AST, package: list[str]) -> list[tuple[int, str]]:
    """(line, top module of foundry) of each import, those for the type checker left out."""
    found: list[tuple[int, str]] = []

    def add(line: int, dotted: list[str], names: list[str]) -> None:
        if dotted[:1] != ["foundry"]:
            return
        if len(dotted) > 1:
            found.append((line, dotted[1]))
        else:  # from foundry import a, b: a module each, or names that __init__ gives
            found.extend((line, name if name in PYTHON_ORDER else "__init__") for name in names)

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.orelse:
                visit(child)
            return
        if isinstance(node, ast.Import):
            for alias in node.names:
                dotted = alias.name.split(".")
                add(node.lineno, dotted, ["__init__"])
        elif isinstance(node, ast.ImportFrom):
            prefix = package[: len(package) - node.level + 1] if node.level else []
            dotted = prefix + (node.module.split(".") if node.module else [])
            add(node.lineno, dotted, [alias.name for alias in node.names])
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(tree)
    return found


def import_fault(here: str, there: str) -> str | None:
    for name in (here, there):
        if name not in PYTHON_ORDER:
            return f"{name} has no place in PYTHON_ORDER"
    if here == there:
        return None
    if PYTHON_ORDER.index(there) > PYTHON_ORDER.index(here):
        return f"points up: {there} comes after {here}"
    return None


def python_faults(root: Path) -> list[str]:
    faults = []
    base = root / "python" / "foundry"
    for file in sorted(base.rglob("*.py")):
        parts = file.relative_to(base).with_suffix("").parts
        package = ["foundry", *parts[:-1]]
        where = file.relative_to(root)
        if parts[0] not in PYTHON_ORDER:
            faults.append(f"{where}: {parts[0]} has no place in PYTHON_ORDER")
        for line, there in imports_of(ast.parse(file.read_text()), package):
            if fault := import_fault(parts[0], there):
                faults.append(f"{where}:{line}: {there}: {fault}")
    return faults


def main() -> int:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent
    faults = cpp_faults(root) + python_faults(root)
    for fault in faults:
        print(fault)
    print(f"layers: {len(faults)} faults" if faults else "layers: every include and import points down")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
