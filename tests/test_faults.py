"""Faults of the machine and of options that a training or an evaluation meets: one sentence, before work is lost."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState

from genlab import durable
from genlab.config import DataSpec, VAEConfig
from genlab.data import Dataset
from genlab.package import write_package
from genlab.vae import VAE
from training import config as training_config
from training import evaluate, train_vae
from training.config import VAETraining, out_of_memory, parse
from training.evaluate import Evaluation
from training.loop import Log
from training.run import main

ROOT = Path(__file__).resolve().parents[1]
POSIX = ("fcntl", "grp", "pwd", "resource", "termios", "tty", "pty", "posix")


pytestmark = pytest.mark.usefixtures("training_state")


def options(run: Path, data_dir: Path, **changes: Any) -> VAETraining:
    common: dict[str, Any] = {"steps": 4, "batch_size": 8, "warmup": 1, "precision": "fp32", "save_every": 2}
    model = VAEConfig(latent=2, width=8, hidden=8)
    return VAETraining(**{"dataset": "mnist", "data_dir": str(data_dir), "run": run, "model": model, **common, **changes})


# Memory and output


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_a_lack_of_memory_is_known_by_its_errors(error: BaseException, expected: bool):
    assert out_of_memory(error) == expected


def test_a_lack_of_memory_is_one_sentence(tmp_path: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]):
    config = options(tmp_path / "run", data_dir)
    task = train_vae.task(config)

    def too_much(network: Any, x: Any, label: Any, *more: Any) -> Any:
        return torch.empty(2**60)

    assert main(config, replace(task, loss=too_much)) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: out of memory (")
    assert "lower --batch-size, --size or --width" in error
    assert error.count("\n") == 1


def test_hashing_pictures_copies_few_of_them():
    """The hash of 64 MB with at most a tenth of them more in memory."""
    import tracemalloc

    import numpy as np

    tracemalloc.start()
    pictures = Dataset(DataSpec("x", 1, 256), torch.from_numpy(np.zeros((1000, 1, 256, 256), np.uint8)), None, "")
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    assert pictures.sha256
    assert tracemalloc.get_traced_memory()[1] - before < 6_400_000
    tracemalloc.stop()


def test_a_terminal_that_is_not_utf8_gets_what_it_can_show(monkeypatch: pytest.MonkeyPatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, "ascii"))
    monkeypatch.setattr(sys, "argv", ["train_vae.py", "--steps", "7"])
    assert parse(VAETraining).steps == 7
    print("10 ± 1 bits, Σ")
    sys.stdout.flush()
    assert raw.getvalue() == b"10 \\xb1 1 bits, \\u03a3\n"


def test_help_names_the_type_of_an_option_and_not_that_it_may_be_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    for cls in (VAETraining, training_config.DDPMTraining, training_config.Distillation, Evaluation):
        monkeypatch.setattr(sys, "argv", ["x", "--help"])
        with pytest.raises(SystemExit):
            parse(cls)
        assert "None}" not in capsys.readouterr().out


# Options


@pytest.mark.parametrize(
    ("given", "warmup"),
    [({"steps": 100_000}, 300), ({"steps": 100}, 10), ({"steps": 300}, 300), ({"warmup": 5, "steps": 5}, 5)],
)
def test_the_warmup_never_lasts_longer_than_the_training(given: dict[str, int], warmup: int):
    assert VAETraining(**given).warmup == warmup


def test_a_warmup_longer_than_the_training_is_refused():
    with pytest.raises(ValueError, match="--warmup: expected at most the 5 steps of --steps, got 6"):
        VAETraining(steps=5, warmup=6)


@pytest.mark.parametrize("name", ["ode_images", "importance_images"])
def test_no_part_is_measured_on_more_pictures_than_the_whole(name: str):
    spec = DataSpec("mnist", 1, 28)
    test = Dataset(spec, torch.zeros(20, 1, 28, 28, dtype=torch.uint8), None, "")
    model = VAE(VAEConfig(latent=2, width=8, hidden=8), spec)
    given: dict[str, Any] = {"images": 5, name: 6}
    with pytest.raises(ValueError, match=f"--{name.replace('_', '-')}: expected at most the 5 of --images, got 6"):
        evaluate.make_plan(Evaluation(model="m", **given), model, test)


# Results


def test_a_training_that_diverged_writes_no_model(tmp_path: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]):
    config = options(tmp_path / "run", data_dir)
    task = train_vae.task(config)

    def diverged(*given: Any) -> dict[str, torch.Tensor]:
        return {name: value * 0 + 2.4e8 for name, value in task.loss(*given).items()}

    assert main(config, replace(task, loss=diverged)) == 1
    assert "the loss at the end is 2.4e+08" in capsys.readouterr().err
    assert not (tmp_path / "run" / "model" / "model.safetensors").exists()


def test_a_damaged_checkpoint_that_is_passed_over_is_reported(
    tmp_path: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]
):
    config = options(tmp_path / "run", data_dir)
    task = train_vae.task(config)
    assert main(config, task) == 0
    for step, words, status in (
        (4, "step-00000004: damaged, passed over; continuing from step 2", 0),
        (2, "is damaged (step-00000004, step-00000002): the run cannot go on. Remove", 1),
    ):
        for each in {4, step}:
            (tmp_path / "run" / "checkpoints" / f"step-{each:08d}" / "facts.json").write_text("{")
        AcceleratorState._reset_state(reset_partial_state=True)
        capsys.readouterr()
        assert main(replace(config, resume=True), task) == status
        assert words in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_measured(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    spec = DataSpec("mnist", 1, 8, tuple("0123456789"))
    write_package(
        tmp_path, VAE(VAEConfig(latent=2, width=8, hidden=8), spec), {}, Dataset(spec, torch.zeros(0, 1, 8, 8), None, "")
    )

    def refused(**given: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refused)
    monkeypatch.setattr(evaluate, "_sections", lambda *given: pytest.fail("it was measured"))
    assert evaluate.run(Evaluation(model=str(tmp_path), data_dir=str(data_dir), samples=0)) == 1
    assert "cannot be written (Permission denied); give another folder by --out" in capsys.readouterr().err


def test_files_of_a_model_and_a_log_reach_the_disk_before_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Content, then name, for each file; then the folder that holds the names."""
    seen: list[str] = []
    synced, renamed = durable.os.fsync, Path.replace
    monkeypatch.setattr(durable.os, "fsync", lambda number: seen.append("fsync") or synced(number))
    monkeypatch.setattr(Path, "replace", lambda self, to: seen.append(f"name {Path(to).name}") or renamed(self, to))
    spec = DataSpec("mnist", 1, 8)
    model = VAE(VAEConfig(latent=2, width=8, hidden=8), spec)
    write_package(tmp_path, model, {}, Dataset(spec, torch.zeros(1, 1, 8, 8, dtype=torch.uint8), None, ""))
    Log(tmp_path, 0)
    names = [line for line in seen if line.startswith("name")]
    assert {"name model.safetensors", "name config.json", "name README.md", "name log.jsonl"} <= set(names)
    assert all(seen[i - 1] == "fsync" for i, line in enumerate(seen) if line.startswith("name"))
    assert seen[-1] == "fsync"


