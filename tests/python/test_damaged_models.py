"""The fuzzer of whole model files: a few of its variants, and that it counts what it is there to find."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "fuzz" / "damaged_models.py"
PLANTED = """
import os, signal, sys, time
sys.path.insert(0, {folder!r})
import damaged_models
damaged_models.__file__ = __file__
damaged_models.SECONDS = 2
tried = []

def attempt(path):
    tried.append(path)
    if len(tried) == 2:
        raise ValueError("planted")
    if len(tried) == 3:
        {planted}
    return "works"

damaged_models.attempt = attempt
sys.exit(damaged_models.main())
"""


def run(script: Path, count: int) -> tuple[int, str]:
    command = [sys.executable, str(script), "--count", str(count), "--jobs", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    return done.returncode, done.stdout + done.stderr


def test_damaged_files_work_or_are_refused() -> None:
    status, said = run(SCRIPT, 80)
    assert status == 0 and "damaged models: 80 tried, 0 failed" in said, said


@pytest.mark.parametrize(
    "planted",
    [
        "os.kill(os.getpid(), signal.SIGSEGV)",
        pytest.param("time.sleep(100)", marks=pytest.mark.slow),
        pytest.param("os._exit(0)", marks=pytest.mark.slow),
    ],
)
def test_crashes_hangs_and_other_errors_are_counted(tmp_path: Path, planted: str) -> None:
    script = tmp_path / "planted.py"
    script.write_text(PLANTED.format(folder=str(SCRIPT.parent), planted=planted))
    status, said = run(script, 5)  # of the first worker the second and third fail, of the next one its second
    assert status == 1 and "damaged models: 5 tried, 3 failed" in said, said
    assert [line.split()[1] for line in said.splitlines() if line.startswith("FAILED ")] == ["1", "2", "4"]
