"""A training run from its options to a finished model folder; each script supplies a `Task` for its model."""

from __future__ import annotations

import json
import math
import os
import shlex
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm import tqdm

from genlab import data as pictures
from genlab import hub, publish
from genlab.card import NOTES
from genlab.config import MAX_SIZE, DataSpec, Sampling
from genlab.data import Dataset
from genlab.ddpm import DDPM
from genlab.draw import frames
from genlab.latent import LatentDDPM
from genlab.matching import Matching
from genlab.metrics import nearest
from genlab.models import Model
from genlab.package import EXAMPLES, Film, ModelError, Package, without_pictures, write_json, write_package
from training.account import AT_START, FILE, account, lines
from training.checkpoint import RunError, run_lock
from training.config import Training, leaves, out_of_memory
from training.loop import DivergedError, Log, LossFunction, Paces, Record, Stop, Trainer, anywhere, make_accelerator
from training.replay import Moments
from training.report import write_report

NEAREST = 16
"""Samples that are shown beside their nearest training picture."""
HELD_OUT = 512
"""Number of test pictures on which the loss is measured during training."""
MOST_LOSS = 100
"""Loss above which a training has diverged: of a VAE in nats for each value of a picture."""
AT_ONCE = 2**20
"""Largest number of values of held-out pictures evaluated at once."""

Problem = (ValueError, OSError, RunError, DivergedError, ModelError)
"""Errors reported by their message alone; any other is a bug and has a traceback."""


def model_of(trained: nn.Module) -> Model:
    """Return the model in what is trained: of a student that is matched to its teacher, the student."""
    model = trained.student if isinstance(trained, Matching) else trained
    assert isinstance(model, get_args(Model))
    return model


def sheet(trained: nn.Module, count: int = 64) -> Tensor:
    """Draw the pictures of the first seeds, (count C H W) in [−1, 1]; a DDPM by DDIM in 50 steps, other models in one."""
    model = model_of(trained)
    steps = min(50, model.schedule.T) if isinstance(model, DDPM | LatentDDPM) else 1
    *_, last = frames(model, range(count), Sampling("DDIM", steps))
    return last.x


@dataclass(frozen=True)
class TrainingData:
    """The data of a run.

    Attributes:
        train: training data; held_out: data to measure the loss on during training.
        examples: held-out pictures to write to the model folder.
        facts: further entries of the section `training` of metrics.json.
    """

    train: Dataset
    held_out: Dataset
    examples: Dataset
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """The parts of a run that depend on the model.

    Attributes:
        build: returns the model for a data set.
        loss: see `LossFunction`.
        state: tensors that `loss` updates in place, by name; they are saved in checkpoints.
        sample: draws a sheet of samples (N C H W) in [−1, 1] from a model.
        data: returns the data; None for the pictures of `config.dataset`.
        paces: the parts of what is trained, with their shares of the learning rate.
    """

    build: Callable[[DataSpec], nn.Module]
    loss: LossFunction
    state: dict[str, Tensor] = field(default_factory=dict)
    sample: Callable[[nn.Module], Tensor] = sheet
    data: Callable[[], TrainingData] | None = None
    paces: Paces = lambda model: [(model, 1.0)]


