"""A data set before its pictures are decoded: which files or rows are for training, which are held out, and why.

`folders` and `tables` make a `Listing`; `data` decodes it. Whatever they decide is written down in `decisions`, with the option
that decides otherwise; what makes a decision doubtful in `doubts`; and every file that is not used in `left_out`.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from genlab.config import MAX_CLASSES, MAX_NAME

T = TypeVar("T")

HELD_OUT = 10
"""One picture in this many is held out for testing if the data set has no test split."""
NAMED = 3
"""Number of names in a message."""
TRAINING = ("train", "training")
TESTING = ("test", "testing", "val", "valid", "validation", "dev", "eval")
"""Names of splits in lower case; of several for testing the first in this order is held out."""


class DataError(ValueError):
    """A data set is missing or unusable; the message says what to do."""


@dataclass(frozen=True)
class Item:
    """One picture that is not decoded yet.

    Attributes:
        name: for messages.
        open: returns the file, or its content.
        label: index of its class, −1 for none.
    """

    name: str
    open: Callable[[], Path | io.BytesIO]
    label: int = -1


@dataclass(frozen=True)
class Listing:
    """The pictures of a data set and what was decided about them.

    Attributes:
        name: short name of the data set; source: where it lies, for messages.
        train, test: pictures for training and held out.
        classes: names of the classes; none if the data set has none or they are not used.
        small: whether small square pictures have their own size by default.
        decisions, doubts: sentences; left_out: reason → names.
        fingerprint: changes whenever one of the files changes.
    """

    name: str
    source: str
    train: Sequence[Item]
    test: Sequence[Item]
    classes: tuple[str, ...]
    fingerprint: str
    small: bool = False
    decisions: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    left_out: dict[str, list[str]] = field(default_factory=dict)


def share_of(text: str | None) -> float | None:
    """Return the share in `--held-out SHARE`, or None if it is no number.

    Raises:
        DataError: the number is not between 0 and 1.
    """
    try:
        share = float(text or "")
    except ValueError:
        return None
    if not 0 < share < 1:
        raise DataError(f"--held-out: expected a share between 0 and 1, a folder or a split, got {text}")
    return share


def hold_out(order: Sequence[T], key: Callable[[T], Hashable], share: float) -> tuple[list[T], int]:
    """Return the first elements of `order` until they are `share` of all, at least one, and the number of duplicates.

    Elements with the same key are duplicates and stay together: with one, all of them are taken, unless all elements are.
    """
    groups: dict[Hashable, list[T]] = {}
    for each in order:
        groups.setdefault(key(each), []).append(each)
    wanted, taken = max(1, round(len(order) * share)), 0
    if len(groups) == 1 and len(order) > 1:
        return [*order[:wanted]], len(order) - 1
    chosen = set()
    for name, members in list(groups.items())[:-1]:  # the last group remains for training
        if taken >= wanted:
            break
        chosen.add(name)
        taken += len(members)
    return [each for each in order if key(each) in chosen], len(order) - len(groups)


def digest(content: bytes) -> bytes:
    """Return the SHA-256 of a file's content."""
    return hashlib.sha256(content).digest()


def split_named(names: Sequence[str], among: Sequence[str]) -> str | None:
    """Return the name of the split that comes first in `among`, whatever its case; None if there is none."""
    lower = {name.lower(): name for name in reversed(names)}
    return next((lower[name] for name in among if name in lower), None)


def class_names(values: Sequence[str], where: str) -> tuple[tuple[str, ...], list[str]]:
    """Return values as names of classes, cut to the length that a model may declare, and sentences about what was cut.

    Raises:
        DataError: there are too many of them, or two that are equal when they are cut.
    """
    if len(values) > MAX_CLASSES:
        raise DataError(f"{where}: expected at most {MAX_CLASSES} classes, got {len(values)}; give --classes none, or another")
    cut = tuple(value if len(value) <= MAX_NAME else value[: MAX_NAME - 1] + "…" for value in values)
    if len(set(cut)) < len(cut):
        twice = next(value for value in cut if cut.count(value) > 1)
        raise DataError(f"{where}: two classes have the same first {MAX_NAME - 1} characters, {twice!r}; rename one of them")
    long = [value for value, short in zip(values, cut, strict=True) if value != short]
    return cut, [f"names of classes over {MAX_NAME} characters are cut: {some(long)}"] if long else []


def some(names: Sequence[str]) -> str:
    """Return the first names of a list, and how many more there are."""
    more = f", … ({len(names) - NAMED} more)" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def as_text(name: str) -> str:
    """Return a file's name as valid UTF-8, with replacement characters for bytes that are not."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
