"""The training loop that both models share: a generator that yields a `Record` after each step of the optimiser.

Everything random in a step (noise, times, dropout, hidden labels) is drawn from a generator seeded by (seed, step, process), and the
order of the pictures by (seed, epoch). A resumed run is therefore bit for bit the run that was never interrupted, with no generator
state to save.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from genlab.data import Dataset, to_model
from training.checkpoint import Checkpoint, RunError, load_checkpoint, save_checkpoint
from training.config import Training

LossFunction = Callable[[nn.Module, Tensor, Tensor | None], dict[str, Tensor]]
"""(the network as it is called, pictures (B C H W) in [−1, 1], labels (B)) → named per-picture losses (B); "loss" is minimised."""


class DivergedError(RuntimeError):
    """The loss or the gradient is not a number; nothing was saved of it."""


@dataclass(frozen=True)
class Record:
    """One step of training, after the optimiser's step.

    Attributes:
        step: steps done.
        losses: means over the batch, by name.
        lr: learning rate of the step.
        gradient_norm: before clipping.
        images_per_second: over the steps since the last record that was logged.
    """

    step: int
    losses: dict[str, float]
    lr: float
    gradient_norm: float
    images_per_second: float


class Stop:
    """Turns SIGINT and SIGTERM into a flag that the loop looks at between steps; a second signal ends the process at once."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before = {number: signal.signal(number, self._set) for number in (signal.SIGINT, signal.SIGTERM)}

    def _set(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        for each in self._before:
            signal.signal(each, signal.SIG_DFL)

    def restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


class Trainer:
    """Model, moving average, optimiser and data of one run.

    Raises:
        RunError: `resume` with no complete checkpoint, or with other options than the run had.
    """

    def __init__(self, config: Training, build: Callable[[Dataset], nn.Module], loss: LossFunction, data: Dataset) -> None:
        self.config = config
        self.data = data
        self.accelerator = Accelerator(mixed_precision=choose_precision(config.precision), cpu=not torch.cuda.is_available())
        self.device = self.accelerator.device
        if config.batch_size % self.accelerator.num_processes:
            raise ValueError(
                f"--batch-size: expected a multiple of the {self.accelerator.num_processes} processes, got {config.batch_size}"
            )
        torch.manual_seed(config.seed)
        self.model = build(data).to(self.device, memory_format=torch.channels_last)
        self.average = AveragedModel(self.model, multi_avg_fn=_average(config.ema), use_buffers=True)
        self.optimiser = torch.optim.AdamW(
            self.model.parameters(), lr=config.lr, betas=(0.9, 0.99), weight_decay=config.weight_decay, fused=True
        )
        self.step = 0
        self.seconds = 0.0
        if config.resume:
            self._resume()
        self.network, self.optimiser = self.accelerator.prepare(self.model, self.optimiser)
        self._loss = loss
        self._pixels = data.images.to(self.device)
        self._labels = None if data.labels is None else data.labels.to(self.device)
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.long)

    @property
    def shown(self) -> nn.Module:
        """The moving average of the model: the one that is sampled, measured and pushed."""
        return self.average.module

    def run(self, stop: Stop) -> Iterator[Record]:
        """Train until `config.steps` or a signal, yielding after each step; checkpoints are written on the way and at the end.

        Raises:
            DivergedError: a loss or gradient that is not finite; the optimiser has not taken it.
        """
        config = self.config
        since, images = time.monotonic(), 0
        rate = 0.0
        while self.step < config.steps and stop.signal is None:
            started = time.monotonic()
            losses, norm, lr = self._advance()
            self.seconds += time.monotonic() - started
            images += config.batch_size
            if self.step % config.log_every == 0 or not rate:
                rate = images / (time.monotonic() - since)
                since, images = time.monotonic(), 0
            if self.step % config.save_every == 0 and self.step < config.steps:
                self.save()
            yield Record(self.step, losses, lr, norm, rate)
        self.save()

    def _advance(self) -> tuple[dict[str, float], float, float]:
        config = self.config
        pixels, labels = self._batch()
        torch.manual_seed(_derive(config.seed, self.step, self.accelerator.process_index))
        lr = config.learning_rate(self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        self.network.train()
        with self.accelerator.autocast():
            losses = self._loss(self.network, to_model(pixels), labels)
        self.accelerator.backward(losses["loss"].mean())
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), config.clip)
        values = torch.stack([*(v.detach().mean() for v in losses.values()), torch.as_tensor(norm, device=self.device)])
        values = self.accelerator.reduce(values.float(), "mean").tolist()
        if not np.isfinite(values).all():
            raise DivergedError(
                f"step {self.step + 1}: the loss or its gradient is not finite ({dict(zip([*losses, 'gradient'], values, strict=True))}). "
                f"Nothing of it was saved; go on from the last checkpoint with --resume and a smaller --lr than {config.lr:g}"
            )
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.average.update_parameters(self.model)
        self.step += 1
        return dict(zip(losses, values[:-1], strict=True)), values[-1], lr

    def _batch(self) -> tuple[Tensor, Tensor | None]:
        """This process's share of the next batch: the pictures in an endless sequence of shuffled epochs."""
        share = self.config.batch_size // self.accelerator.num_processes
        first = self.step * self.config.batch_size + self.accelerator.process_index * share
        chosen = []
        for position in range(first, first + share):
            epoch, place = divmod(position, len(self.data))
            if epoch != self._epoch:
                self._epoch = epoch
                self._order = torch.randperm(
                    len(self.data), generator=torch.Generator().manual_seed(_derive(self.config.seed, epoch, 2**31))
                )
            chosen.append(self._order[place])
        index = torch.stack(chosen).to(self.device)
        return self._pixels[index], None if self._labels is None else self._labels[index]

    def save(self) -> None:
        """Write a checkpoint; the first process does, the others wait."""
        if self.accelerator.is_main_process:
            tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
            tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
            for index, state in self.optimiser.state_dict()["state"].items():
                tensors |= {f"optimiser.{index}.{k}": v for k, v in state.items()}
            facts = {
                "options": self.config.fixed(),
                "data_sha256": self.data.sha256,
                "processes": self.accelerator.num_processes,
                "seconds": self.seconds,
            }
            save_checkpoint(self.config.run_folder / "checkpoints", Checkpoint(self.step, tensors, facts))
        self.accelerator.wait_for_everyone()

    def _resume(self) -> None:
        root = self.config.run_folder / "checkpoints"
        found = load_checkpoint(root)
        if found is None:
            raise RunError(f"--resume: no complete checkpoint in {root}; start without --resume")
        before, now = found.facts["options"], self.config.fixed()
        changed = [f"{k}: {before.get(k)} → {now.get(k)}" for k in sorted(before | now) if before.get(k) != now.get(k)]
        if found.facts["data_sha256"] != self.data.sha256:
            changed.append("the pictures of the data set")
        if found.facts["processes"] != self.accelerator.num_processes:
            changed.append(f"processes: {found.facts['processes']} → {self.accelerator.num_processes}")
        if changed:
            raise RunError("--resume: the run was started with other options: " + "; ".join(changed))
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "average": {}, "optimiser": {}}
        for name, tensor in found.tensors.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = tensor
        self.model.load_state_dict(parts["model"])
        self.average.load_state_dict(parts["average"])
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in parts["optimiser"].items():
            index, _, key = name.partition(".")
            state.setdefault(int(index), {})[key] = tensor
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": state})
        self.step = found.step
        self.seconds = found.facts["seconds"]


