"""One training run from its options to a finished model folder; the scripts say only what their model does differently."""

from __future__ import annotations

import json
import shlex
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from genlab import data as pictures
from genlab import hub
from genlab.data import Dataset
from training.checkpoint import RunError, run_lock
from training.config import Training
from training.loop import DivergedError, Log, LossFunction, Stop, Trainer

HELD_OUT = 512
"""Test pictures on which the loss is measured during training."""


@dataclass(frozen=True)
class Task:
    """What a script brings: how to build its model, its loss, and 64 samples (64 C H W) in [−1, 1] of a model."""

    build: Callable[[Dataset], nn.Module]
    loss: LossFunction
    sample: Callable[[nn.Module], Tensor]


def main(config: Training, task: Task) -> int:
    """Train, report, write `RUN/model`, push where asked; returns the exit status.

    0: done. 1: an error that the message explains. 3: trained, but the push failed. 130, 143: stopped by a signal, checkpoint saved.
    """
    try:
        repo_id = hub.authorise(config.kind, Path(config.dataset).name, config.repo_id) if config.push else None
        with run_lock(config.run_folder):
            return _train(config, task, repo_id)
    except (pictures.DataError, RunError, DivergedError, hub.HubError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _train(config: Training, task: Task, repo_id: str | None) -> int:
    folder = config.run_folder
    if not config.resume and any(folder.glob("checkpoints/step-*")):
        raise RunError(f"{folder} holds an earlier run: go on with --resume, choose another folder with --run, or remove it")
    train_set = pictures.load(config.dataset, "train", config.data_dir, config.size, config.channels)
    test_set = pictures.load(config.dataset, "test", config.data_dir, config.size, config.channels)
    trainer = Trainer(config, task.build, task.loss, train_set)
    main_process = trainer.accelerator.is_main_process
    log = Log(folder, trainer.step) if main_process else None
    if main_process:
        parameters = sum(p.numel() for p in trainer.model.parameters())
        print(
            f"{config.kind} of {parameters:,} parameters on {train_set.spec.name} ({len(train_set):,} pictures from {train_set.source}), "
            f"{trainer.device}, {trainer.accelerator.mixed_precision.replace('no', 'fp32')}; run folder {folder}",
            flush=True,
        )
    stop = Stop()
    bar = tqdm(
        total=config.steps, initial=trainer.step, disable=not main_process, unit="step", mininterval=1.0, dynamic_ncols=True
    )
    sums: dict[str, float] = {}
    count = 0
    try:
        for record in trainer.run(stop):
            bar.update(record.step - bar.n)
            count += 1
            sums = {name: sums.get(name, 0.0) + value for name, value in record.losses.items()}
            if log is None:
                continue
            if record.step % config.log_every == 0 or record.step == config.steps:
                means = {name: value / count for name, value in sums.items()}
                log.add_record(record, means)
                bar.set_postfix_str(f"loss {means['loss']:.4g}, {record.images_per_second:.0f} images/s")
                sums, count = {}, 0
            if record.step % config.sample_every == 0 or record.step == config.steps:
                log.add({"step": record.step, "held_out": held_out_loss(trainer, task, test_set)})
                save_samples(trainer, task, folder / "samples" / f"step-{record.step:08d}.png")
                log.plot(folder / "loss.png")
    finally:
        bar.close()
        stop.restore()
    if stop.signal is not None:
        if main_process:
            print(f"stopped at step {trainer.step} of {config.steps}; checkpoint saved, go on with --resume", flush=True)
        return 128 + signal.Signals(stop.signal)
    if log is not None:
        finish(config, trainer, task, log, train_set, test_set)
        print(f"model written to {folder / 'model'}", flush=True)
        if repo_id is not None:
            try:
                print(f"pushed: {hub.push(folder / 'model', repo_id, private=config.private)}", flush=True)
            except hub.HubError as error:
                print(f"error: trained, but not pushed: {error}\nPush it again with: python training/publish.py {folder}", file=sys.stderr)
                return 3
    return 0


@torch.inference_mode()
def held_out_loss(trainer: Trainer, task: Task, test_set: Dataset) -> dict[str, float]:
    """Mean losses of the averaged weights on the first test pictures, with the same noise every time."""
    model = trainer.shown.eval()
    torch.manual_seed(trainer.config.seed)
    x = pictures.to_model(test_set.images[:HELD_OUT]).to(trainer.device)
    labels = None if test_set.labels is None else test_set.labels[:HELD_OUT].to(trainer.device)
    losses = task.loss(model, x, labels)
    return {name: float(value.mean()) for name, value in losses.items()}


@torch.inference_mode()
def save_samples(trainer: Trainer, task: Task, path: Path) -> None:
    """A sheet of 64 samples of the averaged weights."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures.grid(pictures.to_pixels(task.sample(trainer.shown.eval()).cpu())).save(path)


def finish(config: Training, trainer: Trainer, task: Task, log: Log, train_set: Dataset, test_set: Dataset) -> None:
    """Write the finished model and all that travels with it to `RUN/model`."""
    folder = config.run_folder / "model"
    metrics: dict[str, Any] = {
        "command": "python " + shlex.join([f"training/train_{config.kind}.py", *sys.argv[1:]]),
        "seed": config.seed,
        "training": {
            "options": config.fixed(),
            "steps": trainer.step,
            "images_seen": trainer.step * config.batch_size,
            "seconds": round(trainer.seconds),
            "device": str(trainer.device),
            "precision": trainer.accelerator.mixed_precision.replace("no", "fp32"),
            "processes": trainer.accelerator.num_processes,
            "data_sha256": train_set.sha256,
        },
        "loss": {
            "training": next((r["losses"] for r in reversed(log.rows) if "losses" in r), {}),
            "held_out": next((r["held_out"] for r in reversed(log.rows) if "held_out" in r), {}),
            "held_out_images": min(HELD_OUT, len(test_set)),
        },
    }
    hub.save(folder, trainer.shown, metrics, examples=test_set)
    save_samples(trainer, task, folder / "samples.png")
    log.plot(folder / "loss.png")
    (config.run_folder / "training.json").write_text(json.dumps(metrics, indent=2) + "\n")
