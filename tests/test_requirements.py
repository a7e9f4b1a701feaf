"""The requirements can be installed on every Python that pyproject.toml names."""

from __future__ import annotations

import json
import re
import subprocess
import venv
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements.lock"
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


def locked() -> dict[str, str]:
    """Package → version in the lock, whichever Python it is for; a hash stands with each."""
    text = LOCK.read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    assert all("--hash=sha256:" in line for line in lines), "every package of the lock has a hash"
    return {line.split("==")[0]: re.split(r"[ ;]", line.split("==")[1])[0] for line in lines}


def test_the_lock_has_what_the_page_needs_in_versions_that_it_allows() -> None:
    """When this fails after a change of requirements.txt: the command in the lock's first lines writes it anew."""
    found = locked()
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            wanted = Requirement(line.split(" #")[0])
            assert wanted.specifier.contains(found[wanted.name.lower()]), line


def test_the_space_installs_the_gradio_of_the_lock() -> None:
    assert f"\nsdk_version: {locked()['gradio']}\n" in (ROOT / "Space.md").read_text()


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "torch", "fits"), [("txt", "2.8.0", True), ("txt", "2.11.0", True), ("lock", "2.13.0", False)]
)
def test_a_space_installs_requirements_and_not_the_lock(
    python: Path, tmp_path: Path, name: str, torch: str, fits: bool
) -> None:
    """Beside what the Hub adds: extras of gradio, of which mcp takes an older pydantic than the lock has; ZeroGPU's torch.

    When the lock fits, a Space can have it.
    """
    subprocess.run([python, "-m", "pip", "install", "--quiet", "uv"], check=True)
    (tmp_path / "space.txt").write_text(
        f"-r {ROOT / 'requirements'}.{name}\ngradio[oauth,mcp]=={locked()['gradio']}\nspaces\ntorch=={torch}\n"
    )
    options = ["--python-version", "3.12", "--python-platform", "x86_64-manylinux_2_28", "--no-annotate"]
    command = [python.with_name("uv"), "pip", "compile", "--quiet", *options, tmp_path / "space.txt"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert ("pydantic" in done.stderr) == (name == "lock"), done.stderr
    assert (done.returncode == 0) == (name == "txt"), done.stderr


@pytest.mark.long
@pytest.mark.parametrize("version", VERSIONS)
def test_the_lock_installs_by_its_hashes(python: Path, version: str, tmp_path: Path) -> None:
    subprocess.run([python, "-m", "pip", "install", "--quiet", "uv"], check=True)
    options = ["--dry-run", "--require-hashes", "--only-binary=:all:", "--python-version", version, "--target", tmp_path]
    command = [python.with_name("uv"), "pip", "install", "--quiet", *options, "-r", LOCK]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.long
def test_the_bill_of_materials_lists_the_lock(python: Path, tmp_path: Path) -> None:
    subprocess.run([python, "-m", "pip", "install", "--quiet", "cyclonedx-bom>=7,<8"], check=True)
    command = [python.with_name("cyclonedx-py"), "requirements", LOCK, "-o", tmp_path / "sbom.json"]
    subprocess.run(command, check=True, capture_output=True)
    components = json.loads((tmp_path / "sbom.json").read_text())["components"]
    assert {(each["name"], each["version"]) for each in components} >= set(locked().items())
