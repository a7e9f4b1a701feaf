"""Which JSON a request may carry."""

from __future__ import annotations

import json

import pytest

from genlab.demo.components.figure import DRAWN
from genlab.demo.limits import DRAWN_VALUES
from genlab.serving.json_body import plain_json
from genlab.serving.refusal import Refused


@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"[]", b"5", b'"x"', b"{", b"\xff\xfe", b'{"a": NaN}', b'{"data": [Infinity]}', b'{"data": [-Infinity]}',
        b'{"data": [1e999]}', b'{"data": [' + b"9" * 30 + b"]}", b'{"data": [' + b"9" * 5000 + b"]}", b'{"data": ["\\ud800"]}',
        b'{"\\udfff": 1}', b"[" * 100_000, b'{"data": ' + b"[" * 900 + b"]" * 900 + b"}", b'{"data": ["x"]} x',
        b'{"data": [' + b"{}, " * 10_000 + b"0]}",
    ],
)  # fmt: skip
def test_json_that_is_not_plain_is_refused(body: bytes) -> None:
    with pytest.raises(Refused, match="expected a plain JSON object") as refusal:
        plain_json(body)
    assert refusal.value.status == 400


def test_plain_json_is_taken() -> None:
    value = {"data": [1, -0.5, "x", None, True, {"a": [1e300 / 1e290, 2**63 - 1]}], "session_hash": "é"}
    assert plain_json(json.dumps(value).encode()) == value


def test_the_largest_values_of_the_page_are_plain_json() -> None:
    """A drawing on the largest canvas, and on the figure as many points as it takes; the parts of `/playground` likewise."""
    canvas = {"token": "t" * 32, "x": "A" * (-(-DRAWN_VALUES // 3) * 4), "chosen": [127, 127]}
    figure = {"handles": [{"x": 0.5, "y": -0.5}] * 100, "selected": [0, 5], "drawn": [[-0.12345, 0.12345]] * DRAWN}
    value = {"data": [canvas, figure, "moons", None, 5], "fn_index": 3, "session_hash": "s", "trigger_id": 5}
    assert plain_json(json.dumps(value).encode()) == value
