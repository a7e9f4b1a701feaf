"""What operators see: metrics, the log, readiness, and a restart."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from genlab.demo.turns import Scheduler
from genlab.serving import operations, pages
from genlab.serving.refusal import TEXT, Refused
from tests.small_page import CANARY, call, wait_until
from tests.tiny import last_event

ROOT = Path(__file__).parents[1]


@pytest.fixture
def metrics(site: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The numbers of the site, by name and labels."""
    monkeypatch.setenv("GENLAB_METRICS_PORT", "0")
    collectors = set(operations.REGISTRY._collector_to_names)
    served = operations.serve_metrics(site.app.state.pages.jobs)
    assert served is not None
    assert served.server_address[0] == "127.0.0.1"

    def read() -> dict[str, float]:
        text = httpx.get(f"http://127.0.0.1:{served.server_port}/metrics", trust_env=False).text
        assert CANARY not in text
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in text.splitlines() if line[0] != "#"}

    yield read
    served.shutdown()
    served.server_close()
    for collector in set(operations.REGISTRY._collector_to_names) - collectors:
        operations.REGISTRY.unregister(collector)


def test_metrics_count_requests_refusals_and_jobs_and_are_not_on_the_public_port(site: SimpleNamespace, metrics: Any) -> None:
    asked = 'genlab_requests_total{route="POST /gradio_api/call",status="200"}'
    done = 'genlab_jobs_total{endpoint="echo",outcome="done"}'
    refused = ['{reason="not found",status="404"}', '{reason="bad request",status="400"}']
    counted = [asked, done, *(f"genlab_refusals_total{labels}" for labels in refused)]
    before = metrics()
    assert call(site.client, "echo", "x") == ("complete", ["x"])
    assert site.client.get("/nothing/at/all?x=1").status_code == 404
    assert site.client.post("/gradio_api/call/echo", content=b"[").status_code == 400
    # A request is counted after its reply is sent.
    wait_until(lambda: all(metrics().get(name, 0) > before.get(name, 0) for name in counted))
    after = metrics()
    assert [after[name] - before.get(name, 0) for name in (asked, done)] == [1, 1]
    assert after['genlab_queue_jobs{kind="echo",state="running"}'] == 0
    assert after["process_resident_memory_bytes"] > 1e6
    assert "genlab_files_bytes" in after
    assert site.client.get("/metrics").status_code == 404


def test_a_reason_is_one_of_few_whatever_was_sent() -> None:
    assert Refused(429, TEXT["jobs"].format(most=12)).reason == "jobs"
    assert Refused(429, TEXT["open"].format(most=128)).reason == "open"
    assert Refused(400, "expected a number, got 'me@example.org'").reason == "bad request"


def test_the_log_has_a_line_for_every_request_and_job_and_nobodys_address(
    site: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "genlab.requests")
    assert call(site.client, "echo", "my secret") == ("complete", ["my secret"])
    site.client.get(f"/gradio_api/file={site.uploads}/mine.png")

    def lines() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.name == "genlab.requests"]

    # A request is logged after its reply is sent.
    for start, end in ("job ", " done "), ("POST /gradio_api/call ", "200 answered"), ("GET /gradio_api/file ", ""):
        wait_until(lambda start=start, end=end: any(start in line and end in line for line in lines()))
    assert not any(word in line for line in lines() for word in ("127.0.0.1", "secret", "mine", str(site.uploads)))
    assert operations.pseudonym("203.0.113.5") == operations.pseudonym("203.0.113.5") != operations.pseudonym("203.0.113.6")


def test_an_error_is_logged_once_in_a_while(site: SimpleNamespace, caplog: pytest.LogCaptureFixture, capfd: Any) -> None:
    now, log = [0.0], logging.getLogger("genlab.serving")
    rarely = operations.Rarely(lambda: now[0])
    log.addFilter(rarely)
    try:
        for seconds in (0, 1, 2, 61):
            now[0] = seconds
            assert call(site.client, "fail", "x")[0] == "error"
    finally:
        log.removeFilter(rarely)
    assert [record.getMessage() for record in caplog.records if record.name == "genlab.serving"] == [
        "a job failed",
        "a job failed (2 more like this)",
    ]
    assert "Traceback" not in capfd.readouterr().err


