"""The page as a whole: what stands above the tabs, the tabs in their order, and what is served and from where."""

from __future__ import annotations

from typing import Any

import gradio as gr

from genlab.card import escape
from genlab.demo.engine import Engine
from genlab.demo.tabs import interpolate, process, sample

TABS = (sample, interpolate, process)
"""The tabs in their order; each has a TITLE and build(engine, page)."""
QUEUE = 32
"""Requests that may wait; further ones are told to come back later."""
TEXT = {
    "title": "genlab",
    "lead": "# genlab\nThe generative models of the lecture notes, alive: draw from them, walk through them, take them apart.",
    "problem": "⚠️ {problem}",
    "served": "Served here: {models}.",
    "served_title": "What is served here, and from where",
    "served_head": "| model | kind | from | parameters | bound on −log p | trained by |\n|---|---|---|---|---|---|",
    "bits": "{bits:.3f} ± {error:.3f} bits/dim, {images} pictures",
    "unknown": "–",
}


def create_app(engine: Engine) -> gr.Blocks:
    """The page and its API for the models of an engine."""
    with gr.Blocks(title=TEXT["title"], analytics_enabled=False, delete_cache=(3600, 3600)) as demo:
        gr.Markdown(TEXT["lead"])
        gr.Markdown(served_line(engine), elem_classes="genlab-served")
        for problem in engine.problems:
            gr.Markdown(TEXT["problem"].format(problem=escape(problem)), elem_classes="genlab-problem")
        with gr.Tabs():
            for tab in TABS:
                with gr.Tab(tab.TITLE):
                    tab.build(engine, demo)
        with gr.Accordion(TEXT["served_title"], open=False):
            gr.Markdown(served_table(engine.describe()))

        def models() -> list[dict[str, Any]]:
            """What can be asked for: for every model its id, kind ("ddpm" or "vae"), data set, classes, chain length T, number
            of test pictures, where it is served from, its revision on the Hub, and what was measured on it.
            """
            return engine.describe()

        listed = gr.JSON(label="models", visible=False)
        gr.Button(visible=False).click(models, None, listed, api_name="models", concurrency_limit=None)
    demo.queue(max_size=QUEUE, default_concurrency_limit=1, api_open=False)
    return demo


def served_line(engine: Engine) -> str:
    """Which models are served and from where, in one line."""
    origins = dict.fromkeys(served.origin for served in engine.models.values())
    groups = [(o, ", ".join(f"`{m.id}`" for m in engine.models.values() if m.origin == o)) for o in origins]
    return TEXT["served"].format(models="; ".join(f"{names} ({escape(origin)})" for origin, names in groups))


def served_table(models: list[dict[str, Any]]) -> str:
    """A Markdown table of the models."""
    rows = [TEXT["served_head"]]
    for model in models:
        bound = model["metrics"].get("evaluation", {}).get("likelihood", {})
        bits = (
            TEXT["bits"].format(
                bits=bound["bound_bits_per_dim"], error=bound["bound_standard_error_bits_per_dim"], images=bound["images"]
            )
            if "bound_bits_per_dim" in bound
            else TEXT["unknown"]
        )
        cells = (
            f"`{model['id']}`",
            escape(model["title"]),
            escape(model["origin"]),
            f"{model['parameters']:,}",
            bits,
            escape(model["metrics"].get("command", TEXT["unknown"])),
        )
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)
