"""What measures the page under load: a leak is seen, and an error is counted."""

from __future__ import annotations

from contextlib import closing
from types import SimpleNamespace

from benchmarks import app, load
from tests.small_page import wait_until


def test_a_leak_is_seen_in_the_second_half_of_the_calls() -> None:
    leaked: list[bytes] = []

    def resident() -> float:
        return 100 + sum(map(len, leaked)) / 2**20

    assert load.left_behind(lambda: leaked.append(bytes(2**20)), resident, 60) == 30
    assert load.left_behind(lambda: None, resident, 60) == 0


def test_errors_are_counted_and_health_is_timed_meanwhile(site: SimpleNamespace) -> None:
    found, watching, asking = load.Found(), app.Visitor(site.url, 1), app.Visitor(site.url, 2)
    with closing(watching.http), closing(asking.http), load.watched(watching, found):
        found.time("models", lambda: asking.get("/nothing"))
        found.time("echo", lambda: list(asking.ask("echo", text="x")))
        wait_until(lambda: bool(found.seconds["healthz"]))
    assert [error.partition(":")[0] for error in found.errors] == ["models"]
    assert len(found.seconds["echo"]) == 1
