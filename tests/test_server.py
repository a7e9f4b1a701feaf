"""The public server as a whole: what it serves, under load, how it starts and how it stops."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import httpx
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError, ValidationError

from genlab.serving import server
from tests.small_page import CANARY, MARK, call, index_of, wait_until
from tests.tiny import last_event

ROOT = Path(__file__).parents[1]


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
    assert client.predict(handle_file(tmp_path / "red.png"), api_name="/size") == "(5, 7, 3)"
    assert list(client.submit(3, 0.01, api_name="/stream")) == ["step 1", "step 2", "step 3"]
    ended = site.meter.ended
    job = client.submit(10_000, 0.02, api_name="/stream")
    for _ in job:
        break
    assert job.cancel()
    assert client.predict(1, 0.01, api_name="/stream") == "step 1"
    assert site.meter.ended == ended + 2
    with pytest.raises(ValidationError, match="Expected one still PNG"):
        client.predict({"path": "/etc/hostname", "meta": MARK}, api_name="/size")
    with pytest.raises(AppError) as failure:
        client.predict("x", api_name="/fail")
    assert CANARY not in str(failure.value)


def test_rest_call_by_name(site: SimpleNamespace) -> None:
    joined = site.client.post("/gradio_api/call/v2/stream", json={"n": 2, "pause": 0.01})
    assert joined.status_code == 200
    event_id = joined.json()["event_id"]
    assert last_event(site.client, f"/gradio_api/call/stream/{event_id}") == ("complete", ["step 2"])
    assert "/call/v2/stream" in site.client.get("/gradio_api/openapi.json").text
    assert set(site.client.get("/gradio_api/info").json()["named_endpoints"]) == {"/stream", "/size", "/fail", "/echo"}


def test_stream_arrives_piece_by_piece(site: SimpleNamespace) -> None:
    """The first step is read while the handler has not begun the last one."""
    ended = site.meter.ended
    joined = site.client.post("/gradio_api/call/stream", json={"data": [10_000, 0.01]})
    with site.client.stream("GET", f"/gradio_api/call/stream/{joined.json()['event_id']}") as reply:
        assert next(line for line in reply.iter_lines() if "step" in line) == 'data: ["step 1"]'
        assert site.meter.ended == ended
    wait_until(lambda: site.meter.ended == ended + 1)


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


def test_token_in_the_environment_is_in_no_reply(site: SimpleNamespace) -> None:
    texts = [site.client.get(path).text for path in ("/", "/config", "/gradio_api/info", "/gradio_api/openapi.json", "/readyz")]
    texts += [str(call(site.client, "fail", "x")), str(call(site.client, "echo", "$HF_TOKEN {HF_TOKEN} ${HF_TOKEN}"))]
    for body in (b"{", b"{}", b'{"data": 5}', b'{"data": [1, 2, 3]}', b"\xff"):
        for path in ("queue/join", "call/fail", "call/v2/fail", "cancel", "reset", "upload"):
            texts.append(site.client.post(f"/gradio_api/{path}", content=body).text)
    for path in ("heartbeat/..", "queue/data", "upload_progress", "call/fail/unknown", "file=/proc/self/environ"):
        texts.append(site.client.get(f"/gradio_api/{path}").text)
    assert texts[-2].startswith("event: error")
    assert not any(CANARY in text for text in texts)
    assert call(site.client, "fail", "x") == ("error", {**call(site.client, "fail", "x")[1], "error": None})


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
    assert (server.hosts("127.0.0.1"), server.hosts("0.0.0.0")) == (None, None)
    monkeypatch.setenv("GENLAB_PROXIES", "0")
    assert (server.hosts("127.0.0.1"), server.hosts("::1"), server.hosts("localhost"), server.hosts("0.0.0.0")) == (
        (),
        (),
        (),
        None,
    )
    monkeypatch.setenv("GENLAB_HOSTS", "demo.example, *.example.org")
    assert server.hosts("0.0.0.0") == ("demo.example", "*.example.org")
    for port in ("x", "-1", "65536", "1.5"):
        monkeypatch.setenv("GRADIO_SERVER_PORT", port)
        with pytest.raises(SystemExit, match=f"GRADIO_SERVER_PORT: expected a whole number from 0 to 65535, got '{port}'"):
            server.address(None, None)


def test_page_made_with_other_folders_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "shared"))
    with gr.Blocks() as demo:
        pass
    with pytest.raises(ValueError, match="expected a page made after import_gradio"):
        server.build(demo, ready=lambda: True)


def test_a_page_that_reports_its_use_is_refused() -> None:
    with gr.Blocks() as demo:
        pass
    demo.analytics_enabled = True
    with pytest.raises(ValueError, match="expected a page made with analytics_enabled=False"):
        server.build(demo, ready=lambda: True)


PROGRAM = """
import time
from genlab.serving.gradio_patches import import_gradio
import_gradio()
from genlab.serving import pages, server
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
    """The stream that is under way ends by itself, the program ends with 0 and leaves no file (see `test_operations`)."""
    environment = {**os.environ, "GRADIO_TEMP_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    program = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, env=environment, text=True)
    assert program.stdout is not None
    try:
        url = program.stdout.readline().removeprefix("genlab: open ").strip()
        with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
            assert [path.stat().st_mode & 0o777 for path in tmp_path.iterdir() if path.is_dir()] == [0o700]
            joined = client.post("/gradio_api/call/stream", json={"data": []}).json()["event_id"]
            with client.stream("GET", f"/gradio_api/call/stream/{joined}") as reply:
                lines = reply.iter_lines()
                assert next(line for line in lines if "step" in line) == 'data: ["step 1"]'
                program.send_signal(signal.SIGTERM)
                rest = list(lines)
            assert rest[-3:-1] == ["event: complete", 'data: ["step 20"]']
        assert program.wait(30) == 0
        assert list(tmp_path.iterdir()) == []
    finally:
        if program.poll() is None:
            program.kill()
        program.stdout.close()
