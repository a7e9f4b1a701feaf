"""The public server: what it answers, to whom, how much, how it starts and how it stops."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError, ValidationError
from PIL import Image

from genlab.demo.components.figure import DRAWN
from genlab.demo.limits import DRAWN_VALUES
from genlab.serving import server
from genlab.serving.guard import Allowance, Guard, Limits, Refused, plain_json
from genlab.serving.language import choose
from genlab.serving.picture_input import REFUSED, PictureInput
from tests import tiny

import gradio as gr  # isort: skip
import gradio.routes  # isort: skip

ROOT = Path(__file__).parents[1]
ROUTES = Path(__file__).with_name("routes.json")
CANARY = "hf_canary0123456789abcdefghijklmnopq"
FREE = Limits(
    per_second=1e6, burst=10**6, uploads_per_second=1e6, uploads_burst=10**6, light_per_second=1e6, light_burst=10**6,
    whole_per_second=1e6, whole_burst=10**6, uncalled_seconds=2.0, open=10**6, queued=10**6,
)  # fmt: skip
MARK = {"_type": "gradio.FileData"}


@contextmanager
def running(app: Any) -> Iterator[server.Server]:
    instance = server.Server(app, "127.0.0.1", 0)
    thread = threading.Thread(target=instance.run)
    thread.start()
    deadline = time.monotonic() + 60
    while not instance.started and time.monotonic() < deadline:
        time.sleep(0.02)
    try:
        yield instance
    finally:
        instance.should_exit = True
        thread.join(60)


class Meter:
    """How many steps run at the same time."""

    def __init__(self) -> None:
        self.lock, self.now, self.most, self.ended = threading.Lock(), 0, 0, 0

    @contextmanager
    def step(self) -> Iterator[None]:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        try:
            yield
        finally:
            with self.lock:
                self.now -= 1


def page(meter: Meter) -> gr.Blocks:
    """A page with a stream, a picture, and an endpoint that fails."""
    one = threading.BoundedSemaphore(1)

    def stream(n: float, pause: float) -> Iterator[str]:
        with one:
            try:
                for index in range(int(n)):
                    with meter.step():
                        time.sleep(pause)
                    yield f"step {index + 1}"
            finally:
                meter.ended += 1

    def look(picture: np.ndarray | None) -> str:
        return "none" if picture is None else str(picture.shape)

    def fail(text: str) -> str:
        raise RuntimeError(f"{os.environ['HF_TOKEN']} {text}")

    def say(text: str) -> str:
        return text

    with gr.Blocks(title="a page") as demo:
        n, pause, text = gr.Number(3, label="n", precision=0), gr.Number(0.01, label="pause"), gr.Textbox(label="text")
        streaming = gr.Button("go").click(stream, [n, pause], text, api_name="stream", concurrency_id="model")
        gr.Button("stop").click(None, None, None, cancels=[streaming])
        gr.Button("look").click(look, PictureInput(label="picture", required=False), text, api_name="look")
        gr.Button("fail").click(fail, text, text, api_name="fail")
        gr.Button("say").click(say, text, text, api_name="say")
        gr.Button("own").click(say, text, text, api_name="own", api_visibility="private")
        newest = {"trigger_mode": "always_last", "api_visibility": "private"}
        text.input(say, text, text, **newest, api_name="light")
        n.input(stream, [n, pause], text, **newest, api_name="light_stream", concurrency_id="model")
        text.change(look, PictureInput(label="another", required=False), text, **newest, api_name="light_look")
        pause.input(say, text, text, trigger_mode="always_last", api_name="newest", api_visibility="undocumented")
    return demo


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    folder = tmp_path_factory.mktemp("server")
    patch = pytest.MonkeyPatch()
    patch.setenv("GRADIO_TEMP_DIR", str(folder / "genlab-uploads"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "GENLAB_SECRET"):
        patch.setenv(name, CANARY)
    patch.setattr(server, "HEAD_SECONDS", 2.0)
    state: dict[str, bool | str] = {"ready": True}
    meter = Meter()
    demo = page(meter)
    app = server.build(
        demo, ready=lambda: state["ready"], limits=FREE, css=".mine{color:#123456}", js="() => 41 + 1", theme=gr.themes.Soft()
    )
    with running(app) as instance, httpx.Client(base_url=instance.url, timeout=30, trust_env=False) as client:
        yield SimpleNamespace(
            client=client, url=instance.url, port=instance.port, uploads=folder / "genlab-uploads", folder=folder, app=app,
            demo=demo, meter=meter, state=state,
        )  # fmt: skip
    patch.undo()


@pytest.fixture(scope="module")
def picture() -> bytes:
    import io

    buffer = io.BytesIO()
    Image.new("RGB", (7, 5), "red").save(buffer, "PNG")
    return buffer.getvalue()


def events(client: httpx.Client, endpoint: str, event_id: str) -> list[tuple[str, Any]]:
    text = client.get(f"/gradio_api/call/{endpoint}/{event_id}").text.strip()
    pairs = [entry.split("\n", 1) for entry in text.split("\n\n")]
    return [(event.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for event, data in pairs]


def call(client: httpx.Client, endpoint: str, *values: Any) -> tuple[str, Any]:
    """The last event of a call and its data."""
    joined = client.post(f"/gradio_api/call/{endpoint}", json={"data": values})
    assert joined.status_code == 200, joined.text
    return events(client, endpoint, joined.json()["event_id"])[-1]


def index_of(site: SimpleNamespace, name: str) -> int:
    return next(index for index, fn in site.demo.fns.items() if fn.api_name == name)


# The page and its interfaces, as mounted


def test_page_carries_theme_style_and_script(site: SimpleNamespace) -> None:
    config = site.client.get("/config").json()
    assert ".mine{color:#123456}" in config["css"]
    assert config["js"] == "() => 41 + 1"
    assert config["title"] == "a page"
    assert site.client.get("/theme.css").text == gr.themes.Soft()._get_theme_css()
    home = site.client.get("/")
    assert home.status_code == 200
    assert "window.gradio_config" in home.text


def test_python_client_calls_streams_and_cancels(site: SimpleNamespace, picture: bytes, tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes(picture)
    client = Client(site.url, token=False, verbose=False)
    assert client.predict(handle_file(tmp_path / "red.png"), api_name="/look") == "(5, 7, 3)"
    assert list(client.submit(3, 0.01, api_name="/stream")) == ["step 1", "step 2", "step 3"]
    ended = site.meter.ended
    job = client.submit(10_000, 0.02, api_name="/stream")
    for _ in job:
        break
    assert job.cancel()
    assert client.predict(1, 0.01, api_name="/stream") == "step 1"
    assert site.meter.ended == ended + 2
    with pytest.raises(ValidationError, match="Expected one still PNG"):
        client.predict({"path": "/etc/hostname", "meta": MARK}, api_name="/look")
    with pytest.raises(AppError) as failure:
        client.predict("x", api_name="/fail")
    assert CANARY not in str(failure.value)


def test_rest_call_by_name(site: SimpleNamespace) -> None:
    joined = site.client.post("/gradio_api/call/v2/stream", json={"n": 2, "pause": 0.01})
    assert joined.status_code == 200
    assert events(site.client, "stream", joined.json()["event_id"])[-1] == ("complete", ["step 2"])
    assert "/call/v2/stream" in site.client.get("/gradio_api/openapi.json").text
    assert set(site.client.get("/gradio_api/info").json()["named_endpoints"]) == {"/stream", "/look", "/fail", "/say"}


def test_stream_arrives_piece_by_piece(site: SimpleNamespace) -> None:
    """The first step is read while the handler has not begun the last one."""
    ended = site.meter.ended
    joined = site.client.post("/gradio_api/call/stream", json={"data": [10_000, 0.01]})
    with site.client.stream("GET", f"/gradio_api/call/stream/{joined.json()['event_id']}") as reply:
        assert next(line for line in reply.iter_lines() if "step" in line) == 'data: ["step 1"]'
        assert site.meter.ended == ended
    wait_until(lambda: site.meter.ended == ended + 1)


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not within the time"
        time.sleep(0.02)


def test_health_and_readiness(site: SimpleNamespace) -> None:
    assert site.client.get("/healthz").json() == {"alive": True}
    assert site.client.get("/readyz").json() == {"ready": True}
    try:
        site.state["ready"] = "downloading"
        reply = site.client.get("/readyz")
        assert (reply.status_code, reply.json()) == (503, {"ready": False, "reason": "downloading"})
        site.state["ready"] = False
        assert site.client.get("/readyz").status_code == 503
        assert site.client.get("/healthz").status_code == 200
    finally:
        site.state["ready"] = True


# Routes and headers


def served(site: SimpleNamespace) -> list[list[str]]:
    """Method and path of every route of the application that the guard lets through."""
    guard = Guard(site.app, FREE, [str(site.uploads)], lambda _: False, lambda *_: False, nobody_leaves)
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
    replies.append(site.client.post("/gradio_api/call/say", json={"data": ["x"]}))
    replies.append(site.client.post("/gradio_api/call/say", content=b"["))
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
    assert site.client.post("/gradio_api/call/look", json={"data": [{"path": path, "meta": MARK}]}).status_code == 422
    reply = site.client.get(f"/gradio_api/file={path}")
    assert reply.headers["content-disposition"].startswith("attachment")
    assert reply.headers["content-type"] == "application/octet-stream"
    assert "sandbox" in reply.headers["content-security-policy"]
    assert "default-src 'none'" in reply.headers["content-security-policy"]


def test_token_in_the_environment_is_in_no_reply(site: SimpleNamespace) -> None:
    texts = [site.client.get(path).text for path in ("/", "/config", "/gradio_api/info", "/gradio_api/openapi.json", "/readyz")]
    texts += [str(call(site.client, "fail", "x")), str(call(site.client, "say", "$HF_TOKEN {HF_TOKEN} ${HF_TOKEN}"))]
    for body in (b"{", b"{}", b'{"data": 5}', b'{"data": [1, 2, 3]}', b"\xff"):
        for path in ("queue/join", "call/fail", "call/v2/fail", "cancel", "reset", "upload"):
            texts.append(site.client.post(f"/gradio_api/{path}", content=body).text)
    for path in ("heartbeat/..", "queue/data", "upload_progress", "call/fail/unknown", "file=/proc/self/environ"):
        texts.append(site.client.get(f"/gradio_api/{path}").text)
    assert len(texts) == 42
    assert texts[-2].startswith("event: error")
    assert not any(CANARY in text for text in texts)
    assert call(site.client, "fail", "x") == ("error", {**call(site.client, "fail", "x")[1], "error": None})


# Bodies


def test_picture_values_are_refused_before_they_are_queued(site: SimpleNamespace, picture: bytes) -> None:
    own = site.client.post("/gradio_api/upload", files={"files": ("a.png", picture)}).json()[0]
    outside = site.folder / "outside.png"
    outside.write_bytes(picture)
    inline = "data:image/png;base64,AAAA"
    for value in (
        "x", 5, [], {}, {"path": 5}, {"path": str(outside)}, {"path": str(outside), "meta": MARK}, {"path": inline},
        {"path": "https://example.org/x.png"}, {"path": own, "url": inline, "meta": MARK}, {"path": own, "orig_name": "x.svg"},
    ):  # fmt: skip
        replies = [
            site.client.post("/gradio_api/call/look", json={"data": [value]}),
            site.client.post("/gradio_api/call/v2/look", json={"picture": value}),
            site.client.post(
                "/gradio_api/queue/join", json={"data": [value], "fn_index": index_of(site, "look"), "session_hash": "s"}
            ),
        ]
        for reply in replies:
            assert (reply.status_code, reply.json()["detail"][0]["message"]) == (422, choose(REFUSED)), value
    assert call(site.client, "look", {"path": own, "meta": MARK}) == ("complete", ["(5, 7, 3)"])
    assert call(site.client, "look", None) == ("complete", ["none"])


def test_files_in_other_values_are_refused_before_gradio_fetches_them(site: SimpleNamespace, picture: bytes) -> None:
    own = site.client.post("/gradio_api/upload", files={"files": ("a.png", picture)}).json()[0]
    asked: list[object] = []
    block = next(fn for fn in site.demo.fns.values() if fn.api_name == "say").inputs[0]
    block.async_move_resource_to_block_cache = asked.append
    try:
        for path in ("http://192.0.2.1/drip", own, "/etc/passwd", 5):
            file = {"path": path, "meta": MARK}
            for value in (file, [file], {"a": [{"b": file}]}):
                replies = [
                    site.client.post("/gradio_api/call/say", json={"data": [value]}),
                    site.client.post("/gradio_api/call/v2/say", json={"text": value}),
                    site.client.post(
                        "/gradio_api/queue/join", json={"data": [value], "fn_index": index_of(site, "say"), "session_hash": "s"}
                    ),
                ]
                assert [reply.status_code for reply in replies] == [422] * 3, value
    finally:
        del block.async_move_resource_to_block_cache
    assert asked == []
    assert not server.holds_file({"paths": ["x"]})


def test_lists_and_objects_in_the_place_of_a_single_value_are_refused(site: SimpleNamespace) -> None:
    for value, kind in (([], "a list"), (["x"], "a list"), ({}, "an object"), ({"paths": ["x"]}, "an object")):
        bodies = {
            "call/say": {"data": [value]},
            "call/v2/say": {"text": value},
            "queue/join": {"data": [value], "fn_index": index_of(site, "say"), "session_hash": "s"},
            "call/stream": {"data": [3, value]},
        }
        for path, body in bodies.items():
            reply = site.client.post(f"/gradio_api/{path}", json=body)
            name = "pause" if path == "call/stream" else "text"
            message = f"{name}: expected a single value, got {kind}"
            assert (reply.status_code, reply.json()["detail"][0]["message"]) == (422, message)
    assert all(call(site.client, "say", value)[0] == "complete" for value in ("x", 5, 0.5, True, None))


def test_a_session_keeps_no_value_of_a_call(site: SimpleNamespace) -> None:
    body = {"data": [CANARY], "session_hash": "keeps-nothing"}
    joined = site.client.post("/gradio_api/call/say", json=body).json()["event_id"]
    assert events(site.client, "say", joined)[-1] == ("complete", [CANARY])
    kept = site.demo.state_holder.session_data["keeps-nothing"]
    assert CANARY not in repr(kept.config_values)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("call/say", {"data": []}, 422),
        ("call/say", {"data": ["x", "y"]}, 422),
        ("call/say", {"data": ["x"] * 1000}, 422),
        ("call/say", {"data": {"text": "x"}}, 422),
        ("call/say", {}, 422),
        ("call/v2/say", {}, 422),
        ("call/v2/say", {"text": "x", "other": 1}, 422),
        ("call/v2/unknown", {}, 404),
        ("queue/join", {"data": ["x"], "session_hash": "s"}, 404),
        ("queue/join", {"data": ["x"], "session_hash": "s", "fn_index": 999}, 404),
        ("queue/join", {"data": ["x"], "session_hash": "s", "fn_index": True}, 404),
        ("queue/join", {"data": ["x"], "session_hash": "s", "fn_index": "0"}, 404),
        ("call/say", {"data": ["x"], "session_hash": "s" * 65}, 422),
        ("call/say", {"data": ["x"], "session_hash": "../x"}, 422),
    ],
)
def test_wrong_calls(site: SimpleNamespace, path: str, body: dict[str, Any], status: int) -> None:
    assert site.client.post(f"/gradio_api/{path}", json=body).status_code == status


def test_batched_calls_are_refused(site: SimpleNamespace) -> None:
    body = {"data": [["x"]], "fn_index": index_of(site, "say"), "session_hash": "s", "batched": True}
    assert site.client.post("/gradio_api/queue/join", json=body).status_code == 422


@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"[]", b"5", b'"x"', b"{", b"\xff\xfe", b'{"a": NaN}', b'{"data": [Infinity]}', b'{"data": [-Infinity]}',
        b'{"data": [1e999]}', b'{"data": [' + b"9" * 30 + b"]}", b'{"data": [' + b"9" * 5000 + b"]}", b'{"data": ["\\ud800"]}',
        b'{"\\udfff": 1}', b"[" * 100_000, b'{"data": ' + b"[" * 900 + b"]" * 900 + b"}", b'{"data": ["x"]} x',
        b'{"data": [' + b"{}, " * 10_000 + b"0]}",
    ],
)  # fmt: skip
def test_json_that_is_not_plain_is_refused(body: bytes) -> None:
    with pytest.raises(Refused, match="expected a plain JSON object") as refusal:
        plain_json(body)
    assert refusal.value.status == 400


def test_plain_json_is_taken() -> None:
    value = {"data": [1, -0.5, "x", None, True, {"a": [1e300 / 1e290, 2**63 - 1]}], "session_hash": "é"}
    assert plain_json(json.dumps(value).encode()) == value


def test_the_largest_values_of_the_page_are_plain_json() -> None:
    """A drawing on the largest canvas, and on the figure as many points as it takes; the parts of `/playground` likewise."""
    canvas = {"token": "t" * 32, "x": "A" * (-(-DRAWN_VALUES // 3) * 4), "chosen": [127, 127]}
    figure = {"handles": [{"x": 0.5, "y": -0.5}] * 100, "selected": [0, 5], "drawn": [[-0.12345, 0.12345]] * DRAWN}
    value = {"data": [canvas, figure, "moons", None, 5], "fn_index": 3, "session_hash": "s", "trigger_id": 5}
    assert plain_json(json.dumps(value).encode()) == value


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
    path = {"field": "upload", "file": "upload", "call": "call/say", "join": "queue/join", "cancel": "cancel"}[kind]
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
    assert status == 413
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

    for path in ("/gradio_api/call/say", "/gradio_api/upload"):
        replies = exchange(bare_guard(Limits(body_seconds=0.05)), "POST", path, receive=receive)
        assert replies[0]["status"] == 408


def test_mutated_bodies_never_break_the_server(site: SimpleNamespace, picture: bytes) -> None:
    rng = random.Random(0)
    boundary = b"boundary"
    form = (
        b'--boundary\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
        + picture
        + b"\r\n--boundary--\r\n"
    )
    seeds = {
        "queue/join": json.dumps({"data": ["x"], "fn_index": index_of(site, "say"), "session_hash": "s"}).encode(),
        "call/say": b'{"data": ["x"]}',
        "call/look": b'{"data": [{"path": "x.png", "meta": {"_type": "gradio.FileData"}, "size": 5}]}',
        "call/v2/say": b'{"text": "x"}',
        "cancel": b'{"session_hash": "s", "fn_index": 0, "event_id": "e"}',
        "reset": b'{"event_id": "e"}',
        "upload": form,
    }  # fmt: skip
    alphabet = [
        b"",
        b"\0",
        b"null",
        b"-1",
        b"[",
        b"]",
        b"{",
        b"}",
        b'"',
        b"1e999",
        b"\xff",
        b"\\ud800",
        b"filename",
        b"\r\n",
        b"data",
    ]
    alphabet += [b"9" * 400, b"files", b'"s"', b"true", b"../", "é".encode(), b"name", b"--boundary"]
    for turn in range(200):
        path = list(seeds)[turn % len(seeds)]
        body = bytearray(seeds[path])
        for _ in range(rng.randint(1, 4)):
            start = rng.randrange(len(body) + 1)
            body[start : start + rng.choice([0, 1, 3, 8, 20])] = rng.choice(alphabet)
        kind = b"multipart/form-data; boundary=" + boundary if path == "upload" else b"application/json"
        kind = rng.choice([kind] * 6 + [b"", b"text/plain", b"multipart/form-data", b"application/json; charset=utf-16"])
        reply = site.client.post(f"/gradio_api/{path}", content=bytes(body), headers={b"content-type": kind}, timeout=10)
        assert reply.status_code < 500, (path, kind, bytes(body), reply.text)
    assert call(site.client, "say", "well") == ("complete", ["well"])


# Load


def test_start_and_cancel_storm(site: SimpleNamespace) -> None:
    """However fast a visitor starts and cancels, one step runs at a time, and the next call is answered."""
    site.meter.most = 0
    index = index_of(site, "stream")
    for turn in range(40):
        session = f"storm{turn}"
        body = {"data": [200, 0.005], "fn_index": index, "session_hash": session}
        joined = site.client.post("/gradio_api/queue/join", json=body)
        if joined.status_code == 429:
            assert joined.headers["retry-after"]
            continue
        cancel = {"session_hash": session, "fn_index": index, "event_id": joined.json()["event_id"]}
        assert site.client.post("/gradio_api/cancel", json=cancel).status_code == 200
    assert call(site.client, "stream", 2, 0.001) == ("complete", ["step 2"])
    assert site.meter.most == 1


def test_full_queue_says_when_to_come_back(site: SimpleNamespace) -> None:
    index = index_of(site, "stream")
    joined = []
    for turn in range(server.QUEUE + 10):
        body = {"data": [300, 0.02], "fn_index": index, "session_hash": f"full{turn}"}
        reply = site.client.post("/gradio_api/queue/join", json=body)
        if reply.status_code == 200:
            joined.append({"session_hash": f"full{turn}", "fn_index": index, "event_id": reply.json()["event_id"]})
        else:
            assert (reply.status_code, reply.headers["retry-after"]) == (429, "5")
            assert reply.json()["detail"] == "The queue is full: try again in a few seconds."
    assert server.QUEUE <= len(joined) <= server.QUEUE + 3
    for cancel in reversed(joined):
        site.client.post("/gradio_api/cancel", json=cancel)
    assert call(site.client, "stream", 1, 0.001) == ("complete", ["step 1"])


def test_unfinished_heads_are_closed_and_disturb_nobody(site: SimpleNamespace) -> None:
    sockets = [socket.create_connection(("127.0.0.1", site.port)) for _ in range(40)]
    try:
        for index, connection in enumerate(sockets):
            connection.settimeout(20)
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n" if index % 2 else b"")
        second = sockets[0]
        second.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        reply = b""
        while b'{"alive":true}' not in reply:
            reply += second.recv(65536)
        assert reply.startswith(b"HTTP/1.1 200")
        second.sendall(b"GET /healthz HTTP/1.1\r\n")
        assert site.client.get("/healthz").status_code == 200
        for connection in sockets:
            with suppress(ConnectionResetError):
                assert connection.recv(65536) == b""
    finally:
        for connection in sockets:
            connection.close()


def test_aborted_uploads_are_swept(site: SimpleNamespace, picture: bytes) -> None:
    head = b"POST /gradio_api/upload HTTP/1.1\r\nHost: x\r\nContent-Length: 90000\r\n"
    head += b"Content-Type: multipart/form-data; boundary=b\r\n\r\n"
    part = b'--b\r\nContent-Disposition: form-data; name="files"; filename="x.png"\r\n\r\n' + bytes(20_000)
    before = set(site.uploads.glob("tmp*"))
    for index in range(60):
        if index % 2:
            site.client.post("/gradio_api/upload", files={"files": (f"{index}.png", picture + bytes(20_000) + bytes([index]))})
        else:
            with socket.create_connection(("127.0.0.1", site.port)) as connection:
                connection.sendall(head + part)
                wait_until(lambda: not set(site.uploads.glob("tmp*")) <= before)
            wait_until(lambda: set(site.uploads.glob("tmp*")) <= before)
    (site.uploads / "tmporphan").write_bytes(bytes(20_000))
    sweeper = server.Sweeper(str(site.uploads), keep=set, max_bytes=300_000)
    sweeper.sweep()
    left = [path for path in site.uploads.rglob("*") if path.is_file()]
    assert 0 < sum(-(-path.stat().st_size // 4096) * 4096 for path in left) <= 300_000
    server.Sweeper(str(site.uploads), keep=set, max_seconds=-1).sweep()
    assert [path for path in site.uploads.rglob("*") if path.is_file()] == []
    path = site.client.post("/gradio_api/upload", files={"files": ("a.png", picture)}).json()[0]
    assert call(site.client, "look", {"path": path, "meta": MARK}) == ("complete", ["(5, 7, 3)"])


def test_sweeper_takes_the_oldest_and_leaves_what_is_kept(tmp_path: Path) -> None:
    now = time.time()
    for index in range(6):
        (tmp_path / f"d{index}").mkdir()
        path = tmp_path / f"d{index}" / "file"
        path.write_bytes(bytes(4096))
        os.utime(path, (now - 100 + index, now - 100 + index))
    (tmp_path / "old").write_bytes(b"x")
    os.utime(tmp_path / "old", (now - 9000, now - 9000))
    (tmp_path / "empty").mkdir()
    os.utime(tmp_path / "empty", (now - 90, now - 90))
    kept = {str(tmp_path / "d0" / "file")}
    server.Sweeper(str(tmp_path), keep=lambda: kept, max_bytes=3 * 4096).sweep()
    assert sorted(path.parent.name for path in tmp_path.rglob("file")) == ["d0", "d4", "d5"]
    assert not (tmp_path / "old").exists()
    assert not (tmp_path / "empty").exists()


def test_sweeping_goes_on_in_its_thread(tmp_path: Path) -> None:
    sweeper = server.Sweeper(str(tmp_path), keep=set, max_bytes=0)
    with sweeper.running(every=0.01):
        for _ in range(2):
            (tmp_path / "file").write_bytes(b"x")
            wait_until(lambda: not (tmp_path / "file").exists())
    assert not any(thread.name == "sweeper" and thread.daemon and not thread.is_alive() for thread in threading.enumerate())


# One visitor's share: the guard alone around an application that answers everything


async def answer(scope: dict, receive: Callable[[], Awaitable[dict]], send: Callable[[dict], Awaitable[None]]) -> None:
    while (await receive()).get("more_body"):
        pass
    body = b'{"event_id": "job"}'
    await send({"type": "http.response.start", "status": 200, "headers": [(b"server", b"x/1")]})
    await send({"type": "http.response.body", "body": body})


@pytest.mark.parametrize(("error", "status", "body"), [(KeyError("job"), 200, {"success": True}), (OSError(), 500, None)])
def test_cancelling_a_job_that_ends_in_that_moment_succeeds(error: Exception, status: int, body: Any) -> None:
    async def trips(scope: dict, receive: Callable[[], Awaitable[dict]], send: Callable[[dict], Awaitable[None]]) -> None:
        await send({"type": "http.response.start", "status": 500, "headers": []})
        await send({"type": "http.response.body", "body": b"Internal Server Error"})
        raise error

    guard = Guard(trips, FREE, ["/uploads"], lambda _: False, lambda *_: False, nobody_leaves)
    start, content = exchange(guard, "POST", "/gradio_api/cancel")
    assert start["status"] == status
    assert json.loads(content["body"]) == (body or {"detail": "Something went wrong on the server."})
    assert exchange(guard, "POST", "/gradio_api/reset")[0]["status"] == 500


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
    return Guard(answer, limits, ["/uploads"], alive, lambda _, body: body.get("fn_index") == 1, nobody_leaves)


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
    return [exchange(guard, "POST", "/gradio_api/call/say", **options)[0]["status"] for _ in range(n)]


def test_rate_of_one_visitor() -> None:
    guard = bare_guard(Limits(burst=3, per_second=0.1))
    now = 0.0
    guard.allowance.clock = lambda: now
    assert statuses(guard, 5) == [200, 200, 200, 429, 429]
    refused = exchange(guard, "POST", "/gradio_api/call/say")[0]
    assert (refused["status"], dict(refused["headers"])[b"retry-after"]) == (429, b"10")
    assert statuses(guard, 1, peer="192.0.2.2") == [200]
    assert exchange(guard, "GET", "/gradio_api/queue/data")[0]["status"] == 200
    now = 10.0
    assert statuses(guard, 2) == [200, 429]
    now = 1e6
    assert statuses(guard, 4) == [200, 200, 200, 429]


def test_uploads_have_a_bucket_of_their_own_that_keeps_room_for_others() -> None:
    guard = bare_guard(Limits(burst=1, uploads_burst=2, uploads_per_second=1e-9))
    assert [exchange(guard, "POST", "/gradio_api/upload")[0]["status"] for _ in range(3)] == [200, 200, 429]
    assert statuses(guard, 2) == [200, 429]
    assert Limits().uploads_burst * Limits().upload_bytes < server.KEPT_BYTES


def test_the_name_of_an_upload_is_short_and_not_asked_for_without_end() -> None:
    guard = bare_guard(Limits(light_burst=3, light_per_second=1e-9))
    for method, path in (("GET", "/gradio_api/upload_progress"), ("POST", "/gradio_api/upload")):
        assert exchange(guard, method, path, query=b"upload_id=" + b"x" * 100)[0]["status"] == 400
        assert exchange(guard, method, path, query=b"upload_id=12345678901")[0]["status"] == 200
    progress = [exchange(guard, "GET", "/gradio_api/upload_progress", query=b"upload_id=1")[0]["status"] for _ in range(3)]
    assert progress == [200, 200, 429]


def test_ending_a_job_counts_as_light() -> None:
    guard = bare_guard(Limits(burst=1, light_burst=4, light_per_second=1e-9))
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
    guard = bare_guard(Limits(burst=2, per_second=0.1, light_burst=6, light_per_second=1))
    now = 0.0
    guard.allowance.clock = guard.light.clock = lambda: now

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


def test_what_is_light_follows_from_the_function_that_is_called(site: SimpleNamespace) -> None:
    """Only what answers once, of which only the newest matters, that decodes no picture, and that has no name for programs."""
    calls = server.Calls(site.demo)

    def light(name: str, data: list[Any], path: str = "/gradio_api/queue/join") -> bool:
        return calls.check(path, {"data": data, "fn_index": index_of(site, name), "trigger_id": index_of(site, "light")})

    assert light("light", ["x"])
    assert not any(light(name, ["x"]) for name in ("say", "own", "newest"))
    assert not light("light_stream", [1, 0])
    assert not light("light_look", [None])
    assert not light("stream", [1, 0])


def test_the_figures_pace_stays_below_what_a_visitor_may() -> None:
    gap = int(re.search(r"GAP_MS = (\d+)", (ROOT / "genlab/demo/components/controls/requests.js").read_text())[1])
    assert 1000 / gap < Limits().light_per_second


def test_a_visitor_who_leaves_before_the_results_are_asked_for_leaves_no_job(site: SimpleNamespace) -> None:
    ended = site.meter.ended
    body = {"data": [10_000, 0.01], "fn_index": index_of(site, "stream"), "session_hash": "leaves"}
    with site.client.stream("GET", "/gradio_api/heartbeat/leaves") as presence:
        alive = presence.iter_lines()
        assert next(alive) == "data: ALIVE"
        job = site.client.post("/gradio_api/queue/join", json=body).json()["event_id"]
        wait_until(lambda: site.meter.now == 1)
        assert server.Calls(site.demo).alive(job)
        assert site.meter.ended == ended
    wait_until(lambda: site.meter.ended == ended + 1, seconds=FREE.unheard_seconds - 1)


def test_results_that_nobody_fetches_are_dropped(site: SimpleNamespace) -> None:
    queue = site.demo._queue
    for name, path in (("page", "queue/join"), ("named", "call/say")):
        for _ in range(3):
            body = {"data": ["x"], "fn_index": index_of(site, "say"), "session_hash": name}
            assert site.client.post(f"/gradio_api/{path}", json=body).status_code == 200
        wait_until(lambda name=name: queue.pending_messages_per_session[name].qsize() >= 6)
    anonymous = site.client.post("/gradio_api/call/say", json={"data": ["x"]}).json()["event_id"]
    kept = (queue.pending_messages_per_session, queue.pending_event_ids_session)
    assert all(name in sessions for sessions in kept for name in ("page", "named", anonymous))
    wait_until(lambda: not any(name in sessions for sessions in kept for name in ("page", "named", anonymous)))


def test_a_call_by_name_that_nobody_follows_ends_and_one_that_is_followed_goes_on(site: SimpleNamespace) -> None:
    ended = site.meter.ended
    followed, left = (
        site.client.post("/gradio_api/call/stream", json={"data": [n, 0.01]}).json()["event_id"] for n in (400, 10_000)
    )
    assert events(site.client, "stream", followed)[-1] == ("complete", ["step 400"])
    assert site.meter.ended == ended + 1
    wait_until(lambda: not server.Calls(site.demo).alive(left))


def test_a_session_that_goes_on_keeps_what_it_has(site: SimpleNamespace) -> None:
    """A job that was followed to its end is looked for when the next one of its session has only just been put in."""
    calls = server.Calls(site.demo)
    body = {"data": ["x"], "fn_index": index_of(site, "say"), "session_hash": "goes-on"}
    first = site.client.post("/gradio_api/queue/join", json=body).json()["event_id"]
    with site.client.stream("GET", "/gradio_api/queue/data?session_hash=goes-on") as results:
        assert any("process_completed" in line for line in results.iter_lines())
    body |= {"data": [300, 0.01], "fn_index": index_of(site, "stream")}
    second = site.client.post("/gradio_api/queue/join", json=body).json()["event_id"]
    asyncio.run(calls.leave("goes-on", first))
    assert calls.alive(second)
    with site.client.stream("GET", "/gradio_api/queue/data?session_hash=goes-on") as results:
        assert any("step 300" in line for line in results.iter_lines())


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

        limits = Limits(unheard_seconds=0.05)
        guard = Guard(app, limits, [], lambda _: True, lambda *_: False, leave)
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
        await asyncio.sleep(4 * limits.unheard_seconds)
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
        guard = Guard(answer, Limits(unheard_seconds=0), [], lambda _: True, lambda *_: False, fails)
        guard.expect("s", "job", 0)
        await asyncio.gather(*guard._tasks)

    asyncio.run(run())
    assert CANARY in caplog.text


def test_allowance_forgets_the_visitors_that_came_longest_ago() -> None:
    allowance = Allowance(per_second=1, burst=1, clock=lambda: 0.0, kept=2)
    assert [allowance.take(visitor) for visitor in ("a", "b", "c", "b", "a")] == [0, 0, 0, 1, 0]
    assert len(allowance.buckets) == 2


def test_forwarded_addresses_give_no_extra_share() -> None:
    guard = bare_guard(Limits(burst=2, per_second=1e-9))
    spoofed = [statuses(guard, 1, headers={"X-Forwarded-For": f"198.51.100.{index}"})[0] for index in range(4)]
    assert spoofed == [200, 200, 429, 429]
    guard = bare_guard(Limits(burst=2, per_second=1e-9, proxies=1))
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
    ],
)
def test_whom_a_request_counts_for(proxies: int, forwarded: str, visitor: str) -> None:
    headers = [(b"x-forwarded-for", forwarded.encode())] if forwarded else []
    scope = {"type": "http", "headers": headers, "client": ("192.0.2.1", 1)}
    assert bare_guard(Limits(proxies=proxies)).visitor(scope) == visitor


def test_jobs_of_one_visitor() -> None:
    unfinished = {"job"}
    guard = bare_guard(Limits(queued=1), alive=lambda job: job in unfinished)
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

        guard = Guard(app, Limits(open=3), [], lambda _: False, lambda *_: False, nobody_leaves)

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
        assert not guard.open
        return found

    assert asyncio.run(run()) == [429, 429, 200, 200, 200, 200]


def test_the_whole_page_is_not_read_as_often_as_one_likes() -> None:
    guard = bare_guard(Limits(whole_burst=3, whole_per_second=1e-9))
    paths = ("/", "/config", "/gradio_api/info", "/gradio_api/openapi.json", "/healthz", "/theme.css")
    assert [exchange(guard, "GET", path)[0]["status"] for path in paths] == [200, 200, 200, 429, 200, 200]
    assert exchange(guard, "GET", "/", peer="192.0.2.2")[0]["status"] == 200


def test_jobs_of_the_page_are_counted_until_they_end(site: SimpleNamespace) -> None:
    calls = server.Calls(site.demo)
    joined = site.client.post("/gradio_api/call/stream", json={"data": [10_000, 0.01]}).json()["event_id"]
    assert calls.alive(joined)
    with site.client.stream("GET", f"/gradio_api/call/stream/{joined}") as reply:
        next(reply.iter_lines())
    wait_until(lambda: not calls.alive(joined))
    assert not calls.alive("unknown")


def test_failure_of_the_application_is_a_plain_reply() -> None:
    async def broken(scope: dict, receive: Any, send: Any) -> None:
        raise RuntimeError(CANARY)

    guard = Guard(broken, FREE, [], lambda _: False, lambda *_: False, nobody_leaves)
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


# Start and stop


def test_address(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GRADIO_SERVER_NAME", "GRADIO_SERVER_PORT", "SPACE_ID", "GENLAB_PROXIES"):
        monkeypatch.delenv(name, raising=False)
    assert server.address(None, None) == ("127.0.0.1", 7860)
    assert server.proxies() == 0
    monkeypatch.setenv("SPACE_ID", "someone/genlab")
    assert server.address(None, None) == ("0.0.0.0", 7860)
    assert server.proxies() == 1
    monkeypatch.setenv("GRADIO_SERVER_NAME", "192.0.2.7")
    monkeypatch.setenv("GRADIO_SERVER_PORT", "8000")
    monkeypatch.setenv("GENLAB_PROXIES", "2")
    assert server.address(None, None) == ("192.0.2.7", 8000)
    assert server.address("::1", 1) == ("::1", 1)
    assert server.proxies() == 2
    for port in ("x", "-1", "65536", "1.5"):
        monkeypatch.setenv("GRADIO_SERVER_PORT", port)
        with pytest.raises(SystemExit, match=f"GRADIO_SERVER_PORT: expected a whole number from 0 to 65535, got '{port}'"):
            server.address(None, None)


def test_who_reads_nothing_is_cut_off_and_who_reads_slowly_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "UNREAD_SECONDS", 1.5)
    gone: list[str] = []

    async def endless(scope: dict, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for answer_to in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{answer_to}.complete"})
            return

        async def left() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        leaving = asyncio.create_task(left())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not leaving.done():
            await send({"type": "http.response.body", "body": bytes(100_000), "more_body": True})
            await asyncio.sleep(0)
        gone.append(scope["path"])

    def open_stream(port: int, path: str) -> socket.socket:
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", port))
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return connection

    with running(endless) as instance, open_stream(instance.port, "/slow") as slow, open_stream(instance.port, "/deaf"):
        deadline = time.monotonic() + 30
        while not gone and time.monotonic() < deadline:
            assert slow.recv(65536)
            time.sleep(0.02)
        assert gone == ["/deaf"]
        assert slow.recv(4096)


def test_a_session_whose_results_are_not_read_gets_no_more(site: SimpleNamespace) -> None:
    calls, body = server.Calls(site.demo), {"data": [1, 0.01], "session_hash": "deaf"}
    calls.check("/gradio_api/call/stream", body)
    waiting: asyncio.Queue[int] = asyncio.Queue()
    site.demo._queue.pending_messages_per_session["deaf"] = waiting
    try:
        for number in range(server.UNREAD + 1):
            calls.check("/gradio_api/call/stream", body)
            waiting.put_nowait(number)
        with pytest.raises(Refused) as refused:
            calls.check("/gradio_api/call/stream", body)
    finally:
        site.demo._queue.pending_messages_per_session.pop("deaf")
    assert refused.value.status == 429


def test_connections_send_at_once() -> None:
    with server.listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_new_visitor_does_not_have_the_whole_page_described(monkeypatch: pytest.MonkeyPatch) -> None:
    with gr.Blocks() as demo:
        name, greeting = gr.Textbox("you"), gr.Textbox()
        name.submit(lambda who: f"hello {who}", name, greeting, api_name="greet")
    described: list[int] = []
    config = type(demo.default_config)
    describe = config.config_for_block
    with tiny.served(demo) as url:
        client = Client(url, token=False, verbose=False)
        watched = staticmethod(lambda number, *more: (described.append(number), describe(number, *more))[1])
        monkeypatch.setattr(config, "config_for_block", watched)
        assert client.predict("me", api_name="/greet") == "hello me"
    assert set(described) <= {name._id, greeting._id}


def test_no_statistics_are_kept_of_what_visitors_do() -> None:
    with gr.Blocks() as demo:
        name, greeting = gr.Textbox("you"), gr.Textbox()
        name.submit(lambda who: f"hello {who}", name, greeting, api_name="greet")
    with tiny.served(demo) as url:
        client = Client(url, token=False, verbose=False)
        for who in "abc":
            assert client.predict(who, api_name="/greet") == f"hello {who}"
    assert demo._queue.cached_event_analytics_summary == {"functions": {}}
    assert len(demo._queue.event_analytics) == 1


def test_the_queue_rests_longer_between_two_looks_than_gradios_own() -> None:
    demo = page(Meter())
    assert 0 < demo._queue.sleep_when_free < server.POLL_SECONDS
    server.build(demo, ready=lambda: True, limits=FREE)
    assert demo._queue.sleep_when_free == server.POLL_SECONDS


def test_a_job_that_is_cancelled_in_the_moment_of_its_start_gives_its_place_back() -> None:
    from gradio.utils import set_task_name

    places = 1

    async def job() -> None:
        nonlocal places
        try:
            await asyncio.sleep(60)
        finally:
            places += 1

    async def start_and_cancel() -> list[str]:
        nonlocal places
        places -= 1
        task = asyncio.create_task(job())
        set_task_name(task, "session", 0, "event", False)
        cancelled = await gradio.routes.cancel_tasks({"session_0"})
        assert task.cancelled()
        return cancelled

    server.build(page(Meter()), ready=lambda: True, limits=FREE)
    assert asyncio.run(start_and_cancel()) == ["event"]
    assert places == 1


def test_busy_port_names_the_port_and_the_flag() -> None:
    with server.listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit, match=f"^port {port} is in use: .*--port$"):
            server.listen("127.0.0.1", port)
    with pytest.raises(SystemExit, match=r"^cannot listen on 203\.0\.113\.1:1 .*--port$"):
        server.listen("203.0.113.1", 1)


def test_page_made_with_other_folders_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "shared"))
    with gr.Blocks() as demo:
        pass
    with pytest.raises(ValueError, match=r"expected a page made after genlab\.serving\.server was imported"):
        server.build(demo, ready=lambda: True)


PROGRAM = """
import os, time
from genlab.serving import server
import gradio as gr

