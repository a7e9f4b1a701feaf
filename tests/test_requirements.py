"""The requirements can be installed on every Python that pyproject.toml names."""

from __future__ import annotations

import re
import subprocess
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
VERSIONS = re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an interpreter with a current pip: before 23.3 it downloads every package in order to resolve."""
    folder = tmp_path_factory.mktemp("pip") / "venv"
    venv.create(folder, with_pip=True)
    subprocess.run([folder / "bin/python", "-m", "pip", "install", "--quiet", "--upgrade", "pip"], check=True)
    return folder / "bin/python"


@pytest.mark.long
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_requirements_resolve(python: Path, version: str, name: str, tmp_path: Path) -> None:
    """Every package has a wheel for that Python (markers are those of the Python that runs pip: it has no option for them)."""
    options = ["--dry-run", "--ignore-installed", "--only-binary=:all:", "--python-version", version, "--target", str(tmp_path)]
    command = [python, "-m", "pip", "install", "--quiet", *options, "-r", ROOT / name]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