def choose_precision(wanted: str) -> str:
    """accelerate's name of the arithmetic: bf16 only where the hardware computes in it, unless it is asked for by name."""
    if wanted == "auto":
        if torch.cuda.is_available():
            wanted = "bf16" if torch.cuda.is_bf16_supported() else "fp32"
        else:
            wanted = "bf16" if torch.cpu._is_avx512_bf16_supported() else "fp32"
    return "no" if wanted == "fp32" else wanted


def _average(decay: float) -> Callable[[Any, Any, Any], None]:
    """A moving average whose decay rises from 1/10 to `decay`, so that the random start is soon forgotten."""

    @torch.no_grad()
    def update(averaged: list[Tensor], current: list[Tensor], count: Tensor | int) -> None:
        n = int(count)
        torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + n) / (10 + n)))

    return update


def _derive(*numbers: int) -> int:
    """One 63-bit seed from several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


class Log:
    """`log.jsonl` of a run folder: one line of JSON for every `log_every` steps, and the curve drawn from it."""

    def __init__(self, folder: Path, step: int) -> None:
        self.path = folder / "log.jsonl"
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        self.rows = [row for row in map(json.loads, lines) if row["step"] <= step]
        self.path.write_text("".join(json.dumps(row) + "\n" for row in self.rows))

    def add(self, row: dict[str, Any]) -> None:
        """Append one line."""
        self.rows.append(row)
        with open(self.path, "a") as file:
            file.write(json.dumps(row) + "\n")

    def add_record(self, record: Record, mean_losses: dict[str, float]) -> None:
        """Append a record with the mean losses since the last one."""
        self.add({**asdict(record), "losses": mean_losses})

    def plot(self, path: Path) -> None:
        """Draw the loss against the steps, training and held-out."""
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt

        training = [(r["step"], r["losses"]["loss"]) for r in self.rows if "losses" in r]
        held_out = [(r["step"], r["held_out"]["loss"]) for r in self.rows if "held_out" in r]
        figure, axes = plt.subplots(figsize=(6, 3.5), dpi=120, layout="constrained")
        axes.plot(*zip(*training, strict=True), color="#56B4E9", linewidth=1, label="training") if training else None
        axes.plot(*zip(*held_out, strict=True), color="#D55E00", marker="o", markersize=3, label="held out, averaged weights") if held_out else None
        if training and min(value for _, value in training) > 0:
            axes.set_yscale("log")
        axes.set(xlabel="step", ylabel="loss")
        axes.grid(alpha=0.3)
        axes.legend()
        figure.savefig(path)
        plt.close(figure)
