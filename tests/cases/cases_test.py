"""The case table is well formed and covers what it promises."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import cases

OPS = {"embed", "rms_norm", "linear", "rope", "kv_append", "attention", "swiglu", "geglu", "add", "select_rows"}
OPS |= {"sample", "fused"}  # fused: linear with what GPUs run beside it
TYPES = {"f32", "f16", "bf16", "q4_0", "q4_1", "q8_0"}


def test_lists_multiply_and_parts_stay_together() -> None:
    expanded = cases.expand("bench linear rows=1,3 out=4+5 type=f32,f16  # why")
    assert [case.text for case in expanded] == [
        "linear rows=1 out=4+5 type=f32",
        "linear rows=1 out=4+5 type=f16",
        "linear rows=3 out=4+5 type=f32",
        "linear rows=3 out=4+5 type=f16",
    ]
    assert all(case.bench for case in expanded)


def test_every_op_is_covered_once() -> None:
    table = cases.load()
    assert {case.op for case in table} == OPS
    texts = [case.text for case in table]
    assert len(set(texts)) == len(texts), "a case stands in the table twice"


def test_linear_covers_types_rows_and_epilogues() -> None:
    linear = cases.load("linear")
    for kind in TYPES:
        of_kind = [case.settings for case in linear if case.settings["type"] == kind]
        assert {"1", "3", "17", "64"} <= {s["rows"] for s in of_kind}
        assert {("0", "0"), ("0", "1"), ("1", "0"), ("1", "1")} <= {(s.get("bias"), s.get("residual")) for s in of_kind}
        assert any("+" in s["out"] for s in of_kind)
        assert any(int(s["out"].split("+")[0]) % 16 for s in of_kind)


def test_attention_covers_groups_pages_windows_and_boundaries() -> None:
    attention = cases.load("attention")
    settings = [case.settings for case in attention]
    assert {1, 3, 4, 7} <= {int(s["heads"]) // int(s["kv_heads"]) for s in settings}
    assert {8, 24, 64, 80, 96, 128, 256} <= {int(s["head_dim"]) for s in settings}
    assert {8, 16, 64} <= {int(s["page_tokens"]) for s in settings}
    assert {(k, v) for k in ("q8_0", "q4_0", "f16") for v in ("q8_0", "q4_0", "f16")} <= {
        (s["k_type"], s["v_type"]) for s in settings
    }
    assert {"f32", "f16", "bf16"} <= {s["k_type"] for s in settings}
    assert any(int(s.get("window", 0)) not in (0, 256) for s in settings)
    assert any(len(case.sequences()) > 3 for case in attention)
    assert any(start < 256 < start + rows for case in attention for start, rows in case.sequences())
