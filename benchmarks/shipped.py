"""Print the table of the models that ship, as it stands in docs/models.md: `python benchmarks/shipped.py`.

The models' figures are those of their metrics.json; the reference figures below are those of `benchmarks/references/*.json`,
written by `references.py --out`, and published ones of the same protocol.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from genlab.card import NOTHING, SIGMA
from genlab.measurements import DiffusionBound, LatentBound, Samples, VAEBound, read_evaluation

PRETRAINED = Path(__file__).resolve().parents[1] / "genlab" / "pretrained"
REFERENCES = Path(__file__).resolve().parent / "references"
PUBLISHED = {
    "mnist": {
        "RealNVP": 1.06, "Glow": 1.05, "FFJORD": 0.99, "Residual Flow": 0.97, "gated PixelCNN, 64 channels (UvA course)": 0.808,
    },
}  # fmt: skip
"""Bits/dim of all 10,000 test pictures in 8 bits as published: flows by Kobyzev et al. 2021, table 5; the last one exact."""
HEAD = (
    "| model | samples by | bound on −log p, bits/dim (pictures) | by another way | Fréchet distance (real pictures) "
    "| precision, recall (real) | memorised (held out) |\n|---|---|---|---|---|---|---|"
)


def plus_minus(part: Any) -> str:
    """Return a bound in bits/dim ± its standard error."""
    return f"{part.bound_bits_per_dim:.3f} ± {part.bound_standard_error_bits_per_dim:.3f}"


def rows(folder: Path) -> Iterator[str]:
    """Yield the rows of a model: as it is, then with the ancestral chain and each Σ; a dash for what was not measured.

    Raises:
        ValueError: the model has no measurements.
    """
    evaluation = read_evaluation(json.loads((folder / "metrics.json").read_text()))
    bound, chain = evaluation.likelihood, evaluation.chain or {}
    if bound is None and evaluation.samples is None:
        command = f"python training/evaluate.py {folder.name} --out {folder}"
        raise ValueError(f"{folder.name}: expected a measured model; run `{command}`")
    ways = []
    if evaluation.continuous is not None:
        ways.append(f"continuous time {plus_minus(evaluation.continuous)} ({evaluation.continuous.images:,})")
    if evaluation.ode is not None:
        ways.append(f"flow ODE {plus_minus(evaluation.ode)} ({evaluation.ode.images:,})")
    if isinstance(bound, VAEBound):
        for weighted in (w for w in bound.importance_weighted if w.k > 1 and w.images == bound.images):
            ways.append(f"k = {weighted.k}: {plus_minus(weighted)} ({weighted.images:,})")
    if isinstance(bound, LatentBound):
        ways.append(f"N(0, I) as prior: {bound.standard_normal_prior_bound_bits_per_dim:.3f} ({bound.images:,})")
    name = f"[`{folder.name}`](../genlab/pretrained/{folder.name})"
    value = NOTHING if bound is None else f"{plus_minus(bound)} ({bound.images:,})"
    yield _row(name, evaluation.samples, value, "; ".join(ways) or NOTHING)
    for count, samples in sorted((evaluation.few or {}).items()):
        yield _row(f"… {count} evaluation{'s' * (count != '1')}", samples, NOTHING, NOTHING)
    if isinstance(bound, DiffusionBound):
        for variance in (v for v in SIGMA if v in bound.by_variance):
            value = f"{plus_minus(bound.by_variance[variance])} ({bound.images:,})"
            yield _row(f"… {SIGMA[variance]}", chain.get(variance), value, NOTHING)


def _row(name: str, samples: Samples | None, bound: str, second: str) -> str:
    if samples is None:
        return "| " + " | ".join([name, NOTHING, bound, second, *[NOTHING] * 3]) + " |"
    low, high = samples.frechet_interval_95
    steps = f", {samples.steps} steps" if samples.steps > 1 else ""
    cells = [
        name,
        f"{samples.sampler}{steps} ({samples.images:,})",
        bound,
        second,
        f"{samples.frechet_distance:.2f}, {low:.2f}–{high:.2f} ({samples.frechet_floor:.2f})",
        f"{samples.precision:.2f}, {samples.recall:.2f} ({samples.precision_of_real:.2f}, {samples.recall_of_real:.2f})",
        f"{samples.memorised_share:.1%} ({samples.memorised_share_of_held_out:.1%})",
    ]
    return "| " + " | ".join(cells) + " |"


def beside(path: Path) -> Iterator[str]:
    """Yield the rows of the reference codes and models of a data set, most bits first, and of the published models."""
    found = json.loads(path.read_text())
    figures = sorted(found["references"].items(), key=lambda each: -each[1]["bits_per_dim"])
    for name, figure in figures:
        value = f"{figure['bits_per_dim']:.3f} ± {figure['standard_error']:.3f}" if figure["standard_error"] else "8"
        yield _row(f"*{name}*", None, f"{value} ({found['images']:,})", NOTHING)
    for name, bits in PUBLISHED.get(found["dataset"], {}).items():
        yield _row(f"*published: {name}*", None, f"{bits} (10,000)", NOTHING)


def table() -> str:
    """Return the table as Markdown: for each data set its models, then the references to compare them with."""
    lines = [HEAD]
    for path in sorted(REFERENCES.glob("*.json")):
        for folder in sorted(PRETRAINED.iterdir()):
            if json.loads((folder / "config.json").read_text())["data"]["name"] == path.stem:
                lines += rows(folder)
        lines += beside(path)
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