def stream():
    for index in range(20):
        time.sleep(0.05)
        yield f"step {index + 1}"

with gr.Blocks() as demo:
    text = gr.Textbox(label="text")
    gr.Button().click(stream, None, text, api_name="stream")
server.serve(demo, port=0, ready=lambda: True)
"""


def test_sigterm_while_streaming(tmp_path: Path) -> None:
    """The stream that is under way ends by itself, no new connection is taken, the program ends with 0 and leaves no file."""
    environment = {**os.environ, "GRADIO_TEMP_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    program = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, env=environment, text=True)
    assert program.stdout is not None
    try:
        url = program.stdout.readline().removeprefix("genlab: open ").strip()
        with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
            assert [path.stat().st_mode & 0o777 for path in tmp_path.iterdir()] == [0o700]
            joined = client.post("/gradio_api/call/stream", json={"data": []}).json()["event_id"]
            with client.stream("GET", f"/gradio_api/call/stream/{joined}") as reply:
                lines = reply.iter_lines()
                assert next(line for line in lines if "step" in line) == 'data: ["step 1"]'
                program.send_signal(signal.SIGTERM)
                rest = list(lines)
            assert rest[-3:-1] == ["event: complete", 'data: ["step 20"]']
            # A connection of its own: that of the stream may still wait for the server's last word, and is then reset.
            with pytest.raises(httpx.ConnectError):
                httpx.get(f"{url}/healthz", trust_env=False)
        assert program.wait(30) == 0
        assert list(tmp_path.iterdir()) == []
    finally:
        if program.poll() is None:
            program.kill()
        program.stdout.close()
