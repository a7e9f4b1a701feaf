"""Spares gradio what it does at start for nothing. Call `import_gradio` before anything else imports it."""

from __future__ import annotations

import importlib
import inspect
import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any
from unittest import mock


class Later(ModuleType):
    """A module that is imported when something in it is asked for."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(importlib.import_module(self.__name__), name)


def import_gradio() -> None:
    """Import gradio without what it does for nothing: editor stubs, pandas, one template or certificate many times.

    gradio writes the stubs (.pyi) of its components anew at every import. Each means parsing the component's source: more than
    half of the whole import. gradio leaves them out where `inspect.getfile` says that a class has no file, so that is what it
    hears about its own classes while it is being imported. Components that are defined later (the player) get none either.
    pandas (with pyarrow) is a sixth of what is left; gradio asks for its classes only where a function's answers are cached,
    and gets them then. It also compiles every template of a docstring once for each kind of event, and reads the trusted
    certificates for each of its clients of HTTP: the same template is compiled once, and the same certificates are read once.
    """
    import jinja2

    getfile = inspect.getfile

    def no_file(thing: Any) -> str:
        if str(getattr(thing, "__module__", "")).startswith("gradio."):
            raise OSError("editor stubs are not wanted")
        return getfile(thing)

    loaded = sys.modules.setdefault("pandas", Later("pandas"))
    stubs = mock.patch.object(inspect, "getfile", no_file)
    templates = mock.patch.object(jinja2, "Template", cache(jinja2.Template))
    certificates = mock.patch.object(ssl, "create_default_context", cache(ssl.create_default_context))
    with stubs, templates, certificates:
        import gradio.component_meta
    if isinstance(loaded, Later):
        del sys.modules["pandas"]
    gradio.component_meta.create_or_modify_pyi = lambda *_: None


@contextmanager
def without_description() -> Iterator[None]:
    """Within, gradio does not describe pages, which it does again and again while they are made and mounted.

    Whoever mounts a page sets its `config` afterwards. This holds for the whole process, so not while another thread mounts
    a page.
    """
    from gradio.blocks import Blocks

    with mock.patch.object(Blocks, "get_config_file", return_value={}):
        yield


@contextmanager
def without_application() -> Iterator[None]:
    """Within, gradio makes pages and queues, but no web application of them and no description of the page.

    It would make one in `Blocks()`, another at the end of its `with` and one more in every `queue(…)`, each with all its
    routes, and throw them away: the one that serves the page is made when the page is mounted or launched. This holds for the
    whole process, so not while another thread mounts a page.
    """
    from gradio.blocks import App

    with mock.patch.object(App, "create_app", return_value=None), without_description():
        yield
