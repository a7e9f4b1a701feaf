"""What measures the page under load: a leak is seen, and an error is counted."""

from __future__ import annotations

import io
from contextlib import closing
from types import SimpleNamespace

import psutil
import pytest
from PIL import Image

from benchmarks import app, load
from genlab.serving.limits import Limits
from genlab.serving.picture_input import MAX_PIXELS, bounded
from tests.small_page import wait_until


@pytest.mark.parametrize("leaks", [False, True])
def test_a_leak_is_seen_in_the_second_half_of_the_calls(
    site: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, leaks: bool
) -> None:
    """A function that keeps 4 MiB of each of 60 calls exceeds the bound, and the same function without it does not."""
    function = next(fn for fn in site.demo.fns.values() if fn.api_name == "echo")
    kept: list[bytearray] = []
    echo = function.fn
    monkeypatch.setattr(function, "fn", lambda text: kept.append(bytearray(b"1" * 2**22 * leaks)) or echo(text))
    asking = app.Visitor(site.url, 1)
    with closing(asking.http):
        call = lambda: list(asking.ask("echo", text="x"))  # noqa: E731
        # this process alone: children of other tests may end meanwhile
        grown = load.left_behind(call, lambda: psutil.Process().memory_info().rss / 2**20, 60)
    assert (grown > load.GROWTH_MIB) == leaks


def test_growth_is_that_of_the_last_two_thirds() -> None:
    fills = [(float(at), 400.0 + min(at, 300), 30) for at in range(900)]
    leaks = [(at, size + at / 30, 30 + int(at) // 400) for at, size, _ in fills]
    for server, slope, opened in ((fills, 0, 0), (leaks, 2, 1)):
        found = load.Found(server=server)
        assert (found.slope(), found.opened()) == (pytest.approx(slope), opened)


def test_errors_are_counted_and_health_is_timed_meanwhile(site: SimpleNamespace) -> None:
    found, watching, asking = load.Found(), app.Visitor(site.url, 1), app.Visitor(site.url, 2)
    with closing(watching.http), closing(asking.http), load.watched(watching, found, lambda: (1.0, 2)):
        found.time("models", lambda: asking.get("/nothing"))
        found.time("echo", lambda: list(asking.ask("echo", text="x")))
        wait_until(lambda: bool(found.seconds["healthz"]))
    assert [error.partition(":")[0] for error in found.errors] == ["models"]
    assert len(found.seconds["echo"]) == 1
    assert found.server[0][1:] == (1, 2)


def test_pictures_are_what_their_names_say() -> None:
    contents = {name: content for name, (content, _) in load.sent_pictures().items()}
    sizes = [Image.open(io.BytesIO(content)).size for content in contents.values()]
    assert sizes == [(28, 28), (2000, 2000), (13_000, 13_000), (4000, 4000), (4000, 4000)]
    assert max(map(len, contents.values())) < Limits().upload_bytes
    for (name, (content, taken)), (width, height) in zip(load.sent_pictures().items(), sizes, strict=True):
        assert (bounded(content) and width * height <= MAX_PIXELS) == taken, name
