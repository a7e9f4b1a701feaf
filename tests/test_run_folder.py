"""What a run leaves besides its model: sheets and checkpoints by minutes, the best model, logs, report; augmentation."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from genlab.config import DDPMConfig, UNetConfig, VAEConfig
from genlab.data import ungrid
from genlab.demo.requested import Source
from genlab.package import read_package
from training import loop, run, train_ddpm, train_vae
from training.config import DDPMTraining, VAETraining
from training.draws import Draws, augmented
from training.run import main

ROOT = Path(__file__).resolve().parents[1]


pytestmark = pytest.mark.usefixtures("training_state")


def options(run_folder: Path, data_dir: Path, **changes: Any) -> VAETraining:
    common: dict[str, Any] = {"steps": 6, "batch_size": 8, "warmup": 1, "precision": "fp32", "sample_every": 2}
    model = VAEConfig(latent=2, width=8, hidden=8)
    return VAETraining(
        **{"dataset": "mnist", "data_dir": str(data_dir), "run": run_folder, "model": model, **common, **changes}
    )


def trained(config: VAETraining) -> int:
    return main(config, train_vae.task(config))


# Minutes


def test_sheets_and_checkpoints_come_by_minutes_however_few_the_steps(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    """A clock on which every look at it is ten seconds: the first sheet comes within two minutes, the others by the option."""
    now = [0.0]

    def clock() -> float:
        now[0] += 10
        return now[0]

    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=clock))
    saved = []
    monkeypatch.setattr(loop.Trainer, "save", lambda self: saved.append(self.step))
    rare = {"steps": 60, "sample_every": 10**6, "save_every": 10**6}
    assert trained(options(tmp_path / "run", data_dir, sample_minutes=10.0, save_minutes=5.0, **rare)) == 0
    sheets = [int(path.stem[5:]) for path in sorted((tmp_path / "run" / "samples").glob("step-*.png"))]
    seconds = 40  # four looks at the clock a step
    assert (sheets[0] - 1) * seconds <= 60 * loop.FIRST_SHEET
    assert all(60 * 10 <= (b - a) * seconds <= 60 * 12 for a, b in pairwise(sheets[:-1]))
    assert all(60 * 5 <= (b - a) * seconds <= 60 * 7 for a, b in pairwise(saved[:-1]))
    assert len(sheets) >= 3
    assert len(saved) >= 6


def test_without_minutes_only_steps_count(tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch):
    now = iter(range(0, 10**9, 10**4))
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: next(now)))
    assert trained(options(tmp_path / "run", data_dir, sample_minutes=0.0, save_minutes=0.0)) == 0
    assert [path.stem for path in sorted((tmp_path / "run" / "samples").glob("step-*.png"))] == [
        f"step-{step:08d}" for step in (2, 4, 6)
    ]


# The best model, logs, report


def test_the_model_with_the_lowest_held_out_loss_stays_beside_the_last(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    losses = iter([5.0, 3.0, 4.0, 6.0])
    monkeypatch.setattr(run, "held_out_loss", lambda *given: {"loss": next(losses)})
    assert trained(options(tmp_path / "run", data_dir)) == 0
    best, last = read_package(tmp_path / "run" / "best"), read_package(tmp_path / "run" / "model")
    assert (best.metrics["training"]["steps"], last.metrics["training"]["steps"]) == (4, 6)
    assert best.metrics["loss"]["held_out"] == {"loss": 3.0}
    assert f"was lowest at step 4 (3): {tmp_path / 'run' / 'best'}" in capsys.readouterr().out


def test_the_weights_of_the_last_step_are_a_model_beside_their_average(tmp_path: Path, data_dir: Path):
    run_folder = tmp_path / "a-run"
    assert trained(options(run_folder, data_dir)) == 0
    checkpoint = load_file(max(run_folder.glob("checkpoints/*/state.safetensors")))
    raw, average = read_package(run_folder / "raw"), read_package(run_folder / "model")
    for package, name in ((raw, "model"), (average, "average")):
        for key, value in package.model.state_dict().items():
            torch.testing.assert_close(value, checkpoint[f"{name}.{key}"].half().float(), msg=key)
    assert any(not torch.equal(a, b) for a, b in zip(raw.model.parameters(), average.model.parameters(), strict=True))
    assert raw.metrics["loss"]["held_out"]["loss"] != average.metrics["loss"]["held_out"]["loss"]
    assert "| weights | of the last step, not averaged |" in (run_folder / "raw" / "README.md").read_text()
    assert "not averaged" not in (run_folder / "model" / "README.md").read_text()
    assert [Source(str(run_folder / part)).stem for part in ("", "model", "raw")] == ["a-run", "a-run", "a-run-raw"]


def test_the_log_is_written_as_csv_and_has_epochs(tmp_path: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]):
    assert trained(options(tmp_path / "run", data_dir, log_every=3)) == 0
    with open(tmp_path / "run" / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["2", "3", "4", "6"]
    assert rows[1]["epoch"] == "0.6"
    assert float(rows[1]["losses.loss"]) > 0
    assert rows[0]["losses.loss"] == ""
    assert float(rows[0]["held_out.loss"]) > 0
    assert "step 3 of 6, epoch 0.6, loss " in capsys.readouterr().out


def test_the_report_is_one_file_that_asks_nothing_of_the_network(tmp_path: Path, data_dir: Path, browser: Any):
    assert trained(options(tmp_path / "run", data_dir)) == 0
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    assert "http" not in page
    words = (
        "VAE of mnist",
        "Loss",
        "step 2<",
        "step 6<",
        "weights of the last step",
        "Nearest training",
        "lowest",
        "epochs",
    )
    for each in words:
        assert each in page, each
    assert page.count("<img") == 1 + 3 + 2 + 1
    shown = browser.new_page(viewport={"width": 390, "height": 800})
    shown.set_content(page)
    assert shown.evaluate("document.documentElement.scrollWidth") <= 390


# Trackers


def test_a_tracker_that_is_not_installed_is_named(
    tmp_path: Path, data_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(loop, "get_available_trackers", list)
    assert trained(options(tmp_path / "run", data_dir, track=("wandb",))) == 1
    assert "--track wandb: not installed; pip install wandb, or leave it out" in capsys.readouterr().err


def write_trackio(folder: Path) -> None:
    """Write a package trackio that prints its calls, found in PYTHONPATH as the real one would be."""
    (folder / "trackio").mkdir()
    (folder / "trackio" / "__init__.py").write_text(
        "import json\n"
        "def note(*call): print('called', json.dumps(call))\n"
        "class config:\n"
        "    update = staticmethod(lambda *values, **more: None)\n"
        "class Run:\n"
        "    name, config = 'x', {}\n"
        "    def log(self, values, **more): note('log', sorted(values))\n"
        "    def finish(self): note('finish')\n"
        "def init(project, **more): note('init', project); return Run()\n"
    )
    (folder / "trackio-1.0.dist-info").mkdir()
    (folder / "trackio-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: trackio\nVersion: 1.0\n")


def trackio_calls(output: str) -> list[list[Any]]:
    """Return the calls that the package of `write_trackio` printed."""
    return [json.loads(line.removeprefix("called ")) for line in output.splitlines() if line.startswith("called ")]


def tracked(tracker: str, folder: Path, data_dir: Path, *more: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Train in a process of its own: packages are found, and their files complete, when it has ended."""
    given = ["--dataset", "mnist", "--data-dir", str(data_dir), "--run", str(folder), "--track", tracker, "--log-every", "3"]
    given += ["--steps", "6", "--batch-size", "8", "--latent", "2", "--width", "8", "--hidden", "8", "--precision", "fp32"]
    command = [sys.executable, str(ROOT / "training" / "train_vae.py"), *given, *more]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=600)


