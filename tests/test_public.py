"""The real page, with the limits it has in public, against visitors who mean it harm. Each test has addresses of its own."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from genlab.demo import live, theme
from genlab.demo.app import create_app
from genlab.demo.components import HEAD
from genlab.demo.tabs.events import MODEL_EVENT
from genlab.demo.tabs.sample import compute
from genlab.demo.turns import DeadlineError, Runner
from genlab.serving import connection, server
from genlab.serving.guard import Guard
from genlab.serving.language import both
from genlab.serving.limits import Limits
from tests import tiny
from tests.small_page import wait_until


def guard_of(app: Any) -> Guard:
    """The guard of an application that has been served once."""
    layer = app.middleware_stack
    while not isinstance(layer, Guard):
        layer = layer.app
    return layer


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """The page of small models on a server, and `visitor`, which returns a client with the address 127.0.0.(number)."""
    uploads = tmp_path_factory.mktemp("public") / "genlab-public"
    patch = pytest.MonkeyPatch()
    patch.setenv("GRADIO_TEMP_DIR", str(uploads))
    runner = Runner()
    demo = create_app(tiny.load_models(tiny.save_models(tmp_path_factory.mktemp("models"))), runner)
    app = server.build(demo, ready=lambda: True, limits=Limits(), theme=theme.theme(), css=theme.CSS, head=HEAD)
    with tiny.running(app) as instance, ExitStack() as clients:

        def visitor(number: int) -> httpx.Client:
            road = httpx.HTTPTransport(local_address=f"127.0.0.{number}")
            return clients.enter_context(httpx.Client(base_url=instance.url, timeout=60, trust_env=False, transport=road))

        yield SimpleNamespace(
            url=instance.url, port=instance.port, visitor=visitor, demo=demo, runner=runner, uploads=uploads, server=instance,
            guard=guard_of(app), info=visitor(1).get("/gradio_api/info").json(),
        )  # fmt: skip
    patch.undo()


@pytest.fixture
def connect(page: SimpleNamespace) -> Iterator[Callable[[int, bytes], socket.socket]]:
    """Open a connection from 127.0.0.(number) and send some bytes."""
    with ExitStack() as opened:

        def connect(number: int, sent: bytes) -> socket.socket:
            one = opened.enter_context(socket.socket())
            one.settimeout(60)
            one.bind((f"127.0.0.{number}", 0))
            one.connect(("127.0.0.1", page.port))
            one.sendall(sent)
            return one

        yield connect


def reply_to(one: socket.socket, more: bytes) -> bytes:
    """Send the rest of a request and return the beginning of its reply, b"" where the connection was closed."""
    try:
        one.sendall(more)
        return one.recv(65536)
    except (ConnectionResetError, BrokenPipeError):
        return b""


HALF = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"


def test_half_sent_heads_take_no_place_from_others(
    page: SimpleNamespace, connect: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the limits of one address and of all, a connection takes the place of the one that has waited longest."""
    monkeypatch.setattr(connection, "OF_ADDRESS", 6)
    monkeypatch.setattr(connection, "CONNECTIONS", 10)
    wait_until(lambda: not page.server.server_state.connections)
    flood = [connect(11, HALF) for _ in range(30)]
    wait_until(lambda: len(page.server.server_state.connections) == 6)
    assert page.visitor(12).get("/").status_code == 200
    flood += [connect(13, HALF) for _ in range(30)]
    assert page.visitor(12).get("/healthz").json() == {"alive": True}
    assert page.visitor(14).get("/").status_code == 200
    assert reply_to(flood[0], b"\r\n") == b""
    assert reply_to(flood[-1], b"\r\n").startswith(b"HTTP/1.1 200")


