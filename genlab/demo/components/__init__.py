"""Components of the page that are more than gradio has: each a folder with its Python, script, style and template.

`controls/` has what they share: the frame around them, the controls that play frames, and how often requests are sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import GradioModel

FOLDER = Path(__file__).parent


class Scripted(gr.HTML):
    """A component with a long script that shows a `data_model`: what `Player`, `Figure` and `Canvas` are.

    Attributes:
        data_model: what it shows, at first with every field's default.
        described: what the API says of it.

    For every attribute that is asked for and missing, gr.HTML searches the script for it by a regular expression, hundreds of
    times while a page is made and milliseconds each; a plain search comes first here.
    """

    data_model: type[GradioModel]
    described: str

    def postprocess(self, value: GradioModel | None) -> GradioModel | None:  # type: ignore[override]
        """None shows nothing."""
        if value is not None and not isinstance(value, self.data_model):
            raise ValueError(f"expected {self.data_model.__name__} or None, got {type(value).__name__}")
        return value

    @classmethod
    @cache
    def schema(cls) -> dict[str, Any]:
        """The schema of `data_model`; gradio asks for it dozens of times while a page is built."""
        return cls.data_model.model_json_schema()

    def api_info(self) -> dict[str, Any]:
        """The fields of `data_model`."""
        return {**self.schema(), "description": self.described}

    def example_payload(self) -> dict[str, Any]:
        return self.data_model().model_dump()

    def example_value(self) -> GradioModel:
        return self.data_model()

    def __getattr__(self, name: str) -> Any:
        script = self.__dict__.get("js_on_load") or ""
        if not any(f"{quote}{name}{quote}" in script for quote in "'\"`"):
            raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}, nor an event of that name in its script")
        return super().__getattr__(name)


def with_labels(defaults: Mapping[str, str], labels: Mapping[str, str] | None) -> dict[str, str]:
    """The texts of a component, some of them replaced.

    Raises:
        ValueError: there is no such text.
    """
    unknown = sorted(set(labels or {}) - set(defaults))
    if unknown:
        raise ValueError(f"expected labels among {sorted(defaults)}, got {unknown}")
    return {**defaults, **(labels or {})}


def static(name: str) -> str:
    """Return the text of a file in this folder, "player/player.js" for instance."""
    return (FOLDER / name).read_text(encoding="utf-8")