def test_what_is_logged_goes_to_the_trackers(tmp_path: Path, data_dir: Path):
    write_trackio(tmp_path)
    done = tracked("trackio", tmp_path / "run", data_dir, PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    calls = trackio_calls(done.stdout)
    logged = [set(call[1]) for call in calls if call[0] == "log"]
    assert calls[0] == ["init", "genlab"]
    assert calls[-1] == ["finish"]
    assert {"loss", "lr", "epoch"} <= logged[0]
    assert "held_out.loss" in logged[2]

    # One that is installed and cannot be started (no account, no server) is one sentence.
    (tmp_path / "trackio" / "__init__.py").write_text("def init(**given): raise LookupError('no account')\n")
    refused = tracked("trackio", tmp_path / "run", data_dir, "--resume", PYTHONPATH=str(tmp_path))
    assert refused.returncode == 1
    assert "error: --track trackio: cannot be started: no account\n" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize("tracker", ["tensorboard", "wandb"])
def test_a_tracker_that_is_installed_gets_every_figure_of_the_log(tracker: str, tmp_path: Path, data_dir: Path):
    pytest.importorskip(tracker, reason=f"{tracker} is optional")
    done = tracked(tracker, tmp_path, data_dir, WANDB_MODE="offline")
    assert done.returncode == 0, done.stderr
    if tracker == "wandb":
        (written,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
        assert all(name in written.read_bytes() for name in (b"held_out.loss", b"epoch", b"reconstruction"))
        return
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "genlab"))
    events.Reload()
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    for name, part in (("loss", "losses"), ("held_out.loss", "held_out")):
        expected = [(row["step"], pytest.approx(row[part]["loss"])) for row in rows if part in row]
        assert [(each.step, each.value) for each in events.Scalars(name)] == expected


