"""Load the page with visitors who do different things at once: `python benchmarks/load.py --help`.

For each number of visitors: errors, seconds by kind of request (median, 95th and 99th percentile), health meanwhile, and the
server's memory and descriptors and their growth. Then how much memory the second half of many calls leaves behind, and how much
longer a visitor waits beside one who asks for much, and beside eight pictures, hostile or not, of one visitor and of eight.
Visitors have an address each, as behind a proxy. The exit status is 1 where a bound is exceeded. A soak of half an hour:

    python benchmarks/load.py --parts load --clients 8 --seconds 1800
"""

from __future__ import annotations

import dataclasses
import io
import itertools
import math
import re
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
from typing import Any, Literal

if not __package__:  # run as a script: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import tyro

from benchmarks.app import PATIENCE, ROOT, Load, Visitor, memory, serving
from genlab.serving.limits import Limits

Part = Literal["load", "growth", "fairness", "pictures"]
PARTS: tuple[Part, ...] = ("load", "growth", "fairness", "pictures")
GROWTH_MIB = 20.0
"""Bound of the memory that the second half of the calls leaves behind."""
SLOPE_MIB = 1.0
"""Bound of the growth of the memory in a minute, in the last two thirds of a soak."""
SOAK_SECONDS = 600.0
"""Shorter loads are no soak: caches fill in the first minutes."""
WAIT = 2.0
"""Bound of a visitor's seconds beside others, in times of those alone."""


@dataclass(frozen=True)
class Options:
    """Measure the page under load, its fairness, and the memory that calls leave behind."""

    parts: tuple[Part, ...] = PARTS
    """What to measure."""
    models: tuple[str, ...] = ()
    """Models for app.py to serve; by default those that ship."""
    tree: Path = ROOT
    """Checkout whose app.py is served, to compare it with another."""
    clients: tuple[int, ...] = (1, 4, 16, 64)
    """Numbers of concurrent visitors."""
    seconds: float = 120.0
    """How long each number of visitors loads the page."""
    calls: int = 3000
    """Light calls after which the memory that they left is measured."""
    rounds: int = 3
    """Repetitions alone and beside others, of which the median counts."""
    quick: bool = False
    """A trial run in under a minute: 1 and 2 visitors for 3 seconds each, 60 calls, one round."""


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
    """Seconds of the requests of each kind, the errors of all, and the server meanwhile: (seconds, MiB, descriptors)."""

    seconds: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    errors: list[str] = field(default_factory=list)
    server: list[tuple[float, float, int]] = field(default_factory=list)

    def slope(self) -> float:
        """Return the growth of the memory in the last two thirds of the time, MiB a minute."""
        late = self.server[len(self.server) // 3 :]
        return 60 * statistics.linear_regression([at for at, *_ in late], [size for _, size, _ in late]).slope

    def opened(self) -> int:
        """Return by how many the most descriptors of the last third exceed the most of the third before."""
        third = len(self.server) // 3
        middle, last = ([opened for *_, opened in part] for part in (self.server[third : 2 * third], self.server[-third:]))
        return max(last) - max(middle)

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
    """Ask for everything in `MIX` again and again, beginning with its entry `first`, until a monotonic time; no more often than
    the page allows one visitor.
    """
    for name, given in itertools.islice(itertools.cycle(MIX), first % len(MIX), None):
        if time.monotonic() > until:
            return
        time.sleep(1 / Limits().calls_per_second)
        found.time(name, lambda name=name, given=given: list(visitor.ask(name, **given)))  # type: ignore[misc]


@contextmanager
def watched(visitor: Visitor, found: Found, state: Callable[[], tuple[float, int]]) -> Iterator[None]:
    """Ask for the server's health, and note its memory and descriptors, ten times a second while the context is open."""
    done, start = threading.Event(), time.monotonic()

    def watch() -> None:
        while not done.wait(0.1):
            found.time("healthz", lambda: visitor.get("/healthz"))
            found.server.append((time.monotonic() - start, *state()))

    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watch)
        try:
            yield
        finally:
            done.set()
        watching.result()


