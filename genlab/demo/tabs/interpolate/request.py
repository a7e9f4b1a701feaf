"""What may be asked of the Interpolate tab and its endpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from genlab.demo import limits
from genlab.demo.limits import Offer, Pick, Range, check_cost, data_offers
from genlab.serving.language import both

SOURCES = ("test picture", "seed", "upload")
"""Sources of a picture."""

TEXT = {"points": both("points on the path", "路径上的点数")}

POINTS = Range(TEXT["points"], 3, 17, 11)
STEPS = Range(limits.TEXT["steps"], 2, 200, 50)


@dataclass(frozen=True)
class InterpolateRequest:
    """The paths between two pictures of a data set, `points` on each, ends included."""

    data: str
    a: Pick
    b: Pick
    points: int
    steps: int


def parse_interpolate(
    offers: Mapping[str, Offer], data: object, a: Pick, b: Pick, points: object, steps: object
) -> InterpolateRequest:
    """Return the request of `/interpolate`; the two pictures by `parse_pick`.

    Raises:
        LimitError: see `Range.parse`; or the request costs too much.
    """
    members = data_offers(offers, data)
    longest = min((o.T for o in members if o.kind == "ddpm"), default=None)
    request = InterpolateRequest(members[0].data.name, a, b, int(POINTS.parse(points)), int(STEPS.parse(steps, longest)))
    check_cost(members[0].data, request.points + 2, request.steps)
    return request
