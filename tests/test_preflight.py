"""What is stated before a training, by `training/preflight.py` and by every run; and the identity of own pictures."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from accelerate.state import AcceleratorState
from hub_server import Hub, Token, connect, running
from PIL import Image

from genlab import data, hub
from genlab.config import VAEConfig
from genlab.package import read_package
from training import evaluate, preflight, publish, train_vae
from training.account import account, lines, recorded
from training.config import VAETraining
from training.evaluate import Evaluation
from training.run import main

TINY = VAEConfig(latent=2, width=8, hidden=8)


pytestmark = pytest.mark.usefixtures("training_state")


@pytest.fixture
def blobs(tmp_path: Path) -> Path:
    """120 distinct pictures of 16×16 in two classes."""
    random = np.random.default_rng(0)
    for i in range(120):
        folder = tmp_path / "blobs" / ("low", "high")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (16, 16), np.uint8)).save(folder / f"{i:03}.png")
    return tmp_path / "blobs"


def options(dataset: Path | str, run: Path, **changes: Any) -> VAETraining:
    common: dict[str, Any] = {"steps": 4, "batch_size": 8, "warmup": 1, "size": 8, "precision": "fp32", "save_every": 2}
    return VAETraining(**{"dataset": str(dataset), "run": run, "model": TINY, **common, **changes})


def trained(config: VAETraining) -> int:
    return main(config, train_vae.task(config))


def facts_of(root: Path, **changes: Any) -> dict[str, Any]:
    config = options(root, Path("unused"), **changes)
    return account(config, *data.load_both(str(root), size=8, reading=config.reading))


def test_copies_on_both_sides_of_the_split_are_counted(blobs: Path, tmp_path: Path):
    clean = facts_of(blobs)
    assert (clean["duplicates"], clean["near_duplicates"]) == (0, 0)
    root = tmp_path / "p"
    shutil.copytree(blobs, root / "train")
    (root / "test" / "low").mkdir(parents=True)
    for i, source in enumerate(sorted((blobs / "low").glob("*.png"))[:10]):
        values = np.asarray(Image.open(source)).astype(int)
        if i >= 4:  # nearly the same
            values = np.clip(values + 1, 0, 255)
        Image.fromarray(values.astype(np.uint8)).save(root / "test" / "low" / f"{i}.bmp")
    facts = facts_of(root)
    assert (facts["duplicates"], facts["near_duplicates"], facts["held_out_compared"]) == (4, 6, 10)
    assert any("4 of 10 held-out pictures are also trained on" in line for line in facts["warnings"])
    assert any("6 of 10 held-out pictures nearly equal" in line for line in facts["warnings"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": 100_000}, "epochs of 108 pictures: the model will copy them; watch the held-out loss, give --steps "),
        ({"steps": 1}, "7 % of the pictures are used: give --steps 14 or more"),
        ({"batch_size": 200}, "a step of 200 pictures has some of 108 more than once: lower --batch-size"),
        ({}, "12 held-out pictures: what is measured on them is uncertain; raise --held-out"),
    ],
)
def test_what_is_doubtful_is_a_warning_with_what_to_do(changes: dict[str, Any], words: str, blobs: Path):
    config = options(blobs, Path("unused"), **changes)
    warnings = facts_of(blobs, **changes)["warnings"]
    assert any(words in line for line in warnings), warnings
    assert f"  warning: {warnings[0]}" in lines(facts_of(blobs, **changes), config)


def test_small_and_long_pictures_and_small_classes_are_warned_of(blobs: Path):
    for i in range(12):
        Image.new("L", (6, 30), 10 * i).save(blobs / "low" / f"long{i}.png")
    (blobs / "rare").mkdir()
    Image.new("L", (16, 16), 7).save(blobs / "rare" / "one.png")
    said = "\n".join(facts_of(blobs, held_out="0.1")["warnings"])
    assert "12 of 133 pictures have a side below 8 pixels and are enlarged" in said
    assert "12 of 133 pictures are half as long again as wide or more" in said
    assert "1 classes have fewer than 5 pictures (rare)" in said


def test_the_first_lines_of_a_training_are_the_account_and_are_stored(
    blobs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (blobs / "notes.txt").write_text("x")
    config = options(blobs, tmp_path / "run")
    assert trained(config) == 0
    out = capsys.readouterr().out
    for line in (
        "blobs: 108 pictures to train on, 12 held out, as 8×8 gray; 4 steps of 8 are 0.3 epochs",
        "  classes: high 54, low 54",
        "  held out: 12 of 120 files, by the hash of their names (--held-out decides)",
        "  2 classes: the sub-folders (--classes decides)",
        "  sizes of the files: 16×16 120",
        "  left out: 1, not pictures by their names: notes.txt",
        "  warning: 12 held-out pictures: what is measured on them is uncertain; raise --held-out",
    ):
        assert line.replace("high 54, low 54", "") in out, line
    facts = recorded(tmp_path / "run" / "model")
    assert facts == recorded(tmp_path / "run")
    assert facts["dataset"] == str(blobs)


def test_preflight_prints_the_account_as_text_and_json_and_writes_the_sheet(
    blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    given = ["preflight.py", str(blobs), "--kind", "vae", "--size", "8", "--measure", "1"]
    monkeypatch.setattr(sys, "argv", given)
    assert preflight.main() == 0
    out = capsys.readouterr().out
    assert "  measured here: " in out
    assert "contact sheet: preflight.png" in out
    with Image.open("preflight.png") as sheet:
        assert sheet.size == (8 * 10 + 2, 8 * 10 + 2)
    AcceleratorState._reset_state(reset_partial_state=True)
    monkeypatch.setattr(sys, "argv", [*given, "--json"])
    assert preflight.main() == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["parameters"] > 0
    assert facts["images"] == 108


@pytest.mark.parametrize(
    ("content", "words"), [({}, "expected at least 2 pictures"), ({"a.png": b"x", "b.png": b"y"}, "a.png")]
)
def test_preflight_of_a_bad_folder_is_one_sentence(
    content: dict[str, bytes], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for name, value in content.items():
        (tmp_path / name).write_bytes(value)
    assert preflight.run(preflight.Preflight(dataset=str(tmp_path))) == 1
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


# Pictures are known by their content, not by the spelling of their place


def test_a_run_goes_on_with_the_same_pictures_at_any_place(
    blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    config = options("blobs", tmp_path / "run")
    assert trained(config) == 0
    blobs.rename(tmp_path / "elsewhere")
    for spelling in (f"{tmp_path}/elsewhere", "elsewhere/", "./elsewhere"):
        AcceleratorState._reset_state(reset_partial_state=True)
        assert trained(options(spelling, tmp_path / "run", resume=True)) == 0, capsys.readouterr().err
    (tmp_path / "elsewhere" / "low" / "000.png").unlink()
    AcceleratorState._reset_state(reset_partial_state=True)
    assert trained(options("elsewhere", tmp_path / "run", resume=True)) == 1
    assert "the pictures of the data set (--dataset blobs → elsewhere)" in capsys.readouterr().err


def test_a_run_goes_on_with_the_same_classes_only(blobs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert trained(options(blobs, tmp_path / "run")) == 0
    (blobs / "low").rename(blobs / "a")  # the labels stay: a, high → 0, 1 for 1, 0 before
    (blobs / "high").rename(blobs / "z")
    AcceleratorState._reset_state(reset_partial_state=True)
    assert trained(options(blobs, tmp_path / "run", resume=True)) == 1
    assert "the pictures of the data set" in capsys.readouterr().err


def test_a_path_may_be_spelled_in_another_way(blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert trained(options(blobs, tmp_path / "first")) == 0
    monkeypatch.chdir(tmp_path)
    AcceleratorState._reset_state(reset_partial_state=True)
    assert trained(options(blobs, tmp_path / "run", from_model="first")) == 0
    AcceleratorState._reset_state(reset_partial_state=True)
    assert trained(options(blobs, tmp_path / "run", from_model=f"{tmp_path}/first/", resume=True)) == 0


def test_a_run_is_measured_on_its_own_pictures_without_naming_them(
    blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    config = options(blobs, tmp_path / "run", classes="none", held_out="0.25")
    assert trained(config) == 0
    capsys.readouterr()
    quick: dict[str, Any] = {"samples": 0, "importance_images": 0, "quick": True}
    assert evaluate.run(Evaluation(model=str(tmp_path / "run"), **quick)) == 0, capsys.readouterr().err
    assert json.loads((tmp_path / "run" / "model" / "metrics.json").read_text())["evaluation"]["data"]["images"] == 30
    blobs.rename(tmp_path / "moved")
    assert evaluate.run(Evaluation(model=str(tmp_path / "run"), dataset=str(tmp_path / "moved"), **quick)) == 0
    capsys.readouterr()
    assert evaluate.run(Evaluation(model=str(tmp_path / "run"), **quick)) == 1
    assert f"its training pictures, {blobs}, are not known here; name them by --dataset" in capsys.readouterr().err


# What a push makes public


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running(Hub({"hf_mine": Token("me")}, {})) as server:
        connect(monkeypatch, server, tmp_path / "home", "hf_mine")
        yield server


@pytest.mark.parametrize("examples", [True, False])
def test_what_a_push_makes_public_is_stated_before_training_and_may_be_without_pictures(
    examples: bool, blobs: Path, tmp_path: Path, server: Hub, capsys: pytest.CaptureFixture[str]
):
    assert trained(options(blobs, tmp_path / "run", push=True, examples=examples)) == 0
    out = capsys.readouterr().out
    said = "with up to 256 of the held-out pictures (--no-examples leaves them out)"
    stated = (
        "the model will be pushed to me/genlab-vae-blobs for everybody (--private decides): weights, options and measurements, "
    )
    assert stated + (said if examples else "without pictures of the data set") in out
    assert out.index(stated) < out.index("model written to")
    assert len(hub.read("me/genlab-vae-blobs").examples) == (12 if examples else 0)


def test_a_finished_model_is_published_without_pictures_of_the_data_set(
    blobs: Path, tmp_path: Path, server: Hub, monkeypatch: pytest.MonkeyPatch
):
    assert trained(options(blobs, tmp_path / "run")) == 0
    folder = tmp_path / "run" / "model"
    Image.new("L", (8, 8)).save(folder / "nearest.png")
    monkeypatch.setattr(sys, "argv", ["publish.py", str(tmp_path / "run"), "--no-examples"])
    assert publish.main() == 0
    pushed = hub.read("me/genlab-vae-blobs").folder
    names = {path.name for path in pushed.iterdir()}
    assert not names & {"examples.png", "examples.json", "nearest.png"}
    assert "nearest.png" not in (pushed / "README.md").read_text()
    assert len(read_package(folder).examples) == 12