def loaded(url: str, clients: int, seconds: float, state: Callable[[], tuple[float, int]]) -> Found:
    """Load the page with so many visitors for so long."""
    found = Found()
    visitors = [Visitor(url, 1 + number) for number in range(clients)]
    with watched(Visitor(url, 0), found, state), ThreadPoolExecutor(clients) as pool:
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


def sent_pictures() -> dict[str, tuple[bytes, bool]]:
    """Return pictures by name, and whether the page takes them: an ordinary one, and hostile ones, small in the file and large
    in time or memory.
    """
    from PIL import Image

    def encoded(mode: str, side: int, kind: str) -> bytes:
        file = io.BytesIO()
        Image.new(mode, (side, side)).save(file, kind, **({"progressive": True} if kind == "JPEG" else {}))
        return file.getvalue()

    def repeated(content: bytes, scans: int) -> bytes:
        last = content.rindex(b"\xff\xda")
        missing = scans - len(re.findall(b"\xff\xda", content))
        return content[:-2] + content[last:-2] * missing + content[-2:]

    return {
        "PNG of 28 × 28 pixels": (encoded("RGB", 28, "PNG"), True),
        "JPEG of 2,000 scans": (repeated(encoded("RGB", 2000, "JPEG"), 2000), False),
        "PNG of 169 megapixels": (encoded("1", 13_000, "PNG"), False),
        "JPEG of 16 megapixels and 32 scans": (repeated(encoded("RGB", 4000, "JPEG"), 32), True),
        "PNG of 16 megapixels": (encoded("1", 4000, "PNG"), True),
    }


def beside_pictures(
    url: str, picture: bytes, senders: int, rounds: int, numbers: Iterator[int]
) -> dict[str, tuple[float, float]]:
    """Return the median seconds of a small sample and of an upload that is reconstructed, alone and beside `senders` visitors
    who together have just sent a picture eight times; `numbers` are those of visitors who have not been here before.
    """
    import httpx
    from PIL import Image

    visitor = Visitor(url, next(numbers))
    file = io.BytesIO()
    Image.new("L", (28, 28), 255).save(file, "PNG")

    def reconstruct(visitor: Visitor, content: bytes) -> None:
        path = visitor.http.post("/gradio_api/upload", files={"files": ("a.png", content)}).raise_for_status().json()[0]
        upload = {"path": path, "meta": {"_type": "gradio.FileData"}}
        list(visitor.ask("vae", picture_from="upload", upload=upload, samples=10))

    def send(visitor: Visitor, number: int) -> None:
        with suppress(httpx.HTTPError, RuntimeError):  # most are refused
            reconstruct(visitor, picture + bytes([number]))

    def draw(visitor: Visitor) -> None:
        list(visitor.ask("sample", count=1, steps=10))

    def ask(number: int, crowd: bool) -> Found:
        found, others = Found(), [Visitor(url, next(numbers)) for _ in range(senders if crowd else 0)]
        with ThreadPoolExecutor(10) as pool:
            sent = [pool.submit(send, others[i % senders], 8 * number + i) for i in range(8)] if crowd else []
            while crowd and not any(each.running() for each in sent):
                time.sleep(0.001)
            both = [("sample", lambda: draw(visitor)), ("upload", lambda: reconstruct(visitor, own + bytes([number])))]
            for done in [pool.submit(found.time, *each) for each in both]:
                done.result()
        if found.errors:
            raise RuntimeError(found.errors[0])
        return found

    own = file.getvalue()
    laps = [(ask(2 * lap, False), ask(2 * lap + 1, True)) for lap in range(rounds)]
    return {
        kind: (
            statistics.median(alone.seconds[kind][0] for alone, _ in laps),
            statistics.median(company.seconds[kind][0] for _, company in laps),
        )
        for kind in ("sample", "upload")
    }


