"""The model card: `README.md` of a model folder, written from its config.json and metrics.json alone.

The measurements of training/evaluate.py become tables, and metadata that the Hub shows (`model-index`). Metrics are named for
what they are: a Fréchet distance on the features of a small classifier is not called FID, nor a bound a likelihood.
"""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from genlab.config import Variance
from genlab.measurements import (
    ODE,
    Continuous,
    Curve,
    DiffusionBound,
    Evaluation,
    LatentBound,
    Reconstructions,
    Replay,
    Samples,
    VAEBound,
    read_evaluation,
    read_replay,
)

REPO_ID = "YOU/NAME"
"""Placeholder for the repository in a card; `publish.push` replaces it."""
INSTALL = "pip install .   # in a clone of genlab"
"""How to install genlab, where no address of it is known."""
BEGIN = "<!-- genlab writes what stands from here… -->"
END = "<!-- …to here anew with every push; the rest of this card is its owner's -->"

NOTES = {
    "ddpm": ("DDPM", "a denoising diffusion probabilistic model (Ho et al. 2020)"),
    "vae": ("VAE", "a variational autoencoder (Kingma & Welling 2014)"),
    "latent-ddpm": (
        "Latent DDPM",
        "a VAE whose prior is a diffusion model of its codes (Vahdat et al. 2021)",
    ),
    "mixture-vae": (
        "VAE with a mixture prior",
        "a VAE whose prior is a mixture of Gaussians fitted to its codes (Ghosh et al. 2020)",
    ),
    "consistency": (
        "Consistency function",
        "a consistency function (Song et al. 2023), for samples in one to four evaluations,",
    ),
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
"""Suffix of a name in metrics.json → unit."""
LOSS_UNITS = {
    "ddpm": {"loss": "simple + 0.001 × bound", "simple": "mean squared error", "bound": "bits/dim"},
    "vae": {"loss": "nats/picture", "reconstruction": "nats/picture", "kl": "nats/picture"},
    "consistency": {
        "loss": "pseudo-Huber distance, or matching + error",
        "matching": "half a mean square",
        "error": "mean squared error",
    },
}
SIGMA: dict[Variance, str] = {"learned": "Σ learned", "posterior": "Σ = β̃", "beta": "Σ = β"}
LOSS_UNITS["latent-ddpm"] = LOSS_UNITS["ddpm"]
LOSS_UNITS["mixture-vae"] = {"codes": "nats/picture, −log p(z)"}
NOTHING = "–"
LONGEST_TEXT = 300


def write_card(
    config: dict[str, Any], metrics: dict[str, Any], parameters: int, pictures: list[str], dataset: str | None
) -> str:
    """Return the text of a model's card.

    Args:
        config, metrics: content of config.json and metrics.json.
        parameters: number of weights.
        pictures: which of samples.png, examples.png, loss.png, ledger.png, nearest.png and replay.png are in the folder.
        dataset: id of the data set on the Hub, or None if it is not on the Hub.
    """
    kind, data = config["kind"], config["data"]
    short, what = NOTES[kind]
    channels = "gray" if data["channels"] == 1 else "RGB"
    parts = [
        _front_matter(kind, data["name"], dataset, metrics),
        BEGIN,
        f"# {short} of {escape(data['name'])}",
        f"This is {what} with {parameters:,} parameters for {channels} pictures of {data['size']}×{data['size']} pixels, "
        f"{_origin(config, metrics)} with genlab {escape(config['genlab'])}.",
    ]
    if data["classes"]:
        parts.append("Classes: " + ", ".join(escape(name) for name in data["classes"]) + ".")
    if "samples.png" in pictures:
        parts += ["![64 samples of the model](samples.png)", "64 samples of the model, not selected."]
    parts += [
        "## Use",
        f"```bash\n{INSTALL}\n```",
        f'```python\nimport genlab\n\nmodel = genlab.load("{REPO_ID}")\n'
        'genlab.grid(genlab.sample(model, count=16, seed=0)).save("samples.png")\n```',
        f"In a clone of genlab, `python app.py --models {REPO_ID}` shows it in the browser. Weights are safetensors; loading "
        "runs no code.",
    ]
    measured = measured_tables(metrics)
    if "ledger.png" in pictures and measured:
        measured.append(f"![{LEDGER[kind]}](ledger.png)")
    if "nearest.png" in pictures and measured:
        measured.append("![Samples and the training pictures nearest to them](nearest.png)")
    rest = list(_rest(kind, metrics))
    if measured or rest:
        parts += ["## Measured", *measured, *([_table(("quantity", "value", "unit"), rest)] if rest else [])]
    training = _section(metrics, "training")
    facts = [("seed", escape(metrics["seed"]), "")] if "seed" in metrics else []
    facts += [(label, _text(training[key]), unit) for key, label, unit in _TRAINING if key in training]
    if facts or "command" in metrics:
        parts.append("## Training")
    if "command" in metrics:
        parts.append(_code(metrics["command"]))
    if "command" in (times := _section(metrics, "times")):
        parts += ["The times of its evaluations were then chosen by", _code(times["command"])]
    if facts:
        parts.append(_table(("quantity", "value", "unit"), facts))
    if "loss.png" in pictures:
        parts.append("![Loss during training](loss.png)")
    replay = read_replay(metrics)
    if replay is not None and "replay.png" in pictures:
        parts += ["![Moments of the training](replay.png)", _replay(replay)]
    options = [(_words(name), _text(value)) for name, value in _leaves(config["model"])]
    parts += ["## Architecture", _table(("option", "value"), options)]
    if "examples.png" in pictures:
        parts.append("`examples.png` holds held-out pictures of the data set, for the demo; they were not trained on.")
    return "\n\n".join([*parts, END]) + "\n"


def _replay(replay: Replay) -> str:
    """Return what replay.png shows, and how the figures of the moments change, in one line."""
    first, last = replay.moments[0], replay.moments[-1]
    figures = (
        ("loss on held-out pictures", first.held_out_loss, last.held_out_loss),
        ("bound, bits/dim", first.bound_bits_per_dim, last.bound_bits_per_dim),
        ("Fréchet distance", first.frechet_distance, last.frechet_distance),
    )
    changes = "; ".join(f"{name}: {_short(a)} → {_short(b)}" for name, a, b in figures if a is not None and b is not None)
    return (
        f"{_text(len(replay.moments))} moments of the training, from step {_text(first.step)} to {_text(last.step)}, a row "
        f"each: {_text(replay.samples)} pictures by the weights of the moment, then by their average, from the same noise. "
        f"{changes[:1].upper()}{changes[1:]}."
    )


def installation(card: str, address: str | None) -> str:
    """Return a card whose readers can install genlab from an address, if there is one."""
    return card if address is None else card.replace(INSTALL, f"pip install git+{address}")


def merged(mine: str, theirs: str, license: str | None = None) -> str:
    """Return the card of a repository that may have one, with what genlab writes in its place.

    Of the other card stay the licence, tags, other entries of the metadata, and all text outside genlab's two marks; of a card
    without them all text, below genlab's.

    Args:
        mine: genlab's card; theirs: the repository's, "" if it has none; license: takes precedence over that of both.
    """
    (data, body), (other, text) = card_parts(mine), card_parts(theirs)
    tags = [*data["tags"], *(tag for tag in _list(other.get("tags")) if tag not in data["tags"])]
    data = {**other, **data, "tags": tags, "license": license or other.get("license") or data["license"]}
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    own = body[body.index(BEGIN) : body.index(END) + len(END)]
    body = f"{before}{own}{after}" if begin and end else f"{own}\n\n{text}" if text.strip() else f"{own}\n"
    return f"---\n{yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=10**6)}---\n\n{body.lstrip()}"


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def card_parts(card: str) -> tuple[dict[str, Any], str]:
    """Return the metadata and the text of a card."""
    found = re.match(r"---\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|$)", card, re.DOTALL)
    try:
        data = yaml.safe_load(found[1]) if found else {}
    except yaml.YAMLError:
        data = None
    return (data, card[found.end() :]) if found and isinstance(data, dict) else ({}, card)


def _origin(config: dict[str, Any], metrics: dict[str, Any]) -> str:
    """Return whether the weights were trained from nothing, from those of another model, or distilled, and from which."""
    options = _section(_section(metrics, "training"), "options")
    before = options.get("from_model")
    if config["kind"] == "consistency":
        teacher = _code_word(config["model"]["teacher"])
        if options.get("objective") == "distribution":
            return f"distilled from the DDPM {teacher}, and then matched to its distribution (Yin et al. 2024)"
        return f"distilled from the DDPM {teacher}"
    return f"trained from the weights of {escape(before)}" if before else "trained from scratch"


def _section(metrics: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a section of metrics.json; empty if it has none, or something else there."""
    found = metrics.get(name)
    return found if isinstance(found, dict) else {}


def _code_word(text: str) -> str:
    """Return text as Markdown code, without the backquotes in it."""
    return f"`{text.replace('`', '')}`"


_TRAINING = (
    ("steps", "steps", ""),
    ("lengthened", "planned shorter at first", ""),
    ("weights", "weights", ""),
    ("images_seen", "pictures seen", ""),
    ("seconds", "time", "s"),
    ("device", "device", ""),
    ("precision", "arithmetic", ""),
    ("processes", "processes", ""),
    ("data_sha256", "SHA-256 of the training data", ""),
    ("from_sha256", "SHA-256 of the weights at the start", ""),
    ("teacher_sha256", "SHA-256 of the teacher's weights", ""),
    ("vae_sha256", "SHA-256 of the VAE's weights", ""),
)


def escape(text: object) -> str:
    """Return untrusted text as plain text in Markdown: one line of at most 300 characters, no markup, HTML or link."""
    line = re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\s]+", " ", str(text)).strip()
    line = line if len(line) <= LONGEST_TEXT else line[:LONGEST_TEXT] + "…"
    line = re.sub(r"([\\`*_{}\[\]#|~!$])", r"\\\1", html.escape(line, quote=False))
    return re.sub(r"(?i)(https?|ftp|www|mailto)(?=[:.])", lambda found: found[0][0] + "\u200b" + found[0][1:], line)


def measured_tables(metrics: dict[str, Any]) -> list[str]:
    """Return the measurements of training/evaluate.py as Markdown, likelihood first; an empty list if there are none."""
    evaluation = read_evaluation(metrics)
    parts = [line for lines in _tables(evaluation) for line in lines]
    if parts and evaluation.data is not None:
        parts.insert(0, f"Measured on the test pictures of {escape(evaluation.data.name)}, with genlab's training/evaluate.py.")
    if parts and evaluation.command is not None:
        parts.append(_code(evaluation.command))
    return parts


def _tables(evaluation: Evaluation) -> Iterator[list[str]]:
    """Yield a table, as paragraphs of Markdown, for each part of the evaluation that has one."""
    if isinstance(evaluation.likelihood, DiffusionBound):
        yield _ledger_table(evaluation.likelihood, evaluation.continuous, evaluation.ode)
    elif isinstance(evaluation.likelihood, VAEBound):
        yield _weighted_table(evaluation.likelihood)
    elif evaluation.likelihood is not None:
        yield _latent_table(evaluation.likelihood)
    if evaluation.samples is not None:
        yield _samples_table(evaluation.samples)
    if evaluation.reconstructions is not None:
        yield [_reconstructions(evaluation.reconstructions)]
    if evaluation.few is not None:
        what = "samples by number of evaluations"
        yield _variants_table(what, "evaluations", {name: each for name, each in evaluation.few.items() if name.isdigit()})
    if evaluation.chain is not None:
        some = next(iter(evaluation.chain.values()))
        what = f"samples by the ancestral chain in {_text(some.steps)} steps, with each Σ"
        yield _variants_table(what, "Σ", {SIGMA[name]: each for name, each in evaluation.chain.items()})
    if evaluation.steps is not None:
        yield _curve_table(evaluation.steps)


LEDGER = {
    "ddpm": "The bound and the errors of the network at each step t",
    "vae": "The KL divergence of each latent",
    "latent-ddpm": "The bound of the codes and the errors of the network at each step t",
}


def _ledger_table(likelihood: DiffusionBound, continuous: Continuous | None, ode: ODE | None) -> list[str]:
    own, by_variance = likelihood.variance, likelihood.by_variance
    names = sorted(by_variance, key=lambda name: name != own)
    every = likelihood.mode == "every t"
    sampled = f"{_text(likelihood.looks_per_image)} of the {_text(likelihood.T)} steps t, one drawn in each stratum"
    times = f"every one of the {_text(likelihood.T)} steps t" if every else sampled
    rows = [
        ("L_T", *[_value(likelihood, "prior_term_L_T", "bits_per_dim")] * len(names)),
        ("L_1 + … + L_{T−1}", *(_value(by_variance[n], "transition_terms_sum", "bits_per_dim") for n in names)),
        ("L_0", *(_value(by_variance[n], "decoder_term_L_0", "bits_per_dim") for n in names)),
        ("**bound on −log p(x)**", *(f"**{_value(by_variance[n], 'bound', 'bits_per_dim')}**" for n in names)),
    ]
    if continuous is not None:
        label = f"in continuous time (a chain of {_text(continuous.steps)} steps), {_text(continuous.images)} pictures"
        rows.append((label, _value(continuous, "bound", "bits_per_dim"), *[NOTHING] * (len(names) - 1)))
    if ode is not None:
        label = f"by the flow ODE, {_text(ode.images)} pictures"
        label += f" (half the solver's steps change it by {_short(ode.half_the_steps_change_bits_per_dim)})"
        rows.append((label, _value(ode, "bound", "bits_per_dim"), *[NOTHING] * (len(names) - 1)))
    head = ("bits/dim", *(SIGMA[n] + (", the model's own" if n == own else "") for n in names))
    return [
        f"Likelihood of {_text(likelihood.images)} held-out pictures, classes hidden, each evaluated at {times}; "
        "± is the standard error.",
        _table(head, rows),
    ]


def _weighted_table(likelihood: VAEBound) -> list[str]:
    binary = likelihood.binarisation is not None
    rows = []
    for row in likelihood.importance_weighted:
        name = "ELBO" if row.k == 1 else f"importance-weighted, k = {_text(row.k)}"
        bits = () if binary else (_value(row, "bound", "bits_per_dim"),)
        rows.append((name, _text(row.images), _value(row, "bound", "nats"), *bits))
    what = f"{escape(likelihood.binarisation)} binarisation" if binary else escape(likelihood.likelihood)
    reconstruction, divergence = (_value(likelihood, name, "nats") for name in ("reconstruction", "kl"))
    return [
        f"Likelihood of held-out pictures ({what}); ± is the standard error.",
        _table(("bound", "pictures", "log p(x) ≥, nats", *(() if binary else ("−log p(x) ≤, bits/dim",))), rows),
        f"The ELBO is the reconstruction, {reconstruction} nats, less the KL divergence, {divergence} nats. "
        f"{_text(likelihood.active_latents)} of {_text(likelihood.latents)} latents are active: the variance of their "
        "posterior mean is above 0.01.",
    ]


def _latent_table(likelihood: LatentBound) -> list[str]:
    """Return the ELBO with the fitted prior, its parts, and the ELBO of the same codes with N(0, I) as prior."""
    by = "the mixture" if likelihood.codes is None else "the DDPM"
    rows = [
        ("reconstruction, E[log p(x\\|z)]", f"{_short(likelihood.reconstruction_nats)} nats"),
        ("entropy of q(z\\|x)", f"{_short(likelihood.entropy_of_q_nats)} nats"),
        (f"{'' if likelihood.codes is None else 'bound on '}−log p(z) by {by}", f"{_value(likelihood, 'prior', 'nats')} nats"),
        ("**bound on −log p(x)**", f"**{_value(likelihood, 'bound', 'bits_per_dim')} bits/dim**"),
        ("with N(0, I) for the prior", f"{_short(likelihood.standard_normal_prior_bound_bits_per_dim)} bits/dim"),
    ]
    return [
        f"Likelihood of {_text(likelihood.images)} held-out pictures ({escape(likelihood.likelihood)}), by one z of "
        f"{_text(likelihood.latents)} numbers for each; ± is the standard error.",
        _table(("term", "value"), rows),
    ]


def _samples_table(samples: Samples) -> list[str]:
    features = samples.features
    memorised = "share nearer to a training picture than a held-out one usually is"
    rows = [
        ("Fréchet distance", _distance(samples), _short(samples.frechet_floor)),
        *(
            [("of infinitely many pictures", *map(_short, (samples.frechet_extrapolated, samples.frechet_extrapolated_floor)))]
            if samples.frechet_extrapolated is not None and samples.frechet_extrapolated_floor is not None
            else []
        ),
        ("kernel distance × 1000", _value(samples, "kernel_distance", "x1000"), _short(samples.kernel_distance_floor_x1000)),
        ("precision", _short(samples.precision), _short(samples.precision_of_real)),
        ("recall", _short(samples.recall), _short(samples.recall_of_real)),
        (memorised, _short(samples.memorised_share), _short(samples.memorised_share_of_held_out)),
    ]
    how = [_text(samples.sampler)]
    how += [f"{_text(samples.steps)} steps"] if samples.steps > 1 else []
    return [
        f"{_text(samples.images)} samples ({', '.join(how)}) against {_text(samples.reference_images)} held-out "
        f"pictures, on the features of genlab's {escape(features.name)} classifier "
        f"(SHA-256 {escape(features.sha256)[:12]}…, test accuracy {_text(features.accuracy)}): "
        "these are not the FID, KID, … of an Inception network.",
        _table(("samples", "of the model", "of real pictures in their place"), rows),
    ]


def _variants_table(what: str, head: str, variants: dict[str, Samples]) -> list[str]:
    """Return a table with a row for each way of drawing samples; `head` is the title of their names."""
    some = next(iter(variants.values()))
    rows = [
        (name, _distance(each), *map(_short, (each.precision, each.recall, each.memorised_share)))
        for name, each in variants.items()
    ]
    real = (some.frechet_floor, some.precision_of_real, some.recall_of_real, some.memorised_share_of_held_out)
    rows.append(("real pictures", *map(_short, real)))
    return [
        f"{_text(some.images)} {what}, measured in the same way.",
        _table((head, "Fréchet distance", "precision", "recall", "memorised"), rows),
    ]


def _reconstructions(found: Reconstructions) -> str:
    low, high = (_short(end) for end in found.frechet_interval_95)
    return (
        f"Reconstructions of {_text(found.images)} training pictures have a Fréchet distance of "
        f"{_short(found.frechet_distance)} (95 %: {low} to {high}); those pictures themselves have "
        f"{_short(found.frechet_floor)}. This is what samples with a perfect prior would have."
    )


def _curve_table(curve: Curve) -> list[str]:
    distances = tuple(_short(value) for value in curve.frechet_distance)
    return [
        f"What more steps bring: {_text(curve.images)} samples ({_text(curve.sampler)}) for each number of steps; "
        f"as many real pictures score {_short(curve.frechet_floor)}.",
        _table(("steps", *map(_text, curve.steps)), [("Fréchet distance", *distances)]),
    ]


def _distance(samples: Samples) -> str:
    low, high = (_short(end) for end in samples.frechet_interval_95)
    return f"{_short(samples.frechet_distance)} (95 %: {low} to {high})"


def _short(value: float) -> str:
    return f"{value:.3g}"


def _value(part: object, name: str, unit: str) -> str:
    """Return a measurement ± its standard error, rounded to two digits of the error."""
    value, error = getattr(part, f"{name}_{unit}"), getattr(part, f"{name}_standard_error_{unit}")
    if value is None or error is None or not error > 0:
        return NOTHING if value is None else _text(value)
    if abs(value) < 1e-3:
        return f"{value:.3g} ± {error:.1g}"
    digits = max(0, 1 - math.floor(math.log10(error)))
    return f"{value:,.{digits}f} ± {error:,.{digits}f}"


def _front_matter(kind: str, name: str, dataset: str | None, metrics: dict[str, Any]) -> str:
    lines = ["---", "license: apache-2.0", "library_name: genlab", "pipeline_tag: unconditional-image-generation"]
    fields = {"ddpm": ["diffusion"], "consistency": ["diffusion"], "latent-ddpm": ["diffusion", "variational-autoencoder"]}
    lines += ["tags:", *(f"- {tag}" for tag in ("genlab", kind, *fields.get(kind, ["variational-autoencoder"])))]
    lines += ["datasets:", f"- {json.dumps(dataset)}"] if dataset else []
    evaluation = read_evaluation(metrics)
    results = list(_results(evaluation))
    if results:
        lines += ["model-index:", f"- name: {json.dumps(f'{kind}-{name}')}", "  results:", "  - task:"]
        on = name if evaluation.data is None else evaluation.data.name
        lines += ["      type: unconditional-image-generation", "    dataset:", f"      name: {json.dumps(on)}"]
        lines += [f"      type: {json.dumps(dataset or name if on == name else on)}", "      split: test", "    metrics:"]
        for metric, label, value in results:
            lines += [f"    - type: {metric}", f"      name: {json.dumps(label)}", f"      value: {json.dumps(value)}"]
    return "\n".join([*lines, "---"])


def _results(evaluation: Evaluation) -> Iterator[tuple[str, str, float]]:
    """Yield (type, name, value) of each measurement that the Hub shows."""
    likelihood, ode, samples = evaluation.likelihood, evaluation.ode, evaluation.samples
    if likelihood is not None and likelihood.bound_bits_per_dim is not None:
        kind = "variational bound" if isinstance(likelihood, DiffusionBound) else "ELBO"
        label = f"bits/dim, {kind} on −log p(x), n = {likelihood.images:,}"
        yield "bits_per_dim_bound", label, likelihood.bound_bits_per_dim
    if isinstance(likelihood, VAEBound):
        best = max(likelihood.importance_weighted, key=lambda row: (row.images, row.k))
        n = f"k = {best.k:,}, n = {best.images:,}"
        if likelihood.binarisation is not None:
            label = f"nats, importance-weighted bound on −log p(x), {likelihood.binarisation} binarisation, {n}"
            yield "nats_bound", label, -best.bound_nats
        elif best.bound_bits_per_dim is not None:
            label = f"bits/dim, importance-weighted bound on −log p(x), {n}"
            yield "bits_per_dim_importance_weighted", label, best.bound_bits_per_dim
    if ode is not None:
        label = f"bits/dim, bound on −log p(x) by the probability-flow ODE, n = {_text(ode.images)}"
        yield "bits_per_dim_ode", label, ode.bound_bits_per_dim
    if samples is not None:
        features = samples.features
        where = f"features of genlab's {features.name} classifier {features.sha256[:12]}, n = {samples.images:,}"
        floor = f"real against real {samples.frechet_floor:.3g}"
        yield "frechet_distance", f"Fréchet distance ({where}; {floor}), not FID", samples.frechet_distance
        yield "kernel_distance_x1000", f"kernel distance × 1000 ({where}), not KID", samples.kernel_distance_x1000
        yield "precision", f"precision ({where})", samples.precision
        yield "recall", f"recall ({where})", samples.recall
        label = "share of samples nearer to a training picture than a held-out one usually is"
        yield "memorised_share", label, samples.memorised_share


def _rest(kind: str, metrics: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield (quantity, value, unit) of the measurements without a table: final training losses first, then the rest."""
    loss = metrics.get("loss", {})
    held_out = f"{_text(loss['held_out_images'])} held-out pictures" if "held_out_images" in loss else "held-out pictures"
    for key, where in (("training", "training batches"), ("held_out", held_out)):
        for name, value in loss.get(key, {}).items():
            yield f"{_words(name)}, {where}", _text(value), LOSS_UNITS[kind].get(name, "")
    read = read_evaluation(metrics)
    tables = ("likelihood", "samples", "reconstructions", "chain", "few", "steps")
    shown = {"command", *(name for name in tables if getattr(read, name) is not None)}
    if isinstance(read.likelihood, DiffusionBound):  # they are rows of the likelihood's table
        shown |= {name for name in ("continuous", "ode") if getattr(read, name) is not None}
    for name, value in _leaves({k: v for k, v in metrics.get("evaluation", {}).items() if k not in shown}):
        yield _named(name, value)


def _named(name: str, value: object) -> tuple[str, str, str]:
    """Return (quantity, value, unit) of a measurement, with the unit taken from the end of its name."""
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
    """Return a fenced block of code, with a fence longer than any in the text."""
    line = re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+", " ", str(text))
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", line)), default=0))
    return f"{fence}sh\n{line}\n{fence}"
