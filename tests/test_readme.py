"""README.md and docs/: their Python runs as it stands, their links lead somewhere, their commands and options exist."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks.shipped import rows, table
from genlab.demo.app import TABS
from genlab.serving.language import choose
from tests import tiny
from training.choose_times import TimesChoice
from training.config import DDPMTraining, Distillation, VAETraining, flag, leaves
from training.evaluate import Evaluation
from training.fit_prior import PriorFit
from training.preflight import Preflight
from training.train_classifier import ClassifierTraining

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
DOCUMENTS = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "benchmarks" / "README.md")
}
PYTHON = [
    (name, block)
    for name, text in DOCUMENTS.items()
    if name != "CONTRIBUTING.md"  # its tab is put on a page by test_contributing.py
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    if "import onnxruntime" not in block  # it is run by test_export.py
]
CALLS = [block for _, block in PYTHON if "api_name=" in block]
(CONNECT,) = (block for _, block in PYTHON if "gradio_client" in block)
DRAWING = [(name, block) for name, block in PYTHON if "import genlab" in block]


def test_every_block_of_python_is_run_here() -> None:
    assert sorted(block for _, block in PYTHON) == sorted([CONNECT, *CALLS, *(block for _, block in DRAWING)])


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    models = tiny.load_models(tiny.save_models(tmp_path_factory.mktemp("models")))
    with tiny.serving(models) as url:
        yield url


@pytest.mark.parametrize("call", CALLS, ids=lambda call: re.search(r'api_name="(/\w+)"', call)[1])
def test_a_call_of_a_document_runs(
    call: str, address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(ROOT)
    assert "http://127.0.0.1:7860" in CONNECT
    exec(compile(CONNECT.replace("http://127.0.0.1:7860", address) + call, "docs/api.md", "exec"), {})
    assert len(capsys.readouterr().out.splitlines()) >= 1


def test_every_endpoint_has_a_call() -> None:
    endpoints = json.loads((ROOT / "tests" / "api.json").read_text())
    assert {re.search(r'api_name="(/\w+)"', call)[1] for call in CALLS} == set(endpoints)


@pytest.mark.parametrize("block", [block for _, block in DRAWING], ids=[name for name, _ in DRAWING])
def test_pictures_are_drawn_as_a_document_says(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "document", "exec"), {})
    (written,) = tmp_path.iterdir()
    side = round(int(re.search(r"count=(\d+)", block)[1]) ** 0.5)
    with Image.open(written) as sheet:
        assert min(sheet.size) >= side * 28


def test_the_readme_draws_pictures_and_is_short() -> None:
    assert "README.md" in dict(DRAWING)
    assert len(README.splitlines()) < 150


def table_rows(header: str) -> list[list[str]]:
    """Return the cells of each row of the README's table with that first column."""
    lines = README[README.index(f"\n| {header} |") :].strip().split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


def test_every_tab_has_a_row_with_its_link() -> None:
    assert [row[:2] for row in table_rows("tab")] == [
        [f"**{choose(tab.TEXT['title'])}**", f"`{name}`"] for name, tab in TABS.items()
    ]


NOTES = table_rows("section")


@pytest.mark.parametrize("row", NOTES, ids=lambda row: row[0])
def test_the_map_of_the_notes_names_what_exists(row: list[str]) -> None:
    section, files, tabs = row
    anchor = re.match(r"\[([\d.]+)\]\(docs/notes\.md#(n[\d-]+)\)", section)
    assert anchor is not None
    assert anchor[2] == "n" + anchor[1].replace(".", "-")
    assert set(tabs.split(", ")) <= {choose(tab.TEXT["title"]) for tab in TABS.values()}
    for path in files.split(", "):
        assert (ROOT / path.strip("`")).is_file(), path


def test_every_section_of_the_notes_is_on_the_map() -> None:
    sections = [re.match(r"\[([\d.]+)\]", row[0])[1] for row in NOTES]
    assert sections == sorted(sections)
    assert set(sections) == {"1.1", "1.2", "1.3", "1.4", "1.5", "2"}


def test_the_table_of_what_ships_is_that_of_the_measurements() -> None:
    assert table() in DOCUMENTS["docs/models.md"]


def test_every_model_that_ships_stands_beside_its_references() -> None:
    lines = table().splitlines()
    for folder in (ROOT / "genlab" / "pretrained").iterdir():
        (place,) = (i for i, line in enumerate(lines) if line.startswith(f"| [`{folder.name}`]"))
        after = [line for line in lines[place:] if line.startswith("| *")]
        assert "uniform" in after[0], folder.name
    assert sum("WebP" in line for line in lines) == 3


def test_a_row_of_what_ships_needs_a_measurement(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text('{"schema": 1}')
    with pytest.raises(ValueError, match=r"expected a measured model; run `python training/evaluate.py "):
        list(rows(tmp_path))


def slugs(text: str) -> set[str]:
    """Return the anchors of a document: its own, and those that GitHub makes of its headings."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    made = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return made | set(re.findall(r'<a id="([\w-]+)">', text))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_a_document_names_exists(document: str) -> None:
    text, folder = DOCUMENTS[document], (ROOT / document).parent
    for path, _, anchor in (link.partition("#") for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link):
        target = (folder / path).resolve() if path else ROOT / document
        assert target.exists(), path
        assert not anchor or anchor in slugs(target.read_text()), f"{path}#{anchor}"
    named = re.findall(r"`((?:genlab|training|tests|benchmarks|docs)/[\w./-]*\w)`", text)
    for path in [*named, *re.findall(r"python (\w[\w/]*\.py)", text)]:
        assert (ROOT / path).exists(), path


OPTIONS = [
    (
        "docs/training.md",
        [
            DDPMTraining(),
            VAETraining(),
            Distillation(),
            TimesChoice("consistency-mnist"),
            Preflight(),
            PriorFit("vae-mnist"),
            ClassifierTraining(),
        ],
        {"--help", "--nproc_per_node", "--mixed_precision", "--no-examples", "--logdir"},
    ),
    ("docs/measuring.md", [Evaluation("ddpm-mnist"), ClassifierTraining()], set()),
]


@pytest.mark.parametrize(("document", "commands", "others"), OPTIONS, ids=[name for name, _, _ in OPTIONS])
def test_every_option_that_is_named_exists(document: str, commands: list[Any], others: set[str]) -> None:
    """Of the scripts that a document is about; `others` are those of launchers and of every script."""
    options = {flag(name) for command in commands for name in leaves(asdict(command))}
    named = set(re.findall(r"--\w[\w-]*", DOCUMENTS[document]))
    assert named - options <= others | {"--models"}  # of app.py
