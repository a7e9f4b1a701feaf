"""The page as a whole: what stands above the tabs, the tabs in their order, and what is served and from where."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import gradio as gr

from genlab.card import escape
from genlab.demo.engine import Engine
from genlab.demo.tabs import OPENING_EVENT, bound, divergence, interpolate, playground, process, sample, score, vae
from genlab.measurements import read_evaluation
from genlab.serving.gradio_patches import without_application
from genlab.serving.language import SWITCH, both, each

TABS = (sample, interpolate, process, divergence, vae, bound, score, playground)
"""The tabs in their order; each has a TITLE and build(engine, page)."""
TEXT = {
    "title": "genlab",
    "lead": both(
        "# genlab\nThe generative models of the lecture notes, alive: draw from them, walk through them, take them apart.",
        "# genlab\n让讲义里的生成模型动起来：从中采样，走进过程，拆开来看。",
    ),
    "problem": "⚠️ {problem}",
    "served": both("Served here: {models}.", "当前模型：{models}。"),
    "of": both("{names} ({origin})", "{names}（{origin}）"),
    "and": both(", ", "、"),
    "served_title": both("What is served here, and from where", "这里有哪些模型，来自哪里"),
    "served_head": both(
        "| model | kind | from | parameters | bound on −log p | trained by |",
        "| 模型 | 类型 | 来源 | 参数量 | −log p 的上界 | 训练命令 |",
    )
    + "\n|---|---|---|---|---|---|",
    "bits": both("{bits:.3f} ± {error:.3f} bits/dim, {images} pictures", "{bits:.3f} ± {error:.3f} 比特/维，{images} 张图片"),
    "unknown": "–",
}


def create_app(engine: Engine) -> gr.Blocks:
    """The page and its API for the models of an engine."""
    with without_application(), gr.Blocks(title=TEXT["title"], analytics_enabled=False, delete_cache=(3600, 3600)) as demo:
        gr.HTML(SWITCH, elem_classes="genlab-switch")
        gr.Markdown(TEXT["lead"])
        gr.Markdown(served_line(engine), elem_classes="genlab-served")
        for problem in engine.problems:
            gr.Markdown(TEXT["problem"].format(problem=each(escape, problem)), elem_classes="genlab-problem")
        with gr.Tabs(overflow_behavior="wrap") as tabs:
            for tab in TABS:
                with gr.Tab(tab.TITLE, id=name_of(tab)):
                    tab.build(engine, demo)

        def open_tab(request: gr.Request) -> Any:
            asked = request.query_params.get("tab")
            return gr.Tabs(selected=asked) if asked in map(name_of, TABS) else gr.skip()

        demo.load(open_tab, None, tabs, **OPENING_EVENT)
        with gr.Accordion(TEXT["served_title"], open=False):
            gr.Markdown(served_table(engine.describe()), elem_classes="genlab-models")

        def models() -> list[dict[str, Any]]:
            """What can be asked for: for every model its id, kind ("ddpm" or "vae"), data set, classes, chain length T, number
            of test pictures, where it is served from, its revision on the Hub, and what was measured on it.
            """
            return engine.describe()

        listed = gr.JSON(label="models", visible=False)
        gr.Button(visible=False).click(models, None, listed, api_name="models", concurrency_limit=None)
    return demo


def name_of(tab: ModuleType) -> str:
    """What a link calls a tab, in ?tab=…: the name of its file."""
    return tab.__name__.rpartition(".")[2]


def served_line(engine: Engine) -> str:
    """Which models are served and from where, in one line."""
    origins = dict.fromkeys(served.origin for served in engine.models.values())
    groups = [(o, TEXT["and"].join(f"`{m.id}`" for m in engine.models.values() if m.origin == o)) for o in origins]
    return TEXT["served"].format(models=TEXT["and"].join(TEXT["of"].format(names=n, origin=each(escape, o)) for o, n in groups))


def served_table(models: list[dict[str, Any]]) -> str:
    """A Markdown table of the models."""
    rows = [TEXT["served_head"]]
    for model in models:
        found = read_evaluation(model["metrics"]).likelihood
        bits = TEXT["unknown"]
        if found is not None and found.bound_bits_per_dim is not None:
            bits = TEXT["bits"].format(
                bits=found.bound_bits_per_dim, error=found.bound_standard_error_bits_per_dim, images=found.images
            )
        cells = (
            f"`{model['id']}`",
            escape(model["title"]),
            each(escape, model["origin"]),
            f"{model['parameters']:,}",
            bits,
            escape(str(model["metrics"].get("command", TEXT["unknown"]))),
        )
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)
