"""The requirements can be installed on every Python that pyproject.toml names."""

from __future__ import annotations

import re
import subprocess
import venv
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
VERSIONS = re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text())


def required(version: str) -> list[str]:
    """Return what both files of requirements ask for on that Python."""
    lines = [line for name in ("", "-dev") for line in (ROOT / f"requirements{name}.txt").read_text().splitlines()]
    found = [Requirement(line) for text in lines if (line := text.partition("#")[0].strip()) and not line.startswith("-r")]
    return [f"{r.name}{r.specifier}" for r in found if r.marker is None or r.marker.evaluate({"python_version": version})]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an interpreter with a current pip: before 23.3 it downloads every package in order to resolve."""
    folder = tmp_path_factory.mktemp("pip") / "venv"
    venv.create(folder, with_pip=True)
    subprocess.run([folder / "bin/python", "-m", "pip", "install", "--quiet", "--upgrade", "pip"], check=True)
    return folder / "bin/python"


@pytest.mark.long
@pytest.mark.parametrize("version", VERSIONS)
def test_requirements_resolve(python: Path, version: str, tmp_path: Path) -> None:
    """Every package has a wheel for that Python, of versions that agree.

    pip evaluates the markers of what a package requires in turn on the Python that it runs on: it has no option for them.
    """
    options = ["--dry-run", "--ignore-installed", "--only-binary=:all:", "--python-version", version, "--target", str(tmp_path)]
    command = [python, "-m", "pip", "install", "--quiet", *options, *required(version)]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
