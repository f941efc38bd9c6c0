"""The workflows, as far as they can be checked from here: machines in service, nothing taken on trust."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
METAL = ROOT / ".github" / "workflows" / "metal.yml"
# GitHub's hosted runners in November 2026 (github.com/actions/runner-images): macos-14 went that month.
IN_SERVICE = {"ubuntu-22.04", "ubuntu-24.04", "ubuntu-24.04-arm", "macos-15", "macos-26"}

pytestmark = pytest.mark.skipif(not FILES, reason="a source distribution has no workflows")


def jobs(path: Path) -> dict[str, dict[str, Any]]:
    return dict(yaml.safe_load(path.read_text())["jobs"])


def runners(job: dict[str, Any]) -> set[str]:
    """What a job may run on, its matrix spelled out; machines of one's own are left out."""
    on = job["runs-on"]
    if isinstance(on, list):
        return set()
    matrix = job.get("strategy", {}).get("matrix", {})
    listed = matrix.get("runner") or [leg["runner"] for leg in matrix.get("include", [])]
    return set(listed) if "matrix.runner" in on else {on}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_machines_are_in_service(path: Path) -> None:
    for name, job in jobs(path).items():
        assert runners(job) <= IN_SERVICE, name
        assert "timeout-minutes" in job or name == "actionlint", name


def test_builds_for_macs_are_for_macos_14_and_later() -> None:
    metal = yaml.safe_load((ROOT / ".github/workflows/metal.yml").read_text())
    assert metal["env"]["MACOSX_DEPLOYMENT_TARGET"] == "14.0"
    assert 'environment = { MACOSX_DEPLOYMENT_TARGET = "14.0" }' in (ROOT / "pyproject.toml").read_text()
    assert runners(metal["jobs"]["wheel"]) == {"macos-15", "macos-26"}
    assert "-framework CoreGraphics" in (ROOT / "cmake/metal.cmake").read_text()


def test_the_metal_jobs_fail_where_what_they_gate_is_not_there() -> None:
    of_job = {name: "\n".join(step.get("run", "") for step in job["steps"]) for name, job in jobs(METAL).items()}
    assert "FOUNDRY_NEEDS_METAL_COMPILER=1 .ci/metal_kernels" in of_job["wheel"]
    assert of_job["gate"].strip() == ".ci/mac_gpu"
    assert "FOUNDRY_METAL=metal:any .ci/mac_gpu" in of_job["hosted"]
    script = (ROOT / ".ci/mac_gpu").read_text()
    assert script.index("FOUNDRY_NEEDS_DEVICES=") < script.index("build/dev/foundry_tests") < script.index("pytest")


@pytest.mark.parametrize("needed", ["", "1"])
def test_a_mac_without_the_metal_compiler_is_told_so(tmp_path: Path, needed: str) -> None:
    xcrun = tmp_path / "xcrun"
    xcrun.write_text("#!/bin/sh\nexit 72\n")
    xcrun.chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "FOUNDRY_NEEDS_METAL_COMPILER": needed}
    done = subprocess.run([ROOT / ".ci/metal_kernels"], env=env, capture_output=True, text=True)
    assert done.stdout.startswith("no Metal compiler")
    assert done.returncode == (1 if needed else 0)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_an_upload_of_nothing_fails(path: Path) -> None:
    for job in jobs(path).values():
        for step in job["steps"]:
            if "upload-artifact" in step.get("uses", ""):
                assert step["with"]["if-no-files-found"] == "error"


def test_each_platform_builds_natively_and_the_newest_macos_is_tried() -> None:
    wheels = jobs(ROOT / ".github/workflows/wheels.yml")
    legs = wheels["wheels"]["strategy"]["matrix"]["include"]
    assert {leg["machine"] for leg in legs} == {"arm64", "x86_64", "aarch64"}
    assert runners(wheels["newest_macos"]) == {"macos-26"}


def test_the_wheels_that_are_counted_are_those_that_are_built() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/wheels.yml").read_text())
    build = re.search(r'^build = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert build is not None
    assert [f"{python}-*" for python in workflow["env"]["PYTHONS"].split()] == build[1].split()
