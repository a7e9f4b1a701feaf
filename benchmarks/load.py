"""Load the page with visitors who do different things at once: `python benchmarks/load.py --help`.

For each number of visitors: errors, seconds by kind of request (median, 95th and 99th percentile), health meanwhile, and the
server's memory and descriptors. Then how much memory the second half of many calls leaves behind, and how long a visitor who
asks for little waits beside one who asks for much. Visitors have an address each, as behind a proxy.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if not __package__:  # run as a script: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import tyro

from benchmarks.app import PATIENCE, Load, Visitor, memory, serving


@dataclass(frozen=True)
class Options:
    """Measure the page under load, its fairness, and the memory that calls leave behind."""

    models: tuple[str, ...] = ()
    """Models for app.py to serve; by default those that ship."""
    clients: tuple[int, ...] = (1, 4, 16, 64)
    """Numbers of concurrent visitors."""
    seconds: float = 120.0
    """How long each number of visitors loads the page."""
    calls: int = 3000
    """Light calls after which the memory that they left is measured."""
    quick: bool = False
    """A trial run in under a minute: 1 and 2 visitors for 3 seconds each, 60 calls."""


MIX: tuple[tuple[str, dict[str, Any]], ...] = (
    ("models", {}),
    ("divergence", {}),
    ("sample", {"count": 4, "steps": 10}),
    ("cross_entropy", {}),
    ("bound", {}),
    ("vae", {"samples": 50}),
)
"""What a visitor asks for, in turn: endpoint and values that differ from its defaults."""


@dataclass
class Found:
    """Seconds of the requests of each kind, and the errors of all."""

    seconds: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    errors: list[str] = field(default_factory=list)

    def time(self, kind: str, ask: Callable[[], Any]) -> None:
        """Do a request and note its seconds, or its error."""
        import httpx

        start = time.perf_counter()
        try:
            ask()
        except (httpx.HTTPError, RuntimeError) as error:
            self.errors.append(f"{kind}: {error}")
        else:
            self.seconds[kind].append(time.perf_counter() - start)


def visit(visitor: Visitor, found: Found, until: float, first: int) -> None:
    """Ask for everything in `MIX` again and again, beginning with its entry `first`, until a monotonic time."""
    for name, given in itertools.islice(itertools.cycle(MIX), first % len(MIX), None):
        if time.monotonic() > until:
            return
        found.time(name, lambda name=name, given=given: list(visitor.ask(name, **given)))  # type: ignore[misc]


@contextmanager
def watched(visitor: Visitor, found: Found) -> Iterator[None]:
    """Ask for the server's health ten times a second while the context is open."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            found.time("healthz", lambda: visitor.get("/healthz"))

    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watch)
        try:
            yield
        finally:
            done.set()
        watching.result()


def loaded(url: str, clients: int, seconds: float) -> Found:
    """Load the page with so many visitors for so long."""
    found = Found()
    visitors = [Visitor(url, 1 + number) for number in range(clients)]
    with watched(Visitor(url, 0), found), ThreadPoolExecutor(clients) as pool:
        until = time.monotonic() + seconds
        for done in [pool.submit(visit, each, found, until, number) for number, each in enumerate(visitors)]:
            done.result()
    return found


def beside(url: str, rounds: int) -> tuple[float, float]:
    """Return the median seconds of a small sample alone, and beside a visitor with twelve large sheets."""
    import httpx

    light, greedy = Visitor(url, 5000), Visitor(url, 5001)

    def ask() -> float:
        found = Found()
        for _ in range(rounds):
            found.time("sample", lambda: list(light.ask("sample", count=1, steps=10)))
        return statistics.median(found.seconds["sample"])

    alone = ask()
    with ThreadPoolExecutor(12) as pool:
        drawn = threading.Event()

        def draw() -> None:
            with suppress(httpx.HTTPError, RuntimeError):
                for _ in greedy.ask("sample_stream", count=20, steps=250):
                    drawn.set()

        for _ in range(12):
            pool.submit(draw)
        drawn.wait(PATIENCE)
        company = ask()
        greedy.http.close()  # its jobs end with its streams
    return alone, company


def left_behind(call: Callable[[], Any], resident: Callable[[], float], calls: int) -> float:
    """Return the growth of the memory, MiB, in the second half of so many calls."""
    for _ in range(calls // 2):
        call()
    half = resident()
    for _ in range(calls - calls // 2):
        call()
    return resident() - half


def run(options: Options) -> None:
    """Measure and print the tables."""
    import psutil

    if options.quick:
        options = Options(options.models, clients=(1, 2), seconds=3.0, calls=60)
    with serving(options.models) as server:
        process = psutil.Process(server.pid)
        print("| visitors | request | requests | errors | p50 s | p95 s | p99 s | MiB | descriptors |")
        print("|---" * 9 + "|")
        for clients in options.clients:
            found = loaded(server.url, clients, options.seconds)
            for kind, seconds in sorted(found.seconds.items()):
                times = Load(clients, seconds, options.seconds)
                errors = sum(error.startswith(f"{kind}:") for error in found.errors)
                percentiles = " | ".join(f"{times.percentile(p):.3f}" for p in (50, 95, 99))
                size = f"{memory(server.pid):.0f} | {process.num_fds()}"
                print(f"| {clients} | {kind} | {len(seconds)} | {errors} | {percentiles} | {size} |", flush=True)
            for error in sorted(set(found.errors)):
                print(f"{found.errors.count(error)} × {error}", file=sys.stderr, flush=True)
        visitor = Visitor(server.url, 6000)
        grown = left_behind(lambda: list(visitor.ask("models")), lambda: memory(server.pid), options.calls)
        print(f"\nThe second half of {options.calls} calls left {grown:.1f} MiB.")
        alone, company = beside(server.url, 3)
        print(f"A picture of ten steps took {alone:.2f} s alone, {company:.2f} s beside twelve sheets of 20 × 250 steps.")


def main() -> None:
    """Measure what the command line asks for."""
    run(tyro.cli(Options, description=__doc__))


if __name__ == "__main__":
    main()