# Windows and Macs


def test_every_module_is_imported_and_a_model_trained_without_the_modules_of_posix(tmp_path: Path, data_dir: Path):
    given = [
        "--data-dir",
        str(data_dir),
        "--dataset",
        "mnist",
        "--run",
        str(tmp_path / "run"),
        "--steps",
        "2",
        "--batch-size",
        "4",
    ]
    given += ["--latent", "2", "--width", "8", "--hidden", "8", "--precision", "fp32"]
    code = f"""
import importlib, json, os, pkgutil, sys
import filelock, torch, accelerate, datasets, gradio, uvicorn  # what these import is theirs
for name in {POSIX}:
    sys.modules[name] = None
for name in ("fork", "getuid", "nice", "killpg", "setsid"):
    if hasattr(os, name):
        delattr(os, name)
sys.path.insert(0, {str(ROOT)!r})
import genlab, training
for package in (genlab, training):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
from training import train_vae
sys.argv = ["train_vae.py", *{given!r}]
sys.exit(train_vae.main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "model" / "config.json").read_text())["kind"] == "vae"


# The table of faults


def test_every_fault_in_the_table_names_tests_that_exist():
    rows = re.findall(
        r"^\| ([A-Z]\d+) \|.*\|(.*)\|$", (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    expected = {
        f"{letter}{i}"
        for letter, count in (("A", 13), ("B", 15), ("C", 14), ("D", 13), ("E", 14), ("S", 8))
        for i in range(1, count + 1)
    }
    assert expected <= {name for name, _ in rows}
    for name, tests in rows:
        named = re.findall(r"(tests/\w+\.py)::(\w+)", tests)
        assert named or "`bash .ci/" in tests or "`python benchmarks/" in tests, name
        for path, test in named:
            assert f"def {test}(" in (ROOT / path).read_text(encoding="utf-8"), test
