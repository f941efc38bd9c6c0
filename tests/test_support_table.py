"""The check of README's table of support: it is current, and each way not to be is told."""

from __future__ import annotations

from pathlib import Path

import support_table
from support_table import BEGIN, END, Results, architectures, fault_of, formats, table_of

README = support_table.README.read_text(encoding="utf-8")


def test_the_readme_has_what_there_is() -> None:
    assert fault_of(README) is None
    assert {"F32", "Q4_K", "IQ4_XS"} < set(formats()) and {"llama", "qwen3"} < set(architectures())


def test_what_is_missing_or_too_much_is_told() -> None:
    begin = README.index("| Q4_K |")
    without = README[:begin] + README[README.index("\n", begin) + 1 :]
    assert "lacks Q4_K and has nothing too many" in (fault_of(without) or "")
    renamed = README.replace("| `qwen3` |", "| `qwen9` |")
    assert "lacks qwen3 and has qwen9 too many" in (fault_of(renamed) or "")
    assert "expected" in (fault_of(README.replace(BEGIN, "")) or "")
    row = README[begin : README.index("\n", begin)]
    assert "a cell that failed" in (fault_of(README.replace(row, row.rpartition("|")[0][:-3] + "failed |")) or "")
    assert fault_of(README.partition(BEGIN)[0] + BEGIN + END) is not None


def case(cell: str, checked: int | None = None, outcome: str = "") -> str:
    """A test's result, as pytest writes it."""
    noted = {"cell": cell} | ({} if checked is None else {"checked": str(checked)})
    properties = "".join(f'<property name="{name}" value="{value}"/>' for name, value in noted.items())
    return f"<testcase><properties>{properties}</properties>{outcome}</testcase>"


CASES = [
    case("formats|Q4_K|cpu", 75),
    case("families|llama|fork,families|qwen2|fork", 700),
    case("families|llama|fork", 800),
    case("families|qwen2|save", None, '<failure message="x"/>'),
    case("families|qwen2|save", 1),
    case("families|glm4|save", None, "<skipped/>"),
    '<testcase name="of something else"/>',
]


def test_cells_are_sums_and_one_failure_is_enough(tmp_path: Path) -> None:
    path = tmp_path / "results.xml"
    path.write_text(f"<testsuites><testsuite>{''.join(CASES)}</testsuite></testsuites>", encoding="utf-8")
    results = Results()
    results.add(path)
    lines = table_of(results).splitlines()
    assert "| weights | blocks | `cpu` |" in lines and "| Q4_K | – | 75 |" in lines and "| F32 | – | – |" in lines
    assert "| `llama` | – | – | – | – | – | 1,500 |" in lines
    assert "| `qwen2` | – | – | – | – | failed | 700 |" in lines
    assert "| `glm4` | – | – | – | – | – | – |" in lines
