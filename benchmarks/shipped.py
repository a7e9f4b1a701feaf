"""The table of the models that ship, as it stands in the README, from their metrics.json: `python benchmarks/shipped.py`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from genlab.card import NOTHING, SIGMA

PRETRAINED = Path(__file__).resolve().parents[1] / "genlab" / "pretrained"
HEAD = (
    "| model | samples by | bound on −log p, bits/dim (pictures) | by another way | Fréchet distance (real pictures) "
    "| precision, recall (real) | memorised (held out) |\n|---|---|---|---|---|---|---|"
)


def plus_minus(section: dict[str, Any], name: str) -> str:
    """A figure in bits/dim and its standard error."""
    return f"{section[f'{name}_bits_per_dim']:.3f} ± {section[f'{name}_standard_error_bits_per_dim']:.3f}"


def rows(folder: Path) -> Iterator[str]:
    """The rows of one model: as it is, then its ancestral chain with each Σ; a dash for what was not measured.

    Raises:
        ValueError: nothing was measured.
    """
    evaluation = json.loads((folder / "metrics.json").read_text()).get("evaluation")
    if evaluation is None:
        raise ValueError(f"{folder.name}: expected a measured model; run `python training/evaluate.py {folder.name}`")
    bound, chain = evaluation["likelihood"], evaluation.get("chain", {})
    second = NOTHING
    if "ode" in evaluation:
        second = f"flow ODE {plus_minus(evaluation['ode'], 'bound')} ({evaluation['ode']['images']:,})"
    for weighted in bound.get("importance_weighted", ()):
        if weighted["k"] > 1 and weighted["images"] == bound["images"]:
            second = f"k = {weighted['k']}: {plus_minus(weighted, 'bound')} ({weighted['images']:,})"
    images, samples = f" ({bound['images']:,})", evaluation.get("samples")
    name = f"[`{folder.name}`](genlab/pretrained/{folder.name})"
    yield _row(name, samples, plus_minus(bound, "bound") + images, second)
    for variance in (v for v in SIGMA if v in bound.get("by_variance", ())):
        value = plus_minus(bound["by_variance"][variance], "bound") + images
        yield _row(f"… {SIGMA[variance]}", chain.get(variance), value, NOTHING)


def _row(name: str, samples: dict[str, Any] | None, bound: str, second: str) -> str:
    if samples is None:
        return "| " + " | ".join([name, NOTHING, bound, second, *[NOTHING] * 3]) + " |"
    low, high = samples["frechet_interval_95"]
    steps = f", {samples['steps']} steps" if samples["steps"] > 1 else ""
    cells = [
        name,
        f"{samples['sampler']}{steps} ({samples['images']:,})",
        bound,
        second,
        f"{samples['frechet_distance']:.2f}, {low:.2f}–{high:.2f} ({samples['frechet_floor']:.2f})",
        "{precision:.2f}, {recall:.2f} ({precision_of_real:.2f}, {recall_of_real:.2f})".format(**samples),
        f"{samples['memorised_share']:.1%} ({samples['memorised_share_of_held_out']:.1%})",
    ]
    return "| " + " | ".join(cells) + " |"


def table() -> str:
    """All that ship, as Markdown."""
    folders = sorted(folder for folder in PRETRAINED.iterdir() if folder.is_dir())
    return "\n".join([HEAD, *(row for folder in folders for row in rows(folder))])


if __name__ == "__main__":
    print(table())
