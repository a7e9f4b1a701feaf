"""What may be asked of the Bound tab and its endpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from genlab.demo.limits import SEED, Offer, Pick, Range, ddpm_offer, parse_place
from genlab.serving.language import both

TEXT = {"t": both("step t", "步 t")}


@dataclass(frozen=True)
class BoundRequest:
    """The bound's term of step t for one picture, and the pixel that is shown. x_t is drawn with the noise of `seed`."""

    model: str
    picture: Pick
    t: int
    seed: int
    row: int
    column: int


def parse_bound(
    offers: Mapping[str, Offer], model: object, picture: Pick, t: object, seed: object, row: object, column: object
) -> BoundRequest:
    """Return the request of `/bound`; the picture by `parse_pick` or `parse_drawing`.

    Raises:
        LimitError: see `Range.parse`.
    """
    offer = ddpm_offer(offers, model)
    step, noise = int(Range(TEXT["t"], 1, offer.T, 1).parse(t)), int(SEED.parse(seed))
    return BoundRequest(offer.id, picture, step, noise, *parse_place(offer.data, row, column))
