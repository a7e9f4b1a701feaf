"""Components that gradio lacks: each a folder with its Python, its scripts (ES modules), its style and its template.

`controls/` has what they share: the frame around them, the controls that play frames, and the pace of requests.

A component of gradio takes its script as one text, which the page then holds once for every component. So the scripts of all
components are linked into one, `HEAD`, which the page gets once: pass it to `launch(head=...)` or `server.build(head=...)`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import gradio as gr
from gradio.data_classes import GradioModel

FOLDER = Path(__file__).parent
IMPORT = re.compile(r"^import (\{[^}]*\}) from '([^']+)';$", re.MULTILINE)
EXPORT = re.compile(r"^export (?=(?:const|class|function) (\w+))", re.MULTILINE)


def link(module: Path) -> str:
    """Return an ES module and all that it imports as one classic script, in which each is a function that returns its exports.

    A browser could load the modules one by one, but gradio has no place to serve them from. Of the language's forms these are
    understood, each at the beginning of a line: `import { a, b } from './c.js';` and `export` before const, class or function.

    Raises:
        ValueError: a module has an import or an export of another form.
    """
    linked: dict[Path, str] = {}

    def add(path: Path) -> str:
        """Link a module after those that it imports, and return the expression for its exports."""
        path = path.resolve()
        if path not in linked:
            source = path.read_text(encoding="utf-8")
            source = IMPORT.sub(lambda found: f"const {found[1]} = {add(path.parent / found[2])};", source)
            exports = ", ".join(EXPORT.findall(source))
            source = EXPORT.sub("", source)
            if left := re.search(r"^(import|export)\b.*", source, re.MULTILINE):
                raise ValueError(f"{path.name}: expected an import or export of a form that can be linked, got {left[0]!r}")
            linked[path] = f"modules[{len(linked)}] = (() => {{\n{source}return {{ {exports} }};\n}})();\n"
        return f"modules[{list(linked).index(path)}]"

    add(module)
    return f"(() => {{\n'use strict';\nconst modules = [];\n{''.join(linked.values())}}})();\n"


def static(name: str) -> str:
    """Return the text of a file in this folder, "player/player.css" for instance."""
    return (FOLDER / name).read_text(encoding="utf-8")


HEAD = f"<script>\n{link(FOLDER / 'components.js')}</script>"
"""What the page's head needs: the script that all components share."""


class Scripted(gr.HTML):
    """Show a `data_model` with a script of its own: what `Player`, `Figure` and `Canvas` do.

    Args:
        value: what to show at first.
        label: the component's name in the API.
        labels: texts that replace those of `texts`. An event may change them later: `gr.update(labels={...})`.
        empty: what the script needs before there is a value.
        kwargs: other arguments of `gr.HTML`.

    Attributes:
        name: of its folder, its files and its function in the script.
        data_model: what it shows, at first with every field's default.
        described: what the API says of it.
        texts: its texts; the script fills what stands in braces.

    Raises:
        ValueError: there is no such text.
    """

    name: ClassVar[str]
    data_model: type[GradioModel]
    described: ClassVar[str]
    texts: ClassVar[dict[str, str]]

    def __init__(
        self,
        value: GradioModel | None,
        *,
        label: str | None,
        labels: Mapping[str, str] | None,
        empty: dict[str, Any],
        **kwargs: Any,
    ) -> None:
        unknown = sorted(set(labels or {}) - set(self.texts))
        if unknown:
            raise ValueError(f"expected labels among {sorted(self.texts)}, got {unknown}")
        super().__init__(
            value=value,
            label=label,
            html_template=static(f"{self.name}/{self.name}.html").replace(
                "<!-- controls -->", static("controls/controls.html")
            ),
            css_template=static("controls/controls.css") + static(f"{self.name}/{self.name}.css"),
            js_on_load=f"genlab.{self.name}({{ element, props, trigger, watch }});",
            apply_default_css=False,
            labels={**self.texts, **(labels or {})},
            empty=empty,
            **kwargs,
        )

    def postprocess(self, value: GradioModel | None) -> GradioModel | None:  # type: ignore[override]
        """Return the value, or raise ValueError where it is not of `data_model`; None shows nothing."""
        if value is not None and not isinstance(value, self.data_model):
            raise ValueError(f"expected {self.data_model.__name__} or None, got {type(value).__name__}")
        return value

    @classmethod
    @cache
    def schema(cls) -> dict[str, Any]:
        """Return the schema of `data_model`; gradio asks for it dozens of times while a page is built.

        It does not say that other fields are refused: `additionalProperties: false` ends gradio_client before version 2.
        """
        schema = cls.data_model.model_json_schema()
        for part in (schema, *schema.get("$defs", {}).values()):
            part.pop("additionalProperties", None)
        return schema

    def api_info(self) -> dict[str, Any]:
        """Return the fields of `data_model`, for the API."""
        return {**self.schema(), "description": self.described}

    def example_payload(self) -> dict[str, Any]:
        return self.data_model().model_dump()

    def example_value(self) -> GradioModel:
        return self.data_model()
