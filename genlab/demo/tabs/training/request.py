"""What may be asked of the Training tab and its endpoint `/training`."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from genlab.demo.limits import MODEL, parse_choice


@dataclass(frozen=True)
class TrainingRequest:
    """The moments of one model's training."""

    model: str


def parse_training(names: Collection[str], model: object) -> TrainingRequest:
    """Return the request of `/training`.

    Args:
        names: of the films.

    Raises:
        LimitError: there is no film of that model.
    """
    return TrainingRequest(parse_choice(MODEL, model, tuple(names)))
