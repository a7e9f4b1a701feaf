"""The training loop of all models: a generator of `Record`s.

Everything random in a step (noise, times, dropped labels) is drawn for the whole batch from generators seeded by (seed, step),
see `draws`, and the order of the pictures from one seeded by (seed, epoch). A resumed run is therefore bit for bit the
uninterrupted one, without any generator state in a checkpoint, and several processes, or the parts of an accumulated step, take
the step of one up to rounding. Dropout alone is drawn for each process and part.
"""

from __future__ import annotations

import copy
import csv
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils import parse_flag_from_env
from torch import Tensor, nn

from genlab.colours import COLOURS
from genlab.config import DataSpec, expanded
from genlab.data import Dataset, as_model
from genlab.durable import put, sync_folder
from genlab.nn import computes_bf16
from training.checkpoint import Checkpoint, RunError, load_checkpoint, save_checkpoint
from training.config import PICTURES, Training, flag, leaves
from training.draws import Draws, augmented

LossFunction = Callable[..., dict[str, Tensor]]
"""(network, pictures (B C H W) in [−1, 1], labels (B), draws) → losses (B) by name; "loss" is minimised.

Without `Draws`, random numbers come from torch's global generators.
"""

Paces = Callable[[nn.Module], list[tuple[nn.Module, float]]]
"""Network → its parts, in the order of their parameters, each with its share of the learning rate."""

SYNC_EVERY = 10
"""Steps on a GPU between two reads of the losses, each of which synchronises."""
FIRST_SHEET = 2.0
"""Minutes until the first sheet of samples at most."""
RESIDENT_SHARE = 0.25
"""Largest share of a GPU's free memory that the pictures may take."""


class DivergedError(RuntimeError):
    """The loss, gradient or a weight is not finite; it was not saved."""


@dataclass(frozen=True)
class Record:
    """The state of training after a step of the optimiser.

    Attributes:
        step: number of steps so far.
        losses: means over the pictures since the last record of the log, by name.
        lr: learning rate of the step.
        gradient_norm: before clipping.
        images_per_second: mean since the last record of the log, without the time for evaluating and saving.
        log_due: True if the record belongs in the log.
        sample_due: True if samples are to be drawn, and the loss on held-out pictures measured.
        epoch: passes over all pictures so far.
        replay_due: True if the step is one of `Training.moments`.
    """

    step: int
    losses: dict[str, float]
    lr: float
    gradient_norm: float
    images_per_second: float
    log_due: bool
    sample_due: bool
    epoch: float
    replay_due: bool


class Timer:
    """Is due when a number of minutes have passed since it last was, the first time after `first` at most; 0 minutes: never."""

    def __init__(self, minutes: float, first: float) -> None:
        self.seconds = 60 * minutes
        self._next = time.monotonic() + min(self.seconds, 60 * first)

    @property
    def due(self) -> bool:
        """Return True if the time has come."""
        return self.seconds > 0 and time.monotonic() >= self._next

    def restart(self) -> None:
        """Count from now on."""
        self._next = time.monotonic() + self.seconds


