"""The C++ tests, so that `python -m pytest` runs everything: configure and build the dev preset, then ctest."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# cmake, ctest and ninja come with the test extra, beside this interpreter, whether or not its venv is activated.
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def run(*command: str) -> str:
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PATH": PATH}, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if done.returncode != 0:
        pytest.fail(f"{' '.join(command)} exited with {done.returncode}\n{done.stdout[-8000:]}", pytrace=False)
    return done.stdout


def test_cpp_tests_pass() -> None:
    for tool in ("cmake", "ctest", "ninja"):
        assert shutil.which(tool, path=PATH), f"{tool} is missing: pip install '.[test]'"
    run("cmake", "--preset", "dev")
    run("cmake", "--build", "--preset", "dev")
    at_once = str(os.cpu_count() or 1)
    assert "100% tests passed" in run("ctest", "--preset", "dev", "--no-tests=error", "--parallel", at_once)
