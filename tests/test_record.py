"""The table of records: its lines are printed by commands, and the script that makes them runs from data to line."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from training import record

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = (ROOT / "docs" / "records.md").read_text(encoding="utf-8")


def printed(words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["record.py", *words])
    status = record.main()
    captured = capsys.readouterr()
    return status, captured.out + captured.err


def test_the_line_of_the_models_that_ship_is_printed_by_its_command(monkeypatch, capsys) -> None:
    (command,) = re.findall(r"^python training/record.py (.*)$", DOCUMENT, re.MULTILINE)
    status, line = printed(shlex.split(command), monkeypatch, capsys)
    assert status == 0
    assert line in DOCUMENT


def test_a_goal_is_reached_at_the_worse_end_of_the_interval_only(monkeypatch, capsys) -> None:
    pair = ["ddpm-mnist", "ddpm-fashion-mnist", "--commit", "a", "--machine", "b"]
    for name, goal, reached in (("mnist", 1.216, True), ("mnist", 1.212, False), ("fashion-mnist", 0.9, False)):
        monkeypatch.setattr(record, "GOALS", {"mnist": 1.25, "fashion-mnist": 1.5, name: goal})
        assert printed(pair, monkeypatch, capsys)[1].endswith(" both |\n" if reached else f" missed: ddpm-{name} |\n")


@pytest.mark.parametrize("models", [["ddpm-mnist"], ["ddpm-mnist", "vae-fashion-mnist", "ddpm-fashion-mnist"], []])
def test_models_that_make_no_line_are_refused(models: list[str], monkeypatch, capsys) -> None:
    status, words = printed(models, monkeypatch, capsys)
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