class Stop:
    """Records SIGINT or SIGTERM, which the loop checks when it reads back losses; a second signal ends the process at once."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._since = 0.0
        self._before = {number: signal.signal(number, self._record) for number in (signal.SIGINT, signal.SIGTERM)}

    def _record(self, number: int, frame: FrameType | None) -> None:
        # Under a launcher, Ctrl-C arrives twice, from the terminal and from the launcher: within a second it counts once.
        if self.signal is None:
            self.signal, self._since = number, time.monotonic()
        elif time.monotonic() - self._since > 1:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


class Trainer:
    """Model, moving average, optimiser and data of one run.

    Attributes:
        step: number of steps so far.
        seconds: time spent in them, over all sessions of the run.
        origin: facts about the weights that the run started with, for its model; the checkpoints have them too.
        stopped: the signal on which all processes agreed to stop, or None.
        average: the model with the moving average of the weights.
        sync_every: steps between two reads of the losses, if nothing else requires one.

    Raises:
        RunError: `resume` without a complete checkpoint, or with other options than those of the run.
    """

    def __init__(
        self,
        config: Training,
        build: Callable[[DataSpec], nn.Module],
        loss: LossFunction,
        data: Dataset,
        accelerator: Accelerator,
        loss_state: dict[str, Tensor] | None = None,
        paces: Paces = lambda model: [(model, 1.0)],
    ) -> None:
        self.config = config
        self.data = data
        self.accelerator = accelerator
        self.device = accelerator.device
        parts = accelerator.num_processes * config.accumulate
        if config.batch_size % parts:
            raise ValueError(
                f"--batch-size: expected a multiple of {accelerator.num_processes} processes × {config.accumulate} parts, got "
                f"{config.batch_size}"
            )
        torch.manual_seed(config.seed)
        self.model = build(data.spec).to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.model).requires_grad_(False)
        groups = [{"params": [*part.parameters()], "share": share} for part, share in paces(self.model)]
        self.optimiser = torch.optim.AdamW(
            groups, lr=config.lr, betas=(0.9, 0.99), weight_decay=config.weight_decay, fused=True
        )
        self.step = 0
        self.seconds = 0.0
        self.lengthened: list[str] = []
        self.origin: dict[str, str] = {}
        self.stopped: int | None = None
        self._loss = loss
        self._loss_state = loss_state or {}
        self._saved = 0
        self._sums: dict[str, float] = {}
        self._counted = 0
        self.sync_every = 1 if self.device.type == "cpu" else SYNC_EVERY
        self._unread: list[Tensor] = []
        self._due = (False, False)
        self._timers: tuple[Timer, ...] = ()
        self._pictures, self._labels = data.images, data.labels
        if _fits(data, self.device):
            self._pictures = self._pictures.to(self.device)
            self._labels = None if self._labels is None else self._labels.to(self.device)
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.long)
        if config.resume:
            self._resume()
        if config.compile == "on" or (config.compile == "auto" and self.device.type == "cuda"):
            for part in self.model.children():
                part.compile()
        self.network, self.optimiser = accelerator.prepare(self.model, self.optimiser)

    @property
    def arithmetic(self) -> str:
        """Return the precision, fp32 or bf16."""
        return self.accelerator.mixed_precision.replace("no", "fp32")

    def run(self, stop: Stop) -> Iterator[Record]:
        """Train until `config.steps` or a signal, yielding when losses are read back; write checkpoints meanwhile and at the
        end.

        Losses are read back from the device after each step on a CPU; on a GPU, which this synchronises, after every tenth
        step, and when a log record, samples or a checkpoint are due. A checkpoint is written after the caller has handled the
        record of its step, so that the log is complete up to every checkpoint.

        Raises:
            DivergedError: a loss, gradient or weight is not finite; it has not been saved.
            RunError: a checkpoint could not be written, or the networks cannot be compiled here.
        """
        config = self.config
        steps, seconds = 0, 0.0
        every = (self.sync_every, config.log_every, config.sample_every, config.save_every)
        self._timers = (Timer(config.save_minutes, config.save_minutes), Timer(config.sample_minutes, FIRST_SHEET))
        moments = config.moments
        while self.step < config.steps and self.stopped is None:
            started = time.monotonic()
            names, lr = self._advance()
            moment = self.step in moments
            sync = self.step == config.steps or moment or any(self.step % each == 0 for each in every)
            norm = self._read_back(names, stop) if sync else 0.0
            spent = time.monotonic() - started
            self.seconds += spent
            steps, seconds = steps + 1, seconds + spent
            if not sync:
                continue
            log_due = self.step % config.log_every == 0 or self.step == config.steps
            means = {name: value / self._counted for name, value in self._sums.items()}
            save_due, sample_due = self._due
            sample_due |= self.step % config.sample_every == 0 or self.step == config.steps
            epoch = self.step * config.batch_size / len(self.data)
            speed = steps * config.batch_size / seconds
            yield Record(self.step, means, lr, norm, speed, log_due, sample_due, epoch, moment)
            if sample_due:
                self._timers[1].restart()
            if log_due:
                steps, seconds = 0, 0.0
                self._sums, self._counted = {}, 0
            if save_due or self.step % config.save_every == 0:
                self.save()
                self._timers[0].restart()
        self.save()

    def take_step(self) -> None:
        """Take a step of the optimiser, and wait for it."""
        self._advance()
        float(self._unread.pop().sum())

    def _advance(self) -> tuple[list[str], float]:
        """Take a step of the optimiser without synchronising; return the names of the losses and the learning rate.

        Raises:
            RunError: the networks cannot be compiled here.
        """
        config = self.config
        lr = config.learning_rate(self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = lr * group["share"]
        self.network.train()
        try:
            means = [self._part(part) for part in range(config.accumulate)]
        except RuntimeError as error:
            from torch._dynamo.exc import TorchDynamoException  # imported here: takes a second

            if not isinstance(error, TorchDynamoException):
                raise
            reason = str(error).partition("\n")[0]
            raise RunError(f"the networks cannot be compiled here ({reason}): train with --compile off") from error
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), config.clip)
        assert norm is not None
        losses = {name: torch.stack([each[name] for each in means]).mean() for name in means[0]}
        self._unread.append(torch.stack([*losses.values(), norm]).float())
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self._follow()
        self.step += 1
        return list(losses), lr

    def _part(self, part: int) -> dict[str, Tensor]:
        """Add the gradient of one part of the step; return the means of its losses."""
        config, process, last = self.config, self.accelerator.process_index, part == self.config.accumulate - 1
        share = config.batch_size // (self.accelerator.num_processes * config.accumulate)
        first = (process * config.accumulate + part) * share
        rows, seed = slice(first, first + share), _derive(config.seed, self.step, 0)
        pixels, labels = self._batch(rows)
        if share == config.batch_size:  # one generator for noise and dropout
            torch.manual_seed(seed)
            draws = Draws(share)
        else:
            torch.manual_seed(_derive(config.seed, self.step, process, part, 1))
            draws = Draws(config.batch_size, rows, seed, last)
        if config.augments(self.step):
            changes = Draws(config.batch_size, rows, _derive(config.seed, self.step, 0, 2))
            pixels = augmented(pixels, config.augment, changes)
        with nullcontext() if last else self.accelerator.no_sync(self.network), self.accelerator.autocast():
            losses = self._loss(self.network, as_model(pixels), labels, draws)
            self.accelerator.backward(losses["loss"].mean() / config.accumulate)
        return {name: value.detach().mean() for name, value in losses.items()}

    @torch.no_grad()
    def _follow(self) -> None:
        """Update the moving average, with a weight that falls from 9/11 to 1 − ema, to discard the initial weights quickly."""
        share = 1 - min(self.config.ema, (1 + self.step) / (10 + self.step)) if self.step else 1.0
        average, model = ([*each.parameters(), *each.buffers()] for each in (self.average, self.model))
        torch._foreach_lerp_(average, model, share)

    def _read_back(self, names: list[str], stop: Stop) -> float:
        """Read back and sum the losses since the last call, agree on whether to stop, and return the latest gradient norm.

        Raises:
            DivergedError: a loss or gradient is not finite.
        """
        rows = torch.stack(self._unread)
        self._unread.clear()
        flags = [float(stop.signal or 0), *(float(timer.due) for timer in self._timers)]
        here = torch.cat([rows.flatten(), torch.tensor(flags, device=self.device)])
        everywhere = self.accelerator.gather(here[None])
        self.stopped = int(everywhere[:, -3].max()) or None
        self._due = bool(everywhere[0, -2]), bool(everywhere[0, -1])  # by the clock of the first process
        read = everywhere[:, :-3].mean(dim=0).reshape(rows.shape).tolist()
        for step, (*values, norm) in enumerate(read, start=self.step - len(read) + 1):
            losses = dict(zip(names, values, strict=True))
            if not np.isfinite([*values, norm]).all():
                raise DivergedError(
                    f"step {step}: the loss or its gradient is not finite ({losses | {'gradient': norm}}). "
                    f"It was not saved; continue from the last checkpoint with --resume, or start again with a lower --lr"
                )
            self._counted += 1
            self._sums = {name: self._sums.get(name, 0.0) + value for name, value in losses.items()}
        return norm

    def _batch(self, rows: slice) -> tuple[Tensor, Tensor | None]:
        """Return rows of the next batch, from an endless sequence of shuffled epochs."""
        position, end = (self.step * self.config.batch_size + row for row in (rows.start, rows.stop))
        chosen = []
        while position < end:
            epoch, place = divmod(position, len(self.data))
            if epoch != self._epoch:
                self._epoch = epoch
                order = torch.randperm(
                    len(self.data), generator=torch.Generator().manual_seed(_derive(self.config.seed, epoch, 2**31))
                )
                self._order = order.to(self._pictures.device)
            chosen.append(self._order[place : place + end - position])
            position += len(chosen[-1])
        index = torch.cat(chosen)
        labels = None if self._labels is None else self._labels[index].to(self.device, non_blocking=True)
        return self._pictures[index].to(self.device, non_blocking=True), labels

    def save(self) -> None:
        """Write a checkpoint unless this step has one; the first process writes, the others wait.

        Raises:
            DivergedError: a weight is not finite.
            RunError: the checkpoint could not be written.
        """
        if self.step == self._saved:
            return
        problem: Exception | None = None
        if self.accelerator.is_main_process:
            try:
                self._write()
            except (DivergedError, RunError) as error:
                problem = error
        if anywhere(self.accelerator, problem is not None):
            raise problem or RunError("the first process could not write the checkpoint")
        self._saved = self.step

    def _write(self) -> None:
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        tensors |= {f"loss.{k}": v for k, v in self._loss_state.items()}
        for index, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{k}": v for k, v in state.items()}
        broken = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
        if broken:
            raise DivergedError(
                f"step {self.step}: {len(broken)} weights are not finite, {broken[0]} for one. They were not saved; "
                f"continue from the last checkpoint with --resume, or start again with a lower --lr"
            )
        facts = {
            "options": self.config.fixed(),
            "data_sha256": self.data.sha256,
            "data_identity": self.data.identity,
            "processes": self.accelerator.num_processes,
            "arithmetic": self.arithmetic,
            "seconds": self.seconds,
            "lengthened": self.lengthened,
            "origin": self.origin,
            "since_log": {"steps": self._counted, "sums": self._sums},
        }
        save_checkpoint(self.config.run_folder / "checkpoints", Checkpoint(self.step, tensors, facts))

    def _resume(self) -> None:
        root = self.config.run_folder / "checkpoints"
        damaged: list[str] = []
        found = load_checkpoint(root, damaged)
        if found is None and damaged:
            raise RunError(
                f"--resume: every checkpoint in {root} is damaged ({', '.join(damaged)}): the run cannot go on. Remove "
                f"{self.config.run_folder} and start it again, or start another with --run"
            )
        if found is None:
            raise RunError(f"--resume: no checkpoint in {root}; start without --resume")
        if damaged and self.accelerator.is_main_process:
            print(f"{', '.join(damaged)}: damaged, passed over; continuing from step {found.step}", file=sys.stderr)
        # An option that is newer than the run had the effect of its default.
        before = leaves(type(self.config)().fixed()) | leaves(found.facts["options"])
        now = leaves(self.config.fixed())
        before["precision"], now["precision"] = (
            found.facts["arithmetic"],
            self.arithmetic,
        )  # the precision that auto resolved to
        if before["steps"] < now["steps"]:  # longer than planned: the learning rate is that of the longer run from here on
            if self.accelerator.is_main_process:
                rate = self.config.learning_rate(found.step)
                print(f"--steps {before['steps']} → {now['steps']}: longer than it began; the learning rate is {rate:.3g} now")
            planned = replace(self.config, steps=before["steps"])
            if any(planned.learning_rate(step) != self.config.learning_rate(step) for step in range(1, found.step + 1)):
                self.lengthened.append(f"--steps {planned.steps} up to step {found.step}")
            before["steps"] = now["steps"]
        compared = sorted((before | now).keys() - PICTURES)
        changed = [f"{flag(k)} {before.get(k)} → {now.get(k)}" for k in compared if not same(before.get(k), now.get(k))]
        # A run that is older than the identity of its pictures recorded their hash without shape and classes.
        facts, identity = found.facts, self.data.identity
        if facts["data_sha256"] != self.data.sha256 or facts.get("data_identity", identity) != identity:
            chosen = [f"{flag(k)} {before.get(k)} → {now.get(k)}" for k in sorted(PICTURES) if before.get(k) != now.get(k)]
            changed.append("the pictures of the data set" + (f" ({'; '.join(chosen)})" if chosen else ""))
        if found.facts["processes"] != self.accelerator.num_processes:
            changed.append(f"processes {found.facts['processes']} → {self.accelerator.num_processes}")
        if changed:
            raise RunError(
                f"--resume: the run in {self.config.run_folder} was started with other options: {'; '.join(changed)}. "
                "Give the same options, or start another run with --run"
            )
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "average": {}, "optimiser": {}, "loss": {}}
        for name, tensor in found.tensors.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = tensor
        self.model.load_state_dict(parts["model"])
        self.average.load_state_dict(parts["average"])
        for name, tensor in parts["loss"].items():
            self._loss_state[name].copy_(tensor)
        weights = [*self.model.parameters()]
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in parts["optimiser"].items():
            index, _, key = name.partition(".")
            weight = weights[int(index)]
            # The fused optimiser ignores strides: its state needs the memory format of the weight (channels_last).
            aligned = torch.empty_like(weight).copy_(tensor) if tensor.shape == weight.shape and tensor.ndim else tensor
            state.setdefault(int(index), {})[key] = aligned
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": state})
        self.step = self._saved = found.step
        self.lengthened = [*found.facts.get("lengthened", []), *self.lengthened]
        self.origin = found.facts.get("origin", {})
        self.seconds = found.facts["seconds"]
        since_log = found.facts.get("since_log", {"steps": 0, "sums": {}})
        self._counted, self._sums = since_log["steps"], since_log["sums"]


def same(before: Any, now: Any) -> bool:
    """Return True if two values of an option mean the same: they are equal, or paths of one folder or file."""
    if isinstance(before, str) and isinstance(now, str) and before != now:
        paths = [expanded(value) for value in (before, now)]
        return all(path.exists() for path in paths) and paths[0].samefile(paths[1])
    return bool(before == now)


def _fits(data: Dataset, device: torch.device) -> bool:
    """Return True if the pictures take at most `RESIDENT_SHARE` of the free memory of a GPU."""
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return data.images.nbytes <= RESIDENT_SHARE * free


UNSUPPORTED = {
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": ("1", "give --accumulate, the parts of a step of --batch-size pictures"),
    "ACCELERATE_DYNAMO_BACKEND": ("no", "give --compile on"),
    "ACCELERATE_USE_DEEPSPEED": ("false", "every process has the whole model"),
    "ACCELERATE_USE_FSDP": ("false", "every process has the whole model"),
    "ACCELERATE_USE_MEGATRON_LM": ("false", "every process has the whole model"),
}
"""Settings of a launcher that would change a run without its options: variable → the one accepted value, what to do instead."""


def make_accelerator(precision: str, track: Sequence[str] = (), folder: Path | None = None) -> Accelerator:
    """Return the accelerator, on a CUDA device if there is one and `accelerate launch` has no --cpu, else on the CPU.

    Apple's MPS is not used: it has no float64, the type of the schedule's tables.

    Args:
        precision: as in `Training.precision`; auto uses bf16 if the launcher asks for it.
        track: as in `Training.track`; folder: for their files.

    Raises:
        ValueError: a setting of the launcher or the environment contradicts the options or is not supported.
    """
    for name, (accepted, advice) in UNSUPPORTED.items():
        got = os.environ.get(name, accepted)
        if got.lower() != accepted:
            raise ValueError(f"{name}: expected {accepted} from the launcher or the environment, got {got}; {advice}")
    launched = os.environ.get("ACCELERATE_MIXED_PRECISION", "no").lower()
    if launched != "no":  # `accelerate launch` sets "no" without --mixed_precision
        if launched != "bf16" or precision == "fp32":
            raise ValueError(
                f"--mixed_precision of accelerate launch (ACCELERATE_MIXED_PRECISION): expected no, or bf16 without "
                f"--precision fp32, got {launched} with --precision {precision}"
            )
        precision = launched
    installed = {str(name) for name in get_available_trackers()}
    missing = [name for name in track if name not in installed]
    if missing:
        raise ValueError(f"--track {' '.join(missing)}: not installed; pip install {' '.join(missing)}, or leave it out")
    cpu = not torch.cuda.is_available() or parse_flag_from_env("ACCELERATE_USE_CPU")
    return Accelerator(mixed_precision=choose_precision(precision, cpu), cpu=cpu, log_with=[*track] or None, project_dir=folder)


def choose_precision(wanted: str, cpu: bool) -> str:
    """Return accelerate's name of the precision; auto is bf16 if the hardware supports it, else fp32."""
    if wanted == "auto":
        wanted = "bf16" if (computes_bf16() if cpu else torch.cuda.is_bf16_supported(including_emulation=False)) else "fp32"
    return "no" if wanted == "fp32" else wanted


