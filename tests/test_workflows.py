"""The workflows, as far as they can be checked from here: machines in service, nothing taken on trust."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
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
