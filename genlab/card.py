"""The model card: `README.md` of a model folder, written from its config.json and metrics.json alone."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

REPO_ID = "YOU/NAME"
"""Stands for the repository in a card until the model is pushed."""

NOTES = {
    "ddpm": ("DDPM", "a denoising diffusion probabilistic model (Ho et al. 2020)"),
    "vae": ("VAE", "a variational autoencoder (Kingma & Welling 2014)"),
}
UNITS = {
    "bits_per_dim": "bits/dim",
    "images_per_second": "pictures/s",
    "nats": "nats/picture",
    "bits": "bits/picture",
    "seconds": "s",
    "bytes": "bytes",
    "percent": "%",
}
"""What the end of a name in metrics.json says about the unit."""
LOSS_UNITS = {
    "ddpm": {"loss": "simple + 0.001 × bound", "simple": "mean squared error", "bound": "bits/dim"},
    "vae": {"loss": "nats/picture", "reconstruction": "nats/picture", "kl": "nats/picture"},
}
LONGEST_TEXT = 300


def write_card(
    config: dict[str, Any], metrics: dict[str, Any], parameters: int, pictures: list[str], dataset: str | None
) -> str:
    """The card's text.

    Args:
        config, metrics: content of config.json and metrics.json.
        parameters: number of weights.
        pictures: which of samples.png, examples.png and loss.png lie beside it.
        dataset: id of the data set on the Hub, or None where it has none.
    """
    kind, data = config["kind"], config["data"]
    short, what = NOTES[kind]
    channels = "gray" if data["channels"] == 1 else "RGB"
    parts = [
        _front_matter(kind, dataset),
        f"# {short} of {escape(data['name'])}",
        f"This is {what} with {parameters:,} parameters for {channels} pictures of {data['size']}×{data['size']} pixels, "
        f"trained from scratch with genlab {escape(config['genlab'])}.",
    ]
    if data["classes"]:
        parts.append("Classes: " + ", ".join(escape(name) for name in data["classes"]) + ".")
    if "samples.png" in pictures:
        parts += ["![64 samples of the model](samples.png)", "64 samples of the model, not selected."]
    parts += [
        "## Use",
        f'```python\nfrom genlab.{kind} import {short}\n\nmodel = {short}.from_pretrained("{REPO_ID}")\n```',
        f"`GENLAB_MODELS={REPO_ID} python app.py` shows it in the browser. Weights are safetensors; loading runs no code.",
    ]
    measured = list(_measured(kind, metrics))
    if measured:
        parts += ["## Measured", _table(("quantity", "value", "unit"), measured)]
    training = metrics.get("training", {})
    facts = [("seed", escape(metrics["seed"]), "")] if "seed" in metrics else []
    facts += [(label, _text(training[key]), unit) for key, label, unit in _TRAINING if key in training]
    if facts or "command" in metrics:
        parts.append("## Training")
    if "command" in metrics:
        parts.append(_code(metrics["command"]))
    if facts:
        parts.append(_table(("quantity", "value", "unit"), facts))
    if "loss.png" in pictures:
        parts.append("![Loss during training](loss.png)")
    options = [(_words(name), _text(value)) for name, value in _leaves(config["model"])]
    parts += ["## Architecture", _table(("option", "value"), options)]
    if "examples.png" in pictures:
        parts.append("`examples.png` holds held-out pictures of the data set, for the demo; they were not trained on.")
    return "\n\n".join(parts) + "\n"


_TRAINING = (
    ("steps", "steps", ""),
    ("images_seen", "pictures seen", ""),
    ("seconds", "time", "s"),
    ("device", "device", ""),
    ("precision", "arithmetic", ""),
    ("processes", "processes", ""),
    ("data_sha256", "SHA-256 of the training data", ""),
)


def escape(text: object) -> str:
    """Text from outside as text in Markdown: no markup, no HTML, no table cell, no link, one line of at most 300 characters."""
    line = re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\s]+", " ", str(text)).strip()
    line = line if len(line) <= LONGEST_TEXT else line[:LONGEST_TEXT] + "…"
    line = re.sub(r"([\\`*_{}\[\]#|~!$])", r"\\\1", html.escape(line, quote=False))
    return re.sub(r"(?i)(https?|ftp|www|mailto)(?=[:.])", lambda found: found[0][0] + "\u200b" + found[0][1:], line)


def _front_matter(kind: str, dataset: str | None) -> str:
    lines = ["---", "license: apache-2.0", "library_name: genlab", "pipeline_tag: unconditional-image-generation"]
    lines += ["tags:", "- genlab", f"- {kind}", f"- {'diffusion' if kind == 'ddpm' else 'variational-autoencoder'}"]
    lines += ["datasets:", f"- {json.dumps(dataset)}"] if dataset else []
    return "\n".join([*lines, "---"])


def _measured(kind: str, metrics: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(quantity, value, unit) of everything that was measured: the losses at the end of training, then the evaluation."""
    loss = metrics.get("loss", {})
    held_out = f"{_text(loss['held_out_images'])} held-out pictures" if "held_out_images" in loss else "held-out pictures"
    for key, where in (("training", "training batches"), ("held_out", held_out)):
        for name, value in loss.get(key, {}).items():
            yield f"{_words(name)}, {where}", _text(value), LOSS_UNITS[kind].get(name, "")
    for name, value in _leaves(metrics.get("evaluation", {})):
        yield _named(name, value)


def _named(name: str, value: object) -> tuple[str, str, str]:
    """A measurement by its name, whose end is its unit."""
    ending = next((e for e in UNITS if name.endswith("_" + e)), None)
    return _words(name.removesuffix("_" + ending) if ending else name), _text(value), UNITS[ending] if ending else ""


def _leaves(tree: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{above}{name}: ")
        else:
            yield above + name, value


def _words(name: str) -> str:
    return escape(name.replace("_", " "))


def _text(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, (list, tuple)):
        return escape(", ".join(str(v) for v in value))
    return escape(value)


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _code(text: object) -> str:
    """A block of code that its content cannot end."""
    line = re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+", " ", str(text))
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", line)), default=0))
    return f"{fence}sh\n{line}\n{fence}"
