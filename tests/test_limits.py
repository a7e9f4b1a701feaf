"""What the requests of several tabs share: numbers in steps, choices, pictures, and how much a request may cost."""

from __future__ import annotations

import re

import pytest

from genlab.config import DataSpec
from genlab.demo.limits import LimitError, check_cost, parse_pick
from genlab.demo.tabs.interpolate.request import SOURCES
from tests import tiny


def test_large_pictures_cost_in_proportion_to_their_pixels():
    check_cost(DataSpec("d", 3, 56), 50, 25)
    with pytest.raises(LimitError, match=r"50 pictures × 26 steps = 1,300 .* 1,250 of one request at 56×56"):
        check_cost(DataSpec("d", 3, 56), 50, 26)
    with pytest.raises(LimitError, match="expected at most 4 at 256×256 pixels, got 5"):
        check_cost(DataSpec("d", 1, 256), 5, 1)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (("test picture", tiny.EXAMPLES, None), f"from 0 to {tiny.EXAMPLES - 1}, got {tiny.EXAMPLES}"),
        (("test picture", -1, None), "A, test picture: expected"),
        (("seed", 2**32, None), "A, seed: expected"),
        (("upload", 0, None), "A: expected an uploaded picture, got none"),
        (("file", 0, None), "A comes from: expected one of test picture, seed, upload"),
        ((None, 0, None), "A comes from: expected"),
    ],
)
def test_a_picture_that_cannot_be_picked_is_refused(raw, message):
    with pytest.raises(LimitError, match=re.escape(message)):
        parse_pick("A", *raw, examples=tiny.EXAMPLES, sources=SOURCES)
