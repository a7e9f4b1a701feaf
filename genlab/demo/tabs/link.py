"""Links that restore a tab: ?tab=…, then the name and the value of every control.

    link = Link("sample", {"model": model, "seed": seed}, parse, run="sample-run")

makes the button "Link to this" where it is called; `create_app` restores the tab that an address names, and presses its button.
The parser of the tab's request checks what is written and what is read, so a damaged or hostile link is refused in its words.

Where a part of the state is in a figure, as the place of a handle, it has a control that is not visible, and `shown` says how
the figure's value becomes the control's when a link is written; `restored` makes the event that draws the figure when one is
read:

    link = Link("score", {"data": data, "t": t}, parse, shown=([figure], lambda value: {"t": read(value)}))
    link.restored(show, figure, **NEWEST_EVENT)     show(data, t) → FigureData
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

import gradio as gr

from genlab.demo.limits import LimitError, shown
from genlab.demo.tabs.events import LIGHT_EVENT, OPENING_EVENT, errors_shown
from genlab.serving.language import both

TEXT = {
    "link": both("Link to this", "分享链接"),
    "label": both("Opens the page like this", "这样打开本页"),
    "upload": both(
        "a link cannot hold an upload: choose another source of the picture", "链接不能包含上传的图片：请换一个图片来源"
    ),
    "damaged": both(
        "the link is damaged: {name}: expected a number, got {value}", "链接已损坏：{name} 应为一个数，实际为 {value}"
    ),
    "list": both(
        "the link is damaged: {name}: expected numbers with commas between them, got {value}",
        "链接已损坏：{name} 应为以逗号分隔的数，实际为 {value}",
    ),
}
ABSOLUTE = "query => location.origin + location.pathname + '?' + query"
NUMBER = re.compile(r"-?\d{1,10}(\.\d{1,6})?", re.ASCII)
RESTORED = """async () => {
    const query = new URLSearchParams(location.search);
    const [id, names] = %s[query.get('tab')] ?? [];
    if (!id || !names.some((name) => query.has(name))) return;
    for (let i = 0; i < 200 && !document.getElementById(id); i++) await new Promise((next) => setTimeout(next, 50));
    document.getElementById(id)?.click();
}"""
"""Presses the button of the tab that a link has restored, once the tab is there: gradio makes it when it is first opened."""


class Link:
    """The components that show the address of a tab's state, and the way back from an address.

    Args:
        tab: its name in ?tab=….
        controls: name in the address → component. A `gr.JSON` holds a list of numbers, with None for those left out.
        parse: the controls' raw values → the tab's request; raises `LimitError`.
        fit: the controls' values → name → what else changes with them (`gr.update` without a value).
        run: id of the button that computes what the controls ask for.
        shown: components that hold a part of the state, and the function of their values that returns that of some controls
            by name; a link leaves out what is None.
    """

    def __init__(
        self,
        tab: str,
        controls: Mapping[str, Any],
        parse: Callable[..., object],
        fit: Callable[..., Mapping[str, Any]] | None = None,
        run: str | None = None,
        shown: tuple[Sequence[Any], Callable[..., Mapping[str, Any]]] | None = None,
    ) -> None:
        self.tab, self.controls, self.parse, self.run = tab, dict(controls), parse, run
        self.fit = fit or (lambda *_: {})
        holders: Sequence[Any] = shown[0] if shown else ()
        self.shown: Callable[..., Mapping[str, Any]] = shown[1] if shown else lambda: {}
        with gr.Row(equal_height=False):
            share = gr.Button(TEXT["link"], size="sm", elem_id=f"{tab}-share", scale=1, min_width=160)
            link = gr.Textbox(
                label=TEXT["label"], interactive=False, max_lines=1, buttons=["copy"], elem_id=f"{tab}-link", scale=5
            )
        share.click(self.write, [*self.controls.values(), *holders], link, **LIGHT_EVENT).success(
            None, link, link, js=ABSOLUTE, api_visibility="private"
        )

    def restored(self, show: Callable[..., Any], outputs: Any, **options: Any) -> Any:
        """Make the event that shows, by the values of the controls, what a link has restored; return it."""
        self.run = f"{self.tab}-restored"
        return gr.Button("", visible="hidden", elem_id=self.run).click(show, list(self.controls.values()), outputs, **options)

    def write(self, *values: Any) -> str:
        """Return the query of the link to these values of the controls and of what holds the rest of the state."""
        with errors_shown():
            count = len(self.controls)
            chosen = {**dict(zip(self.controls, values[:count], strict=True)), **self.shown(*values[count:])}
            if "upload" in chosen.values():
                raise LimitError(TEXT["upload"])
            self.parse(*chosen.values())
            there = {name: _plain(value) for name, value in chosen.items() if value is not None}
            return urlencode({"tab": self.tab, **there}, safe=",")

    def named(self, query: Mapping[str, str]) -> bool:
        """Return True if the query of an address is a link to this tab."""
        return query.get("tab") == self.tab and any(name in query for name in self.controls)

    def read(self, query: Mapping[str, str]) -> list[Any]:
        """Return an update for every control from the query of an address, or none where it is no link to the tab.

        What a link does not name has its first value.

        Raises:
            LimitError: a value is not one that the tab takes.
        """
        names = list(self.controls)
        if not self.named(query):
            return [gr.skip()] * len(names)
        values = [self._value(name, query.get(name)) for name in names]
        self.parse(*values)
        fitted = self.fit(*values)
        return [{**gr.update(), **fitted.get(name, {}), "value": value} for name, value in zip(names, values, strict=True)]

    def _value(self, name: str, text: str | None) -> Any:
        component = self.controls[name]
        if text is None:
            return component.value
        if isinstance(component, gr.JSON):
            parts = text.split(",")
            if not all(NUMBER.fullmatch(part) or part == "" for part in parts):
                raise LimitError(TEXT["list"].format(name=name, value=shown(text)))
            return [_whole(float(part)) if part else None for part in parts]
        if not isinstance(component, (gr.Number, gr.Slider)):
            return text
        if not NUMBER.fullmatch(text):
            raise LimitError(TEXT["damaged"].format(name=name, value=shown(text)))
        return _whole(float(text))


def _whole(number: float) -> float:
    return int(number) if number.is_integer() else number


def _plain(value: Any) -> Any:
    """Return a value as an address has it: numbers with six decimals at most, a list of them with commas."""
    if isinstance(value, list):
        return ",".join("" if part is None else str(_plain(part)) for part in value)
    return f"{value:.6f}".rstrip("0").rstrip(".") if isinstance(value, (int, float)) else value


def restore(links: Mapping[str, Link | None], page: gr.Blocks) -> None:
    """Make the event that restores, when the page opens, the tab that its address links to, and presses its button."""
    shared = [link for link in links.values() if link is not None]

    def opened(request: gr.Request) -> list[Any]:
        with errors_shown():
            return [update for link in shared for update in link.read(dict(request.query_params))]

    runs = {link.tab: [link.run, list(link.controls)] for link in shared if link.run}
    page.load(opened, None, [c for link in shared for c in link.controls.values()], **OPENING_EVENT).success(
        None, None, None, js=RESTORED % json.dumps(runs), api_visibility="private"
    )
