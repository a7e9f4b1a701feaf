"""Measure the page as a visitor sees it: start `app.py` on this machine and send a browser's requests, `--help`.

Every request has the endpoint's defaults: 16 pictures with the default sampler and steps. It is sent as the page sends it, a
POST and a stream of events over a persistent connection; gradio's Python client, with new connections and a download of every
frame, has a row of its own. Each client has its own address, in a header that the server trusts as it trusts a Space's proxy,
so that the server is measured and not the limits of one visitor. Clients and server share the machine, unlike those of a Space.
"""

from __future__ import annotations

import json
import os
import secrets
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated, Any

if not __package__:  # run as a script: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import tyro

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 120.0
"""Timeout of a request, seconds."""
START_GOAL, FIRST_FRAME_GOAL, LAST_FRAME_GOAL, MEMORY_GOAL, LIGHT_GOAL = 8.0, 0.25, 1.0, 1024.0, 100.0
"""Seconds from the start to the first answer, from the request to its first and last frame; memory in MiB; milliseconds from a
light request to its first answer."""
LIGHT = ("cross_entropy", "score", "pixel_density", "bound", "divergence")
"""Endpoints with light work, at most one evaluation of a model, like the page's controls."""


@dataclass(frozen=True)
class Options:
    """Measure seconds to the first answer and to the frames, requests a second under load, and memory, against their goals."""

    models: tuple[str, ...] = ()
    """Models for app.py to serve; by default those that ship."""
    tree: Path = ROOT
    """Checkout whose app.py is served, to compare it with another."""
    compile: bool = False
    """Start app.py with --compile, and measure all but the start once everything is compiled, minutes later."""
    clients: tuple[int, ...] = (1, 4, 16)
    """Numbers of concurrent visitors."""
    requests: int = 5
    """Requests of each visitor, one after the other."""
    laps: int = 3
    """Repetitions of the series of numbers of visitors, of which the median is reported."""
    starts: int = 3
    """Starts of the server, of which the median is reported."""
    rounds: int = 20
    """Streams to time one after the other, of which the median is reported."""
    quick: bool = False
    """A trial run in under a minute: one start, 2 streams, 1 and 2 visitors with one request each, once."""


@dataclass(frozen=True)
class Serving:
    """A server in a process of its own.

    Attributes:
        config, sample: seconds from its start to the first answer of /config and to the first pictures of /sample.
    """

    url: str
    pid: int
    config: float
    sample: float


