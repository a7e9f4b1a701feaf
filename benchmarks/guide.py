"""Measure the figures that the guide and docs/notes.md give of a DDPM of MNIST: `python benchmarks/guide.py --help`.

They depend on the weights: measure them again when another model ships under that name.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

if not __package__:  # run as a script: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import tyro

REACHED = (100, 300, 500, 700, 1000)
"""Times from which step 7 of the guide comes back."""
PREDICTED = (1000, 800, 600, 500, 400, 300)
"""Times of step 8."""
SEEDS = 48
"""Seeds over which the steps 7, 8 and 11 are counted."""


@dataclass(frozen=True)
class Options:
    """Measure what the guide says of its steps 7, 8, 10 and 11."""

    model: Annotated[str, tyro.conf.Positional] = "ddpm-mnist"
    """Model: a run, a folder, or the name of one that ships."""


def run(options: Options) -> None:
    """Measure and print."""
    import torch

    from genlab.config import Sampling
    from genlab.data import to_model
    from genlab.demo.limits import Pick
    from genlab.demo.requested import Requested
    from genlab.demo.tabs.compare.compute import compare
    from genlab.demo.tabs.compare.request import CompareRequest, Side
    from genlab.demo.tabs.condition.compute import classifier_of, run_repair
    from genlab.demo.tabs.condition.figure import first_cover
    from genlab.demo.tabs.condition.request import COUNT, RepairRequest
    from genlab.demo.tabs.process.compute import diffuse
    from genlab.demo.tabs.process.request import ProcessRequest
    from genlab.demo.turns import Runner

    models, runner = Requested((options.model,)).models(), Runner()
    (name,) = models.offers
    data = models[name].data
    picture = Pick("test picture", 0)

    classify = classifier_of(data)
    own = classify.log_probs(to_model(models.picture(data.name, picture))[None]).argmax(dim=1)
    print(f"Step 7: correlation of what comes back with the picture (seed 0), and of {SEEDS} seeds those that keep its class")
    for until in REACHED:
        ends = []
        for seed in range(SEEDS):
            *_, last = diffuse(models, runner, ProcessRequest(name, picture, 50, "ancestral", None, False, seed, until))
            ends.append(last)
        found = classify.log_probs(to_model(torch.stack([end.x0 for end in ends]))).argmax(dim=1)
        print(f"  from t = {until}: {ends[0].correlation:.3f}, {int((found == own).sum())}")

    print(f"Step 8: mean correlation of the prediction with the last picture ({SEEDS} seeds)")
    likeness = dict.fromkeys(PREDICTED, 0.0)
    for seed in range(SEEDS):
        fresh = ProcessRequest(name, picture, 50, "ancestral", None, True, seed, 1000)
        way = {frame.t: frame.x0 for frame in diffuse(models, runner, fresh) if frame.direction == "reverse"}
        for t in PREDICTED:
            pair = torch.stack([way[t].flatten(), way[0].flatten()]).double()
            likeness[t] += float(torch.corrcoef(pair)[0, 1]) / SEEDS
    for t, value in likeness.items():
        print(f"  at t = {t}: {value:.2f}")

    print("Step 10: root mean square difference from 50 steps of DDIM, gray levels (seed 0)")
    for sampling in (Sampling("DDIM", 4), Sampling("DDIM", 1), Sampling("ancestral", 50)):
        *_, end = compare(models, runner, CompareRequest(Side(name, Sampling("DDIM", 50)), Side(name, sampling), 0))
        print(f"  {sampling.sampler} in {sampling.steps}: {float(end.rms.square().mean().sqrt()):.0f}")

    print(f"Step 11: classes that a classifier finds in the repaired picture 0 ({SEEDS} seeds; the first {COUNT} are shown)")
    counts = []
    for seed in range(0, SEEDS, COUNT):
        request = RepairRequest(name, picture, first_cover(data.size), 1000, None, 4, 25, seed)
        *_, frame = run_repair(models, runner, request)
        counts += classify.log_probs(to_model(frame.x_t)).argmax(dim=1).tolist()
    print(f"  first: {', '.join(data.classes[i] for i in counts[:COUNT])}")
    print("  all: " + ", ".join(f"{counts.count(i)} × {data.classes[i]}" for i in sorted(set(counts))))


if __name__ == "__main__":
    run(tyro.cli(Options))