# Augmentation


def test_augmented_pictures_are_mirrored_or_moved_and_a_part_gets_what_the_whole_batch_would():
    pixels = torch.arange(16 * 2 * 16 * 16).reshape(16, 2, 16, 16) % 251
    pixels = pixels.to(torch.uint8)
    flipped = augmented(pixels, ("flip",), Draws(16, seed=3))
    same = [torch.equal(a, b) for a, b in zip(flipped, pixels, strict=True)]
    mirrored = [torch.equal(a, b.flip(-1)) for a, b in zip(flipped, pixels, strict=True)]
    assert all(a != b for a, b in zip(same, mirrored, strict=True))
    assert any(same)
    assert any(mirrored)
    moved = augmented(pixels, ("crop",), Draws(16, seed=3))
    for one, other in zip(moved[:, :, 2:14, 2:14], pixels.unfold(2, 12, 1).unfold(3, 12, 1), strict=True):
        assert sum(torch.equal(one, other[:, y, x]) for y in range(5) for x in range(5)) == 1
    for rows in (slice(0, 2), slice(2, 16)):
        part = augmented(pixels[rows], ("flip", "crop"), Draws(16, rows, seed=3))
        assert torch.equal(part, augmented(pixels, ("flip", "crop"), Draws(16, seed=3))[rows])


def test_augmentation_ends_when_the_learning_rate_falls(tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch):
    steps: list[int] = []
    config = options(tmp_path / "run", data_dir, steps=10, augment=("flip",), decay=0.3)
    monkeypatch.setattr(loop, "augmented", lambda pixels, kinds, draws: steps.append(1) or pixels)
    assert trained(config) == 0
    assert len(steps) == 7
    assert [config.augments(step) for step in (0, 6, 7, 9)] == [True, True, False, False]
    with pytest.raises(ValueError, match="--augment: expected --decay above 0"):
        replace(config, decay=0.0)
    with pytest.raises(ValueError, match="--accumulate: expected a divisor of --batch-size 8, got 3"):
        replace(config, accumulate=3)


def test_samples_are_as_the_pictures_are_and_not_mirrored(tmp_path: Path):
    """Of pictures that are bright on the left: while they are mirrored samples are of both sides, at the end of the left."""
    random = np.random.default_rng(0)
    (tmp_path / "left").mkdir()
    for i in range(60):
        values = random.integers(0, 40, (8, 8), np.uint8)
        values[:, :4] += 200
        Image.fromarray(values).save(tmp_path / "left" / f"{i}.png")
    common = {"steps": 300, "batch_size": 16, "warmup": 10, "sample_every": 150, "size": 8, "precision": "fp32", "decay": 0.5}
    small = DDPMConfig(T=50, grids=(), unet=UNetConfig(width=16, multipliers=(1,)))
    config = DDPMTraining(
        dataset=str(tmp_path / "left"), run=tmp_path / "run", model=small, lr=2e-3, augment=("flip",), **common
    )
    assert main(config, train_ddpm.task(config)) == 0
    sheets = [Image.open(tmp_path / "run" / "samples" / f"step-{step:08d}.png") for step in (150, 300)]
    shares = []
    for sheet in sheets:
        pictures = ungrid(sheet, 64, 8, 8).float()
        shares.append(float((pictures[..., :4].mean(dim=(1, 2, 3)) > pictures[..., 4:].mean(dim=(1, 2, 3))).float().mean()))
        sheet.close()
    assert 0.2 < shares[0] < 0.8
    assert shares[1] == 1.0
