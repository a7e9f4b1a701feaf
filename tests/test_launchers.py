"""Trainings under the launchers of docs/training.md: as a user types them, and with what a launcher may ask for."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from accelerate.commands.launch import launch_command_parser
from accelerate.state import AcceleratorState
from torch.distributed.run import get_args_parser

from genlab import hub
from training import run, train_vae
from training.config import DDPMTraining, VAETraining, flag, leaves
from training.loop import UNSUPPORTED, make_accelerator

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "training.md").read_text()
LINES = [line.split("#")[0].split() for line in re.findall(r"^(?:accelerate launch|torchrun) .*$", TEXT, re.MULTILINE)]
PARSERS = {"torchrun": get_args_parser, "accelerate": launch_command_parser}
TINY = "--steps 2 --batch-size 8 --width 8 --T 25 --precision fp32"


def test_the_document_has_a_line_for_each_launcher():
    assert sorted(line[0] for line in LINES) == sorted(PARSERS)


@pytest.mark.parametrize("line", LINES, ids=lambda line: line[0])
def test_a_launcher_leaves_every_option_to_the_script(line: list[str]):
    """A launcher may read what follows the script as an abbreviation of its own options."""
    launcher, *words = line
    if launcher == "accelerate":
        words.remove("launch")
    options = [word for cls in (DDPMTraining, VAETraining) for name in leaves(vars(cls())) for word in (flag(name), "2")]
    found = PARSERS[launcher]().parse_args([*words, *options])
    assert (found.training_script, found.training_script_args) == ("training/train_ddpm.py", options)


@pytest.mark.parametrize("line", LINES, ids=lambda line: line[0])
def test_a_line_of_the_document_trains(line: list[str], data_dir: Path, tmp_path: Path):
    command = [*line, "--run", str(tmp_path / "run"), "--data-dir", str(data_dir), *TINY.split()]
    search = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    env = os.environ | {"PATH": search, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HOME": str(tmp_path)}
    done = subprocess.run(["sh", "-c", shlex.join(command)], cwd=ROOT, env=env, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    assert f"run folder {tmp_path / 'run'}" in done.stdout
    training = hub.read(tmp_path / "run").metrics["training"]
    assert training["processes"] == (2 if line[0] == "torchrun" else 1)


# What a launcher asks for by the environment


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch):
    """accelerate keeps its state for the life of a process; each test has its own, and no setting from outside."""
    for name in (*UNSUPPORTED, "ACCELERATE_MIXED_PRECISION"):
        monkeypatch.delenv(name, raising=False)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4", "expected 1 .*, got 4; give --accumulate"),
        ("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR", "expected no .*, got INDUCTOR; give --compile on"),
        ("ACCELERATE_USE_DEEPSPEED", "true", "expected false .*, got true; every process has the whole model"),
        ("ACCELERATE_USE_FSDP", "true", "expected false .*, got true"),
        ("ACCELERATE_USE_MEGATRON_LM", "true", "expected false .*, got true"),
    ],
)
def test_a_setting_that_would_change_the_run_is_refused(name: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=f"{name}: {words}"):
        make_accelerator("fp32")


def test_what_a_launcher_sets_by_itself_is_accepted(monkeypatch: pytest.MonkeyPatch):
    for name, value in (("DYNAMO_BACKEND", "NO"), ("USE_FSDP", "false"), ("MIXED_PRECISION", "no")):
        monkeypatch.setenv(f"ACCELERATE_{name}", value)
    accelerator = make_accelerator("fp32")
    assert (accelerator.mixed_precision, accelerator.gradient_accumulation_steps) == ("no", 1)


@pytest.mark.parametrize("precision", ["auto", "bf16"])
def test_the_precision_of_a_launcher_is_honoured(precision: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("training.loop.computes_bf16", lambda: False)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert make_accelerator(precision).mixed_precision == "bf16"


@pytest.mark.parametrize(("launched", "precision"), [("bf16", "fp32"), ("fp16", "auto"), ("fp8", "bf16")])
def test_a_precision_that_contradicts_the_option_or_is_none_of_ours_is_refused(
    launched: str, precision: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", launched)
    with pytest.raises(ValueError, match=f"--mixed_precision .*got {launched} with --precision {precision}"):
        make_accelerator(precision)


def test_one_process_reports_what_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    config = VAETraining()
    for rank, reports in (("0", 1), ("1", 0)):
        monkeypatch.setenv("RANK", rank)
        assert run.main(config, train_vae.task(config)) == 1
        assert capsys.readouterr().err.count("error: --mixed_precision") == reports
