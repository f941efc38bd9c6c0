"""README's table of what is supported, from the results of ``tests/python/test_support.py``.

python tests/support_table.py                      runs these tests and writes the table
python tests/support_table.py RESULTS.xml...       writes it from results of ``pytest -m "" --junit-xml``, such as
                                                   those of builds with other devices
python tests/support_table.py --check              fails where its rows are not those of formats.def and of the
                                                   architectures, or a cell has failed; runs nothing
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
BEGIN, END = "<!-- tests/support_table.py writes this -->", "<!-- to here -->"
FAMILY_COLUMNS = ("logits", "tokenizer", "template", "windows", "save", "fork")
FAILED, NONE = "failed", "–"


@dataclass
class Results:
    """Cells by (table, row, column): how much was compared, or None where something failed."""

    cells: dict[tuple[str, str, str], int | None] = field(default_factory=dict)

    def add(self, path: Path) -> None:
        for case in ElementTree.parse(path).iter("testcase"):
            noted = {one.get("name"): one.get("value") or "" for one in case.iter("property")}
            if "cell" not in noted or case.find("skipped") is not None:
                continue
            failed = case.find("failure") is not None or case.find("error") is not None
            for cell in noted["cell"].split(","):
                table, row, column = cell.split("|")
                before = self.cells.get((table, row, column), 0)
                sum_ = None if failed or before is None else before + int(noted["checked"])
                self.cells[table, row, column] = sum_

    def columns(self, table: str) -> list[str]:
        """Without the tests' own devices, which nobody has."""
        found = (column for of, _, column in self.cells if of == table)
        return [column for column in dict.fromkeys(found) if not column.startswith("shadow")]

    def shown(self, table: str, row: str, column: str) -> str:
        found = self.cells.get((table, row, column), 0)
        return FAILED if found is None else f"{found:,}" if found else NONE


def formats() -> list[str]:
    """As files name them, in the order of formats.def."""
    text = (ROOT / "cpp/formats/formats.def").read_text(encoding="utf-8")
    return re.findall(r"^  FORMAT\(\w+,\s*(\w+),", text, re.MULTILINE)


def architectures() -> list[str]:
    """The keys of the registry, read without importing what has to be built."""
    tree = ast.parse((ROOT / "python/foundry/models/__init__.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "architectures":
            return list(map(str, ast.literal_eval(ast.unparse(ast.List(node.value.keys, ast.Load())))))  # type: ignore[union-attr]
    raise ValueError("models/__init__.py: expected a dictionary architectures, found none")


def table_of(results: Results) -> str:
    devices = sorted(column for column in results.columns("formats") if column != "blocks")
    devices.sort(key=lambda device: (device != "reference", device))
    lines = ["| weights | blocks | " + " | ".join(f"`{device}`" for device in devices) + " |"]
    lines.append("|---|" + "--:|" * (1 + len(devices)))
    for row in formats():
        lines.append(_line(row, (results.shown("formats", row, column) for column in ("blocks", *devices))))
    lines += ["", "| family | " + " | ".join(FAMILY_COLUMNS) + " |", "|---|" + "--:|" * len(FAMILY_COLUMNS)]
    for row in architectures():
        lines.append(_line(f"`{row}`", (results.shown("families", row, column) for column in FAMILY_COLUMNS)))
    return "\n".join(lines)


def _line(name: str, cells: Iterable[str]) -> str:
    return f"| {name} | {' | '.join(cells)} |"


def fault_of(readme: str) -> str | None:
    """What is wrong with the table in README, None where it is current."""
    if readme.count(BEGIN) != 1 or readme.count(END) != 1:
        return f"README.md: expected {BEGIN} and {END} once, found no such place for the table of support"
    held = readme.partition(BEGIN)[2].partition(END)[0]
    rows = [line.split("|")[1].strip() for line in held.splitlines() if re.match(r"\| (`|[A-Z])", line)]
    found = [row.strip("`") for row in rows]
    expected = [*formats(), *architectures()]
    if found != expected:
        missing, extra = sorted({*expected} - {*found}), sorted({*found} - {*expected})
        return (
            f"README.md: the table of support lacks {', '.join(missing) or 'nothing'} and has"
            f" {', '.join(extra) or 'nothing'} too many: run python tests/support_table.py"
        )
    if FAILED in held:
        return "README.md: the table of support has a cell that failed"
    return None


def main(arguments: list[str]) -> int:
    readme = README.read_text(encoding="utf-8")
    if arguments == ["--check"]:
        fault = fault_of(readme)
        print(fault or "README's table has the formats and architectures that there are")
        return 0 if fault is None else 1
    results, status = Results(), 0
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(argument) for argument in arguments]
        if not paths:
            paths = [Path(folder) / "results.xml"]
            command = [sys.executable, "-m", "pytest", "-q", "-m", "", f"--junit-xml={paths[0]}"]
            status = subprocess.run(
                [*command, "-o", "junit_family=xunit1", ROOT / "tests/python/test_support.py"]
            ).returncode
        for path in paths:
            results.add(path)
    before, _, rest = readme.partition(BEGIN)
    _, _, behind = rest.partition(END)
    README.write_text(f"{before}{BEGIN}\n\n{table_of(results)}\n\n{END}{behind}", encoding="utf-8")
    return status or (1 if None in results.cells.values() else 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
