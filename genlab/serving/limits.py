"""What one visitor may take: rates, requests and jobs at a time."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What one visitor and one request may take. A rate is a burst that may come at once, then so many a second.

    Attributes:
        json_bytes, upload_bytes: size of the body of a call, and of the files of an upload.
        body_seconds: how long a body may take to arrive.
        calls_per_second, calls_burst: the call limit, for calls that are not light (see `Calls.check`).
        uploads_per_second, uploads_burst: the same for uploads; the largest burst is smaller than the folder of all uploads.
        light_calls_per_second, light_calls_burst: the light-call limit, for all that the page sends. `requests.js` keeps one
            window below it, but not several windows of one visitor together.
        pages_per_second, pages_burst: the same for descriptions of the whole page; a class may share one address.
        abandoned_seconds, abandoned_call_seconds: after which a job is ended, and its results dropped, if nobody has opened the
            stream of its results: for jobs of the page, and for calls by name, which people may make by hand.
        open_requests: requests of one visitor that are not yet answered completely, mostly streams; a page keeps two or three.
        all_requests: the same of all visitors together; beyond it only health is answered.
        jobs: jobs of one visitor that wait or run at the same time.
        running: of these, those of one kind that run at the same time.
        waiting: jobs of one kind that may wait, of all visitors: more than a few of them can fill.
        proxies: trusted proxies in front of the server, each of which adds an address to X-Forwarded-For. With 0 the header
            is ignored.
        hosts: names under which the server is asked for, besides addresses and localhost; None for any.
    """

    json_bytes: int = 256 * 1024
    upload_bytes: int = 10 * 1024 * 1024
    body_seconds: float = 30.0
    calls_per_second: float = 4.0
    calls_burst: int = 80
    uploads_per_second: float = 0.5
    uploads_burst: int = 20
    light_calls_per_second: float = 15.0
    light_calls_burst: int = 120
    pages_per_second: float = 1.0
    pages_burst: int = 80
    abandoned_seconds: float = 15.0
    abandoned_call_seconds: float = 30.0
    open_requests: int = 128
    all_requests: int = 512
    jobs: int = 12
    running: int = 2
    waiting: int = 64
    proxies: int = 0
    hosts: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.proxies < 0:
            raise ValueError(f"proxies: expected 0 or more, got {self.proxies}")


class RateLimit:
    """A token bucket for every visitor, for the `max_visitors` that came last.

    Args:
        per_second, burst: as in `Limits`.
        clock: seconds, monotonic.
    """

    def __init__(
        self, per_second: float, burst: int, clock: Callable[[], float] = time.monotonic, max_visitors: int = 10_000
    ) -> None:
        self.per_second, self.burst, self.clock, self.max_visitors = per_second, burst, clock, max_visitors
        self.buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, visitor: str) -> float:
        """Take one token and return 0, or return the seconds until there is one."""
        now = self.clock()
        tokens, then = self.buckets.pop(visitor, (float(self.burst), now))
        tokens = min(self.burst, tokens + (now - then) * self.per_second)
        wait = 0.0 if tokens >= 1 else (1 - tokens) / self.per_second
        self.buckets[visitor] = (tokens if wait else tokens - 1, now)
        while len(self.buckets) > self.max_visitors:
            self.buckets.popitem(last=False)
        return wait


class Jobs:
    """The unfinished jobs of each visitor.

    Args:
        alive: whether the job of an event id still waits or runs.
    """

    def __init__(self, alive: Callable[[str], bool]) -> None:
        self.alive = alive
        self.jobs: dict[str, set[str]] = {}
        self.max_visitors = 1000

    def count(self, visitor: str) -> int:
        """Return how many jobs of a visitor wait, run, or are being put into the queue."""
        unfinished = {job for job in self.jobs.get(visitor, ()) if job.startswith("new ") or self.alive(job)}
        if unfinished:
            self.jobs[visitor] = unfinished
        else:
            self.jobs.pop(visitor, None)
        return len(unfinished)

    def add(self, visitor: str, job: str) -> None:
        self.jobs.setdefault(visitor, set()).add(job)
        if len(self.jobs) > self.max_visitors:  # forget those whose jobs have ended
            for each in list(self.jobs):
                self.count(each)
            self.max_visitors = 1000 + 2 * len(self.jobs)

    def discard(self, visitor: str, job: str) -> None:
        self.jobs.get(visitor, set()).discard(job)
        self.count(visitor)
