"""State what a model will be trained on before it is: `python training/preflight.py DATA`.

The same account, without the measured time, is the first lines of every training (see `account`).
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

if not __package__:  # run as a script: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import tyro

from genlab.config import Reading
from training.account import account, lines
from training.config import DDPMTraining, Training, VAETraining, parse

if TYPE_CHECKING:
    from genlab.data import Dataset


@dataclass(frozen=True)
class Preflight(Reading):
    """Look at a data set as a training would, and state what it would do, what that takes, and what is doubtful.

    The exit status is 1 where no training is possible, else 0.
    """

    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")] = "fashion-mnist"
    """As --dataset of the training scripts."""
    data_dir: str | None = None
    """Folder with the IDX files of fashion-mnist or mnist."""
    size: int | None = None
    """Side of the pictures in pixels."""
    channels: int | None = None
    """1 for gray, 3 for RGB."""
    kind: Literal["ddpm", "vae"] = "ddpm"
    """Kind of the model that would be trained, with the default options."""
    steps: int = Training.steps
    """Steps of the optimiser."""
    batch_size: int = Training.batch_size
    """Pictures a step."""
    measure: int = 3
    """Steps to take here to measure their time and memory; 0 for none."""
    sheet: Path | None = Path("preflight.png")
    """Contact sheet to write: training pictures as the network will see them."""
    json: bool = False
    """Print the account as JSON."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.measure < 0:
            raise ValueError(f"--measure: expected 0 or more, got {self.measure}")

    def training(self) -> Training:
        """Return the options of the training."""
        cls = {"ddpm": DDPMTraining, "vae": VAETraining}[self.kind]
        names = ("dataset", "data_dir", "size", "channels", "steps", "batch_size")
        return cls(**{name: getattr(self, name) for name in names}, **asdict(self.reading))


def measured(config: Training, train: Dataset, count: int) -> dict[str, Any]:
    """Return the time and memory of steps, measured on `count` of them after a first one."""
    import time

    import psutil

    from training import train_ddpm, train_vae
    from training.loop import Trainer, make_accelerator

    task = train_ddpm.task(config) if isinstance(config, DDPMTraining) else train_vae.task(config)  # type: ignore[arg-type]
    trainer = Trainer(config, task.build, task.loss, train, make_accelerator(config.precision), task.state)
    trainer.take_step()
    start = time.perf_counter()
    for _ in range(count):
        trainer.take_step()
    seconds = (time.perf_counter() - start) / count
    return {
        "seconds_per_step": round(seconds, 4),
        "minutes": round(seconds * config.steps / 60, 1),
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
        "memory_mb": round(psutil.Process().memory_info().rss / 1e6),
    }


def run(options: Preflight) -> int:
    """Print the account, write the sheet; return the exit status."""
    import torch

    from genlab.data import grid
    from training import train_ddpm, train_vae
    from training.run import Problem, load_pictures

    try:
        config = options.training()
        task = train_ddpm.task(config) if isinstance(config, DDPMTraining) else train_vae.task(config)  # type: ignore[arg-type]
        given = load_pictures(config, task.build)
        facts = account(config, given.train, given.held_out)
        if options.measure:
            facts |= measured(config, given.train, options.measure)
        if options.sheet is not None:
            rows = torch.linspace(0, len(given.train) - 1, min(64, len(given.train))).long()
            grid(given.train.images[rows]).save(options.sheet)
            facts["sheet"] = str(options.sheet)
    except Problem as error:
        print(json.dumps({"error": str(error)}) if options.json else f"error: {error}", file=sys.stderr)
        return 1
    print(json.dumps(facts, indent=2) if options.json else "\n".join(lines(facts, config)))
    if options.sheet is not None and not options.json:
        print(f"  contact sheet: {options.sheet}")
    return 0


def main() -> int:
    """Run the command line."""
    return run(parse(Preflight))


if __name__ == "__main__":
    sys.exit(main())
