"""The table of the models that ship, as it stands in the README, from their metrics.json: `python benchmarks/shipped.py`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

PRETRAINED = Path(__file__).resolve().parents[1] / "genlab" / "pretrained"
HEAD = (
    "| model | bound on −log p, bits/dim (pictures) | with Σ = β̃, Σ = β | by another way | Fréchet distance (real pictures) "
    "| precision, recall (real) | memorised (held out) |\n|---|---|---|---|---|---|---|"
)


def plus_minus(section: dict[str, Any], name: str) -> str:
    """A figure in bits/dim and its standard error."""
    return f"{section[f'{name}_bits_per_dim']:.3f} ± {section[f'{name}_standard_error_bits_per_dim']:.3f}"


def row(folder: Path) -> str:
    """The row of one model; a dash for what was not measured."""
    evaluation = json.loads((folder / "metrics.json").read_text())["evaluation"]
    bound, samples = evaluation["likelihood"], evaluation.get("samples")
    fixed, second = "–", "–"
    if "by_variance" in bound:
        fixed = ", ".join(
            f"{sums['bound_bits_per_dim']:.3f}" for name, sums in bound["by_variance"].items() if name != bound["variance"]
        )
    if "ode" in evaluation:
        second = f"flow ODE {plus_minus(evaluation['ode'], 'bound')} ({evaluation['ode']['images']:,})"
    for weighted in bound.get("importance_weighted", ()):
        if weighted["k"] > 1 and weighted["images"] == bound["images"]:
            second = f"k = {weighted['k']}: {plus_minus(weighted, 'bound')} ({weighted['images']:,})"
    cells = [
        f"[`{folder.name}`](genlab/pretrained/{folder.name})",
        f"{plus_minus(bound, 'bound')} ({bound['images']:,})",
        fixed,
        second,
    ]
    if samples is None:
        return "| " + " | ".join([*cells, "–", "–", "–"]) + " |"
    low, high = samples["frechet_interval_95"]
    cells += [
        f"{samples['frechet_distance']:.2f}, {low:.2f}–{high:.2f} ({samples['frechet_floor']:.2f})",
        "{precision:.2f}, {recall:.2f} ({precision_of_real:.2f}, {recall_of_real:.2f})".format(**samples),
        f"{samples['memorised_share']:.1%} ({samples['memorised_share_of_held_out']:.1%})",
    ]
    return "| " + " | ".join(cells) + " |"


def table() -> str:
    """All that ship, as Markdown."""
    return "\n".join([HEAD, *(row(folder) for folder in sorted(PRETRAINED.iterdir()) if folder.is_dir())])


if __name__ == "__main__":
    print(table())