@dataclass(frozen=True)
class Load:
    """Times for a number of concurrent visitors: seconds of every request, and of all together."""

    clients: int
    seconds: list[float]
    wall: float

    @property
    def rate(self) -> float:
        """Return the number of requests a second."""
        return len(self.seconds) / self.wall

    def percentile(self, percent: int) -> float:
        """Return this percentile of the seconds until a request is answered."""
        return sorted(self.seconds)[max(0, -(-percent * len(self.seconds) // 100) - 1)]


@contextmanager
def serving(models: tuple[str, ...], tree: Path, compile: bool = False) -> Iterator[Serving]:
    """Serve the `app.py` of a checkout on a free port of the loopback; with `compile`, enter the context when all models are
    compiled.

    Raises:
        RuntimeError: app.py ended before it served.
    """
    import tempfile

    import httpx

    command = [sys.executable, "app.py", "--host", "127.0.0.1", "--port", "0", *(["--models", *models] if models else [])]
    command += ["--compile"] * compile
    environment = {**os.environ, "GENLAB_PROXIES": "1"}
    with tempfile.TemporaryFile("w+") as errors:
        start = time.perf_counter()
        process = subprocess.Popen(command, cwd=tree, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True)
        try:
            url = next((line.split()[-1] for line in process.stdout or () if line.startswith("genlab: open ")), None)
            if url is None:
                errors.seek(0)
                raise RuntimeError(f"expected app.py to serve, got exit code {process.wait()}: {errors.read().strip()}")
            threading.Thread(target=drain, args=(process.stdout,), daemon=True).start()
            httpx.get(f"{url}/config", timeout=PATIENCE, trust_env=False).raise_for_status()
            config = time.perf_counter() - start
            visitor = Visitor(url, 0)
            list(visitor.ask("sample"))
            sample = time.perf_counter() - start
            if compile:
                print("waiting until all models are compiled", file=sys.stderr, flush=True)
                compiled(errors, sum(model["kind"] == "ddpm" for model in next(visitor.ask("models"))[0]))
            yield Serving(url, process.pid, config, sample)
        finally:
            process.terminate()
            try:
                process.wait(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def compiled(errors: IO[str], count: int) -> None:
    """Wait until `count` models are compiled.

    Raises:
        RuntimeError: a model cannot be compiled.
    """
    while (text := read(errors)).count(" is compiled") < count:
        if "without being compiled" in text:
            raise RuntimeError(f"expected {count} compiled models, got: {text.strip()}")
        time.sleep(1)


def read(file: IO[str]) -> str:
    """Read the content of a file that another process writes to, without changing the file position."""
    return os.pread(file.fileno(), 2**20, 0).decode(errors="replace")


def drain(pipe: IO[str]) -> None:
    """Read a pipe to its end, so that its writer never blocks."""
    with pipe:
        for _ in pipe:
            pass


class Visitor:
    """A client that sends a browser's requests from an address of its own."""

    def __init__(self, url: str, number: int) -> None:
        import httpx

        address = f"10.0.{number // 250}.{number % 250 + 1}"
        self.http = httpx.Client(base_url=url, headers={"X-Forwarded-For": address}, timeout=PATIENCE, trust_env=False)
        self.functions = {each["api_name"]: each["id"] for each in self.get("/config")["dependencies"]}
        self.endpoints = self.get("/gradio_api/info")["named_endpoints"]

    def get(self, path: str) -> Any:
        """Return the JSON that the server has at a path."""
        return self.http.get(path).raise_for_status().json()

    def ask(self, name: str, **given: Any) -> Iterator[Any]:
        """Yield the answers of an endpoint as they arrive: one a step, the last one again at the end.

        Raises:
            HTTPStatusError: the request was refused. RuntimeError: it failed.
        """
        session = secrets.token_hex(8)
        parameters = self.endpoints[f"/{name}"]["parameters"]
        data = [given.get(each["parameter_name"], each.get("parameter_default")) for each in parameters]
        call = {"data": data, "fn_index": self.functions[name], "session_hash": session}
        self.http.post("/gradio_api/queue/join", json=call).raise_for_status()
        with self.http.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as stream:
            for line in stream.iter_lines():
                message = json.loads(line.removeprefix("data:")) if line.startswith("data:") else {}
                kind = message.get("msg")
                if kind in ("process_generating", "process_completed"):
                    if not message["success"]:
                        raise RuntimeError(f"{name}: expected pictures, got {message['output']}")
                    yield message["output"]["data"]
                if kind == "process_completed":
                    return


def stream(visitor: Visitor, seed: int) -> tuple[float, float, int]:
    """Return the seconds from a request to its first and to its last frame, and the number of frames."""
    start = time.perf_counter()
    moments = [time.perf_counter() - start for _ in visitor.ask("sample_stream", seed=seed)]
    return moments[0], moments[-1], len(moments) - 1  # the last frame is sent twice


def answer(visitor: Visitor, name: str, rounds: int) -> float:
    """Return the median milliseconds from a request to the first answer of an endpoint, after one request to warm up."""

    def ask() -> float:
        start = time.perf_counter()
        answers = visitor.ask(name)
        next(answers)
        spent = time.perf_counter() - start
        list(answers)
        return 1000 * spent

    ask()
    return statistics.median(ask() for _ in range(rounds))


@contextmanager
def drawing(url: str) -> Iterator[None]:
    """Draw one sheet of pictures after the other, as another visitor, while the context is open."""
    done, visitor = threading.Event(), Visitor(url, 999)

    def draw() -> None:
        while not done.is_set():
            list(visitor.ask("sample"))

    with ThreadPoolExecutor(1) as pool:
        drawn = pool.submit(draw)
        try:
            yield
        finally:
            done.set()
        drawn.result()


def by_client(url: str, rounds: int) -> float:
    """Return the median seconds of gradio's Python client for the pictures, without frames."""
    from gradio_client import Client

    client = Client(url, token=False, verbose=False, httpx_kwargs={"timeout": PATIENCE, "trust_env": False})
    seconds = []
    for seed in range(rounds):
        start = time.perf_counter()
        client.predict(seed=seed, api_name="/sample")
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def load(url: str, clients: int, requests: int) -> Load:
    """Measure `clients` concurrent visitors, each with `requests` requests for pictures, one after the other."""
    visitors = [Visitor(url, 1 + number) for number in range(clients)]

    def visit(number: int) -> list[float]:
        seconds = []
        for i in range(requests):
            start = time.perf_counter()
            for _ in visitors[number].ask("sample", seed=1000 * number + i):
                pass
            seconds.append(time.perf_counter() - start)
        return seconds

    with ThreadPoolExecutor(clients) as pool:
        start = time.perf_counter()
        seconds = [each for visit_seconds in pool.map(visit, range(clients)) for each in visit_seconds]
        return Load(clients, seconds, time.perf_counter() - start)


def memory(pid: int) -> float:
    """Return the resident memory of a process and its children, MiB."""
    import psutil

    process = psutil.Process(pid)
    return sum(each.memory_info().rss for each in [process, *process.children(recursive=True)]) / 2**20


def run(options: Options) -> None:
    """Measure and print."""
    from benchmarks.timing import machine, ratio, table

    starts, rounds, requests = (1, 2, 1) if options.quick else (options.starts, options.rounds, options.requests)
    clients, laps = ((1, 2), 1) if options.quick else (options.clients, options.laps)
    begun = []
    for _ in range(starts - 1):
        with serving(options.models, options.tree) as server:
            begun.append((server.config, server.sample))
    with serving(options.models, options.tree, options.compile) as server:
        begun.append((server.config, server.sample))
        print("timing", file=sys.stderr, flush=True)
        fresh = memory(server.pid)
        visitor = Visitor(server.url, 0)
        streams = [stream(visitor, seed) for seed in range(rounds)]
        client = by_client(server.url, rounds)
        light = [answer(Visitor(server.url, 900 + i), name, rounds) for i, name in enumerate(LIGHT)]
        with drawing(server.url):
            beside = [answer(Visitor(server.url, 900 + i), name, rounds) for i, name in enumerate(LIGHT)]
        loads = [{many: load(server.url, many, requests) for many in clients} for _ in range(laps)]
        used = max(fresh, memory(server.pid))

    def row(what: str, value: float, goal: float | None, unit: str) -> list[str]:
        digits = 2 if unit == "s" else 0
        measured = f"{value:.{digits}f} {unit}"
        if goal is None:
            return [what, "", measured, "", ""]
        return [what, f"{value / goal:.2f}", measured, f"< {goal:.{digits}f} {unit}", "yes" if value < goal else "no"]

    first, last, frames = (statistics.median(each) for each in zip(*streams, strict=True))
    rows = [
        row("start → first answer of /config", statistics.median(config for config, _ in begun), START_GOAL, "s"),
        row("start → first pictures of /sample", statistics.median(sample for _, sample in begun), None, "s"),
        row("request → first frame", first, FIRST_FRAME_GOAL, "s"),
        row(f"request → last frame ({frames:.0f} frames)", last, LAST_FRAME_GOAL, "s"),
    ]
    rows.append(row("16 pictures by gradio's own client", client, None, "s"))
    for title, found in (("nobody else asks", light), ("another visitor draws", beside)):
        rows += [
            row(f"/{name} → first answer, {title}", each, LIGHT_GOAL, "ms") for name, each in zip(LIGHT, found, strict=True)
        ]
    for many in clients:
        name = f"{many} visitor{'' if many == 1 else 's'} at once"
        rates, half, most = zip(
            *((lap[many].rate, lap[many].percentile(50), lap[many].percentile(95)) for lap in loads), strict=True
        )
        rows.append([f"{name}: requests a second", "", f"{statistics.median(rates):.2f}", "", ""])
        rows.append(row(f"{name}: half of the answers within", statistics.median(half), None, "s"))
        rows.append(row(f"{name}: 95% of the answers within", statistics.median(most), None, "s"))
        if many > 1 and 1 in clients:  # relative to the single visitor of the same lap, since the speed of a machine varies
            share = ratio(most, [many * lap[1].percentile(50) for lap in loads])
            rows[-1][1:] = [f"{share:.2f}", rows[-1][2], f"< {many} × half of one visitor's", "yes" if share < 1 else "no"]
    rows.append(row("memory once started", fresh, MEMORY_GOAL, "MiB"))
    rows.append(row("memory after all this", used, MEMORY_GOAL, "MiB"))
    print(f"{starts} start(s), {rounds} streams, {requests} request(s) a visitor, {laps} lap(s). {machine()}.\n")
    print(table(["what", "× the goal", "measured", "goal", "met"], rows))


def main() -> None:
    """Run the command line."""
    run(tyro.cli(Annotated[Options, tyro.conf.FlagCreatePairsOff]))


if __name__ == "__main__":
    main()
