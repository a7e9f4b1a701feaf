"""The real page, with the limits it has in public, against visitors who mean it harm. Each test has addresses of its own."""

from __future__ import annotations

import json
import random
import socket
import subprocess
import sys
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from genlab.demo import live, theme
from genlab.demo.app import create_app
from genlab.demo.components import HEAD, Scripted
from genlab.demo.tabs.events import MODEL_EVENT
from genlab.demo.tabs.sample import compute
from genlab.demo.turns import DeadlineError, Runner
from genlab.serving import connection, picture_input, server, shares
from genlab.serving.folder import NAME
from genlab.serving.guard import Guard
from genlab.serving.language import both, choose
from genlab.serving.limits import Limits
from genlab.serving.picture_input import REFUSED
from tests import tiny
from tests.small_page import MARK, wait_until
from tests.test_picture_input import png, scans

ROOT = Path(__file__).parents[1]


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
            guard=guard_of(app), pages=app.state.pages, info=visitor(1).get("/gradio_api/info").json(),
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


def test_the_page_is_made_once_for_all_who_open_it(page: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty open it at once, in two languages, from addresses of their own."""
    kept, made = page.pages.newest.described, []
    real = kept.app

    async def counted(scope: Any, *road: Any) -> None:
        made.append(scope["path"])
        await real(scope, *road)

    kept._replies.clear()
    monkeypatch.setattr(kept, "app", counted)
    clients = [page.visitor(80 + number) for number in range(40)]
    for path in ("/", "/config", "/gradio_api/info"):
        with ThreadPoolExecutor(40) as visitors:
            ask = lambda n: clients[n].get(path, params={"lang": ("en", "zh")[n % 2], "deep_link": f"{n}"})  # noqa: B023, E731
            replies = list(visitors.map(ask, range(40)))
        assert {reply.status_code for reply in replies} == {200}
        assert len({reply.text for reply in replies}) == 2
    assert made == ["/", "/config", "/gradio_api/info"]
    assert ("<html" in clients[0].get("/").text, clients[0].get("/").text.count("[~")) == (True, 0)


FORM = {"content-type": "multipart/form-data; boundary=b"}
PART = b'--b\r\nContent-Disposition: form-data; name="files"%s\r\n\r\nx\r\n'


@pytest.mark.parametrize(
    "parts",
    [[b'; filename="a.png"'] * 2, [b'; filename="a.png"'] * 1000, [b""], [b'; filename="a.png"', b""], []],
    ids=["two files", "a thousand files", "no file name", "a file and a field", "nothing"],
)
def test_an_upload_is_one_file(page: SimpleNamespace, parts: list[bytes]) -> None:
    before = set(page.uploads.rglob("*"))
    body = b"".join(PART % part for part in parts) + b"--b--\r\n"
    reply = page.visitor(121).post("/gradio_api/upload", content=body, headers=FORM)
    assert reply.status_code == 400 or (not parts and reply.json() == [])
    assert set(page.uploads.rglob("*")) == before


def test_files_of_one_visitor_take_no_room_from_others(page: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has a share, in which the oldest make room for the newest; beyond all shares, who has the most loses the oldest."""
    size = 100_000
    monkeypatch.setattr(shares.SHARES, "share", 4 * size + 4 * 1000)
    monkeypatch.setattr(shares.SHARES, "total", 10 * size)
    monkeypatch.setattr(shares.SHARES, "_files", type(shares.SHARES._files)(OrderedDict))

    def upload(number: int, name: int) -> Path:
        files = {"files": (f"{number}-{name}.png", bytes([number, name]) * (size // 2))}
        reply = page.visitor(number).post("/gradio_api/upload", files=files)
        assert reply.status_code == 200, reply.text
        return page.uploads / Path(reply.json()[0]).relative_to(NAME)

    def stored() -> list[Path]:
        return [path for path in page.uploads.rglob("*.png") if path.stat().st_size == size]

    mine = upload(131, 0)
    flood = [upload(132, name) for name in range(12)]
    assert [path.exists() for path in flood] == [False] * 8 + [True] * 4
    for number in (133, 134, 135):
        for name in range(5):
            upload(number, name)
        assert sum(path.stat().st_size for path in stored()) <= 10 * size
    assert mine.exists()
    event, drawn = tiny.called(page.visitor(131), "sample", {"steps": 2})
    assert event == "complete"
    upload(132, 20)
    assert page.visitor(131).get(f"/gradio_api/file={drawn[0]['path']}").status_code == 200
    assert mine.exists()


def test_a_visitor_whose_job_was_ended_for_want_of_a_listener_is_told_so(
    page: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page.guard, "limits", Limits(abandoned_seconds=0.01, abandoned_call_seconds=0.01))
    client = Client(page.url, token=False, verbose=False)
    listen = client.stream_messages

    def listen_late(*road: Any, **names: Any) -> None:
        wait_until(lambda: client.session_hash in page.guard.unheard)
        listen(*road, **names)

    monkeypatch.setattr(client, "stream_messages", listen_late)
    with pytest.raises(AppError, match="This job was ended because nobody asked for its results"):
        client.predict(api_name="/models")
    joined = page.visitor(141).post("/gradio_api/call/models", json={"data": []}).json()["event_id"]
    wait_until(lambda: joined in page.guard.unheard)
    event, said = tiny.last_event(page.visitor(141), f"/gradio_api/call/models/{joined}")
    assert (event, said["error"]) == ("error", "This job was ended because nobody asked for its results. Start it again.")


@pytest.mark.parametrize(
    "ranges", ["bytes=0-0,5-6", "bytes=5-2", "bytes=-", "bytes=a-b", "bytes=0-99999999", "lines=1-2", "bytes=-3"]
)
def test_any_range_of_a_file_is_answered(page: SimpleNamespace, ranges: str) -> None:
    visitor = page.visitor(151)
    path = visitor.post("/gradio_api/upload", files={"files": ("a.txt", b"0123456789")}).json()[0]
    reply = visitor.get(f"/gradio_api/file={path}", headers={"range": ranges})
    assert reply.status_code in (200, 206, 416)
    assert reply.content in b"0123456789"


def test_no_reply_says_where_files_lie(page: SimpleNamespace, picture: bytes) -> None:
    """Neither that of an upload nor of a result, an error or the page; the name that they give instead leads to the files."""
    visitor = page.visitor(155)
    uploaded = visitor.post("/gradio_api/upload", files={"files": ("a.png", picture)})
    own = {"path": uploaded.json()[0], "meta": MARK}
    assert own["path"].startswith(f"{NAME}/")
    event, drawn = tiny.called(visitor, "sample", {"steps": 2})
    assert (event, tiny.called(visitor, "vae", {"picture_from": "upload", "upload": own})[0]) == ("complete", "complete")
    joined = join(page, 155, "vae", "hidden", picture_from="upload", upload=own)
    streamed = visitor.get("/gradio_api/queue/data?session_hash=hidden").text
    texts = [visitor.get(path).text for path in ("/", "/config", "/gradio_api/info", "/gradio_api/openapi.json")]
    texts += [
        uploaded.text,
        joined.text,
        streamed,
        str(drawn),
        str(tiny.called(visitor, "vae", {"upload": {"path": f"{NAME}/x"}})),
    ]
    assert [text for text in texts if str(page.uploads) in text or tempfile.gettempdir() in text] == []
    for path in (own["path"], drawn[0]["path"], drawn[0]["url"].partition("file=")[2]):
        assert visitor.get(f"/gradio_api/file={path}").content.startswith(b"\x89PNG")
    assert visitor.get(f"/gradio_api/file={NAME}/../secret").status_code == 404


def send_pictures(page: SimpleNamespace, number: int, contents: list[bytes], name: str = "vae") -> str:
    """Upload pictures and start a job with each, from 127.0.0.(number); the name of the session of the jobs."""
    visitor, session = page.visitor(number), f"pictures{number}"
    for content in contents:
        path = visitor.post("/gradio_api/upload", files={"files": ("a", content)}).json()[0]
        joined = join(page, number, name, session, picture_from="upload", upload={"path": path, "meta": MARK}, samples=1)
        assert joined.status_code == 200, joined.text
    return session


def ended(page: SimpleNamespace, number: int, session: str) -> list[tuple[bool, Any]]:
    """Whether each job of a session succeeded, and its output."""
    lines = page.visitor(number).get(f"/gradio_api/queue/data?session_hash={session}").text.splitlines()
    messages = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    return [(each["success"], each["output"]) for each in messages if each["msg"] == "process_completed"]


def test_eight_hostile_pictures_are_refused_and_another_visitor_is_served(
    page: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """JPEGs of 2,000 scans and PNGs of 400 megapixels, from eight addresses: not a pixel of them is decoded."""
    monkeypatch.setattr(page.guard, "end_if_abandoned", lambda *_: None)
    decoded: list[Any] = []
    monkeypatch.setattr(picture_input, "_pixels", decoded.append)
    hostile = [scans(2000, 640), png(20_000, 20_000)]
    sessions = {number: send_pictures(page, number, [hostile[number % 2]]) for number in range(171, 179)}
    assert tiny.called(page.visitor(179), "sample", {"steps": 2})[0] == "complete"
    for number, session in sessions.items():
        assert [(success, each["error"]) for success, each in ended(page, number, session)] == [(False, choose(REFUSED))]
    assert decoded == []


def test_the_largest_pictures_of_one_visitor_hold_up_nobody_else(
    page: SimpleNamespace, picture: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight pictures within the limits take for ever to be decoded: their jobs hold no place meanwhile, so that others draw,
    drag, and see what they upload. Another visitor's large picture is next; one whose job was cancelled is not decoded.
    """
    monkeypatch.setattr(page.guard, "end_if_abandoned", lambda *_: None)
    monkeypatch.setattr(picture_input, "_latest", type(picture_input._latest)())
    decoding, let_go = [], threading.Event()

    def held(picture: Any) -> np.ndarray:
        decoding.append(picture.size)
        assert picture.size == (7, 5) or let_go.wait(60)
        return np.zeros((28, 28, 3), np.uint8)

    monkeypatch.setattr(picture_input, "_pixels", held)
    greedy = send_pictures(page, 181, [png(4000, 3990 + number) for number in range(4)])
    send_pictures(page, 181, [png(4000, 3994 + number) for number in range(4)], "bound")
    wait_until(lambda: bool(decoding))
    left = send_pictures(page, 184, [png(2000, 2000)])
    (job,) = [event._id for event in page.demo._queue.event_ids_to_events.values() if event.session_hash == left]
    cancel = {"session_hash": left, "fn_index": index_of(page, "vae"), "event_id": job}
    assert page.visitor(184).post("/gradio_api/cancel", json=cancel).status_code == 200
    other = send_pictures(page, 183, [png(3000, 3000)])
    for name in ("models", "divergence", "bound", "sample"):
        assert tiny.called(page.visitor(182), name, {"steps": 2} if name == "sample" else {})[0] == "complete"
    assert [success for success, _ in ended(page, 182, send_pictures(page, 182, [picture]))] == [True]
    lines = page.demo._queue.event_queue_per_concurrency_id
    assert [lines[kind].current_concurrency for kind in ("model", "light")] == [0, 0]
    assert decoding == [(4000, 3990), (7, 5)]
    let_go.set()
    assert [success for success, _ in ended(page, 183, other)] == [True]
    assert [success for success, _ in ended(page, 181, greedy)] == [True] * 8
    assert decoding[2:] == [(3000, 3000), *((4000, 3991 + number) for number in range(7))]


def test_health_answers_head_too(page: SimpleNamespace) -> None:
    for path in ("/healthz", "/readyz"):
        reply = page.visitor(152).head(path)
        assert (reply.status_code, reply.content) == (200, b"")


def test_a_visitor_is_no_proxy(page: SimpleNamespace) -> None:
    """Without a trusted proxy its headers change nothing of the page."""
    headers = {
        "x-forwarded-host": "evil.example",
        "x-forwarded-proto": "https",
        "x-forwarded-prefix": "/evil",
        "forwarded": "host=evil.example",
    }
    for path in ("/", "/config", "/gradio_api/info"):
        assert "evil" not in page.visitor(153).get(path, headers=headers).text


def test_only_known_names_are_served(page: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine on which only its user can connect: a page of another site whose name leads there gets nothing."""
    monkeypatch.setattr(page.guard, "limits", Limits(hosts=("demo.example", "*.example.org")))
    visitor = page.visitor(154)
    for host in (
        "127.0.0.1:7860",
        "localhost:7860",
        "[::1]:7860",
        "192.0.2.7",
        "demo.example",
        "DEMO.example:80",
        "a.example.org",
    ):
        assert visitor.get("/config", headers={"host": host}).status_code == 200, host
    for host in ("evil.example", "demo.example.evil.example", "example.org", "127.0.0.1.evil.example", "x@localhost"):
        refused = visitor.get("/config", headers={"host": host})
        assert refused.status_code == 421, host
        assert "GENLAB_HOSTS" in refused.json()["detail"]


MALFORMED: list[Any] = [{"panels": [{"layers": 5}]}, {"frames": "a"}, "text", 5, [1, 2], True]


def test_malformed_values_of_every_function_are_refused_with_a_reason(page: SimpleNamespace, capfd: Any) -> None:
    """Figures, canvases and players, for every function of the page; those that live in the browser alone are none."""
    visitor, tried = page.visitor(161), 0
    for index, fn in page.demo.fns.items():
        in_browser = fn.fn is None and not fn.cancels
        places = [place for place, each in enumerate(fn.inputs) if isinstance(each, Scripted)]
        for place, value in [(0, 5)] * in_browser or list(product(places, MALFORMED)):
            data = [None] * len(fn.inputs)
            data[place : place + 1] = [value]
            page.guard.light_calls.buckets.clear()
            page.guard.calls.buckets.clear()
            body = {"data": data, "fn_index": index, "session_hash": "malformed"}
            reply = visitor.post("/gradio_api/queue/join", json=body)
            assert reply.status_code == (404 if in_browser else 422), (fn.name, value)
            tried += 1
    assert tried > 100
    assert "Traceback" not in capfd.readouterr().err


PIECES = [
    b"", b"\0", b"null", b"-1", b"[", b"]", b"{", b"}", b'"', b"1e999", b"\xff", b"\\ud800", b"filename", b"\r\n", b"data",
    b"9" * 400, b"files", b'"s"', b"true", b"../", "é".encode(), b"name", b"--b", b"model", b"genlab-files/", b"steps",
]  # fmt: skip


def test_mutated_bodies_of_every_route_never_break_the_server(page: SimpleNamespace, picture: bytes) -> None:
    """Two hundred, from a seed: none is answered by 500 or more, or not at all; then a good request is answered right."""
    rng, visitor = random.Random(0), page.visitor(164)
    file = b'{"path": "genlab-files/x/a.png", "meta": {"_type": "gradio.FileData"}, "size": 5}'
    seeds = {
        "queue/join": json.dumps(
            {"data": defaults(page, "pixel_density"), "fn_index": index_of(page, "pixel_density"), "session_hash": "s"}
        ).encode(),
        "call/divergence": json.dumps({"data": defaults(page, "divergence")}).encode(),
        "call/v2/sample": b'{"steps": 1, "count": 1, "seed": 3, "label": "a class"}',
        "call/v2/vae": b'{"picture_from": "upload", "samples": 1, "z": [0, 1], "upload": %s}' % file,
        "cancel": b'{"session_hash": "s", "fn_index": 0, "event_id": "e"}',
        "reset": b'{"event_id": "e"}',
        "upload": PART % b'; filename="a.png"' + picture + b"\r\n--b--\r\n",
    }
    for turn in range(200):
        path = list(seeds)[turn % len(seeds)]
        body = bytearray(seeds[path])
        for _ in range(rng.randint(1, 4)):
            start = rng.randrange(len(body) + 1)
            body[start : start + rng.choice([0, 1, 3, 8, 20])] = rng.choice(PIECES)
        kind = FORM["content-type"] if path == "upload" else "application/json"
        kind = rng.choice([kind] * 6 + ["", "text/plain", "multipart/form-data", "application/json; charset=utf-16"])
        for limit in (page.guard.calls, page.guard.light_calls, page.guard.uploads):
            limit.buckets.clear()
        reply = visitor.post(f"/gradio_api/{path}", content=bytes(body), headers={"content-type": kind})
        assert reply.status_code < 500, (path, kind, bytes(body), reply.text)
    event, said = tiny.called(page.visitor(165), "divergence", {})
    assert (event, list(said[-1])) == ("complete", list(tiny.called(page.visitor(166), "divergence", {})[1][-1]))


CANARY = "canary7c41d0"
HEARD: list[tuple[str, str]] = []
"""What Python's audit hook hears while a test listens: events that name the canary, or another host than loopback."""
LISTENING = threading.Event()


def hear(event: str, details: tuple[Any, ...]) -> None:
    if not LISTENING.is_set() or event.partition(".")[0] not in ("open", "os", "socket", "subprocess", "urllib", "shutil"):
        return
    said = repr(details)
    foreign = event in ("socket.getaddrinfo", "socket.connect") and "127.0.0." not in said
    if foreign or CANARY in said:
        HEARD.append((event, said))


def test_texts_of_a_call_lead_to_no_file_and_no_host(page: SimpleNamespace, tmp_path: Path) -> None:
    """A path, a repository, an address in the place of every text of every endpoint: refused, and nothing is opened."""
    (tmp_path / CANARY).write_text("secret")
    local, remote = [f"{tmp_path}/{CANARY}", f"../{CANARY}", f"file:///{CANARY}"], [f"https://{CANARY}.invalid/x.png"]
    values = [*local, *remote, f"{CANARY}/model@main"]
    sys.addaudithook(hear)  # it cannot be removed, only stop listening
    LISTENING.set()
    try:
        with open(tmp_path / CANARY):
            assert HEARD.pop()[0] == "open"
        for name, endpoint in page.info["named_endpoints"].items():
            texts = [each for each in endpoint["parameters"] if each["python_type"]["type"] not in ("int", "float", "bool")]
            for parameter, value in product(texts, values):
                page.guard.calls.buckets.clear()
                event, said = tiny.called(page.visitor(167), name[1:], {parameter["parameter_name"]: value})
                assert event in ("error", "422"), (name, parameter["parameter_name"], said)
                assert HEARD == [], (name, parameter["parameter_name"])
    finally:
        LISTENING.clear()
        HEARD.clear()


def test_a_value_that_holds_the_marks_of_two_languages_is_refused(page: SimpleNamespace) -> None:
    for text in ("[~a~|~b~]", "~]", "[~", "~|~"):
        status, said = tiny.called(page.visitor(162), "sample", {"label": text})
        assert (status, said.count("[~~")) == ("400", 0)
    assert "中文" not in tiny.called(page.visitor(162), "sample", {"label": "nothing"})[1]["error"]


def test_the_description_of_the_api_is_read_by_older_clients(page: SimpleNamespace) -> None:
    """gradio_client before version 2 fails where a component forbids other fields."""
    for component in page.visitor(163).get("/config").json()["components"]:
        assert "'additionalProperties': False" not in str(component.get("api_info")), component["type"]


@pytest.mark.skipif(not (ROOT / "node_modules/@gradio/client").is_dir(), reason="needs Node and `npm ci`")
def test_gradios_javascript_client_draws_streams_and_sends_a_blob(
    page: SimpleNamespace, picture: bytes, tmp_path: Path
) -> None:
    (tmp_path / "picture").write_bytes(picture)
    command = ["node", "tests/gradio_client.js", page.url, tmp_path / "picture"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["endpoints"] == list(page.info["named_endpoints"])
    assert bytes(found["drawn"]) == b"PNG"
    assert "bits_per_dim" in found["numbers"]
    assert found["frames"] >= 2
    assert "expected a whole number from 1 to" in found["refused"]
