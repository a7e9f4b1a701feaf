"""Print the line of measured models for the table of docs/records.md: `python training/record.py --help`."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

if not __package__:  # run as a script: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import tyro

from training.config import parse

GOALS = {"mnist": 1.25, "fashion-mnist": 1.5}
"""Largest bound of MNIST, bits/dim, and Fréchet distance of Fashion-MNIST of a record."""
PICTURES = 10_000
"""Held-out pictures, and samples, that a record is measured on."""


@dataclass(frozen=True)
class Record:
    """Print the line of a record: the models' minutes of training, bound on MNIST and Fréchet distance on Fashion-MNIST."""

    models: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Measured models, one of MNIST and one of Fashion-MNIST a seed: runs, folders, or names of models that ship."""
    commit: str | None = None
    """Commit that they were trained with; by default that of the working tree."""
    machine: str | None = None
    """Machine that they were trained on; by default this one."""


def here() -> str:
    """Return processor and number of CPUs of this machine."""
    import torch

    return (
        f"{torch.cpu.get_capabilities().get('cpu_name') or platform.processor() or platform.machine()}, {os.cpu_count()} CPUs"
    )


def line(record: Record) -> str:
    """Return the line, with the upper ends of the 95 % intervals that the goals are compared with.

    Raises:
        ValueError: not as many models of MNIST as of Fashion-MNIST, with the same options and seeds, from random weights.
        ModelError: there is no such model.
    """
    from genlab import hub
    from genlab.measurements import read_evaluation

    seconds: dict[str, dict[int, int]] = {name: {} for name in GOALS}
    figures: dict[str, list[str]] = {name: [] for name in GOALS}
    recipes: dict[str, set[str]] = {name: set() for name in GOALS}
    missed = []
    for model in record.models:
        package = hub.read(model)
        name, training, measured = package.model.data.name, package.metrics.get("training"), read_evaluation(package.metrics)
        if name not in GOALS or training is None:
            raise ValueError(f"{model}: expected a model trained on {' or '.join(GOALS)}, got one of {name}")
        options = {k: v for k, v in training["options"].items() if k not in ("dataset", "seed")}
        if options.get("from_model") is not None:
            raise ValueError(f"{model}: expected a model trained from nothing, got one that began with {options['from_model']}")
        recipes[name].add(str(options))
        seconds[name][package.metrics["seed"]] = training["seconds"]
        bound, samples = measured.likelihood, measured.samples
        upper, count, figure = float("inf"), 0, "–"
        value = None if bound is None else bound.bound_bits_per_dim
        error = None if bound is None else bound.bound_standard_error_bits_per_dim
        if name == "mnist" and bound is not None and value is not None and error is not None:
            upper, count, figure = value + 2 * error, bound.images, f"{value:.3f} ± {error:.3f}"
        if name == "fashion-mnist" and samples is not None:
            low, upper = samples.frechet_interval_95
            count, figure = samples.images, f"{samples.frechet_distance:.2f}, {low:.2f}–{upper:.2f}"
        figures[name].append(figure)
        if upper >= GOALS[name] or count < PICTURES:
            missed.append(model)
    seeds = sorted(seconds["mnist"])
    paired = all(sorted(seconds[name]) == seeds and len(figures[name]) == len(seeds) for name in GOALS)
    if not seeds or not paired or any(len(each) > 1 for each in recipes.values()):
        raise ValueError(f"expected one model of each of {', '.join(GOALS)} a seed, trained with the same options")
    minutes = [sum(each.values()) / len(seeds) / 60 for each in seconds.values()]
    commit = record.commit or subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
    ).stdout.strip()  # fmt: skip
    times = f"{minutes[0]:.1f} + {minutes[1]:.1f} = {sum(minutes):.1f}"
    cells = [commit, record.machine or here(), ", ".join(map(str, seeds)), times, *("; ".join(figures[name]) for name in GOALS)]
    return "| " + " | ".join([*cells, "both" if not missed else f"missed: {', '.join(missed)}"]) + " |"


def main() -> int:
    """Run the command line."""
    record = parse(Record)
    from genlab.package import ModelError

    try:
        print(line(record))
    except (ValueError, ModelError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
