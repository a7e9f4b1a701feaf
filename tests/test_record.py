"""The table of records: its lines are printed by commands, and the script that makes them runs from data to line."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from genlab.package import PRETRAINED
from training import record

ROOT = Path(__file__).resolve().parents[1]


def printed(words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["record.py", *words])
    status = record.main()
    captured = capsys.readouterr()
    return status, captured.out + captured.err


@pytest.fixture
def pair(tmp_path: Path) -> list[str]:
    """The DDPMs that ship, as if both had been trained from nothing, in 100 and 60 minutes."""
    folders = []
    for name, seconds in (("ddpm-mnist", 6000), ("ddpm-fashion-mnist", 3600)):
        folder = tmp_path / name
        shutil.copytree(PRETRAINED / name, folder)
        metrics = json.loads((folder / "metrics.json").read_text())
        metrics["training"] |= {"seconds": seconds}
        metrics["training"]["options"] |= {"from_model": None}
        metrics["evaluation"]["likelihood"] |= {"bound_bits_per_dim": 1.2, "bound_standard_error_bits_per_dim": 0.003}
        metrics["evaluation"]["samples"] |= {"frechet_distance": 0.7, "frechet_interval_95": [0.6, 0.8]}
        (folder / "metrics.json").write_text(json.dumps(metrics))
        folders.append(str(folder))
    return folders


def test_a_line_has_minutes_bound_and_distance(pair: list[str], monkeypatch, capsys) -> None:
    status, line = printed([*pair, "--commit", "a", "--machine", "b"], monkeypatch, capsys)
    assert status == 0
    assert line == "| a | b | 0 | 100.0 + 60.0 = 160.0 | 1.200 ± 0.003 | 0.70, 0.60–0.80 | both |\n"


def test_a_goal_is_reached_at_the_worse_end_of_the_interval_only(pair: list[str], monkeypatch, capsys) -> None:
    for name, goal, missed in (
        ("mnist", 1.207, None), ("mnist", 1.205, pair[0]), ("fashion-mnist", 0.81, None), ("fashion-mnist", 0.79, pair[1])
    ):  # fmt: skip
        monkeypatch.setattr(record, "GOALS", {"mnist": 1.25, "fashion-mnist": 1.5, name: goal})
        said = printed([*pair, "--commit", "a", "--machine", "b"], monkeypatch, capsys)[1]
        assert said.endswith(f" missed: {missed} |\n" if missed else " both |\n")


def test_a_model_that_began_with_the_weights_of_another_makes_no_line(pair: list[str], monkeypatch, capsys) -> None:
    metrics = json.loads((Path(pair[1]) / "metrics.json").read_text())
    metrics["training"]["options"]["from_model"] = "ddpm-fashion-mnist"
    (Path(pair[1]) / "metrics.json").write_text(json.dumps(metrics))
    status, words = printed(pair, monkeypatch, capsys)
    assert status == 1
    assert words.endswith("expected a model trained from nothing, got one that began with ddpm-fashion-mnist\n")


@pytest.mark.parametrize("count", [1, 2, 0])
def test_models_that_make_no_line_are_refused(count: int, pair: list[str], monkeypatch, capsys) -> None:
    """Of MNIST alone, twice the same, or none."""
    status, words = printed(pair[:1] * count, monkeypatch, capsys)
    assert status == 1
    assert words.startswith("error: expected one model of each of mnist, fashion-mnist a seed")


def test_the_speedrun_trains_measures_and_prints_its_line(data_dir: Path, tmp_path: Path) -> None:
    """Without samples: tiny pictures have no feature network."""
    settings = {
        "SEEDS": "3",
        "TRAIN": "--steps 2 --batch-size 8 --width 8 --multipliers 1 --T 25",
        "MEASURE": "--images 8 --strata 2 --samples 0",
        "GENLAB_DATA_DIR": str(data_dir),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    script = ["bash", str(ROOT / "training" / "speedrun.sh"), str(tmp_path)]
    done = subprocess.run(script, env={**os.environ, **settings}, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    line = done.stdout.splitlines()[-1]
    assert re.match(r"\| \S+ \| .+, \d+ CPUs \| 3 \| 0\.\d \+ 0\.\d = 0\.\d \| \d+\.\d+ ± \d+\.\d+ \| – \| ", line), line
    assert line.endswith(f" | missed: {tmp_path}/mnist-3, {tmp_path}/fashion-mnist-3 |")
