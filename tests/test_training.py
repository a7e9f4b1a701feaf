"""The training loop: exact resumption, faults, several processes, and that both models learn what can be written down."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException
from torch.utils._python_dispatch import TorchDispatchMode

import genlab
from genlab import features, hub, metrics
from genlab.config import DataSpec, DDPMConfig, Sampling, UNetConfig, VAEConfig
from genlab.data import Dataset, load, to_model, ungrid
from genlab.ddpm import DDPM
from genlab.draw import draw
from genlab.features import ClassifierConfig, FeatureNet
from genlab.oracle import DataSetOracle
from genlab.package import ModelError
from genlab.process import q_marginal, v_from_eps
from genlab.vae import VAE
from tests.test_run_folder import trackio_calls, write_trackio
from training import loop, replay, run, train_ddpm, train_vae
from training.checkpoint import load_checkpoint, run_lock
from training.config import DDPMTraining, Training, VAETraining
from training.likelihood import diffusion_bound
from training.loop import DivergedError, Log, Stop, Trainer, make_accelerator
from training.partial import Partial, Progress
from training.run import Task, check_size, main

ROOT = Path(__file__).resolve().parents[1]
DDPM_OPTIONS: dict[str, Any] = {"model": DDPMConfig(T=25, unet=UNetConfig(width=8, dropout=0.2)), "label_dropout": 0.3}
VAE_OPTIONS: dict[str, Any] = {"model": VAEConfig(latent=2, width=8, hidden=16)}
KINDS: dict[str, tuple[type[Training], Callable[[Any], Task], dict[str, Any]]] = {
    "ddpm": (DDPMTraining, train_ddpm.task, DDPM_OPTIONS),
    "ddpm, bound": (DDPMTraining, train_ddpm.task, {**DDPM_OPTIONS, "objective": "bound"}),
    "vae": (VAETraining, train_vae.task, VAE_OPTIONS),
}


pytestmark = pytest.mark.usefixtures("training_state")
PLOT = Log.plot


def options(kind: str, folder: Path, data_dir: Path, **changes: Any) -> Any:
    """A tiny run: 40 pictures of 8×8, five steps an epoch."""
    cls, _, model = KINDS[kind]
    common = {
        "steps": 12,
        "batch_size": 8,
        "warmup": 3,
        "log_every": 4,
        "sample_every": 6,
        "save_every": 5,
        "precision": "fp32",
        "sample_minutes": 0.0,
        "save_minutes": 0.0,
    }
    common["warmup"] = min(3, changes.get("steps", 12))
    return cls(**{"dataset": "mnist", "data_dir": str(data_dir), "run": folder, **common, **model, **changes})


def task_of(config: Training) -> Task:
    """The script's own task, with a cheap sheet of samples that still depends on the weights."""

    def sample(model: nn.Module) -> Tensor:
        return torch.full((64, 1, 8, 8), float(next(model.parameters()).detach().mean()))

    return replace(KINDS[config.kind][1](config), sample=sample)


def at_step(task: Task, step: int, act: Callable[[dict[str, Tensor], nn.Module], dict[str, Tensor]]) -> Task:
    """The task, with something happening to the loss of that step, counted from the start of this session."""
    calls = 0

    def loss(network: nn.Module, x: Tensor, label: Tensor | None, *draws: Any) -> dict[str, Tensor]:
        nonlocal calls
        calls += network.training
        losses = task.loss(network, x, label, *draws)
        return act(losses, network) if network.training and calls == step else losses

    return replace(task, loss=loss)


def send(number: int) -> Callable[[dict[str, Tensor], nn.Module], dict[str, Tensor]]:
    def act(losses: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
        os.kill(os.getpid(), number)
        return losses

    return act


def log_of(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "images_per_second"} for row in rows]


def assert_same_run(a: Path, b: Path) -> None:
    """Weights, average, optimiser, log, samples and finished model are the same, bit for bit."""
    one, other = load_checkpoint(a / "checkpoints"), load_checkpoint(b / "checkpoints")
    assert one.step == other.step
    assert one.tensors.keys() == other.tensors.keys()
    assert all(torch.equal(one.tensors[name], other.tensors[name]) for name in one.tensors)
    assert {name.partition(".")[0] for name in one.tensors} - {"loss"} == {"model", "average", "optimiser"}
    assert log_of(a) == log_of(b)
    samples = sorted(p.relative_to(a) for p in a.glob("samples/*.png"))
    assert samples
    for name in [*samples, Path("model/model.safetensors"), Path("model/samples.png")]:
        assert (a / name).read_bytes() == (b / name).read_bytes()


# A run from start to end


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_leaves_log_samples_curve_and_model(
    kind: str, tmp_path: Path, data_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Log, "plot", PLOT)
    config = options(kind, tmp_path / "run", data_dir)
    assert main(config, KINDS[kind][1](config)) == 0
    rows = log_of(tmp_path / "run")
    assert [row["step"] for row in rows if "losses" in row] == [4, 8, 12]
    assert [row["step"] for row in rows if "held_out" in row] == [6, 12]
    sheets = {"step-00000006.png", "step-00000012.png", "raw.png", "nearest.png"}
    assert {p.name for p in (tmp_path / "run").glob("samples/*")} == sheets
    assert (tmp_path / "run" / "loss.png").stat().st_size > 1000
    model = hub.read(tmp_path / "run" / "model").model
    average = load_checkpoint(tmp_path / "run" / "checkpoints").tensors
    rounded = {k: average[f"average.{k}"].half().float() for k in model.state_dict()}
    assert all(torch.equal(v, rounded[k]) for k, v in model.state_dict().items())
    out = capsys.readouterr()
    # No terminal: a line for each entry of the log, and no bar that fills a file.
    assert [line.split(",")[0] for line in out.out.splitlines() if " left" in line] == [f"step {s} of 12" for s in (4, 8, 12)]
    assert "\r" not in out.out + out.err
    assert "images/s" in out.out


def test_what_is_written_for_others_says_nothing_about_this_machine(picture_folder: Path, tmp_path: Path):
    config = replace(options("vae", tmp_path / "secret-run", tmp_path / "secret-data"), dataset=str(picture_folder), size=8)
    assert main(config, replace(task_of(config), sample=lambda model: torch.zeros(64, 3, 8, 8))) == 0
    metrics = json.loads((tmp_path / "secret-run" / "model" / "metrics.json").read_text())
    assert metrics["command"].startswith("python training/train_vae.py --dataset pictures --size 8 ")
    assert metrics["training"]["options"]["dataset"] == "pictures"
    for path in (tmp_path / "secret-run" / "model").iterdir():
        content = path.read_bytes()
        for word in (str(tmp_path), tmp_path.name, "secret", socket.gethostname()):
            assert word.encode() not in content, (path.name, word)