def anywhere(accelerator: Accelerator, condition: bool) -> bool:
    """Return True if the condition is true in any process; all processes must call this, and wait for each other."""
    flags = accelerator.gather(torch.tensor([float(condition)], device=accelerator.device))
    return bool(flags.any())


def _derive(*numbers: int) -> int:
    """Return a 63-bit seed derived from several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


class Log:
    """The log of a run, `log.jsonl`, one JSON object a line, and the loss curve.

    Lines after `step`, which a resumed run writes again, and incomplete lines are removed.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.path = folder / "log.jsonl"
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        self.rows = [row for row in map(_row, lines) if row is not None and row["step"] <= step]
        temporary = self.path.with_name(".log.jsonl")
        temporary.write_text("".join(json.dumps(row) + "\n" for row in self.rows))
        put(temporary, self.path)
        sync_folder(folder)

    def add(self, row: dict[str, Any]) -> None:
        """Append one line."""
        self.rows.append(row)
        with open(self.path, "a") as file:
            file.write(json.dumps(row) + "\n")

    def add_record(self, record: Record) -> None:
        """Append a record."""
        self.add({k: v for k, v in asdict(record).items() if k not in ("log_due", "sample_due", "replay_due")})

    def table(self, path: Path) -> None:
        """Write the log as CSV, a line for each step that has one."""
        lines: dict[int, dict[str, Any]] = {}
        for row in self.rows:
            line = lines.setdefault(row["step"], {"step": row["step"]})
            for key, value in row.items():
                line |= {f"{key}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {key: value}
        names = list(dict.fromkeys(name for line in lines.values() for name in line))
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(lines.values())

    def plot(self, path: Path) -> None:
        """Draw the loss against the steps, training and held-out."""
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt

        training = [(r["step"], r["losses"]["loss"]) for r in self.rows if "losses" in r]
        held_out = [(r["step"], r["held_out"]["loss"]) for r in self.rows if "held_out" in r]
        figure, axes = plt.subplots(figsize=(6, 3.5), dpi=120, layout="constrained")
        if training:
            axes.plot(*zip(*training, strict=True), color=COLOURS["x_t"], linewidth=1, label="training")
        if held_out:
            style: dict[str, Any] = {"color": COLOURS["p"], "marker": "o", "markersize": 3}
            axes.plot(*zip(*held_out, strict=True), label="held out, averaged weights", **style)
        if training and min(value for _, value in training + held_out) > 0:
            axes.set_yscale("log")
        axes.set(xlabel="step", ylabel="loss")
        axes.grid(alpha=0.3)
        axes.legend()
        figure.savefig(path)
        plt.close(figure)


def _row(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("step"), int) else None
