"""A page that is replaced by another while visitors use it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace

import gradio as gr
import httpx
import pytest

from genlab.serving import pages, server
from genlab.serving.limits import Limits
from tests import tiny
from tests.small_page import FREE, wait_until
from tests.tiny import last_event


def page(name: str, more: int = 0) -> gr.Blocks:
    """A page that tells its name, at an index of its own, and its name step by step."""
    go = threading.Event()

    def steps() -> Iterator[str]:
        yield f"{name} begins"
        go.wait(60)
        yield f"{name} ends"

    with gr.Blocks(title=name, analytics_enabled=False) as demo:
        text = gr.Textbox()
        for _ in range(more):
            gr.Button().click(lambda: "another", None, text, api_visibility="private")
        gr.Button().click(lambda: name, None, text, api_name="name")
        gr.Button().click(steps, None, text, api_name="steps")
        gr.Button().click(lambda: name, None, text, api_name=f"only_{name}")
    demo.go = go
    return demo


@pytest.fixture
def site() -> Iterator[SimpleNamespace]:
    demo = page("one")
    app = server.build(demo, ready=lambda: True, limits=FREE)
    with tiny.running(app) as instance, httpx.Client(base_url=instance.url, timeout=30, trust_env=False) as client:
        yield SimpleNamespace(client=client, pages=app.state.pages, demo=demo)


def call(site: SimpleNamespace, session: str, index: int = 0) -> str:
    """Call the function of an index as a page's script does; the last result."""
    body = {"data": [], "fn_index": index, "session_hash": session}
    event = site.client.post("/gradio_api/queue/join", json=body).json()["event_id"]
    with site.client.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as reply:
        for line in reply.iter_lines():
            if event in line and "process_completed" in line:
                return line
    return ""


def title(site: SimpleNamespace) -> str:
    return site.client.get("/config").json()["title"]


def test_a_visitor_keeps_the_page_that_he_began_with(site):
    assert '"one"' in call(site, "early")
    site.pages.replace(page("two", more=1))
    assert title(site) == "two"
    assert '"two"' in call(site, "late", 1)
    assert '"one"' in call(site, "early")
    assert site.client.post("/gradio_api/call/only_two", json={"data": []}).status_code == 200
    assert site.client.post("/gradio_api/call/only_one", json={"data": []}).status_code == 404


def test_what_runs_goes_on(site):
    """A call by name: its stream is opened, and its results are fetched, after the page was replaced."""
    running, done = (
        site.client.post(f"/gradio_api/call/{name}", json={"data": []}).json()["event_id"] for name in ("steps", "name")
    )
    wait_until(lambda: site.pages.newest.calls.alive(running) and not site.pages.newest.calls.alive(done))
    site.pages.replace(page("two"))
    assert last_event(site.client, f"/gradio_api/call/name/{done}") == ("complete", ["one"])
    site.demo.go.set()
    assert last_event(site.client, f"/gradio_api/call/steps/{running}") == ("complete", ["one ends"])


def test_the_page_before_the_last_is_ended_and_its_visitors_get_the_newest(site):
    call(site, "early")
    first = site.pages.newest
    site.pages.replace(page("two"))
    site.pages.replace(page("three"))
    assert [p.demo.title for p in site.pages.all] == ["three", "two"]
    assert first._life.done()
    assert '"three"' in call(site, "early")


def test_a_page_that_was_replaced_is_retired(site, monkeypatch):
    monkeypatch.setattr(pages, "RETAIN_SECONDS", 0.0)
    call(site, "early")
    site.pages.replace(page("two"))
    wait_until(lambda: site.pages.before is None)
    assert '"two"' in call(site, "early")


def test_files_of_every_page_stay(site, tmp_path):
    two = page("two")
    for demo, name in ((site.demo, "a"), (two, "b")):
        next(iter(demo.blocks.values())).keep_in_cache.add(name)
    site.pages.replace(two)
    assert {"a", "b"} <= site.pages.files()


def test_a_page_cannot_be_replaced_before_it_is_served():
    with pytest.raises(RuntimeError, match="while it is served"):
        pages.Pages(page("one"), Limits()).replace(page("two"))
