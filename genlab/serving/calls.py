"""What the endpoints of a page take, and the jobs that calls of them start."""

from __future__ import annotations

import re
from functools import cached_property
from typing import Any

import gradio as gr
from gradio_client.utils import construct_args

from genlab.serving.picture_input import REFUSED, PictureInput
from genlab.serving.refusal import TEXT, Refused

UNREAD_RESULTS = 200
"""Results of a session that may wait to be read before its next call is refused."""
SESSION = re.compile(r"[\w-]{1,64}", re.ASCII)
"""A session's name, chosen by the browser."""
SINGLE = (gr.Number, gr.Slider, gr.Dropdown, gr.Radio, gr.Textbox, gr.Checkbox)
"""Components whose value is one number, text or truth value."""


class Calls:
    """Checks calls before anything is queued, and ends jobs.

    Args:
        demo: the page.
    """

    def __init__(self, demo: gr.Blocks) -> None:
        self.demo = demo

    @cached_property
    def parameters(self) -> dict[str, list[Any]]:
        """Endpoint → its named parameters."""
        return {name: endpoint["parameters"] for name, endpoint in self.demo.get_api_info()["named_endpoints"].items()}

    def alive(self, event_id: str) -> bool:
        """Return whether a job waits or runs."""
        return event_id in self.demo._queue.event_ids_to_events

    def knows(self, event_id: str) -> bool:
        """Return whether a job is alive, or has results that have not been fetched."""
        return self.alive(event_id) or any(event_id in ids for ids in self.demo._queue.pending_event_ids_session.values())

    async def end_jobs(self, session: str, event_id: str | None = None) -> bool:
        """End the jobs of a session, those that wait now and those that run at their next step, and drop their results.

        With `event_id`, only if that job is unfinished or its results have not been fetched. Return whether there was something
        to end.
        """
        queue = self.demo._queue
        fetched = event_id not in queue.pending_event_ids_session.get(session, ())
        if event_id is not None and fetched and not self.alive(event_id):
            return False
        await queue.clean_events(session_hash=session)
        if not any(event.alive and event.session_hash == session for event in list(queue.event_ids_to_events.values())):
            queue.pending_messages_per_session.pop(session, None)
            queue.pending_event_ids_session.pop(session, None)
        return True

    def check(self, path: str, body: dict[str, Any]) -> bool:
        """Check a call and return whether it is light.

        Refused are calls of no endpoint, with too few or too many values, with a list or an object in the place of a single
        value, or with a picture that was not uploaded here. A call is light if its function answers once, only the newest
        call of it matters, it decodes no picture, and programs cannot call it by name: the page sends many of these while
        something is dragged.

        Args:
            path: of the request.
            body: its JSON.

        Raises:
            Refused: with 404, 422, or 429 where too many results of the session are unread.
        """
        name = path.rstrip("/").rsplit("/", 1)[1]
        by_index = path.startswith("/gradio_api/queue/")
        event = self._event(None if by_index else name, body.get("fn_index"))
        unread = self.demo._queue.pending_messages_per_session.get(str(body.get("session_hash")))
        if unread is not None and unread.qsize() > UNREAD_RESULTS:
            raise Refused(429, TEXT["too many"].format(seconds=5), 5)
        data = self._by_name(name, body) if path.startswith("/gradio_api/call/v2/") else self._in_order(body)
        if event.cancels:
            return False
        inputs = list(event.inputs)
        if not by_index and len(data) != len(inputs):
            inputs = [component for component in inputs if not component.skip_api]
        if len(data) != len(inputs):
            raise Refused(422, f"expected {len(inputs)} values, got {len(data)}")
        for component, value in zip(inputs, data, strict=True):
            _check_value(component, value)
        pictures = any(isinstance(component, PictureInput) for component in inputs)
        newest = event.trigger_mode == "always_last" and event.api_visibility == "private"
        return newest and not event.types_generator and not pictures

    def _event(self, name: str | None, index: Any) -> Any:
        """Return the function of an index where `name` is None, else of a public name."""
        if name is None:
            event = self.demo.fns.get(index) if type(index) is int else None
        else:
            event = next((fn for fn in self.demo.fns.values() if fn.api_name == name and fn.api_visibility != "private"), None)
        if event is None or (event.fn is None and not event.cancels):  # one that lives in the browser alone
            raise Refused(404, "There is no such endpoint.")
        return event

    def _by_name(self, name: str, body: dict[str, Any]) -> list[Any]:
        """Return the values of an object of named parameters, in order."""
        try:
            return construct_args(self.parameters[f"/{name}"], (), body)
        except TypeError as error:
            raise Refused(422, str(error)) from error

    def _in_order(self, body: dict[str, Any]) -> list[Any]:
        """Return the list of values of a call."""
        session, batched, data = body.get("session_hash"), body.get("batched"), body.get("data")
        if session is not None and not (isinstance(session, str) and SESSION.fullmatch(session)):
            raise Refused(422, f"session_hash: expected {SESSION.pattern}")
        if batched not in (None, False):
            raise Refused(422, "batched: expected false")
        if not isinstance(data, list):
            raise Refused(422, "data: expected a list")
        return data


def _check_value(component: Any, value: Any) -> None:
    """Refuse a file that was not uploaded here, and a list or an object in the place of a single value."""
    if component.refuses(value) if isinstance(component, PictureInput) else holds_file(value):
        raise Refused(422, REFUSED)
    if isinstance(component, gr.HTML) and component.data_model is not None and value is not None:
        try:
            component.data_model.model_validate(value, strict=False)
        except ValueError as error:
            raise Refused(422, f"{component.label}: expected a {component.data_model.__name__}, got something else") from error
    if isinstance(component, SINGLE) and isinstance(value, (list, dict)):
        kind = "a list" if isinstance(value, list) else "an object"
        raise Refused(422, f"{component.label}: expected a single value, got {kind}")


def holds_file(value: Any) -> bool:
    """Return whether a value contains a file anywhere; gradio would fetch its address, whatever the component."""
    if isinstance(value, dict):
        return "path" in value or any(map(holds_file, value.values()))
    return isinstance(value, list) and any(map(holds_file, value))
