"""A small page that is served as the real one is, for the tests of `genlab/serving`."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import gradio as gr
import httpx
import numpy as np

from genlab.serving.limits import Limits
from genlab.serving.picture_input import PictureInput
from tests.tiny import last_event

CANARY = "hf_canary0123456789abcdefghijklmnopq"
"""A token that must appear in no reply."""
FREE = Limits(
    calls_per_second=1e6, calls_burst=10**6, uploads_per_second=1e6, uploads_burst=10**6, light_calls_per_second=1e6,
    light_calls_burst=10**6, pages_per_second=1e6, pages_burst=10**6, abandoned_seconds=5.0, abandoned_call_seconds=2.0,
    open_requests=10**6,
    jobs=10**6, running=10**6, waiting=10**6,
)  # fmt: skip
MARK = {"_type": "gradio.FileData"}


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

    def size(picture: np.ndarray | None) -> str:
        return "none" if picture is None else str(picture.shape)

    def fail(text: str) -> str:
        raise RuntimeError(f"{os.environ['HF_TOKEN']} {text}")

    def echo(text: str) -> str:
        return text

    with gr.Blocks(title="a page") as demo:
        n, pause, text = gr.Number(3, label="n", precision=0), gr.Number(0.01, label="pause"), gr.Textbox(label="text")
        streaming = gr.Button("go").click(stream, [n, pause], text, api_name="stream", concurrency_id="model")
        gr.Button("stop").click(None, None, None, cancels=[streaming])
        gr.Button("size").click(size, PictureInput(label="picture", required=False), text, api_name="size")
        gr.Button("fail").click(fail, text, text, api_name="fail")
        gr.Button("echo").click(echo, text, text, api_name="echo")
        gr.Button("own").click(echo, text, text, api_name="own", api_visibility="private")
        newest: dict[str, Any] = {"trigger_mode": "always_last", "api_visibility": "private"}
        text.input(echo, text, text, **newest, api_name="light")
        n.input(stream, [n, pause], text, **newest, api_name="light_stream", concurrency_id="model")
        text.change(size, PictureInput(label="another", required=False), text, **newest, api_name="light_size")
        pause.input(echo, text, text, trigger_mode="always_last", api_name="newest", api_visibility="undocumented")
    return demo


def call(client: httpx.Client, endpoint: str, *values: Any) -> tuple[str, Any]:
    """The last event of a call and its data."""
    joined = client.post(f"/gradio_api/call/{endpoint}", json={"data": values})
    assert joined.status_code == 200, joined.text
    return last_event(client, f"/gradio_api/call/{endpoint}/{joined.json()['event_id']}")


def index_of(site: SimpleNamespace, name: str) -> int:
    return next(index for index, fn in site.demo.fns.items() if fn.api_name == name)


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not within the time"
        time.sleep(0.02)