def test_a_folder_called_mnist_is_not_called_mnist(picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its name, its command and its data set, in what is written for others."""
    folder = tmp_path / "ylecun" / "mnist"  # which is also MNIST's name on the Hub
    folder.parent.mkdir()
    picture_folder.rename(folder)
    for number, (here, given) in enumerate(((folder.parent, "./mnist"), (tmp_path, "ylecun/mnist"), (tmp_path, str(folder)))):
        monkeypatch.chdir(here)
        config = replace(options("vae", tmp_path / str(number), tmp_path), dataset=given, size=8)
        assert main(config, replace(task_of(config), sample=lambda model: torch.zeros(64, 3, 8, 8))) == 0
        found = hub.read(tmp_path / str(number))
        assert (found.model.data.name, found.metrics["training"]["options"]["dataset"]) == ("mnist-folder", "mnist-folder")
        assert "--dataset mnist-folder " in found.metrics["command"]
        card = (found.folder / "README.md").read_text()
        assert "datasets:" not in card
        assert "# VAE of mnist-folder" in card


# Resuming (the same numbers as without the interruption)


@pytest.fixture(scope="module")
def straight() -> dict[str, Path]:
    """The run that was never interrupted, by kind; the first test that needs it makes it."""
    return {}


@pytest.mark.parametrize(("kind", "interrupted"), [("ddpm", 3), ("ddpm", 5), ("ddpm, bound", 7), ("vae", 6), ("vae", 10)])
def test_a_resumed_run_is_bit_for_bit_the_uninterrupted_one(
    kind: str, interrupted: int, tmp_path: Path, data_dir: Path, straight: dict[str, Path]
):
    """Interrupted in the middle of an epoch, at its end, between two log lines, at a checkpoint, at a sheet of samples."""
    if kind not in straight:
        straight[kind] = tmp_path / "straight"
        config = options(kind, straight[kind], data_dir)
        assert main(config, task_of(config)) == 0
    config = options(kind, tmp_path / "resumed", data_dir)
    assert main(config, at_step(task_of(config), interrupted, send(signal.SIGTERM))) == 143
    assert load_checkpoint(tmp_path / "resumed" / "checkpoints").step == interrupted
    again = replace(config, resume=True)
    assert main(again, task_of(again)) == 0
    assert_same_run(straight[kind], tmp_path / "resumed")


def test_the_channels_are_chosen_by_size_stated_and_kept(tmp_path: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]):
    config = options("ddpm", tmp_path / "run", data_dir, steps=2)
    assert main(config, task_of(config)) == 0
    assert "\n  the network has 8 → 16 channels (--multipliers decides)\n" in capsys.readouterr().out
    assert "--multipliers 1 2" in json.loads((tmp_path / "run" / "model" / "metrics.json").read_text())["command"]
    unet = replace(config.model.unet, multipliers=(1, 2))  # as a run recorded it before there was a default by size
    given = replace(config, model=replace(config.model, unet=unet), resume=True)
    assert main(given, task_of(given)) == 0
    assert "--multipliers" not in capsys.readouterr().out
    other = replace(given, model=replace(config.model, unet=replace(unet, multipliers=(1, 1))))
    assert main(other, task_of(other)) == 1
    assert "--multipliers [1, 2] → [1, 1]" in capsys.readouterr().err


def test_a_killed_run_goes_on_from_its_last_checkpoint(tmp_path: Path, data_dir: Path):
    class Killed(BaseException):
        pass

    def kill(losses: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
        raise Killed

    straight, config = (options("vae", tmp_path / name, data_dir, save_every=5) for name in ("straight", "killed"))
    assert main(straight, task_of(straight)) == 0
    with pytest.raises(Killed):
        main(config, at_step(task_of(config), 10, kill))
    assert load_checkpoint(tmp_path / "killed" / "checkpoints").step == 5
    assert log_of(tmp_path / "killed")[-1]["step"] == 8  # beyond the checkpoint: to be written again
    with open(tmp_path / "killed" / "log.jsonl", "a") as log:
        log.write('{"step": 9, "losses": {"lo')
    again = replace(config, resume=True)
    assert main(again, task_of(again)) == 0
    assert_same_run(tmp_path / "straight", tmp_path / "killed")


def test_resuming_a_finished_run_writes_its_model_again(tmp_path: Path, data_dir: Path):
    config = options("vae", tmp_path / "run", data_dir)
    assert main(config, task_of(config)) == 0
    weights = tmp_path / "run" / "model" / "model.safetensors"
    before, log = weights.read_bytes(), log_of(tmp_path / "run")
    weights.unlink()
    assert main(replace(config, resume=True), task_of(config)) == 0
    assert weights.read_bytes() == before
    assert log_of(tmp_path / "run") == log


def test_a_run_may_start_from_another_model(tmp_path: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]):
    """With a learning rate of next to nothing, the new model has the weights of the old one, to the last digit stored."""
    first = options("ddpm", tmp_path / "first", data_dir, store="fp32")
    assert main(first, task_of(first)) == 0
    more = options("ddpm", tmp_path / "more", data_dir, store="fp32", from_model=str(tmp_path / "first"), lr=1e-9, ema=0.0)
    assert main(more, task_of(more)) == 0
    before, after = (genlab.load(tmp_path / name).state_dict() for name in ("first", "more"))
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in before)
    model = tmp_path / "more" / "model"
    assert json.loads((model / "metrics.json").read_text())["training"]["options"]["from_model"] == "first"
    assert "trained from the weights of first with genlab" in (model / "README.md").read_text()

    other = replace(more, run=tmp_path / "other", model=DDPMConfig(T=30, unet=UNetConfig(width=8, dropout=0.2)))
    assert main(other, task_of(other)) == 1
    assert "its model differ from what is to be trained: T 25 → 30" in capsys.readouterr().err


@pytest.mark.parametrize("same", [True, False])
def test_resuming_a_finished_run_keeps_what_was_measured_of_the_same_weights(tmp_path: Path, data_dir: Path, same: bool):
    config = options("vae", tmp_path / "run", data_dir)
    assert main(config, task_of(config)) == 0
    model = tmp_path / "run" / "model"
    metrics = json.loads((model / "metrics.json").read_text())
    weights = hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest() if same else "0" * 64
    measured = {"schema": 1, "evaluation": {"model_sha256": weights}}
    (model / "metrics.json").write_text(json.dumps(metrics | measured))
    assert main(replace(config, resume=True), task_of(config)) == 0
    now = json.loads((model / "metrics.json").read_text())
    assert {key: now.get(key) for key in measured} == (measured if same else {"schema": None, "evaluation": None})
    assert now["training"] | {"seconds": 0} == metrics["training"] | {"seconds": 0}


def test_a_run_is_resumed_in_the_arithmetic_in_which_it_began(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    config = options("vae", tmp_path / "run", data_dir, precision="auto")
    for computes_bf16, precision, status in ((False, "auto", 0), (True, "auto", 1), (True, "fp32", 0)):
        AcceleratorState._reset_state(reset_partial_state=True)
        monkeypatch.setattr(loop, "computes_bf16", lambda there=computes_bf16: there)
        again = replace(config, resume=(tmp_path / "run").exists(), precision=precision)
        assert main(again, task_of(again)) == status
    assert "--precision fp32 → bf16" in capsys.readouterr().err


def test_only_a_learned_variance_has_a_bound_in_the_loss(data_dir: Path):
    pictures = load("mnist", "train", str(data_dir))
    x, label = torch.zeros(2, *pictures.spec.shape), torch.zeros(2, dtype=torch.long)
    for variance in ("learned", "posterior", "beta"):
        task = train_ddpm.task(DDPMTraining(model=DDPMConfig(variance=variance)))
        losses = task.loss(task.build(pictures.spec), x, label)
        assert ("bound" in losses) == (variance == "learned")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lr": 0.01}, r"--lr 0.001 → 0.01"),
        ({"steps": 11}, r"--steps 12 → 11"),
        ({"seed": 1, "ema": 0.5}, r"--ema 0.999 → 0.5; --seed 0 → 1"),
        ({"model": VAEConfig(latent=3, width=8, hidden=16)}, r"--latent 2 → 3\."),
        ({"dataset": "fashion-mnist"}, r"the pictures of the data set \(--dataset mnist → fashion-mnist\)"),
    ],
)
def test_resuming_with_other_options_is_refused_with_the_difference(
    changes: dict[str, Any], message: str, tmp_path: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]
):
    config = options("vae", tmp_path / "run", data_dir, lr=0.001)
    assert main(config, at_step(task_of(config), 1, send(signal.SIGINT))) == 130
    state = load_checkpoint(tmp_path / "run" / "checkpoints")
    changed = replace(config, resume=True, **changes)
    capsys.readouterr()
    assert main(changed, task_of(changed)) == 1
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert load_checkpoint(tmp_path / "run" / "checkpoints").facts == state.facts


def test_resuming_with_other_pictures_or_processes_is_refused(
    tmp_path: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]
):
    config = options("vae", tmp_path / "run", data_dir)
    assert main(config, at_step(task_of(config), 1, send(signal.SIGINT))) == 130
    data = load("mnist", "train", str(data_dir))
    again = replace(config, resume=True)
    task = task_of(config)
    two = SimpleNamespace(device=torch.device("cpu"), num_processes=2, mixed_precision="no")
    with pytest.raises(run.RunError, match="processes 1 → 2"):
        Trainer(again, task.build, task.loss, data, two)
    turned = Dataset(data.spec, data.images.flip(0), data.labels, data.source)
    with pytest.raises(run.RunError, match="the pictures of the data set"):
        Trainer(again, task.build, task.loss, turned, make_accelerator("fp32"))


def test_the_options_that_say_how_often_may_change(tmp_path: Path, data_dir: Path):
    straight, config = (options("vae", tmp_path / name, data_dir) for name in ("straight", "run"))
    assert main(straight, task_of(straight)) == 0
    assert main(config, at_step(task_of(config), 2, send(signal.SIGINT))) == 130
    again = replace(config, resume=True, log_every=3, sample_every=50, save_every=2)
    assert main(again, task_of(again)) == 0
    one, other = (load_checkpoint(tmp_path / name / "checkpoints").tensors for name in ("straight", "run"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_goes_on_for_longer_than_it_began(tmp_path: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]):
    """Stopped before the learning rate fell it becomes, bit for bit, the longer run; a finished one starts to learn again."""
    straight = options("vae", tmp_path / "straight", data_dir, steps=24)
    config = replace(straight, run=tmp_path / "run", steps=12)
    assert main(straight, task_of(straight)) == 0
    assert main(config, at_step(task_of(config), 6, send(signal.SIGINT))) == 130
    longer = replace(config, resume=True, steps=24)
    assert main(longer, task_of(longer)) == 0
    one, other = (load_checkpoint(tmp_path / name / "checkpoints").tensors for name in ("straight", "run"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    capsys.readouterr()
    again = replace(longer, steps=36)
    assert main(again, task_of(again)) == 0
    assert "--steps 24 → 36: longer than it began; the learning rate is 0.001 now" in capsys.readouterr().out
    assert load_checkpoint(tmp_path / "run" / "checkpoints").step == 36
    # The command alone would not make this model, as the learning rate had fallen before: the model says so.
    assert main(again, task_of(again)) == 0
    model = tmp_path / "run" / "model"
    assert json.loads((model / "metrics.json").read_text())["training"]["lengthened"] == ["--steps 24 up to step 24"]
    assert "| planned shorter at first | --steps 24 up to step 24 |" in (model / "README.md").read_text()


def test_what_cannot_be_resumed_or_started_says_what_to_do(tmp_path: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]):
    config = options("vae", tmp_path / "run", data_dir, steps=2)
    assert main(replace(config, resume=True), task_of(config)) == 1
    assert "--resume: no checkpoint in" in capsys.readouterr().err
    assert main(config, task_of(config)) == 0
    assert main(config, task_of(config)) == 1
    assert "holds an earlier run: continue with --resume" in capsys.readouterr().err
    with run_lock(tmp_path / "run"):
        assert main(replace(config, resume=True), task_of(config)) == 1
    assert f"is in use by process {os.getpid()}" in capsys.readouterr().err
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert main(replace(config, run=blocked), task_of(config)) == 1
    error = capsys.readouterr().err
    assert str(blocked) in error
    assert "Traceback" not in error


# Faults


def not_a_number(losses: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    return losses | {"loss": losses["loss"] * math.nan}


def infinite(losses: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    return losses | {"loss": losses["loss"] + math.inf}


def gradient_alone(losses: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    # √0: the loss is what it was, its derivative is not finite.
    return losses | {"loss": losses["loss"] + (next(network.parameters()).flatten()[0] * 0).abs().sqrt()}


@pytest.mark.parametrize("fault", [not_a_number, infinite, gradient_alone])
def test_a_loss_or_gradient_that_is_not_finite_stops_before_the_optimiser(
    fault: Callable[..., dict[str, Tensor]], tmp_path: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]
):
    config = options("vae", tmp_path / "run", data_dir, save_every=3)
    assert main(config, at_step(task_of(config), 5, fault)) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: step 5: the loss or its gradient is not finite")
    assert "Traceback" not in error
    saved = load_checkpoint(tmp_path / "run" / "checkpoints")
    assert saved.step == 3
    assert all(tensor.isfinite().all() for tensor in saved.tensors.values())
    assert not (tmp_path / "run" / "model").exists()


def test_a_loop_that_looks_at_its_losses_seldom_says_the_same_of_them(tmp_path: Path, data_dir: Path):
    found = {}
    for every in (1, 4):
        config = options("vae", tmp_path / f"run-{every}", data_dir, steps=13, log_every=6, sample_every=100, save_every=9)
        trainer = trainer_on(load("mnist", "train", str(data_dir)), config, task_of(config))
        trainer.sync_every, stop = every, Stop()
        records = list(trainer.run(stop))
        stop.restore()
        due = [(r.step, r.losses, r.lr, r.gradient_norm) for r in records if r.log_due]
        found[every] = ([r.step for r in records], due, load_checkpoint(config.run_folder / "checkpoints").tensors)
    assert found[1][0] == [*range(1, 14)]
    assert found[4][0] == [4, 6, 8, 9, 12, 13]
    assert found[1][1] == found[4][1]
    assert found[1][2].keys() == found[4][2].keys()
    assert all(torch.equal(value, found[4][2][name]) for name, value in found[1][2].items())


def test_a_loss_that_is_not_finite_is_named_by_its_own_step_however_seldom_it_is_looked_for(tmp_path: Path, data_dir: Path):
    config = options("vae", tmp_path / "run", data_dir, steps=12, save_every=4)
    trainer = trainer_on(load("mnist", "train", str(data_dir)), config, at_step(task_of(config), 6, infinite))
    trainer.sync_every, stop = 100, Stop()
    with pytest.raises(DivergedError, match=r"step 6: the loss or its gradient is not finite \(\{'loss': inf"):
        list(trainer.run(stop))
    stop.restore()
    assert load_checkpoint(tmp_path / "run" / "checkpoints").step == 4


def test_no_loss_waits_for_another_device(data_dir: Path):
    """The device "meta" stands for a GPU: reading a value back is an error there, and every copy from here is recorded."""
    copies: list[tuple[str, bool]] = []

    class Copies(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function is torch.ops.aten._to_copy.default and torch.device(kwargs.get("device") or "cpu").type == "meta":
                copies.append((args[0].device.type, kwargs.get("non_blocking", False)))
            return function(*args, **(kwargs or {}))

    spec = load("mnist", "train", str(data_dir)).spec
    for config in (DDPMTraining(), VAETraining()):
        task = KINDS[config.kind][1](config)
        network = task.build(spec).to("meta")
        x, label = torch.empty(4, *spec.shape, device="meta"), torch.zeros(4, dtype=torch.long, device="meta")
        copies.clear()
        with Copies():
            task.loss(network, x, label)["loss"].mean().backward()
        assert {waits_not for there, waits_not in copies if there == "cpu"} == ({True} if config.kind == "ddpm" else set())


def test_the_average_follows_without_reading_values_back(tmp_path: Path, data_dir: Path):
    """After n steps it is Σ of the models with the weights of the recursion; on the device "meta" no value can be read back."""
    config = options("vae", tmp_path / "run", data_dir, ema=0.9)
    trainer = trainer_on(load("mnist", "train", str(data_dir)), config, task_of(config))
    expected = None
    for step in range(20):
        with torch.no_grad():
            for weight in trainer.model.parameters():
                weight.copy_(torch.randn_like(weight))
        now = torch.cat([weight.detach().double().flatten() for weight in trainer.model.parameters()])
        decay = min(0.9, (1 + step) / (10 + step)) if step else 0.0
        expected = now if expected is None else decay * expected + (1 - decay) * now
        trainer._follow()
        trainer.step += 1
        found = torch.cat([weight.double().flatten() for weight in trainer.average.parameters()])
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    trainer.model.to("meta")
    trainer.average.to("meta")
    trainer._follow()


def test_compiled_networks_learn_what_they_would(tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch):
    """The real compiler takes a minute: here it stands aside, and the networks that it was given go on as they are."""
    given: list[nn.Module] = []
    monkeypatch.setattr(nn.Module, "compile", lambda self, *args, **kwargs: given.append(self))
    saved = {}
    for compile in ("auto", "on"):
        config = options("vae", tmp_path / compile, data_dir, steps=2, compile=compile)
        trainer = trainer_on(load("mnist", "train", str(data_dir)), config, task_of(config))
        stop = Stop()
        list(trainer.run(stop))
        stop.restore()
        saved[compile] = load_checkpoint(config.run_folder / "checkpoints").tensors
        assert given == ([] if compile == "auto" else [trainer.model.encoder, trainer.model.decoder])
    assert saved["auto"].keys() == saved["on"].keys()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (TorchDynamoException("No working C++ compiler\n\nSet TORCHDYNAMO_VERBOSE=1"), "compiler.: train with --compile off"),
        (RuntimeError("out of memory"), "^out of memory$"),
    ],
)
def test_where_no_network_can_be_compiled_it_is_said(error, said, tmp_path: Path, data_dir: Path, monkeypatch):
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(nn.Module, "compile", lambda self: self.register_forward_pre_hook(fail))
    config = options("ddpm", tmp_path, data_dir, steps=2, compile="on")
    trainer = trainer_on(load("mnist", "train", str(data_dir)), config, task_of(config))
    stop = Stop()
    with pytest.raises(RuntimeError, match=said) as found:
        list(trainer.run(stop))
    stop.restore()
    assert isinstance(found.value, run.RunError) is isinstance(error, TorchDynamoException)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["ddpm", "vae"])
def test_compiled_networks_have_the_losses_and_gradients_of_others(kind: str, tmp_path: Path, data_dir: Path):
    found = {}
    for compile in ("off", "on"):
        config = options(kind, tmp_path / compile, data_dir, steps=2, compile=compile)
        if kind == "ddpm":  # without dropout, for which compiled code draws other random numbers
            config = replace(config, model=DDPMConfig(T=25, unet=UNetConfig(width=8)))
        trainer = trainer_on(load("mnist", "train", str(data_dir)), config, task_of(config))
        stop = Stop()
        found[compile] = list(trainer.run(stop))
        stop.restore()
    for compiled, plain in zip(found["on"], found["off"], strict=True):
        assert compiled.losses == pytest.approx(plain.losses, rel=1e-3)
        assert compiled.gradient_norm == pytest.approx(plain.gradient_norm, rel=1e-3)


def test_weights_that_are_not_finite_are_never_saved(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    real = Trainer._follow

    def overflow(self: Trainer) -> None:
        real(self)
        if self.step == 11:  # the last step of all: no later loss would show it
            next(self.average.parameters()).data.fill_(math.inf)

    monkeypatch.setattr(Trainer, "_follow", overflow)
    config = options("vae", tmp_path / "run", data_dir)
    assert main(config, task_of(config)) == 1
    assert "step 12: 1 weights are not finite, average." in capsys.readouterr().err
    assert load_checkpoint(tmp_path / "run" / "checkpoints").step == 10
    assert not (tmp_path / "run" / "model").exists()


def test_a_full_disk_is_told_with_the_path(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    import resource

    config = options("vae", tmp_path / "run", data_dir, steps=10, log_every=50, sample_every=50)
    real, saves = loop.save_checkpoint, []

    def save_on_a_full_disk(root: Path, checkpoint: object) -> Path:
        saves.append(checkpoint)
        if len(saves) < 2:
            return real(root, checkpoint)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        try:
            return real(root, checkpoint)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    monkeypatch.setattr(loop, "save_checkpoint", save_on_a_full_disk)
    assert main(config, task_of(config)) == 1
    error = capsys.readouterr().err
    assert "could not write checkpoint" in error
    assert str(tmp_path / "run" / "checkpoints" / "step-00000010") in error
    assert load_checkpoint(tmp_path / "run" / "checkpoints").step == 5
    monkeypatch.setattr(loop, "save_checkpoint", real)
    assert main(replace(config, resume=True), task_of(config)) == 0


def test_an_interrupt_while_the_data_is_read_is_no_trace(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def interrupted(*args: object) -> tuple[Dataset, Dataset]:
        raise KeyboardInterrupt

    monkeypatch.setattr(run.pictures, "load_both", interrupted)
    config = options("vae", tmp_path / "run", data_dir)
    assert main(config, task_of(config)) == 130
    assert capsys.readouterr().err.startswith("interrupted")


def test_the_echo_of_a_signal_is_ignored_and_a_second_one_ends_the_process():
    before = signal.getsignal(signal.SIGINT)  # ignored where the tests run in the background
    stop = Stop()
    try:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.signal == signal.SIGINT
    finally:
        stop.restore()
    assert signal.getsignal(signal.SIGINT) is before
    child = os.fork()
    if child == 0:
        stop = Stop()
        os.kill(os.getpid(), signal.SIGTERM)
        stop._since -= 2
        os.kill(os.getpid(), signal.SIGTERM)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGTERM


# Pushing


def test_the_right_to_push_is_checked_before_anything_else(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def refuse(kind: str, name: str, repo_id: str | None, private: bool) -> str:
        raise ModelError(f"no token for {kind} {name} {repo_id}")

    def never(*args: object) -> None:
        raise AssertionError("data was read")

    monkeypatch.setattr(run.publish, "authorise", refuse)
    monkeypatch.setattr(run.pictures, "load_both", never)
    config = replace(options("vae", tmp_path / "run", data_dir), push=True)
    assert main(config, task_of(config)) == 1
    assert capsys.readouterr().err == "error: no token for vae mnist None\n"


def test_a_push_that_fails_leaves_the_model_and_its_own_exit_status(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def fail(folder: Path, repo_id: str, private: bool, license: str | None) -> str:
        raise ModelError(f"{repo_id} {private}: the Hub is down")

    monkeypatch.setattr(run.publish, "authorise", lambda kind, name, repo_id, private: f"me/genlab-{kind}-{name}")
    monkeypatch.setattr(run.publish, "push", fail)
    config = replace(options("vae", tmp_path / "run", data_dir, steps=2), push=True, private=True)
    assert main(config, task_of(config)) == 3
    error = capsys.readouterr().err
    assert "trained, but not pushed: me/genlab-vae-mnist True: the Hub is down" in error
    assert f"python training/publish.py {tmp_path / 'run'} --repo-id me/genlab-vae-mnist --private\n" in error
    assert hub.read(tmp_path / "run" / "model").model.kind == "vae"


# Parts of the loop


def trainer_on(data: Dataset, config: Training, task: Task) -> Trainer:
    return Trainer(config, task.build, task.loss, data, make_accelerator("fp32"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_in_parts_is_the_step_of_the_whole_batch(kind: str, tmp_path: Path, data_dir: Path):
    """Without dropout, which every part draws for itself; with noise, dropped labels and times that depend on earlier terms."""
    model = replace(VAE_OPTIONS["model"]) if kind == "vae" else DDPMConfig(T=25, unet=UNetConfig(width=8))
    found = []
    for parts in (1, 4):
        config = options(kind, tmp_path / str(parts), data_dir, steps=4, model=model, accumulate=parts)
        config = replace(config, augment=("flip", "crop"))
        trainer = trainer_on(load("mnist", "train", str(data_dir)), config, task_of(config))
        stop = Stop()
        losses = [record.losses["loss"] for record in trainer.run(stop)]
        stop.restore()
        moments = [trainer.optimiser.state[weight]["exp_avg"] for weight in trainer.model.parameters()]
        found.append((losses, moments, [each.clone() for each in trainer._loss_state.values()]))
        AcceleratorState._reset_state(reset_partial_state=True)
    (losses, moments, state), (in_parts, moments_in_parts, state_in_parts) = found
    assert in_parts == pytest.approx(losses, rel=1e-4)
    for one, other in zip(moments + state, moments_in_parts + state_in_parts, strict=True):
        torch.testing.assert_close(other, one, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_every_picture_comes_once_an_epoch_whatever_the_processes(processes: int, tmp_path: Path, data_dir: Path):
    """Batches of 12 of 40 pictures straddle the epochs; the processes' shares together are the batch of a single one."""
    config = options("vae", tmp_path, data_dir, batch_size=12)
    data = load("mnist", "train", str(data_dir))
    numbered = Dataset(data.spec, data.images, torch.arange(40), data.source)
    trainer = trainer_on(numbered, config, task_of(config))
    seen: list[int] = []
    for step in range(10):
        trainer.step = step
        for index in range(processes):
            share = 12 // processes
            pixels, labels = trainer._batch(slice(index * share, (index + 1) * share))
            assert torch.equal(pixels, data.images[labels])
            assert len(labels) == 12 // processes
            seen += labels.tolist()
    epochs = [seen[:40], seen[40:80], seen[80:120]]
    assert all(sorted(epoch) == list(range(40)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    trainer.step = 3
    assert trainer._batch(slice(0, 12))[1].tolist() == seen[36:48]


def test_fewer_pictures_than_a_batch(tmp_path: Path, data_dir: Path):
    config = options("vae", tmp_path, data_dir, batch_size=8)
    data = load("mnist", "train", str(data_dir))
    three = Dataset(data.spec, data.images[:3], torch.arange(3), data.source)
    batch = trainer_on(three, config, task_of(config))._batch(slice(0, 8))[1].tolist()
    assert sorted(batch[:3]) == sorted(batch[3:6]) == [0, 1, 2]
    assert len(batch) == 8


def test_the_learning_rate_rises_stays_and_falls():
    config = VAETraining(steps=100, lr=0.5, warmup=10, decay=0.2)
    assert config.learning_rate(0) == pytest.approx(0.05)
    assert config.learning_rate(9) == config.learning_rate(80) == 0.5
    assert config.learning_rate(90) == pytest.approx(0.25)
    assert config.learning_rate(99) == pytest.approx(0.025)
    flat = replace(config, warmup=0, decay=0.0)
    assert {flat.learning_rate(step) for step in range(100)} == {0.5}


def test_the_moving_average_is_the_one_that_its_formula_says(tmp_path: Path, data_dir: Path):
    config = options("vae", tmp_path, data_dir, ema=0.3)
    trainer = trainer_on(load("mnist", "train", str(data_dir)), config, task_of(config))
    stop, expected = Stop(), None
    for n, _ in enumerate(trainer.run(stop)):
        weights = torch.cat([p.detach().flatten() for p in trainer.model.parameters()]).double()
        decay = min(0.3, (1 + n) / (10 + n))
        expected = weights if n == 0 else decay * expected + (1 - decay) * weights
        shown = torch.cat([p.detach().flatten() for p in trainer.average.parameters()])
        torch.testing.assert_close(shown.double(), expected, atol=1e-6, rtol=0)
    stop.restore()


def test_the_gradient_is_scaled_down_to_its_largest_norm(tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch):
    norms = []
    real = torch.optim.AdamW.step

    def step(self: torch.optim.AdamW, *args: object) -> object:
        norms.append(float(torch.cat([p.grad.flatten() for g in self.param_groups for p in g["params"]]).norm()))
        return real(self, *args)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    config = options("vae", tmp_path, data_dir, clip=0.25, steps=3)
    stop = Stop()
    records = list(trainer_on(load("mnist", "train", str(data_dir)), config, task_of(config)).run(stop))
    stop.restore()
    assert all(record.gradient_norm > 0.25 for record in records)
    assert norms == pytest.approx([0.25] * 3, rel=1e-4)


def test_losses_of_a_record_are_means_since_the_last_one_that_was_due(tmp_path: Path, data_dir: Path):
    config = options("vae", tmp_path, data_dir, log_every=4, steps=6)
    task, seen = task_of(config), []

    def loss(network: nn.Module, x: Tensor, label: Tensor | None, *draws: Any) -> dict[str, Tensor]:
        losses = task.loss(network, x, label, *draws)
        seen.append(float(losses["loss"].detach().mean()))
        return losses

    stop = Stop()
    records = list(trainer_on(load("mnist", "train", str(data_dir)), config, replace(task, loss=loss)).run(stop))
    stop.restore()
    assert [record.log_due for record in records] == [False, False, False, True, False, True]
    assert records[3].losses["loss"] == pytest.approx(sum(seen[:4]) / 4)
    assert records[5].losses["loss"] == pytest.approx(sum(seen[4:]) / 2)


def test_bf16_is_taken_by_name_and_by_itself_only_where_the_hardware_has_it(monkeypatch: pytest.MonkeyPatch):
    for has, expected in ((True, "bf16"), (False, "no")):
        monkeypatch.setattr(loop, "computes_bf16", lambda has=has: has)
        assert loop.choose_precision("auto", cpu=True) == expected
    assert loop.choose_precision("bf16", cpu=True) == "bf16"
    assert loop.choose_precision("fp32", cpu=True) == "no"


def test_bf16_trains_and_keeps_its_weights_in_fp32(tmp_path: Path, data_dir: Path):
    config = options("ddpm", tmp_path / "run", data_dir, precision="bf16", steps=2)
    assert main(config, task_of(config)) == 0
    saved = load_checkpoint(tmp_path / "run" / "checkpoints")
    assert {tensor.dtype for name, tensor in saved.tensors.items() if name.startswith("model.")} == {torch.float32}
    assert json.loads((tmp_path / "run" / "model" / "metrics.json").read_text())["training"]["precision"] == "bf16"


@pytest.mark.parametrize(
    ("kind", "model", "size", "nearest"),
    [
        ("ddpm", DDPMConfig(unet=UNetConfig(width=8)), 30, "28 or 32"),
        ("ddpm", DDPMConfig(unet=UNetConfig(width=8, patch=1, multipliers=(1, 1, 1))), 5, "4 or 8"),
        ("ddpm", DDPMConfig(unet=UNetConfig(width=8, patch=8, multipliers=(1, 1))), 255, "240 or 256"),
        ("vae", VAEConfig(width=8), 18, "16 or 20"),
        ("vae", VAEConfig(width=8), 7, "6 or 8"),
    ],
)
def test_a_size_that_does_not_fit_names_the_flag_and_the_nearest_that_do(kind: str, model: Any, size: int, nearest: str):
    build = KINDS[kind][1](KINDS[kind][0](model=model)).build
    with pytest.raises(ValueError, match=rf"--size: expected .*got {size}; give --size {nearest}$"):
        check_size(build, DataSpec(size=size))
    for works in nearest.split(" or "):
        check_size(build, DataSpec(size=int(works)))


def test_a_model_that_is_refused_at_every_size_is_not_blamed_on_the_size():
    build = train_ddpm.task(DDPMTraining(model=DDPMConfig(T=5, schedule="linear", unet=UNetConfig(width=8)))).build
    with pytest.raises(ValueError, match=r"^expected T > 20"):
        check_size(build, DataSpec())


def test_a_log_drops_what_will_be_written_again(tmp_path: Path):
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n{"step": 2}\nnull\n{"no": 1}\n{"step": 3}\n{"st')
    assert Log(tmp_path, 2).rows == [{"step": 1}, {"step": 2}]
    assert (tmp_path / "log.jsonl").read_text() == '{"step": 1}\n{"step": 2}\n'


def test_a_replay_draws_moments_and_leaves_the_training_as_it_is(data_dir: Path, tmp_path: Path) -> None:
    for replays in (0, 4):
        config = options("ddpm", tmp_path / str(replays), data_dir, replay=replays)
        assert main(config, task_of(config)) == 0
    weights = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("0", "4")]
    assert weights[0] == weights[1]
    assert hub.read(tmp_path / "0").film is None
    assert not (tmp_path / "0" / "replay").exists()
    film = hub.read(tmp_path / "4").film
    assert film is not None
    moments, last = film.replay.moments, film.replay.moments[-1]
    assert [moment.step for moment in moments] == [1, 2, 5, 12]  # 12^(i/3)
    assert [(moment.images_seen, moment.epoch) for moment in moments] == [(8, 0.2), (16, 0.4), (40, 1.0), (96, 2.4)]
    rows = {row["step"]: row["held_out"] for row in log_of(tmp_path / "4") if "held_out" in row}
    assert last.held_out_loss == rows[12]["loss"] != last.held_out_loss_of_last_weights
    assert moments[0].held_out_loss == moments[0].held_out_loss_of_last_weights, "the average begins as the weights"
    assert torch.equal(*film.pictures[0])
    assert not torch.equal(*film.pictures[-1])
    for moment in moments:
        with Image.open(tmp_path / "4" / "replay" / f"step-{moment.step:08d}.png") as sheet:
            drawn = ungrid(sheet, 2 * replay.SAMPLES, 8, replay.COLUMNS)
        assert torch.equal(drawn, film.pictures[moments.index(moment)].flatten(0, 1))


def test_the_moments_of_a_replay_are_measured_as_an_evaluation_measures(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last moment is that of the finished model: its bound, and the distance where a feature network knows the pictures."""
    train, held_out = load("mnist", "train", str(data_dir)), load("mnist", "test", str(data_dir))
    torch.manual_seed(0)
    features.save(
        tmp_path / "runs" / "classifier-x",
        FeatureNet(ClassifierConfig(2, 8), train.spec),
        {"test_accuracy": 0.5, "training": {"data_sha256": train.sha256}},
    )
    monkeypatch.setattr(features, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(replay, "FRECHET_IMAGES", 30)
    config = options("ddpm", tmp_path / "run", data_dir, replay=3, store="fp32")
    assert main(config, task_of(config)) == 0
    package = hub.read(tmp_path / "run")
    assert isinstance(package.model, DDPM)
    assert package.film is not None
    found = package.film.replay
    quiet = Progress(0, "evaluation", shown=False)
    bound = diffusion_bound(package.model, held_out.images, replay.EVALUATIONS, 0, 8, Partial(None, {}), quiet)
    last = found.moments[-1]
    assert (found.bound_images, last.bound_bits_per_dim) == (20, pytest.approx(bound["bound_bits_per_dim"]))
    assert last.bound_standard_error_bits_per_dim == pytest.approx(bound["bound_standard_error_bits_per_dim"])
    network = features.classifier_for(train)
    assert found.features is not None
    assert (found.frechet_images, found.features.sha256) == (30, network.sha256)
    drawn = torch.cat(list(draw(package.model, 30, replay.FIRST_SEED, Sampling())))
    distance = metrics.frechet_distance(network.features(drawn), network.features(held_out.images))
    assert last.frechet_distance == pytest.approx(distance, rel=1e-4)


def test_a_vae_has_moments_without_a_bound_and_unknown_pictures_have_no_distance(data_dir: Path, tmp_path: Path) -> None:
    config = options("vae", tmp_path, data_dir, replay=2)
    assert main(config, task_of(config)) == 0
    film = hub.read(tmp_path).film
    assert film is not None
    assert [moment.step for moment in film.replay.moments] == [1, 12]
    assert {(moment.bound_bits_per_dim, moment.frechet_distance) for moment in film.replay.moments} == {(None, None)}
    assert (film.replay.bound_images, film.replay.frechet_images) == (None, None)


def test_moments_from_before_an_interruption_are_in_the_film(data_dir: Path, tmp_path: Path) -> None:
    whole = options("ddpm", tmp_path / "whole", data_dir, replay=4)
    assert main(whole, task_of(whole)) == 0
    config = options("ddpm", tmp_path / "broken", data_dir, replay=4)
    assert main(config, at_step(task_of(config), 6, send(signal.SIGTERM))) == 128 + signal.SIGTERM
    early = tmp_path / "broken" / "replay" / "step-00000002.png"
    written = early.stat().st_mtime_ns
    assert main(replace(config, resume=True), task_of(config)) == 0
    assert early.stat().st_mtime_ns == written, "it was not drawn again"
    one, other = (hub.read(tmp_path / name).film for name in ("whole", "broken"))
    assert one is not None
    assert other is not None
    assert one.replay == other.replay
    assert torch.equal(one.pictures, other.pictures)


def test_a_training_does_not_fail_for_its_film(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sheet that was deleted or replaced is left out; a film that no reader would accept is not written."""
    config = options("ddpm", tmp_path, data_dir, replay=4)
    assert main(config, task_of(config)) == 0
    (tmp_path / "replay" / "step-00000002.png").unlink()
    Image.new("L", (9, 9)).save(tmp_path / "replay" / "step-00000005.png")
    again = replace(config, resume=True)
    assert main(again, task_of(again)) == 0
    film = hub.read(tmp_path).film
    assert film is not None
    assert [moment.step for moment in film.replay.moments] == [1, 12]
    errors = capsys.readouterr().err
    assert "step 2 is left out of the replay" in errors
    assert "step 5 is left out of the replay: step-00000005.png: expected L of" in errors
    monkeypatch.setitem(replay.MAX_BYTES, "replay.png", 1000)
    assert main(again, task_of(again)) == 0
    assert hub.read(tmp_path).film is None
    assert not (tmp_path / "model" / "replay.png").exists()


def test_held_out_losses_do_not_depend_on_how_many_go_through_at_once(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    config = options("vae", tmp_path, data_dir)
    task, test_set = task_of(config), load("mnist", "test", str(data_dir))
    trainer = trainer_on(load("mnist", "train", str(data_dir)), config, task)

    def squares(network: nn.Module, x: Tensor, label: Tensor | None) -> dict[str, Tensor]:
        return {"loss": x.pow(2).sum(dim=(1, 2, 3))}

    whole = run.held_out_loss(trainer, replace(task, loss=squares), trainer.average, test_set)
    monkeypatch.setattr(run, "AT_ONCE", 64 * 7)
    assert run.held_out_loss(trainer, replace(task, loss=squares), trainer.average, test_set) == pytest.approx(whole)


# Several processes


@pytest.fixture
def two_processes() -> Iterator[Callable[[list[str]], list[subprocess.Popen[str]]]]:
    """Starts the script in two processes, as torchrun does; none outlives the test."""
    started: list[subprocess.Popen[str]] = []

    def start(arguments: list[str], **more: str) -> list[subprocess.Popen[str]]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        common = os.environ | {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        common |= {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(ROOT / "training" / "train_vae.py"), *arguments]
        for rank in ("0", "1"):
            env = common | {"RANK": rank, "LOCAL_RANK": rank} | more
            pipe = subprocess.PIPE
            started.append(subprocess.Popen(command, env=env, stdout=pipe, stderr=pipe, text=True))
        return started

    yield start
    for process in started:
        process.kill()
        process.communicate()


def flags_of(config: Any) -> list[str]:
    return [*config.command().split()[2:], "--data-dir", config.data_dir, "--run", str(config.run), "--precision", "fp32"]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_processes_take_the_steps_of_one_and_one_of_them_writes(
    accumulate: int, tmp_path: Path, data_dir: Path, two_processes: Any
):
    write_trackio(tmp_path)
    config = options("vae", tmp_path / "run", data_dir, steps=3, accumulate=accumulate, sample_every=1, log_every=3)
    often = ["--sample-every", "1", "--log-every", "3", "--track", "trackio"]
    both = two_processes([*flags_of(config), *often], PYTHONPATH=str(tmp_path))
    outputs = [process.communicate(timeout=900) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert outputs[1][0] == ""
    assert [call[0] for call in trackio_calls(outputs[0][0])] == ["init", *["log"] * 4, "finish"]
    measured = [row for row in log_of(tmp_path / "run") if "held_out" in row]
    assert [row["step"] for row in measured] == [1, 2, 3]
    lowest = min(measured, key=lambda row: row["held_out"]["loss"])
    best = json.loads((tmp_path / "run" / "best" / "metrics.json").read_text())
    assert (best["training"]["steps"], best["loss"]["held_out"]) == (lowest["step"], lowest["held_out"])
    saved = load_checkpoint(tmp_path / "run" / "checkpoints")
    assert saved.facts["processes"] == 2

    # One process takes the same steps up to rounding. Adam's first moment is linear in the gradients; the weights are not, and
    # magnify rounding where a gradient is 0.
    alone = replace(config, run=tmp_path / "alone")
    assert main(alone, task_of(alone)) == 0
    one = load_checkpoint(tmp_path / "alone" / "checkpoints")
    assert saved.tensors.keys() == one.tensors.keys()
    for name in one.tensors:
        if name.endswith("exp_avg"):
            torch.testing.assert_close(saved.tensors[name], one.tensors[name], atol=1e-5, rtol=1e-3)
    losses = [[row["losses"]["loss"] for row in log_of(tmp_path / name) if "losses" in row] for name in ("run", "alone")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_signal_to_one_of_two_processes_stops_both_at_the_same_step(tmp_path: Path, data_dir: Path, two_processes: Any):
    config = options("vae", tmp_path / "run", data_dir, steps=1_000_000, log_every=1, sample_every=10**6, save_every=10**6)
    often = ["--log-every", "1", "--sample-every", "1000000", "--save-every", "1000000"]
    first, second = two_processes([*flags_of(config), *often])
    assert any(line.startswith("step 2 ") for line in first.stdout)
    second.send_signal(signal.SIGTERM)
    out, _ = first.communicate(timeout=900)
    second.communicate(timeout=900)
    assert [first.returncode, second.returncode] == [143, 143]
    saved = load_checkpoint(tmp_path / "run" / "checkpoints")
    assert f"stopped at step {saved.step} of 1000000; checkpoint saved" in out
    assert saved.step >= 2


def test_what_fails_in_the_first_process_stops_the_others(tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch):
    """The other processes see only that something failed, in place of waiting for ever."""
    monkeypatch.setattr(run, "anywhere", lambda accelerator, condition: True)
    config = options("vae", tmp_path / "run", data_dir)
    with run.ExitStack() as held, pytest.raises(run.RunError, match="the first process could not start"):
        run._prepare(config, SimpleNamespace(is_main_process=False), held)
    assert not (tmp_path / "run").exists()


# Learning


def test_a_ddpm_learns_two_pictures_as_well_as_can_be_told(tmp_path: Path):
    """Data: one dark and one light picture.

    The network must come close to the exact conditional mean of v; the best constant prediction, 0, is far off. And its samples
    must be the two pictures.
    """
    levels = torch.tensor([64, 191], dtype=torch.uint8)
    images = levels.reshape(2, 1, 1, 1).repeat(1, 1, 8, 8)
    data = Dataset(DataSpec("two", 1, 8), images, None, "here")
    config = DDPMTraining(
        dataset="two", run=tmp_path / "run", steps=200, batch_size=16, lr=1e-2, warmup=20, ema=0.95, decay=0.5,
        model=DDPMConfig(T=30, schedule="cosine", variance="posterior", unet=UNetConfig(width=16, multipliers=(1, 1))),
        precision="fp32", save_every=10**6,
    )  # fmt: skip
    task = train_ddpm.task(config)
    trainer, stop = trainer_on(data, config, task), Stop()
    for _ in trainer.run(stop):
        pass
    stop.restore()
    model = trainer.average.eval()
    assert isinstance(model, DDPM)

    pictures = to_model(data.images)
    oracle = DataSetOracle(model.schedule, pictures)
    generator = torch.Generator().manual_seed(1)
    t = torch.arange(1, 31).repeat_interleave(16)
    x0 = pictures[torch.randint(2, (len(t),), generator=generator)]
    eps = torch.randn(x0.shape, generator=generator)
    x_t = q_marginal(model.schedule, x0, t).sample(eps)
    v = v_from_eps(model.schedule, x0, eps, t)
    exact = oracle.predict(x_t, t)
    with torch.inference_mode():
        predicted = model.predict(x_t, t, clip=False)

    def error(what: Any) -> float:
        return float((v - v_from_eps(model.schedule, what.x0_hat, what.eps_hat, t)).pow(2).mean())

    constant, best, learned = float(v.pow(2).mean()), error(exact), error(predicted)
    assert best < 0.1 * constant
    assert best - 1e-3 < learned < best + 0.2 * (constant - best)
    samples = task.sample(model)
    distance = (samples[:, None] - pictures[None]).abs().mean(dim=(2, 3, 4)).min(dim=1)
    assert distance.values.mean() < 0.3
    assert set(distance.indices.tolist()) == {0, 1}


def test_a_vae_learns_more_than_independent_pixels_can(tmp_path: Path):
    """Data: one pattern times one random number.

    The best distribution of independent Gaussian pixels has the data's own means and variances, and the mean log-likelihood
    −½ Σ log(2πe σ²); one latent variable does far better.
    """
    pattern = torch.linspace(0.2, 1, 64).reshape(1, 1, 8, 8)
    images = ((torch.linspace(-1, 1, 256).reshape(-1, 1, 1, 1) * pattern + 1) * 127.5).round().byte()
    data = Dataset(DataSpec("ramp", 1, 8), images, None, "here")
    config = VAETraining(
        dataset="ramp", run=tmp_path / "run", steps=300, batch_size=32, lr=4e-3, warmup=20, ema=0.95, precision="fp32",
        model=VAEConfig(latent=1, width=8, hidden=32), save_every=10**6,
    )  # fmt: skip
    task = train_vae.task(config)
    trainer, stop = trainer_on(data, config, task), Stop()
    for _ in trainer.run(stop):
        pass
    stop.restore()
    model = trainer.average.eval()
    assert isinstance(model, VAE)
    x = to_model(images)
    independent = float(-0.5 * (2 * math.pi * math.e * x.double().var(dim=0, correction=0)).log().sum())
    with torch.inference_mode():
        elbo = float(model.elbo(x, torch.randn(256, 1, generator=torch.Generator().manual_seed(0))).total.mean())
    assert elbo > independent + 30
