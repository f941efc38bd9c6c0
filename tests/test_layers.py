"""The house's order holds, and the check that says so sees what it should."""

from pathlib import Path

import check_layers
import pytest

ROOT = Path(__file__).resolve().parent.parent


def test_the_house_holds() -> None:
    assert check_layers.cpp_faults(ROOT) + check_layers.python_faults(ROOT) == []


@pytest.mark.parametrize(
    ("file", "line", "fault"),
    [
        ("cpp/base/a.h", '#include "kv/kv.h"', "points up"),
        ("metal/include/a.h", '#include "base/error.h"', "points up"),
        ("cpp/base/a.h", '#include "formats/dtype.h"', "points up"),
        ("metal/include/a.h", '#include "formats/dtype.h"', "points up"),
        ("cpp/formats/formats.def", '#include "params.h"', "points up"),
        ("cpp/formats/a.h", '#include "gguf/gguf.h"', "points up"),
        ("cpp/kv/a.h", '#include "graph/graph.h"', "knows nothing of graph"),
        ("cpp/kv/a.h", '#include "device/device.h"', "knows nothing of device.h"),
        ("cpp/engine/a.cpp", '#  include "device/cpu/cpu_device.h"', "only device/device.h"),
        ("cpp/device/cpu/a.cpp", '#include "device/reference/ops.h"', "one device uses another"),
        ("cpp/kv/a.cpp", '#include "elsewhere/a.h"', "in no room"),
        ("cpp/engine/model.cpp", '#include "engine/session.h"', "session comes after model"),
        ("cpp/engine/scheduler.h", '#include "engine/model.h"', "model comes after scheduler"),
        ("cpp/engine/new.cpp", '#include "engine/model.h"', "no place in ENGINE_RUNGS"),
        ("cpp/base/a.cpp", "#include <sstream>", "locale"),
        ("cpp/base/a.cpp", "const float x = std::strtof(text, &end);", "locale"),
        ("cpp/base/a.cpp", 'std::snprintf(text, sizeof text, "%.3g", x);', "locale"),
        ("python/foundry/session.py", "from foundry.model import CompiledModel", "points up"),
        ("python/foundry/capacity.py", "from foundry.session import Session", "points up"),
        ("python/foundry/capacity.py", "from . import session", "points up"),
        ("python/foundry/models/llama.py", "from ..cli import main", "points up"),
        ("python/foundry/chat.py", "def f():\n    import foundry.model", "points up"),
        ("python/foundry/novelty.py", "", "has no place"),
    ],
)
def test_a_planted_fault_is_found(tmp_path: Path, file: str, line: str, fault: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(line + "\n")
    faults = check_layers.cpp_faults(tmp_path) + check_layers.python_faults(tmp_path)
    assert len(faults) == 1 and fault in faults[0]


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("cpp/kv/a.h", '#include "device/memory.h"'),
        ("cpp/engine/step.h", '#include "device/device.h"'),
        ("cpp/device/cpu/a.cpp", '#include "formats/dtype.h"'),
        ("metal/include/a.h", '#include "formats/formats.def"'),
        ("cpp/device/registry.cpp", '#include "device/cpu/cpu_device.h"'),
        ("cpp/engine/a.cpp", "#include <engine/anything.h>"),
        ("cpp/engine/session.cpp", '#include "engine/scheduler.h"'),
        ("python/foundry/model.py", "from foundry.session import Session"),
        (
            "python/foundry/chat.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from foundry.model import CompiledModel",
        ),
        ("python/foundry/cli/plan.py", "from ..memory import MemoryPlan\nfrom foundry import CompiledModel"),
    ],
)
def test_what_points_down_is_free(tmp_path: Path, file: str, line: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(line + "\n")
    assert check_layers.cpp_faults(tmp_path) + check_layers.python_faults(tmp_path) == []