def test_health_is_answered_where_requests_are_open_on_every_connection(
    page: SimpleNamespace, connect: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard = page.guard
    monkeypatch.setattr(guard, "limits", Limits(all_requests=4))
    body = b"POST /gradio_api/call/models HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n"
    waiting = [connect(21 + number, body) for number in range(4)]
    wait_until(lambda: guard.open_requests.total() == 4)
    refused = page.visitor(29).get("/")
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
    assert refused.headers["x-content-type-options"] == "nosniff"
    assert page.visitor(29).get("/healthz").status_code == 200
    assert all(reply_to(one, b'{"data":[').startswith(b"HTTP/1.1 400") for one in waiting)
    assert page.visitor(29).get("/").status_code == 200


def index_of(page: SimpleNamespace, name: str) -> int:
    return next(index for index, fn in page.demo.fns.items() if fn.api_name == name)


def defaults(page: SimpleNamespace, name: str, **changed: Any) -> list[Any]:
    """The values of an endpoint's parameters, in order."""
    parameters = page.info["named_endpoints"][f"/{name}"]["parameters"]
    return [changed.get(each["parameter_name"], each["parameter_default"]) for each in parameters]


def join(page: SimpleNamespace, number: int, name: str, session: str, **changed: Any) -> httpx.Response:
    """Start a job as the page does, from 127.0.0.(number)."""
    body = {"data": defaults(page, name, **changed), "fn_index": index_of(page, name), "session_hash": session}
    return page.visitor(number).post("/gradio_api/queue/join", json=body)


@pytest.fixture
def held(page: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """The pictures of /sample wait until they are let go; `begun` has the seeds of those that have begun."""
    begun: list[int] = []
    let_go, freed = threading.Event(), set()

    def sample(models: Any, runner: Any, request: Any) -> Iterator[Any]:
        begun.append(request.seed)
        while not (let_go.is_set() or request.seed in freed):
            let_go.wait(0.01)
            yield SimpleNamespace(index=0, count=1)
        raise DeadlineError(both("ended", "结束"))

    monkeypatch.setattr(compute, "sample", sample)
    monkeypatch.setattr(page.guard, "end_if_abandoned", lambda *_: None)
    yield SimpleNamespace(begun=begun, let_go=let_go, freed=freed)
    let_go.set()
    wait_until(lambda: not page.demo._queue.event_ids_to_events)


def test_turns_go_round_the_visitors_and_one_runs_two_jobs_at_a_time(page: SimpleNamespace, held: SimpleNamespace) -> None:
    assert all(join(page, 41, "sample", "greedy", seed=seed).status_code == 200 for seed in range(12))
    wait_until(lambda: held.begun == [0, 1])
    assert join(page, 41, "sample", "greedy").status_code == 429
    for number, seed in ((42, 100), (43, 200), (42, 101), (44, 300)):
        assert join(page, number, "sample", f"other{number}", seed=seed).status_code == 200
    wait_until(lambda: len(held.begun) == 6)
    assert sorted(held.begun) == [0, 1, 100, 101, 200, 300]
    held.freed |= {0}
    wait_until(lambda: len(held.begun) == 7)
    assert held.begun[-1] == 2


def test_a_full_queue_of_one_kind_keeps_nobody_from_the_others(page: SimpleNamespace, held: SimpleNamespace) -> None:
    """As many jobs as may run and as many as may wait are accepted. The next one is refused, everything else is answered."""
    most = MODEL_EVENT["concurrency_limit"] + Limits().waiting
    found = [join(page, 50 + seed // 12, "sample", f"crowd{seed}", seed=seed).status_code for seed in range(most)]
    assert found == [200] * most
    wait_until(lambda: len(held.begun) == MODEL_EVENT["concurrency_limit"])
    refused = join(page, 60, "sample", "late")
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "5")
    assert refused.json()["detail"] == "The queue is full: try again in a few seconds."
    visitor = page.visitor(60)
    assert visitor.get("/").status_code == 200
    assert tiny.called(visitor, "models", {})[0] == "complete"
    assert tiny.called(visitor, "divergence", {})[0] == "complete"
    held.freed |= set(held.begun[:1])
    wait_until(lambda: len(held.begun) > MODEL_EVENT["concurrency_limit"])
    event, said = tiny.called(visitor, "sample", {"steps": 1e9})
    assert event == "error"
    assert "expected a whole number from 1 to" in said["error"]
    assert len(held.begun) == MODEL_EVENT["concurrency_limit"] + 1


def test_one_visitor_takes_half_the_places_for_training_and_others_train_at_once(
    page: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page.guard, "end_if_abandoned", lambda *_: None)
    values = {"steps": 3000, "data": "moons"}
    replies = [join(page, 71, "playground", "learner", **values) for _ in range(6)]
    assert [reply.status_code for reply in replies] == [200] * 6, replies[0].text
    wait_until(lambda: len(live.LINE) == 5)
    assert join(page, 72, "playground", "other", **values).status_code == 200
    with page.visitor(72).stream("GET", "/gradio_api/queue/data?session_hash=other") as stream:
        assert next(line for line in stream.iter_lines() if '"samples"' in line)
    with page.visitor(71).stream("GET", "/gradio_api/queue/data?session_hash=learner") as stream:
        assert next(line for line in stream.iter_lines() if "5 of your trainings run or wait here already" in line)
    wait_until(lambda: len(live.LINE) == 0)


def test_what_is_no_http_is_refused_with_the_headers_of_every_reply(connect: Callable) -> None:
    reply = connect(31, b"GARBAGE\r\n\r\n").recv(65536)
    assert reply.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"x-content-type-options: nosniff" in reply
    assert b"server:" not in reply
