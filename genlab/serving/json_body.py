"""The JSON that a request may carry."""

from __future__ import annotations

import json
from typing import Any

from genlab.serving.language import CLOSE, MIDDLE, OPEN
from genlab.serving.refusal import Refused

MAX_DEPTH = 12
"""Levels of lists and objects in a JSON body."""
MAX_VALUES = 10_000
"""Values in a JSON body: each costs time in which nobody else is served. The most that a call needs are 2000 points and their
coordinates; a drawing, in base64, is one."""


def plain_json(body: bytes) -> dict[str, Any]:
    """Parse a JSON object of finite numbers within 64 bits, valid text, few levels and not too many values.

    Raises:
        Refused: with 400, for anything else.
    """

    def not_finite(token: str) -> float:
        raise ValueError(f"expected finite numbers, got {token}")

    try:
        if sum(map(body.count, (b",", b"[", b"{"))) > MAX_VALUES:  # before parsing; commas in a text count too
            raise ValueError(f"expected at most {MAX_VALUES} values")
        value = json.loads(body.decode("utf-8"), parse_constant=not_finite)
        if not isinstance(value, dict):
            raise ValueError("expected an object")
        _check_plain(value)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"expected a plain JSON object: {str(error)[:100]}") from error
    return value


def _check_plain(value: Any) -> None:
    """Raise ValueError for text that is not Unicode or holds the marks of two languages, numbers beyond 64 bits, and more than
    `MAX_DEPTH` levels.
    """
    level = [value]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below += [*item.keys(), *item.values()]
            elif isinstance(item, list):
                below += item
            elif isinstance(item, str):
                item.encode("utf-8")
                if any(mark in item for mark in (OPEN, MIDDLE, CLOSE)):  # an error that quotes it would be in both languages
                    raise ValueError("expected texts without the marks of two languages, a bracket or bar beside ~")
            elif isinstance(item, (int, float)) and not abs(item) < 2**63:
                raise ValueError("expected numbers within 64 bits")
        if not below:
            return
        level = below
    raise ValueError(f"expected at most {MAX_DEPTH} levels")