def main(config: Training, task: Task) -> int:
    """Train, report, write `RUN/model` and, with --push, push it; return the exit status.

    0: done. 1: an error that the message explains. 3: trained, but the push failed. 130, 143: stopped by SIGINT or SIGTERM,
    with a checkpoint if any step was taken.
    """
    first = os.environ.get("RANK", "0") == "0"  # set by launchers; for an error before there is an accelerator
    try:
        accelerator = make_accelerator(config.precision, config.track, config.run_folder)
        first = accelerator.is_main_process
        try:
            with ExitStack() as lock:
                repo_id = _prepare(config, accelerator, lock)
                return _train(config, task, accelerator, repo_id)
        finally:
            accelerator.end_training()
    except Problem as error:
        if first:
            where = f" (run folder {config.run_folder})" if isinstance(error, OSError) else ""
            print(f"error: {error}{where}", file=sys.stderr)
        return 1
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        print(f"error: out of memory ({error}); lower --batch-size, --size or --width, or free some memory", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        if first:
            print("interrupted; earlier checkpoints are complete", file=sys.stderr)
        return 128 + signal.SIGINT


def _prepare(config: Training, accelerator: Accelerator, lock: ExitStack) -> str | None:
    """Check the permission to push and lock the run folder, in the first process; return the repository to push to."""
    repo_id, problem = None, None
    if accelerator.is_main_process:
        try:
            if config.push:
                repo_id = publish.authorise(config.kind, config.dataset_name, config.repo_id, config.private)
            folder = config.run_folder
            lock.enter_context(run_lock(folder))
            if not config.resume and (any(folder.glob("checkpoints/step-*")) or (folder / "model").exists()):
                raise RunError(
                    f"{folder} holds an earlier run: continue with --resume, choose another folder with --run, or remove it"
                )
        except Problem as error:
            problem = error
    if anywhere(accelerator, problem is not None):
        raise problem or RunError("the first process could not start")
    return repo_id


def _train(config: Training, task: Task, accelerator: Accelerator, repo_id: str | None) -> int:
    folder = config.run_folder
    given = task.data() if task.data is not None else load_pictures(config, task.build)
    spec = given.train.spec
    before = None if config.from_model is None or config.resume else hub.read(config.from_model)
    build = task.build if before is None else starting_from(before, task.build)
    asked, config = config, config.at(spec.size)
    trainer = Trainer(config, build, task.loss, given.train, accelerator, task.state, task.paces)
    if before is not None:
        trainer.origin["from_sha256"] = before.weights_sha256
    stop = Stop()
    try:
        if not accelerator.is_main_process:
            for _ in trainer.run(stop):
                pass
            return 128 + trainer.stopped if trainer.stopped else 0
        log = Log(folder, trainer.step)
        if given.train.images.dtype == torch.uint8:
            facts = account(asked, given.train, given.held_out, given.train.images.nbytes <= AT_START)
            write_json(folder / FILE, facts)
            print("\n".join(lines(facts, config)), flush=True)
        if repo_id is not None:
            print("\n".join(publication(config, repo_id)), flush=True)
        parameters = sum(p.numel() for p in model_of(trainer.model).parameters())
        print(
            f"{config.kind} of {parameters:,} parameters on {spec.name} ({len(given.train):,} from {given.train.source}), "
            f"{device(trainer)}, {trainer.arithmetic}; run folder {folder}",
            flush=True,
        )
        if config.track:
            start_trackers(accelerator, config)
        if trainer.step:
            print(f"continuing from step {trainer.step} of {config.steps}", flush=True)
        _run(config, task, trainer, stop, log, given)
    finally:
        stop.restore()
    number = trainer.stopped or stop.signal
    if number is not None:
        print(f"stopped at step {trainer.step} of {config.steps}; checkpoint saved, continue with --resume", flush=True)
        return 128 + number
    finish(config, trainer, task, log, given)
    print(f"model written to {folder / 'model'}", flush=True)
    if repo_id is not None:
        try:
            with nullcontext(folder / "model") if config.examples else without_pictures(folder / "model") as public:
                print(f"pushed: {publish.push(public, repo_id, config.private, config.license)}", flush=True)
        except ModelError as error:
            flags = [*["--private"] * config.private, *["--no-examples"] * (not config.examples)]
            flags += ["--license", config.license] if config.license else []
            again = shlex.join(["python", "training/publish.py", str(folder), "--repo-id", repo_id, *flags])
            print(f"error: trained, but not pushed: {error}\nPush it again with: {again}", file=sys.stderr)
            return 3
    return 0


def start_trackers(accelerator: Accelerator, config: Training) -> None:
    """Start the trackers of `config.track`; wandb's files go to the run folder, as TensorBoard's do.

    Raises:
        RunError: one cannot be started: no account, no server.
    """
    options = {name: str(value) for name, value in leaves(config.published()).items()}
    try:
        accelerator.init_trackers("genlab", options, {"wandb": {"dir": str(config.run_folder)}})
    except Exception as error:  # whatever the tracker's package raises
        accelerator.trackers = []  # end_training would finish those that were not started
        raise RunError(f"--track {' '.join(config.track)}: cannot be started: {error}") from error


def publication(config: Training, repo_id: str) -> list[str]:
    """Return what a push will make public, as lines of text."""
    pictures = "without pictures of the data set" if not config.examples else f"with up to {EXAMPLES} of the held-out pictures"
    leave = "" if not config.examples else " (--no-examples leaves them out)"
    who = "those who may read it" if config.private else "everybody (--private decides)"
    terms = config.license or "the licence of the card there, else apache-2.0"
    what = f"weights, options and measurements, {pictures}{leave}, under {terms} (--license decides)"
    return [f"the model will be pushed to {repo_id} for {who}: {what}"]


def load_pictures(config: Training, build: Callable[[DataSpec], nn.Module]) -> TrainingData:
    """Read the pictures of `config.dataset`; the held-out ones are also the examples.

    Raises:
        ValueError: the pictures cannot be read, or `build` does not support their size.
    """
    train, held_out = pictures.load_both(
        config.dataset, config.data_dir, config.size, config.channels, lambda spec: check_size(build, spec), config.reading
    )
    return TrainingData(train, held_out, held_out)


def device(trainer: Trainer) -> str:
    """Return the device that a model is trained on, and why, where one might expect another."""
    if trainer.device.type == "cpu" and torch.backends.mps.is_available():
        return "cpu (Apple's GPU is not used: it has no float64, the type of the schedule's tables)"
    return trainer.device.type


def _run(config: Training, task: Task, trainer: Trainer, stop: Stop, log: Log, given: TrainingData) -> None:
    """Train, with a progress bar in a terminal, otherwise a line for each record of the log."""
    folder, moments = log.path.parent, moments_of(config, given)
    bar = tqdm(total=config.steps, initial=trainer.step, unit="step", mininterval=1.0, dynamic_ncols=True, disable=None)
    try:
        for record in trainer.run(stop):
            bar.update(record.step - bar.n)
            if record.log_due:
                log.add_record(record)
                trainer.accelerator.log({**record.losses, "lr": record.lr, "epoch": record.epoch}, record.step)
                bar.set_postfix_str(f"loss {record.losses['loss']:.4g}, {record.images_per_second:.0f} images/s")
                if bar.disable:
                    print(progress(config, record), flush=True)
            if record.replay_due:
                log.add({"step": record.step, "replay": save_moment(trainer, task, record, moments)})
            if record.sample_due:
                losses = held_out_loss(trainer, task, trainer.average, given.held_out)
                lowest = min((row["held_out"]["loss"] for row in log.rows if "held_out" in row), default=math.inf)
                log.add({"step": record.step, "held_out": losses})
                trainer.accelerator.log({f"held_out.{name}": value for name, value in losses.items()}, record.step)
                save_samples(trainer, task, folder / "samples" / f"step-{record.step:08d}.png")
                log.plot(folder / "loss.png")
                log.table(folder / "log.csv")
                write_report(folder, f"{NOTES[config.kind][0]} of {given.train.spec.name}", log)
                if losses["loss"] < lowest:
                    write_model(folder / "best", config, trainer, log, given)
    finally:
        bar.close()


def progress(config: Training, record: Record) -> str:
    """Return a line of text with step, loss, speed and remaining time."""
    seconds = round((config.steps - record.step) * config.batch_size / record.images_per_second)
    clock = f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    rate = f"{record.images_per_second:.0f} images/s"
    done = f"step {record.step} of {config.steps}, epoch {record.epoch:.1f}"
    return f"{done}, loss {record.losses['loss']:.4g}, {rate}, {clock} left"


def starting_from(before: Package, build: Callable[[DataSpec], nn.Module]) -> Callable[[DataSpec], nn.Module]:
    """Return a `build` whose models have the weights of another model.

    Raises (when called):
        ValueError: its configuration or the shape or classes of its pictures differ.
    """
    given = before.model

    def built(spec: DataSpec) -> nn.Module:
        trained = build(spec)
        fresh = model_of(trained)
        for what, wanted, got in (("model", fresh.config, given.config), ("pictures", fresh.data, given.data)):
            old, now = leaves(asdict(got)), leaves(asdict(wanted))
            differing = [name for name in now if old.get(name) != now[name] and name != "teacher"]  # which is only a name
            changed = [f"{name} {old.get(name)} → {now[name]}" for name in differing]
            if changed:
                raise ValueError(f"--from {before.source}: its {what} differ from what is to be trained: {'; '.join(changed)}")
        fresh.load_state_dict(given.state_dict())
        return trained

    return built


def check_size(build: Callable[[DataSpec], nn.Module], spec: DataSpec) -> None:
    """Raise ValueError, with the nearest sizes that work, if the network does not support pictures of this size."""

    def problem(size: int) -> ValueError | None:
        try:
            build(replace(spec, size=size))
        except ValueError as error:
            return error
        return None

    refused = problem(spec.size)
    if refused is None:
        return
    below = next((size for size in range(spec.size - 1, 3, -1) if problem(size) is None), None)
    above = next((size for size in range(spec.size + 1, MAX_SIZE + 1) if problem(size) is None), None)
    nearest = " or ".join(str(size) for size in (below, above) if size)
    if not nearest:
        raise refused
    raise ValueError(f"--size: {refused}; give --size {nearest}") from refused


@torch.inference_mode()
def held_out_loss(trainer: Trainer, task: Task, model: nn.Module, held_out: Dataset) -> dict[str, float]:
    """Return the mean losses of a model on the first held-out examples, with the same noise every time."""
    model = model.eval()
    torch.manual_seed(trainer.config.seed)
    count = min(HELD_OUT, len(held_out))
    chunk = max(1, AT_ONCE // held_out.images[0].numel())
    sums: dict[str, float] = {}
    for first in range(0, count, chunk):
        rows = slice(first, min(first + chunk, count))
        x = pictures.as_model(held_out.images[rows]).to(trainer.device)
        labels = None if held_out.labels is None else held_out.labels[rows].to(trainer.device)
        for name, value in task.loss(model, x, labels).items():
            sums[name] = sums.get(name, 0.0) + float(value.sum())
    return {name: value / count for name, value in sums.items()}


@torch.inference_mode()
def save_samples(trainer: Trainer, task: Task, path: Path) -> None:
    """Draw and save a sheet of 64 samples with the averaged weights."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures.grid(pictures.to_pixels(task.sample(trainer.average.eval()).cpu())).save(path)


def moments_of(config: Training, given: TrainingData) -> Moments:
    """Return the moments of a run, for `Training.replay`."""
    count = min(HELD_OUT, len(given.held_out))
    return Moments(config.run_folder / "replay", given.train, given.held_out, count, config.seed, config.batch_size)


@torch.inference_mode()
def save_moment(trainer: Trainer, task: Task, record: Record, moments: Moments) -> dict[str, float]:
    """Draw a moment with the last weights and with the averaged ones, and measure it; return its numbers, as in `Moment`."""
    both = (trainer.model, trainer.average)
    moments.save(record.step, sheet, *both)
    last, averaged = (held_out_loss(trainer, task, model, moments.held_out)["loss"] for model in both)
    losses = {"training_loss": record.losses["loss"], "held_out_loss": averaged, "held_out_loss_of_last_weights": last}
    images = record.step * trainer.config.batch_size
    return {"images_seen": images, "epoch": record.epoch, **losses, **moments.measure(model_of(trainer.average))}


def finish(config: Training, trainer: Trainer, task: Task, log: Log, given: TrainingData) -> None:
    """Write the folder of the finished model, `RUN/model`."""
    folder = config.run_folder / "model"
    losses: dict[str, float] = next((r["losses"] for r in reversed(log.rows) if "losses" in r), {})
    model = model_of(trainer.average)
    most = MOST_LOSS * (model.data.dims if model.kind == "vae" else 1)
    if losses.get("loss", 0.0) > most:
        raise DivergedError(
            f"the loss at the end is {losses['loss']:.3g}, where a network that has learned nothing is far below {most:,}: "
            "training diverged, and the model was not written. Start again with a lower --lr or --clip"
        )
    save_samples(trainer, task, folder / "samples.png")
    last_pictures(config, trainer, task, given)
    write_report(config.run_folder, f"{NOTES[config.kind][0]} of {given.train.spec.name}", log)
    log.plot(folder / "loss.png")
    with torch.inference_mode():
        film = moments_of(config, given).film([row for row in log.rows if "replay" in row], model)
    metrics = write_model(folder, config, trainer, log, given, film)
    (config.run_folder / "training.json").write_text(json.dumps(metrics, indent=2) + "\n")
    last = held_out_loss(trainer, task, trainer.model, given.held_out)
    write_model(config.run_folder / "raw", config, trainer, log, given, last=last)
    lowest = min((row for row in log.rows if "held_out" in row), key=lambda row: row["held_out"]["loss"], default=None)
    if lowest is not None and lowest["step"] < trainer.step and trainer.accelerator.is_main_process:
        where = f"at step {lowest['step']} ({lowest['held_out']['loss']:.5g}): {config.run_folder / 'best'}"
        print(f"the loss on held-out pictures was lowest {where}", flush=True)


@torch.inference_mode()
def last_pictures(config: Training, trainer: Trainer, task: Task, given: TrainingData) -> None:
    """Draw a sheet with the weights of the last step, and samples beside their nearest training pictures."""
    folder, train = config.run_folder / "samples", given.train.images
    raw = pictures.to_pixels(task.sample(trainer.model.eval()).cpu())
    pictures.grid(raw).save(folder / "raw.png")
    if train.dtype != torch.uint8:
        return
    drawn = pictures.to_pixels(task.sample(trainer.average.eval()).cpu())[:NEAREST]
    train = train[: AT_ONCE * 32 // train[0].numel()]
    found = nearest(drawn.flatten(1), train.flatten(1)).index[:, 0]
    pictures.grid(torch.stack([drawn, train[found]], dim=1).flatten(0, 1), columns=8).save(folder / "nearest.png")


def write_model(
    folder: Path,
    config: Training,
    trainer: Trainer,
    log: Log,
    given: TrainingData,
    film: Film | None = None,
    last: dict[str, float] | None = None,
) -> dict[str, Any]:
    """Write the model with the averaged weights to a folder; return its metrics.

    Args:
        last: held-out losses of the weights of the last step: those are written, not their average.
    """
    held_out: dict[str, float] = next((r["held_out"] for r in reversed(log.rows) if "held_out" in r), {})
    metrics: dict[str, Any] = {
        "command": config.command(),
        "seed": config.seed,
        "training": {
            "options": config.published(),
            "steps": trainer.step,
            "images_seen": trainer.step * config.batch_size,
            "seconds": round(trainer.seconds),
            **({"lengthened": trainer.lengthened} if trainer.lengthened else {}),
            **({} if last is None else {"weights": "of the last step, not averaged"}),
            **trainer.origin,
            "device": trainer.device.type,
            "precision": trainer.arithmetic,
            "processes": trainer.accelerator.num_processes,
            "data_sha256": given.train.sha256,
            **given.facts,
        },
        "loss": {
            "training": next((r["losses"] for r in reversed(log.rows) if "losses" in r), {}),
            "held_out": held_out if last is None else last,
            "held_out_images": min(HELD_OUT, len(given.held_out)),
        },
    }
    examples = given.examples if config.examples else replace(given.examples, images=given.examples.images[:0], labels=None)
    trained = trainer.average if last is None else trainer.model
    write_package(folder, model_of(trained), metrics, examples, config.store == "fp16", film)
    return metrics
