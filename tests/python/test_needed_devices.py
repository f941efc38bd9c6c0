"""FOUNDRY_NEEDS_DEVICES: a run that must have a device is red without it, where it would skip what is about it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent


@pytest.mark.parametrize(
    ("needed", "said"), [("cpu,reference", ""), ("cpu,a GPU", "expected the devices a GPU, found")]
)
def test_a_run_without_a_device_that_it_needs_is_red(needed: str, said: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "--collect-only", str(FOLDER / "test_needed_devices.py")]
    env = {**os.environ, "FOUNDRY_NEEDS_DEVICES": needed}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert (done.returncode == 0) == (said == "") and said in done.stdout + done.stderr
