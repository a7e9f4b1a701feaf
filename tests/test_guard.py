"""What the guard answers, to whom and how much."""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from genlab.serving.calls import Calls
from genlab.serving.folder import Folder
from genlab.serving.guard import Guard
from genlab.serving.limits import Limits, RateLimit
from genlab.serving.sweeper import MAX_BYTES
from tests.small_page import CANARY, FREE, MARK, index_of, wait_until
from tests.tiny import last_event

ROOT = Path(__file__).parents[1]
ROUTES = Path(__file__).with_name("routes.json")


def served(site: SimpleNamespace) -> list[list[str]]:
    """Method and path of every route of the application that the guard lets through."""
    guard = Guard(site.app, FREE, Folder(str(site.uploads)), lambda _: False, lambda *_: False, nobody_leaves)
    found = set()
    for methods, path in all_routes(site.app.routes):
        sample = path.replace("file={path_or_url:path}", f"file={site.uploads}/x")
        sample = re.sub(r"\{[^}]*\}", "x", sample)
        found |= {(method, path) for method in methods if guard.serves(method, sample)}
    return sorted([method, path] for method, path in found)


def all_routes(routes: list[Any]) -> Iterator[tuple[set[str], str]]:
    for route in routes:
        inner = getattr(route, "original_router", None) or getattr(route, "app", None)
        if hasattr(route, "methods") and hasattr(route, "path"):
            yield route.methods, route.path
        elif hasattr(inner, "routes"):
            yield from all_routes(inner.routes)
        else:
            raise AssertionError(f"a kind of route that this test does not know: {route!r}")


def test_served_routes_are_the_reviewed_ones(site: SimpleNamespace) -> None:
    """After reviewing a change: `GENLAB_WRITE_ROUTES=1 python -m pytest tests/test_server.py -k reviewed`."""
    found = served(site)
    if os.environ.get("GENLAB_WRITE_ROUTES"):
        ROUTES.write_text("[\n" + ",\n".join("  " + json.dumps(route) for route in found) + "\n]\n")
    assert found == json.loads(ROUTES.read_text())
    assert len(list(all_routes(site.app.routes))) > 2 * len(found)


def test_everything_else_is_not_found(site: SimpleNamespace) -> None:
    known = {tuple(route) for route in json.loads(ROUTES.read_text())}
    refused = 0
    for methods, path in all_routes(site.app.routes):
        for method in methods:
            if (method, path) not in known:
                refused += 1
                reply = site.client.request(method, re.sub(r"\{[^}]*\}", "stream", path), json={"data": [1, 0]})
                assert reply.status_code == 404, (method, path)
    assert refused > 30


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/gradio_api/run/stream"),
        ("POST", "/gradio_api/run/stream/"),
        ("POST", "/gradio_api/api/stream"),
        ("POST", "/gradio_api/api/predict"),
        ("POST", "/run/predict"),
        ("POST", "//gradio_api/run/stream"),
        ("POST", "/gradio_api/./run/stream"),
        ("POST", "/gradio_api/queue/../run/stream"),
        ("POST", "/gradio_api%2frun%2fstream"),
        ("POST", "/gradio_api/call/own"),
        ("POST", "/gradio_api/call/unknown"),
        ("GET", "/gradio_api/file=http://203.0.113.7/"),
        ("GET", "/gradio_api/file=https%3A%2F%2Fexample.org%2F"),
        ("GET", "/gradio_api/file=HTTP:%2f%2fexample.org/"),
        ("GET", "/gradio_api/proxy=https://x.hf.space/"),
        ("GET", "/gradio_api/deep_link?session_hash=x"),
        ("POST", "/gradio_api/process_recording"),
        ("GET", "/monitoring"),
        ("GET", "/monitoring/summary"),
        ("GET", "/openapi.json"),
        ("GET", "/docs"),
        ("GET", "/gradio_api/runs"),
        ("GET", "/gradio_api/mcp"),
        ("GET", "/gradio_api/mcp/sse"),
        ("POST", "/gradio_api/component_server"),
        ("PUT", "/gradio_api/upload"),
        ("TRACE", "/"),
    ],
)
def test_routes_around_the_queue_and_out_of_the_page_are_closed(site: SimpleNamespace, method: str, path: str) -> None:
    assert site.client.request(method, path, content=b'{"data": [1, 0]}').status_code == 404


