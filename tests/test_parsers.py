"""What reads values from outside, on whatever hypothesis thinks of: an answer within its limits or a refusal, nothing else."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
import pytest
from PIL import Image

from genlab.config import DataSpec
from genlab.demo.limits import SEED, LimitError, Offer, Range, parse_drawing, parse_label, parse_pick
from genlab.demo.tabs.playground.request import parse_playground, read_link, rounded, write_link
from genlab.demo.tabs.sample.request import parse_sample
from genlab.serving.json_body import plain_json
from genlab.serving.language import accepted, both, choose, choose_in_json
from genlab.serving.picture_input import bounded
from genlab.serving.refusal import Refused
from genlab.serving.visitor import names_host, network

pytest.importorskip("hypothesis", reason="hypothesis is not installed; pip install -r requirements-dev.txt")
from hypothesis import given, settings
from hypothesis import strategies as st

settings.register_profile("tests", deadline=None, derandomize=True, database=None, max_examples=100)
settings.load_profile("tests")

DATA = DataSpec("mnist", 1, 28, tuple("0123456789"))
OFFERS = {"ddpm": Offer("ddpm", "ddpm", DATA, 1000, 20), "vae": Offer("vae", "vae", DATA, 0, 20, 8)}
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
"""Any JSON value, and NaN and infinities."""


def answer_of(ask: Callable[[], Any]) -> tuple[Any, LimitError | Refused | None]:
    """What a parser answers, and how it refuses."""
    try:
        return ask(), None
    except (LimitError, Refused) as refusal:
        return None, refusal


@given(PLAIN)
def test_a_number_is_one_of_its_range_or_refused_by_name(value: Any) -> None:
    for limits in (SEED, Range("steps", 1, 250, 50), Range("guidance", 0, 8, 1, 0.5)):
        number, refusal = answer_of(lambda limits=limits: limits.parse(value))  # type: ignore[misc]
        if refusal is None:
            assert limits.low <= number <= limits.high
            assert number == value
            assert not isinstance(value, bool)
            assert (number - limits.low) % limits.step == 0
        else:
            assert str(refusal).startswith(f"{choose(limits.name)}: expected a")


GOOD: dict[str, st.SearchStrategy[Any]] = {
    "model": st.sampled_from(["ddpm", "vae"]), "label": st.sampled_from(["any", "3"]), "count": st.integers(1, 20),
    "steps": st.integers(1, 300), "sampler": st.sampled_from(["DDIM", "ancestral", "UniPC"]), "guidance": st.just(1),
    "seed": st.integers(0, 2**32 - 1),
}  # fmt: skip


@given(st.tuples(*(strategy | PLAIN for strategy in GOOD.values())))
def test_a_request_for_pictures_is_within_its_cost_or_refused(values: tuple[Any, ...]) -> None:
    request, refusal = answer_of(lambda: parse_sample(OFFERS, *values))
    if refusal is None:
        assert request.count * request.steps * (2 if request.guidance != 1 else 1) <= 5000 or request.model == "vae"


PLAY: list[st.SearchStrategy[Any]] = [
    st.sampled_from(["moons", "drawing"]),
    st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1)).map(list), max_size=5) | st.none(),
    st.just("DDPM"), st.just("reverse SDE"), st.just(500), st.integers(0, 9),
]  # fmt: skip


@given(st.tuples(*(strategy | PLAIN for strategy in PLAY)))
def test_a_request_of_the_playground_is_refused_or_comes_back_from_its_link(values: tuple[Any, ...]) -> None:
    request, refusal = answer_of(lambda: parse_playground(*values))
    if refusal is None:
        link = dict(parse_qsl(write_link(request), keep_blank_values=True))
        assert read_link(link) == replace(request, marks=rounded(request.marks))


@given(PLAIN, PLAIN, PLAIN)
def test_other_parsers_refuse_or_answer(first: Any, second: Any, third: Any) -> None:
    for parse in (
        lambda: parse_drawing(DATA, first),
        lambda: parse_label(OFFERS["ddpm"], first),
        lambda: parse_pick("picture", first, second, None, 20, ("test picture", "upload")),
    ):
        _, refusal = answer_of(parse)
        assert len(str(refusal)) < 500


@given(st.dictionaries(st.text(max_size=5), PLAIN, max_size=4) | PLAIN)
def test_json_is_taken_as_it_is_or_refused(value: Any) -> None:
    taken, refusal = answer_of(lambda: plain_json(json.dumps(value).encode()))
    assert taken == value or getattr(refusal, "status", 0) == 400


@given(st.binary(max_size=200))
def test_bytes_that_are_no_json_object_are_refused(body: bytes) -> None:
    taken, refusal = answer_of(lambda: plain_json(body))
    assert isinstance(taken, dict) or getattr(refusal, "status", 0) == 400


@given(st.ip_addresses(), st.integers(0, 65535))
def test_an_address_counts_the_same_with_a_port_and_without(address: Any, port: int) -> None:
    with_port = f"{address}:{port}" if address.version == 4 else f"[{address}]:{port}"
    assert network(str(address)) == network(with_port) is not None
    assert names_host(with_port, ())


@given(st.text(max_size=60))
def test_headers_of_any_text_are_read(text: str) -> None:
    assert network(text) is None or network(network(text).split("/")[0]) is not None  # type: ignore[union-attr]
    assert names_host(text, ("*.example.org",)) in (True, False)
    assert accepted(text) in ("en", "zh")


@given(st.text(max_size=20), st.text(max_size=20))
def test_a_text_of_two_languages_gives_each(en: str, zh: str) -> None:
    if not set(en + zh) & set("[~|]"):
        text = both(en, zh)
        assert (choose(text, "en"), choose(text, "zh")) == (en, zh)
        assert json.loads(choose_in_json(json.dumps([text]).encode(), "zh")) == [zh]


PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))


def encoded(format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    PICTURE.save(buffer, format, **options)
    return buffer.getvalue()


@given(
    st.sampled_from([encoded("PNG"), encoded("JPEG"), encoded("JPEG", progressive=True)]),
    st.integers(0, 3000),
    st.binary(max_size=20),
)
def test_parts_of_a_damaged_picture_are_counted_without_an_error(content: bytes, place: int, damage: bytes) -> None:
    assert bounded(content)
    assert bounded(content[:place] + damage + content[place + len(damage) :]) in (True, False)