def left_behind(call: Callable[[], Any], resident: Callable[[], float], calls: int) -> float:
    """Return the growth of the memory, MiB, in the second half of so many calls."""
    for _ in range(calls // 2):
        call()
    half = resident()
    for _ in range(calls - calls // 2):
        call()
    return resident() - half


def run(options: Options) -> list[str]:
    """Measure and print the tables; return the bounds that are exceeded."""
    import psutil

    if options.quick:
        options = dataclasses.replace(options, clients=(1, 2), seconds=3.0, calls=60, rounds=1)
    exceeded: list[str] = []

    def check(what: str, value: float, bound: float) -> None:
        print(f"{what}: {value:.2f}, bound {bound:g}", flush=True)
        if value > bound:
            exceeded.append(what)

    with serving(options.models, options.tree) as server:
        process = psutil.Process(server.pid)
        if "load" in options.parts:
            print("| visitors | request | requests | errors | p50 s | p95 s | p99 s | MiB | descriptors |")
            print("|---" * 9 + "|")
        for clients in options.clients if "load" in options.parts else ():
            found = loaded(server.url, clients, options.seconds, lambda: (memory(server.pid), process.num_fds()))
            for kind, seconds in sorted(found.seconds.items()):
                times = Load(clients, seconds, options.seconds)
                errors = sum(error.startswith(f"{kind}:") for error in found.errors)
                percentiles = " | ".join(f"{times.percentile(p):.3f}" for p in (50, 95, 99))
                _, size, opened = found.server[-1]
                print(f"| {clients} | {kind} | {len(seconds)} | {errors} | {percentiles} | {size:.0f} | {opened} |", flush=True)
            for error in sorted(set(found.errors)):
                print(f"{found.errors.count(error)} × {error}", file=sys.stderr, flush=True)
            check(f"errors with {clients} visitors", len(found.errors), 0)
            if options.seconds >= SOAK_SECONDS:
                check(f"MiB a minute with {clients} visitors, last two thirds", found.slope(), SLOPE_MIB)
                check(f"descriptors more with {clients} visitors, last third", found.opened(), 0)
        if "growth" in options.parts:
            visitor, numbers = Visitor(server.url, 6000), itertools.count()

            def call() -> None:
                number = next(numbers)  # one address may not ask so often
                visitor.http.headers["X-Forwarded-For"] = f"10.1.{number // 250}.{number % 250 + 1}"
                list(visitor.ask("models"))

            grown = left_behind(call, lambda: memory(server.pid), options.calls)
            check(f"MiB left by the second half of {options.calls} calls", grown, GROWTH_MIB)
        if "fairness" in options.parts:
            alone, company = beside(server.url, options.rounds)
            print(f"A picture of ten steps took {alone:.2f} s alone, {company:.2f} s beside twelve sheets of 20 × 250 steps.")
            check("times alone", company / alone, WAIT)
        visitors, pictures = itertools.count(5100), sent_pictures() if "pictures" in options.parts else {}
        for (name, (picture, taken)), senders in itertools.product(pictures.items(), (1, 8)):
            for kind, (alone, company) in beside_pictures(server.url, picture, senders, options.rounds, visitors).items():
                print(f"{kind}: {alone:.2f} s alone, {company:.2f} s beside eight times a {name}, of {senders} visitors.")
                equal = taken and senders > 1  # each of them asks for as much, and has as much right to it
                check("times alone", company / alone, math.inf if equal else WAIT)
        if (status := Path(f"/proc/{server.pid}/status")).exists():
            peak = next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
            print(f"The server took at most {int(peak) / 1024:.0f} MiB of memory.")
    return exceeded


def main() -> int:
    """Measure what the command line asks for; return the exit status."""
    exceeded = run(tyro.cli(Options, description=__doc__))
    for what in exceeded:
        print(f"exceeded: {what}", file=sys.stderr)
    return 1 if exceeded else 0


if __name__ == "__main__":
    sys.exit(main())
