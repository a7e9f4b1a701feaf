"""Options of events, which say in which queue a call waits, and how a button starts and stops a run.

Handlers take the raw values of their components (`preprocess=False`): the strict parsers of the tabs' requests check them, for
the page and for the API alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import gradio as gr

from genlab.serving.language import UserFacingError

MODEL_EVENT: dict[str, Any] = {
    "concurrency_id": "model",
    "concurrency_limit": 8,
    "preprocess": False,
    "show_progress": "hidden",
}
"""Options of every event that runs a model: they form one queue. Eight run at a time: four are computed together while the
frames of the other four are made and sent."""
LIGHT_EVENT: dict[str, Any] = {
    "concurrency_limit": None,
    "preprocess": False,
    "show_progress": "hidden",
    "api_visibility": "private",
}
"""Options of events that only change what the page shows, or show what other threads compute."""
OPENING_EVENT: dict[str, Any] = {**LIGHT_EVENT, "trigger_mode": "always_last"}
"""Options of page-load events: the guard counts them as light calls."""
ONE_PASS_EVENT: dict[str, Any] = {**MODEL_EVENT, "concurrency_id": "light", "concurrency_limit": 2}
"""Options of endpoints that evaluate a model once, or not at all: two run at a time, and none waits for whole pictures."""
NEWEST_EVENT: dict[str, Any] = {**ONE_PASS_EVENT, "api_visibility": "private", "trigger_mode": "always_last"}
"""Options of events that compute what the page shows while something is dragged: the same queue, and of each page only the
newest waits."""

LEARNING_EVENT: dict[str, Any] = {"concurrency_limit": None, "preprocess": False, "show_progress": "hidden"}
"""Options of endpoints that train: `live` limits how many do."""
ANIMATION_QUEUE: dict[str, Any] = {"concurrency_id": "animation", "concurrency_limit": 2}
"""Added to the options of events that compute whole animations: what only answers a drag does not wait behind them."""

DICE = "() => Math.floor(Math.random() * 4294967296)"
"""A fresh seed, drawn in the browser."""
END_RUN = "(shown) => shown?.n && !shown.done ? {...shown, live: '', done: true} : {__type__: 'update'}"
"""Tell the player, in the browser, that a run has ended early: no more frames will come."""


@contextmanager
def errors_shown() -> Iterator[None]:
    """Show errors that are written for visitors; others stay hidden."""
    try:
        yield
    except UserFacingError as error:
        raise gr.Error(error.text, print_exception=False) from error


def enabled(*states: bool) -> Callable[[], tuple[Any, ...]]:
    """Return a handler that enables some of its outputs and disables the others."""
    return lambda: tuple(gr.update(interactive=state) for state in states)


def endpoint(answer: Callable[..., Any], inputs: Sequence[Any], outputs: Any, **options: Any) -> None:
    """Make the endpoint that is named as the function `answer`; no control of the page calls it."""
    gr.Button(visible=False).click(answer, inputs, outputs, api_name=answer.__name__, **options)


def connect(run: gr.Button, stop: gr.Button, show: Callable[..., Any], inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
    """Make `run` start the generator `show` and `stop` end it; each can be pressed only while that makes sense.

    The first of the outputs is the player. After a run that is stopped, or fails, it shows the frames that have arrived.
    """

    event = run.click(enabled(False, True), None, [run, stop], **LIGHT_EVENT).then(
        show, inputs, outputs, api_visibility="private", **MODEL_EVENT
    )
    for over in (event.success, event.failure):
        over(enabled(True, False), None, [run, stop], **LIGHT_EVENT)
    stop.click(enabled(True, False), None, [run, stop], cancels=[event], **LIGHT_EVENT)
    for early in (event.failure, stop.click):
        early(None, outputs[0], outputs[0], js=END_RUN, api_visibility="private")
