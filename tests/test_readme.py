"""The README's promises: its Python runs as it stands, its links lead somewhere, its commands exist."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.shipped import rows, table
from genlab.demo.app import TABS
from genlab.demo.served import Models
from genlab.serving.language import choose
from tests import tiny

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
CALLS = [block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "gradio_client" in block]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    models = Models.load(tiny.save_models(tmp_path_factory.mktemp("models")))
    with tiny.serving(models) as url:
        yield url


@pytest.mark.parametrize("call", CALLS, ids=lambda call: re.search(r'api_name="(/\w+)"', call)[1])
def test_a_call_of_the_readme_runs(
    call: str, address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(ROOT)
    assert "http://127.0.0.1:7860" in call
    exec(compile(call.replace("http://127.0.0.1:7860", address), "README.md", "exec"), {})
    assert len(capsys.readouterr().out.splitlines()) >= 1


def test_every_endpoint_has_a_call() -> None:
    endpoints = json.loads((ROOT / "tests" / "api.json").read_text())
    assert {re.search(r'api_name="(/\w+)"', call)[1] for call in CALLS} == set(endpoints)


MAP = [row.split("|")[1:-1] for row in re.findall(r"^\| (?:1\.\d|2) .*$", README, re.MULTILINE)]


@pytest.mark.parametrize("row", MAP, ids=lambda row: row[0].strip())
def test_the_map_of_the_notes_names_what_exists(row: list[str]) -> None:
    _, code, tabs, test = row
    titles = {choose(tab.TEXT["title"]) for tab in TABS.values()}
    assert {name.strip() for name in tabs.split(",") if name.strip()} <= titles
    assert (ROOT / test.strip(" `")).is_file()
    for part in code.split("; "):
        path, *names = re.findall(r"`([^`]+)`", part)
        defined = {
            node.name
            for node in ast.walk(ast.parse((ROOT / path).read_text()))
            if isinstance(node, ast.FunctionDef | ast.ClassDef)
        }
        for name in names:
            assert (ROOT / name).is_file() if name.endswith(".py") else name in defined, name


def test_every_section_of_the_notes_is_on_the_map() -> None:
    assert [row[0].split()[0] for row in MAP] == sorted(row[0].split()[0] for row in MAP)
    assert {row[0].split()[0] for row in MAP} == {"1.1", "1.2", "1.3", "1.4", "1.5", "2"}
    figures = {int(n) for row in MAP for found in re.findall(r"figures? ([\d and]+)", row[0]) for n in re.findall(r"\d", found)}
    assert figures == {1, 2, 3, 4, 5}


def test_pictures_are_drawn_as_the_readme_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = (b for b in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "genlab.sample" in b)
    exec(compile(block, "README.md", "exec"), {})
    with Image.open(tmp_path / "sixteen.png") as sheet:
        assert min(sheet.size) >= 4 * 28


def test_the_table_of_what_ships_is_that_of_the_measurements() -> None:
    assert table() in README


def test_every_model_that_ships_stands_beside_its_references() -> None:
    lines = table().splitlines()
    for folder in (ROOT / "genlab" / "pretrained").iterdir():
        (place,) = (i for i, line in enumerate(lines) if line.startswith(f"| [`{folder.name}`]"))
        after = [line for line in lines[place:] if line.startswith("| *")]
        assert "uniform" in after[0], folder.name
    assert sum("WebP" in line for line in lines) == 2


def test_a_row_of_what_ships_needs_a_measurement(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text('{"schema": 1}')
    with pytest.raises(ValueError, match=r"expected a measured model; run `python training/evaluate.py "):
        list(rows(tmp_path))


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_every_path_that_is_named_exists(document: str) -> None:
    text = (ROOT / document).read_text()
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    named = re.findall(r"`((?:genlab|training|tests|benchmarks|docs)/[\w./-]*\w)`", text)
    commands = re.findall(r"python (\w[\w/]*\.py)", text)
    assert links or named
    for path in [*links, *named, *commands]:
        assert (ROOT / path).exists(), path