def test_a_server_whose_queue_stays_full_or_that_stops_is_not_ready(
    site: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = site.app.state.pages
    monkeypatch.setattr(pages, "FULL_SECONDS", 0.0)
    monkeypatch.setattr(served, "jobs", lambda: [("model", served.limits.waiting, 2)])
    reply = site.client.get("/readyz")
    assert (reply.status_code, reply.json()["reason"]) == (503, "the queue has been full for 0 seconds")
    monkeypatch.undo()
    assert site.client.get("/readyz").status_code == 200
    monkeypatch.setattr(served, "draining", True)
    assert site.client.get("/readyz").json()["reason"] == "the server stops"
    assert site.client.get("/healthz").status_code == 200
    refused = site.client.post("/gradio_api/call/echo", json={"data": ["x"]})
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")


def test_a_models_thread_that_does_not_come_back_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = Scheduler()
    assert scheduler.stuck() == 0
    monkeypatch.setattr("genlab.demo.turns.DEADLINE", -1.0)
    assert scheduler.alone(scheduler.stuck, time.monotonic() + 60) > 0
    assert scheduler.stuck() == 0


PROGRAM = """
import os, time
from genlab.serving.gradio_patches import import_gradio
import_gradio()
from genlab.serving import server
from genlab.serving.results import save_result
import gradio as gr
server.GRACE_SECONDS, server.EXIT_SECONDS = 15, 1

def short():
    while not os.path.exists("stops"):
        time.sleep(0.05)
        yield None
    yield save_result(b"result", "result.txt")

def long():
    yield "begun"
    while True:
        time.sleep(0.05)
        yield "on"

def deaf():
    yield "begun"
    time.sleep(3600)

with gr.Blocks(analytics_enabled=False) as demo:
    text, file = gr.Textbox(label="text"), gr.File(label="file")
    gr.Button().click(short, None, file, api_name="short")
    gr.Button().click(long, None, text, api_name="long")
    gr.Button().click(deaf, None, text, api_name="deaf")
server.serve(demo, port=0, ready=lambda: True)
"""


def test_a_restart_lets_jobs_end_tells_the_others_and_serves_what_has_ended(tmp_path: Path) -> None:
    """And a thread that does not stop holds nothing up."""
    (tmp_path / "files").mkdir()
    environment = {**os.environ, "GRADIO_TEMP_DIR": str(tmp_path / "files"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", PROGRAM]
    program = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, cwd=tmp_path, text=True)
    assert program.stdout is not None
    try:
        url = program.stdout.readline().removeprefix("genlab: open ").strip()
        with httpx.Client(base_url=url, timeout=120, trust_env=False) as client, ThreadPoolExecutor(3) as streams:
            ends = {}
            for name in ("short", "long", "deaf"):
                path = f"/gradio_api/call/{name}"
                event_id = client.post(path, json={"data": []}).json()["event_id"]
                ends[name] = streams.submit(last_event, client, f"{path}/{event_id}")
            program.send_signal(signal.SIGTERM)
            wait_until(lambda: client.get("/readyz").status_code == 503)
            refused = client.post("/gradio_api/call/short", json={"data": []})
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
            (tmp_path / "stops").touch()
            event, (file,) = ends["short"].result()
            assert event == "complete"
            assert client.get(file["url"]).content == b"result"
            for name in ("long", "deaf"):
                event, said = ends[name].result()
                assert (event, said["error"]) == ("error", "The server restarts: try again in a few seconds.")
        assert program.wait(60) == 0
        assert list(tmp_path.glob("files/*/*")) == []
    finally:
        if program.poll() is None:
            program.kill()
        program.stdout.close()
