"""Spares gradio what it does at start for nothing. Call `import_gradio` before anything else imports it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock


def import_gradio() -> None:
    """Import gradio without the editor stubs (.pyi) that it writes anew for each of its components at every import.

    Each stub means parsing the component's source: more than half of the whole import. gradio leaves them out where
    `inspect.getfile` says that a class has no file, so that is what it hears about its own classes while it is being
    imported. Components that are defined later (the player) get none either.
    """
    getfile = inspect.getfile

    def no_file(thing: Any) -> str:
        if str(getattr(thing, "__module__", "")).startswith("gradio."):
            raise OSError("editor stubs are not wanted")
        return getfile(thing)

    with mock.patch.object(inspect, "getfile", no_file):
        import gradio.component_meta
    gradio.component_meta.create_or_modify_pyi = lambda *_: None


@contextmanager
def without_application() -> Iterator[None]:
    """Within, gradio makes pages and queues, but no web application of them.

    It would make one in `Blocks()`, another at the end of its `with` and one more in every `queue(…)`, each with all its
    routes, and throw them away: the one that serves the page is made when the page is mounted or launched. This holds for the
    whole process, so not while another thread mounts a page.
    """
    from gradio.blocks import App

    with mock.patch.object(App, "create_app", return_value=None):
        yield