def test_files_outside_the_uploads_are_never_served(site: SimpleNamespace, picture: bytes) -> None:
    secret = site.folder / "secret.txt"
    secret.write_text(CANARY)
    path = site.client.post("/gradio_api/upload", files={"files": ("a.png", picture)}).json()[0]
    assert site.client.get(f"/gradio_api/file={path}").content == picture
    link = site.uploads / "link.txt"
    link.symlink_to(secret)
    up = "../" * 12
    names = [
        str(secret), f"/{secret}", f"//{secret}", f"{site.uploads}/../secret.txt", f"{site.uploads}/%2e%2e/secret.txt",
        f"{site.uploads}/..%2fsecret.txt", f"{site.uploads}/..%252fsecret.txt", f"{site.uploads}/..\\secret.txt",
        f"{site.uploads}/..%5csecret.txt", f"{site.uploads}%00/../secret.txt", f"{site.uploads}/x/../../secret.txt",
        f"{site.uploads}-else/secret.txt", f"{up}{secret}", f"..%2f..%2f..%2f{secret}", f"file://{secret}", f"file:{secret}",
        f"{path}/../../../secret.txt", "secret.txt", "/etc/hostname", "/proc/self/environ", f"{up}etc/hostname", "~/secret.txt",
        f"{site.uploads}/link.txt/", "README.md", "app.py", "genlab/serving/server.py", ".", "", "/", f"{site.uploads}",
    ]  # fmt: skip
    routes = [
        "gradio_api/file=",
        "gradio_api/file/",
        "static/",
        "assets/",
        "svelte/",
        "gradio_api/custom_component/",
        "?deep_link=",
    ]
    with httpx.Client(base_url=site.url, trust_env=False, timeout=30) as client:
        for route in routes:
            for name in names:
                reply = client.get(httpx.URL(site.url).copy_with(raw_path=f"/{route}{name}".encode()))
                assert reply.status_code < 500, (route, name)
                assert CANARY not in reply.text, (route, name)
                assert reply.status_code >= 400 or reply.text.startswith("<!doctype html>"), (route, name)


def test_headers(site: SimpleNamespace, picture: bytes) -> None:
    frames = "frame-ancestors 'self' https://huggingface.co https://*.hf.space"
    path = site.client.post("/gradio_api/upload", files={"files": ("a.png", picture)}).json()[0]
    replies = [site.client.get(route) for route in ("/", "/config", "/nothing", "/readyz", f"/gradio_api/file={path}")]
    replies.append(site.client.post("/gradio_api/call/echo", json={"data": ["x"]}))
    replies.append(site.client.post("/gradio_api/call/echo", content=b"["))
    assert [reply.status_code for reply in replies] == [200, 200, 404, 200, 200, 200, 400]
    for reply in replies:
        assert reply.headers["x-content-type-options"] == "nosniff", reply.url
        assert reply.headers["referrer-policy"] == "no-referrer", reply.url
        assert frames in reply.headers["content-security-policy"], reply.url
        assert "server" not in reply.headers, reply.url


@pytest.mark.parametrize(
    ("name", "content"), [("x.svg", b"<svg onload='alert(1)'/>"), ("x.html", b"<script>alert(1)</script>")]
)
def test_uploaded_documents_run_nothing(site: SimpleNamespace, name: str, content: bytes) -> None:
    path = site.client.post("/gradio_api/upload", files={"files": (name, content)}).json()[0]
    assert site.client.post("/gradio_api/call/size", json={"data": [{"path": path, "meta": MARK}]}).status_code == 422
    reply = site.client.get(f"/gradio_api/file={path}")
    assert reply.headers["content-disposition"].startswith("attachment")
    assert reply.headers["content-type"] == "application/octet-stream"
    assert "sandbox" in reply.headers["content-security-policy"]
    assert "default-src 'none'" in reply.headers["content-security-policy"]


