"""The account of what a training learns from: its first lines, and `preflight.json` in its run folder.

It states every decision about the pictures with the option that decides otherwise, what is left out, and what is doubtful.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genlab.config import expanded
from training.config import Training

if TYPE_CHECKING:
    from torch import Tensor

    from genlab.data import Dataset

FILE = "preflight.json"
NAMES = 5
"""Names of files in an account of those that are left out."""
ALIKE = 2.0
"""Largest root mean square difference of near-duplicates, levels of their 8×8 means."""
COMPARED = 2_000
"""Largest number of held-out pictures that are compared with the training pictures."""
AT_START = 1_000_000_000
"""Bytes of pictures up to which the first lines of a training count duplicates."""
MANY_EPOCHS = 300
"""Passes over the training pictures from which on a model of the default size memorises them."""
FEW = 5
"""Fewest pictures of a class, and least percent of pictures, that pass without a warning."""


def account(config: Training, train: Dataset, held_out: Dataset, duplicates: bool = True) -> dict[str, Any]:
    """Return what is known of the pictures of a training.

    Args:
        duplicates: count the held-out pictures that are, or nearly are, among the training pictures; reads all pictures.
    """
    spec, found = train.spec, train.account
    epochs = config.steps * config.batch_size / len(train)
    facts: dict[str, Any] = {
        "dataset": str(expanded(config.dataset).resolve()) if expanded(config.dataset).exists() else config.dataset,
        "reading": asdict(config.reading),
        "name": spec.name,
        "size": spec.size,
        "channels": spec.channels,
        "images": len(train),
        "held_out": len(held_out),
        "data_sha256": train.sha256,
        "classes": _counts(train),
        "decisions": [*found.decisions, *config.decisions(spec.size)],
        "left_out": {reason: {"count": len(names), "first": names[:NAMES]} for reason, names in found.left_out.items()},
        "sizes": dict(sorted(found.sizes.items(), key=lambda each: -each[1])[:NAMES]),
        "modes": found.modes,
        "stored": found.stored,
        "epochs": round(epochs, 2),
    }
    if duplicates:
        facts["held_out_compared"] = min(COMPARED, len(held_out))
        facts["duplicates"], facts["near_duplicates"] = _repeated(train.images, held_out.images[:COMPARED])
    facts["warnings"] = [*found.doubts, *_warnings(facts, found.sizes, config)]
    return facts


def _counts(train: Dataset) -> dict[str, int]:
    if train.labels is None:
        return {}
    counts = (train.labels[train.labels >= 0]).bincount(minlength=len(train.spec.classes)).tolist()
    return dict(zip(train.spec.classes, counts, strict=True))


def _repeated(train: Tensor, held_out: Tensor) -> tuple[int, int]:
    """Return how many held-out pictures are equal to a training picture, and how many others nearly are."""
    import hashlib

    import torch
    from torch.nn.functional import adaptive_avg_pool2d

    def digests(pictures: Tensor) -> list[bytes]:
        return [hashlib.blake2b(one.numpy().data, digest_size=16).digest() for one in pictures]

    def means(pictures: Tensor) -> Tensor:
        return torch.cat([adaptive_avg_pool2d(part.float(), 8).flatten(1) for part in pictures.split(1000)])

    known = {each for part in train.split(1000) for each in digests(part)}
    equal = torch.tensor([each in known for each in digests(held_out)])
    small = means(held_out)
    near = torch.zeros(len(held_out), dtype=torch.bool)
    for part in train.split(5000):
        near |= (torch.cdist(small, means(part)) <= ALIKE * small.shape[1] ** 0.5).any(dim=1)
    return int(equal.sum()), int((near & ~equal).sum())


def _warnings(facts: dict[str, Any], sizes: dict[str, int], config: Training) -> list[str]:
    """Return what is doubtful in an account, each with what to do."""
    count, epochs, found = facts["images"], facts["epochs"], []
    if epochs > MANY_EPOCHS:
        steps = max(1, round(MANY_EPOCHS * count / config.batch_size, -2))
        found.append(
            f"{epochs:,.0f} epochs of {count:,} pictures: the model will copy them; watch the held-out loss, give --steps "
            f"{steps:.0f}, more pictures, or, to a DDPM, --augment flip where a mirrored picture is one of the data set"
        )
    if epochs < 1:
        found.append(f"{100 * epochs:.0f} % of the pictures are used: give --steps {-(-count // config.batch_size)} or more")
    if config.batch_size > count:
        found.append(f"a step of {config.batch_size} pictures has some of {count} more than once: lower --batch-size")
    if facts.get("duplicates"):
        found.append(
            f"{facts['duplicates']} of {facts['held_out_compared']} held-out pictures are also trained on: what is measured on "
            "them is too good; remove the copies, or hold out others by --held-out"
        )
    if facts.get("near_duplicates"):
        found.append(
            f"{facts['near_duplicates']} of {facts['held_out_compared']} held-out pictures nearly equal one that is trained on "
            "(series, crops, resaved files): put each series into one folder and hold out whole folders by --held-out FOLDER"
        )
    if facts["held_out"] < 100:
        found.append(f"{facts['held_out']} held-out pictures: what is measured on them is uncertain; raise --held-out")
    few = [name for name, number in facts["classes"].items() if number < FEW]
    if few:
        found.append(f"{len(few)} classes have fewer than {FEW} pictures ({', '.join(few[:NAMES])}): join or remove them")
    sides = {name: [int(side) for side in name.split("×")] for name in sizes}
    total = sum(sizes.values())
    small = sum(number for name, number in sizes.items() if min(sides[name]) < facts["size"])
    odd = sum(number for name, number in sizes.items() if max(sides[name]) > 1.5 * min(sides[name]))
    if small * 100 > FEW * total:
        found.append(f"{small:,} of {total:,} pictures have a side below {facts['size']} pixels and are enlarged: lower --size")
    if odd * 100 > FEW * total:
        found.append(f"{odd:,} of {total:,} pictures are half as long again as wide or more: their middle square is used")
    return found


def lines(facts: dict[str, Any], config: Training) -> list[str]:
    """Return an account as lines of text."""
    colour = "RGB" if facts["channels"] == 3 else "gray"
    classes = [f"{name} {number:,}" for name, number in facts["classes"].items()]
    more = f", … ({len(classes) - 10} more)" if len(classes) > 10 else ""
    found = [
        f"{facts['name']}: {facts['images']:,} pictures to train on, {facts['held_out']:,} held out, as {facts['size']}×"
        f"{facts['size']} {colour}; {config.steps:,} steps of {config.batch_size} are {facts['epochs']:,.1f} epochs"
    ]
    found += [f"  classes: {', '.join(classes[:10])}{more}"] if classes else []
    found += [f"  {line}" for line in facts["decisions"]]
    for name in ("sizes", "modes"):
        if facts[name]:
            found.append(f"  {name} of the files: " + ", ".join(f"{each} {number:,}" for each, number in facts[name].items()))
    for reason, names in facts["left_out"].items():
        rest = ", …" if names["count"] > len(names["first"]) else ""
        found.append(f"  left out: {names['count']:,}, {reason}: {', '.join(names['first'])}{rest}")
    if facts["stored"]:
        found.append(f"  decoded pictures are stored in {facts['stored']} (--cache decides)")
    if "duplicates" in facts:
        found.append(
            f"  of {facts['held_out_compared']:,} held-out pictures, {facts['duplicates']} equal one to train on, "
            f"{facts['near_duplicates']} nearly do"
        )
    if "seconds_per_step" in facts:
        found.append(
            f"  measured here: {facts['seconds_per_step']:.2f} s a step, {facts['minutes']:,.0f} minutes for all; "
            f"{facts['parameters']:,} parameters, {facts['memory_mb']:,} MB of memory"
        )
    return found + [f"  warning: {line}" for line in facts["warnings"]]


def recorded(folder: Path) -> dict[str, Any]:
    """Return the account in a run folder, or in that of the model in it; {} if there is none."""
    for place in (folder, folder.parent):
        try:
            facts = json.loads((place / FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(facts, dict) and isinstance(facts.get("dataset"), str):
            return facts
    return {}
