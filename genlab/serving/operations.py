"""For operators: what the server counts, on a port of its own, and what it logs. Neither names a visitor or an address."""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import time
from collections import Counter as Count
from collections.abc import Callable, Iterator
from wsgiref.simple_server import WSGIServer

from prometheus_client import Counter, Gauge, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import REGISTRY, Collector

requests_log = logging.getLogger("genlab.requests")
"""A line for every request and every job, at INFO."""
REQUESTS = Counter("genlab_requests", "Requests that were answered.", ["route", "status"])
REFUSALS = Counter("genlab_refusals", "Requests that were refused.", ["status", "reason"])
JOBS = Counter("genlab_jobs", "Jobs that ended.", ["endpoint", "outcome"])
FILES = Gauge("genlab_files_bytes", "Uploads and results on the disk.")
REPEAT_SECONDS = 60.0
"""Time in which an error of one place is logged once."""
_salt = secrets.token_bytes(16)


def pseudonym(visitor: str) -> str:
    """Return a name for a visitor that tells nobody its address, and is another one after the next start."""
    return hashlib.blake2b(visitor.encode(), key=_salt, digest_size=4).hexdigest()


def log_request(number: int, visitor: str, route: str, seconds: float, status: int, reason: str) -> None:
    """Count and log a request; `reason` is why it was refused, "" where it was not."""
    REQUESTS.labels(route, status).inc()
    if reason:
        REFUSALS.labels(status, reason).inc()
    requests_log.info("request %d %s %s %.3f s %s %s", number, pseudonym(visitor), route, seconds, status, reason or "answered")


def log_job(event_id: str, visitor: str, endpoint: str, waited: float, seconds: float, outcome: str) -> None:
    """Count and log a job."""
    JOBS.labels(endpoint, outcome).inc()
    requests_log.info(
        "job %s %s /%s %.3f s %s (waited %.3f s)", event_id, pseudonym(visitor), endpoint, seconds, outcome, waited
    )


class Rarely(logging.Filter):
    """Lets one record of each place in the code pass in `REPEAT_SECONDS`, and says how many were left out."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self.clock = clock
        self._since: dict[tuple[str, int, str], float] = {}
        self._left_out: Count[tuple[str, int, str]] = Count()

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[0] if record.exc_info else None
        place, now = (record.pathname, record.lineno, error.__name__ if error else ""), self.clock()
        if now - self._since.get(place, -REPEAT_SECONDS) < REPEAT_SECONDS:
            self._left_out[place] += 1
            return False
        self._since[place] = now
        if left_out := self._left_out.pop(place, 0):
            record.msg = f"{record.msg} ({left_out} more like this)"
        return True


class QueueCollector(Collector):
    """The jobs that wait and run, by kind, as they are when they are asked for.

    Args:
        jobs: returns (kind, waiting, running) of every kind.
    """

    def __init__(self, jobs: Callable[[], list[tuple[str, int, int]]]) -> None:
        self.jobs = jobs

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily("genlab_queue_jobs", "Jobs in the queue.", labels=["kind", "state"])
        for kind, waiting, running in self.jobs():
            family.add_metric([kind, "waiting"], waiting)
            family.add_metric([kind, "running"], running)
        yield family


def serve_metrics(jobs: Callable[[], list[tuple[str, int, int]]]) -> WSGIServer | None:
    """Serve the metrics on GENLAB_METRICS_PORT, for this machine alone where GENLAB_METRICS_HOST names no other address.

    Returns:
        The server, None where no port is set.

    Raises:
        SystemExit: the port cannot be had.
    """
    port = os.environ.get("GENLAB_METRICS_PORT", "")
    if not port:
        return None
    host = os.environ.get("GENLAB_METRICS_HOST", "127.0.0.1")
    try:
        server, _ = start_http_server(int(port), host)
    except (OSError, ValueError, OverflowError) as error:
        raise SystemExit(f"GENLAB_METRICS_PORT: cannot listen on {host}:{port} ({error})") from error
    REGISTRY.register(QueueCollector(jobs))
    print(f"genlab: metrics on http://{host}:{server.server_port}/metrics", flush=True)
    return server