def resident_megabytes() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def pieces(total: int, head: bytes = b"") -> Iterator[bytes]:
    yield head
    for _ in range(total // 65536):
        yield bytes(65536)


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("kind", ["field", "file", "call", "join", "cancel"])
def test_large_bodies_are_refused_and_leave_nothing(site: SimpleNamespace, kind: str, chunked: bool) -> None:
    size = 20 * 2**20
    field = (
        b'--b\r\nContent-Disposition: form-data; name="files"'
        + (b'; filename="x.png"' if kind == "file" else b"")
        + b"\r\n\r\n"
    )
    path = {"field": "upload", "file": "upload", "call": "call/echo", "join": "queue/join", "cancel": "cancel"}[kind]
    headers = {"content-type": "multipart/form-data; boundary=b" if path == "upload" else "application/json"}
    head = field if path == "upload" else b'{"data": ["'
    if not chunked:
        headers["content-length"] = str(len(head) + size)
    files, memory = set(site.uploads.rglob("*")), resident_megabytes()
    try:
        status = httpx.post(
            f"{site.url}/gradio_api/{path}", content=pieces(size, head), headers=headers, timeout=30, trust_env=False
        ).status_code
    except (httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError):
        status = 413  # the server has closed the connection before it was read to the end
    assert status in ((400, 413) if kind == "field" and chunked else (413,))  # no field is taken
    assert resident_megabytes() - memory < 2 * FREE.upload_bytes / 2**20
    assert site.client.get("/healthz").status_code == 200
    wait_until(lambda: {path for path in site.uploads.rglob("*") if path.stat().st_size > 2**20} <= files)


@pytest.mark.parametrize("sent", [b"", b'{"data": ["x'])
def test_slow_body_is_given_up(sent: bytes) -> None:
    """Through the guard alone: the body stops in the middle."""

    async def receive() -> dict[str, Any]:
        nonlocal sent
        if sent:
            piece, sent = sent, b""
            return {"type": "http.request", "body": piece, "more_body": True}
        await asyncio.sleep(3600)
        raise AssertionError

    for path in ("/gradio_api/call/echo", "/gradio_api/upload"):
        replies = exchange(bare_guard(Limits(body_seconds=0.05)), "POST", path, receive=receive)
        assert replies[0]["status"] == 408


async def answer(scope: dict, receive: Callable[[], Awaitable[dict]], send: Callable[[dict], Awaitable[None]]) -> None:
    while (await receive()).get("more_body"):
        pass
    body = b'{"event_id": "job"}'
    await send({"type": "http.response.start", "status": 200, "headers": [(b"server", b"x/1")]})
    await send({"type": "http.response.body", "body": body})


LEFT: list[str] = []
"""Sessions whose jobs `nobody_leaves` was told to end: none, at the end of every test."""


async def nobody_leaves(session: str, event_id: str | None) -> None:
    LEFT.append(session)


@pytest.fixture(autouse=True)
def nobody_has_left() -> Iterator[None]:
    LEFT.clear()
    yield
    assert LEFT == []


def bare_guard(limits: Limits, alive: Callable[[str], bool] = lambda _: False) -> Guard:
    """Function 1 of its page is light."""
    return Guard(answer, limits, Folder("/uploads"), alive, lambda _, body: body.get("fn_index") == 1, nobody_leaves)


def exchange(
    guard: Guard, method: str, path: str, headers: dict[str, str] | None = None, peer: str = "192.0.2.1",
    receive: Callable[[], Awaitable[dict]] | None = None, content: bytes = b"{}", query: bytes = b"",
) -> list[dict]:  # fmt: skip
    sent: list[dict] = []

    async def body() -> dict:
        return {"type": "http.request", "body": content, "more_body": False}

    async def send(message: dict) -> None:
        sent.append(message)

    encoded = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
    scope = {"type": "http", "method": method, "path": path, "headers": encoded, "client": (peer, 1), "query_string": query}
    asyncio.run(guard(scope, receive or body, send))
    return sent


def statuses(guard: Guard, n: int, **options: Any) -> list[int]:
    return [exchange(guard, "POST", "/gradio_api/call/echo", **options)[0]["status"] for _ in range(n)]


def test_rate_of_one_visitor() -> None:
    guard = bare_guard(Limits(calls_burst=3, calls_per_second=0.1))
    now = 0.0
    guard.calls.clock = lambda: now
    assert statuses(guard, 5) == [200, 200, 200, 429, 429]
    refused = exchange(guard, "POST", "/gradio_api/call/echo")[0]
    assert (refused["status"], dict(refused["headers"])[b"retry-after"]) == (429, b"10")
    assert statuses(guard, 1, peer="192.0.2.2") == [200]
    assert exchange(guard, "GET", "/gradio_api/queue/data")[0]["status"] == 200
    now = 10.0
    assert statuses(guard, 2) == [200, 429]
    now = 1e6
    assert statuses(guard, 4) == [200, 200, 200, 429]


def test_uploads_have_a_bucket_of_their_own_that_keeps_room_for_others() -> None:
    guard = bare_guard(Limits(calls_burst=1, uploads_burst=2, uploads_per_second=1e-9))
    assert [exchange(guard, "POST", "/gradio_api/upload")[0]["status"] for _ in range(3)] == [200, 200, 429]
    assert statuses(guard, 2) == [200, 429]
    assert Limits().uploads_burst * Limits().upload_bytes < MAX_BYTES


def test_the_name_of_an_upload_is_short_and_not_asked_for_without_end() -> None:
    guard = bare_guard(Limits(light_calls_burst=3, light_calls_per_second=1e-9))
    for method, path in (("GET", "/gradio_api/upload_progress"), ("POST", "/gradio_api/upload")):
        assert exchange(guard, method, path, query=b"upload_id=" + b"x" * 100)[0]["status"] == 400
        assert exchange(guard, method, path, query=b"upload_id=12345678901")[0]["status"] == 200
    progress = [exchange(guard, "GET", "/gradio_api/upload_progress", query=b"upload_id=1")[0]["status"] for _ in range(3)]
    assert progress == [200, 200, 429]


def test_ending_a_job_counts_as_light() -> None:
    guard = bare_guard(Limits(calls_burst=1, light_calls_burst=4, light_calls_per_second=1e-9))
    paths = ("cancel", "reset", "reset/", "cancel", "cancel", "reset", "reset/")
    found = [exchange(guard, "POST", f"/gradio_api/{path}")[0]["status"] for path in paths]
    assert found == [200] * 4 + [429] * 3
    assert statuses(guard, 1) == [200]


def test_a_body_that_ends_a_job_is_short() -> None:
    names = {"session_hash": "s" * 64, "event_id": "e" * 32, "fn_index": 10**6}
    for path in ("cancel", "reset", "reset/"):
        for more, status in (("", 200), ("x" * 1024, 413)):
            content = json.dumps({**names, "more": more}).encode()
            assert exchange(bare_guard(Limits()), "POST", f"/gradio_api/{path}", content=content)[0]["status"] == status


def test_light_calls_have_a_bucket_of_their_own() -> None:
    """A drag goes on at its pace and leaves the calls that cost alone; whatever a visitor sends, the wide bucket bounds it."""
    guard = bare_guard(Limits(calls_burst=2, calls_per_second=0.1, light_calls_burst=6, light_calls_per_second=1))
    now = 0.0
    guard.calls.clock = guard.light_calls.clock = lambda: now

    def join(n: int, fn_index: object, **more: Any) -> list[int]:
        body = json.dumps({"fn_index": fn_index, **more}).encode()
        return [exchange(guard, "POST", "/gradio_api/queue/join", content=body)[0]["status"] for _ in range(n)]

    assert join(2, 1) == [200, 200]
    assert join(3, 0, light=True, trigger_mode="always_last") == [200, 200, 429]
    assert statuses(guard, 1) == [429]
    assert join(2, 1) == [200, 429]
    refused = exchange(guard, "POST", "/gradio_api/queue/join", content=b"never read")[0]
    assert (refused["status"], dict(refused["headers"])[b"retry-after"]) == (429, b"1")
    now = 4.0
    assert join(5, 1) == [200] * 4 + [429]
    now = 20.0
    assert statuses(guard, 3) == [200, 200, 429]
    assert join(1, 1) == [200], "calls by name leave a drag alone"


def test_the_figures_pace_stays_below_what_a_visitor_may() -> None:
    gap = int(re.search(r"GAP_MS = (\d+)", (ROOT / "genlab/demo/components/controls/requests.js").read_text())[1])
    assert 1000 / gap < Limits().light_calls_per_second


def test_a_visitor_who_leaves_before_the_results_are_asked_for_leaves_no_job(site: SimpleNamespace) -> None:
    ended = site.meter.ended
    body = {"data": [10_000, 0.01], "fn_index": index_of(site, "stream"), "session_hash": "leaves"}
    with site.client.stream("GET", "/gradio_api/heartbeat/leaves") as presence:
        alive = presence.iter_lines()
        assert next(alive) == "data: ALIVE"
        job = site.client.post("/gradio_api/queue/join", json=body).json()["event_id"]
        wait_until(lambda: site.meter.now == 1)
        assert Calls(site.demo).alive(job)
        assert site.meter.ended == ended
    wait_until(lambda: site.meter.ended == ended + 1, seconds=FREE.abandoned_seconds - 1)


def test_results_that_nobody_fetches_are_dropped(site: SimpleNamespace) -> None:
    queue = site.demo._queue
    for name, path in (("page", "queue/join"), ("named", "call/echo")):
        for _ in range(3):
            body = {"data": ["x"], "fn_index": index_of(site, "echo"), "session_hash": name}
            assert site.client.post(f"/gradio_api/{path}", json=body).status_code == 200
        wait_until(lambda name=name: queue.pending_messages_per_session[name].qsize() >= 6)
    anonymous = site.client.post("/gradio_api/call/echo", json={"data": ["x"]}).json()["event_id"]
    kept = (queue.pending_messages_per_session, queue.pending_event_ids_session)
    assert all(name in sessions for sessions in kept for name in ("page", "named", anonymous))
    wait_until(lambda: not any(name in sessions for sessions in kept for name in ("page", "named", anonymous)))


def test_a_call_by_name_that_nobody_follows_ends_and_one_that_is_followed_goes_on(site: SimpleNamespace) -> None:
    ended = site.meter.ended
    followed, left = (
        site.client.post("/gradio_api/call/stream", json={"data": [n, 0.01]}).json()["event_id"] for n in (400, 10_000)
    )
    assert last_event(site.client, f"/gradio_api/call/stream/{followed}") == ("complete", ["step 400"])
    assert site.meter.ended == ended + 1
    wait_until(lambda: not Calls(site.demo).alive(left))


def test_a_visitor_who_listens_is_not_taken_for_one_who_left(site: SimpleNamespace) -> None:
    """The heartbeat breaks off, as it does when a laptop changes networks; the stream of results goes on to the end."""
    body = {"data": [60, 0.01], "fn_index": index_of(site, "stream"), "session_hash": "stays"}
    with site.client.stream("GET", "/gradio_api/heartbeat/stays") as presence:
        alive = presence.iter_lines()
        assert next(alive) == "data: ALIVE"
        assert site.client.post("/gradio_api/queue/join", json=body).status_code == 200
        with site.client.stream("GET", "/gradio_api/queue/data?session_hash=stays") as results:
            lines = results.iter_lines()
            next(line for line in lines if "step 1" in line)
            presence.close()
            assert any("step 60" in line for line in lines)


def test_a_job_that_nobody_listens_to_ends_after_a_while() -> None:
    left: list[str] = []

    async def leave(session: str, event_id: str | None) -> None:
        left.append(session)

    async def run(listening: bool) -> None:
        done = asyncio.Event()

        async def app(scope: dict, receive: Any, send: Callable[[dict], Awaitable[None]]) -> None:
            if scope["method"] == "GET":
                await done.wait()
            else:
                await answer(scope, receive, send)

        limits = Limits(abandoned_seconds=0.05)
        guard = Guard(app, limits, Folder("/uploads"), lambda _: True, lambda *_: False, leave)
        content = b'{"session_hash": "s"}'

        async def ask(method: str, path: str) -> None:
            async def receive() -> dict:
                return {"type": "http.request", "body": content, "more_body": False}

            async def send(message: dict) -> None:
                assert message.get("status", 200) == 200

            query = b"session_hash=s" if method == "GET" else b""
            scope = {"type": "http", "method": method, "path": path, "headers": [], "query_string": query, "client": ("x", 1)}
            await guard(scope, receive, send)

        stream = asyncio.create_task(ask("GET", "/gradio_api/queue/data")) if listening else None
        await ask("POST", "/gradio_api/queue/join")
        await asyncio.sleep(4 * limits.abandoned_seconds)
        done.set()
        if stream:
            await stream
        assert not guard.streams

    asyncio.run(run(True))
    assert left == []
    asyncio.run(run(False))
    assert left == ["s"]


def test_only_the_stream_of_a_page_says_that_it_was_left() -> None:
    guard = bare_guard(FREE)
    path = "/gradio_api/heartbeat/s"
    assert [exchange(guard, method, path)[0]["status"] for method in ("HEAD", "POST")] == [200, 404]
    assert LEFT == []
    assert exchange(guard, "GET", path)[0]["status"] == 200
    assert LEFT == ["s"]
    LEFT.clear()


def test_what_fails_when_a_job_is_ended_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def fails(session: str, event_id: str | None) -> None:
        raise RuntimeError(CANARY)

    async def run() -> None:
        guard = Guard(answer, Limits(abandoned_seconds=0), Folder("/uploads"), lambda _: True, lambda *_: False, fails)
        guard.end_if_abandoned("s", "job", 0)
        await asyncio.gather(*guard._tasks)

    asyncio.run(run())
    assert CANARY in caplog.text


def test_a_server_that_stands_still_gives_up_no_job() -> None:
    """Its visitor asks for the results at once, but is heard only when the server goes on."""
    ended: list[str] = []

    async def end(session: str, event_id: str | None) -> bool:
        ended.append(session)
        return True

    async def run() -> None:
        guard = Guard(answer, Limits(), Folder("/uploads"), lambda _: True, lambda *_: False, end)
        for name in ("heard", "unheard"):
            guard.end_if_abandoned(name, name, 0.4)
        await asyncio.sleep(0)
        time.sleep(0.5)
        await asyncio.sleep(0.02)
        guard.streams["heard"] += 1
        await asyncio.gather(*guard._tasks)

    asyncio.run(run())
    assert ended == ["unheard"]


def test_allowance_forgets_the_visitors_that_came_longest_ago() -> None:
    limit = RateLimit(per_second=1, burst=1, clock=lambda: 0.0, max_visitors=2)
    assert [limit.take(visitor) for visitor in ("a", "b", "c", "b", "a")] == [0, 0, 0, 1, 0]
    assert len(limit.buckets) == 2


def test_forwarded_addresses_give_no_extra_share() -> None:
    guard = bare_guard(Limits(calls_burst=2, calls_per_second=1e-9))
    spoofed = [statuses(guard, 1, headers={"X-Forwarded-For": f"198.51.100.{index}"})[0] for index in range(4)]
    assert spoofed == [200, 200, 429, 429]
    guard = bare_guard(Limits(calls_burst=2, calls_per_second=1e-9, proxies=1))
    spoofed = [statuses(guard, 1, headers={"X-Forwarded-For": f"198.51.100.{index}, 203.0.113.5"})[0] for index in range(4)]
    assert spoofed == [200, 200, 429, 429]
    assert statuses(guard, 1, headers={"X-Forwarded-For": "203.0.113.6"}) == [200]


@pytest.mark.parametrize(
    ("proxies", "forwarded", "visitor"),
    [
        (0, "203.0.113.5", "192.0.2.1"),
        (1, "", "192.0.2.1"),
        (1, "203.0.113.5", "203.0.113.5"),
        (1, "junk, 203.0.113.5", "203.0.113.5"),
        (1, "203.0.113.5, junk", "192.0.2.1"),
        (2, "203.0.113.5, 10.0.0.1", "203.0.113.5"),
        (2, "203.0.113.5", "192.0.2.1"),
        (1, "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        (1, "2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        (1, "::ffff:203.0.113.5", "203.0.113.5"),
        (1, "203.0.113.5:5678", "203.0.113.5"),
        (1, "[2001:db8:1:2:3:4:5:6]:443", "2001:db8:1:2::/64"),
        (1, "[2001:db8:1:2:3:4:5:6]", "2001:db8:1:2::/64"),
        (1, "1.2.3.4:5:6", "192.0.2.1"),
    ],
)
def test_whom_a_request_counts_for(proxies: int, forwarded: str, visitor: str) -> None:
    headers = [(b"x-forwarded-for", forwarded.encode())] if forwarded else []
    scope = {"type": "http", "headers": headers, "client": ("192.0.2.1", 1)}
    assert bare_guard(Limits(proxies=proxies)).visitor(scope) == visitor


def test_jobs_of_one_visitor() -> None:
    unfinished = {"job"}
    guard = bare_guard(Limits(jobs=1), alive=lambda job: job in unfinished)
    assert statuses(guard, 2) == [200, 429]
    assert dict(exchange(guard, "POST", "/gradio_api/queue/join")[0]["headers"])[b"retry-after"] == b"5"
    assert statuses(guard, 1, peer="192.0.2.2") == [200]
    assert exchange(guard, "POST", "/gradio_api/cancel")[0]["status"] == 200
    unfinished.clear()
    assert statuses(guard, 1) == [200]
    assert guard.jobs.count("192.0.2.1") == 0
    assert guard.jobs.jobs.keys() <= {"192.0.2.2"}


def test_jobs_of_visitors_who_never_came_again_are_forgotten() -> None:
    guard = bare_guard(Limits())
    for number in range(3000):
        guard.jobs.add(f"visitor {number}", "ended")
    assert len(guard.jobs.jobs) <= 1001
    guard.jobs.alive = lambda _: True
    for number in range(3000):
        guard.jobs.add(f"visitor {number}", "running")
    assert sum(guard.jobs.count(f"visitor {number}") for number in range(3000)) >= 3000


def test_open_requests_of_one_visitor_are_bounded() -> None:
    async def run() -> list[int]:
        held, found = asyncio.Event(), []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await held.wait()
            await answer(scope, receive, send)

        guard = Guard(app, Limits(open_requests=3), Folder("/uploads"), lambda _: False, lambda *_: False, nobody_leaves)

        async def ask(peer: str) -> None:
            async def receive() -> dict:
                return {"type": "http.request", "body": b"", "more_body": False}

            async def send(message: dict) -> None:
                if message["type"] == "http.response.start":
                    found.append(message["status"])

            scope = {"type": "http", "method": "GET", "path": "/healthz", "headers": [], "client": (peer, 1)}
            await guard(scope, receive, send)

        tasks = [asyncio.create_task(ask(peer)) for peer in ["192.0.2.1"] * 5 + ["192.0.2.2"]]
        await asyncio.sleep(0.05)
        assert found == [429, 429]
        held.set()
        await asyncio.gather(*tasks)
        assert not guard.open_requests
        return found

    assert asyncio.run(run()) == [429, 429, 200, 200, 200, 200]


def test_the_whole_page_is_not_read_as_often_as_one_likes() -> None:
    guard = bare_guard(Limits(pages_burst=3, pages_per_second=1e-9))
    paths = ("/", "/config", "/gradio_api/info", "/gradio_api/openapi.json", "/healthz", "/theme.css")
    assert [exchange(guard, "GET", path)[0]["status"] for path in paths] == [200, 200, 200, 429, 200, 200]
    assert exchange(guard, "GET", "/", peer="192.0.2.2")[0]["status"] == 200


def test_failure_of_the_application_is_a_plain_reply() -> None:
    async def broken(scope: dict, receive: Any, send: Any) -> None:
        raise RuntimeError(CANARY)

    guard = Guard(broken, FREE, Folder("/uploads"), lambda _: False, lambda *_: False, nobody_leaves)
    start, body = exchange(guard, "GET", "/config")
    assert start["status"] == 500
    assert CANARY.encode() not in body["body"]
    assert (b"x-content-type-options", b"nosniff") in start["headers"]


def test_websockets_are_closed() -> None:
    sent: list[dict] = []

    async def run() -> None:
        async def send(message: dict) -> None:
            sent.append(message)

        await bare_guard(FREE)({"type": "websocket", "path": "/gradio_api/queue/join"}, lambda: None, send)  # type: ignore[arg-type]

    asyncio.run(run())
    assert sent == [{"type": "websocket.close", "code": 1008}]
