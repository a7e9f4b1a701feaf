"""The page as a whole: what stands above the tabs, the tabs in their order, and what is served and from where."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import gradio as gr

from genlab.card import escape
from genlab.demo import guide
from genlab.demo.served import Models
from genlab.demo.tabs.bound import build as bound
from genlab.demo.tabs.compare import build as compare
from genlab.demo.tabs.condition import build as condition
from genlab.demo.tabs.divergence import build as divergence
from genlab.demo.tabs.events import OPENING_EVENT
from genlab.demo.tabs.interpolate import build as interpolate
from genlab.demo.tabs.link import restore
from genlab.demo.tabs.playground import build as playground
from genlab.demo.tabs.process import build as process
from genlab.demo.tabs.sample import build as sample
from genlab.demo.tabs.score import build as score
from genlab.demo.tabs.training import build as training
from genlab.demo.tabs.vae import build as vae
from genlab.demo.turns import Runner
from genlab.measurements import read_evaluation
from genlab.serving.gradio_patches import without_application
from genlab.serving.language import SWITCH, both, each

TABS: dict[str, ModuleType] = {
    "sample": sample,
    "compare": compare,
    "interpolate": interpolate,
    "process": process,
    "condition": condition,
    "divergence": divergence,
    "vae": vae,
    "bound": bound,
    "training": training,
    "score": score,
    "playground": playground,
}
"""Name of a tab, also in a link ?tab=…, → the module with its TEXT and `build(models, runner, page)`, in their order.

`build` returns the tab's `Link`, or None where it has none. The page has no tab of a module whose `offered(models)` is false.
"""
NAMED = 3
"""Models of one origin whose names stand above the tabs."""
TEXT = {
    "title": "genlab",
    "lead": both(
        "# genlab\nThe generative models of the [lecture notes](docs/notes.md), alive: draw from them, walk through them, take "
        "them apart.",
        "# genlab\n让[讲义](docs/notes.zh.md)里的生成模型动起来：从中采样，走进过程，拆开来看。",
    ),
    "problem": "⚠️ {problem}",
    "served": both("Served here: {models}.", "当前模型：{models}。"),
    "count": both("{n} models", "{n} 个模型"),
    "since": both("{origin}, since {time} UTC", "{origin}，自 {time} UTC 起"),
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


def create_app(models: Models, runner: Runner) -> gr.Blocks:
    """Return the page and its API for these models."""
    with without_application(), gr.Blocks(title=TEXT["title"], analytics_enabled=False, delete_cache=(3600, 3600)) as demo:
        gr.HTML(SWITCH, elem_classes="genlab-switch")
        gr.Markdown(TEXT["lead"])
        gr.Markdown(served_line(models), elem_classes="genlab-served")
        if guide.offered(models):
            gr.HTML(guide.begin(), elem_classes="genlab-begin")
        step = gr.HTML(visible=False, js_on_load="genlab.guide({ element });")
        for problem in models.problems:
            gr.Markdown(TEXT["problem"].format(problem=each(escape, problem)), elem_classes="genlab-problem")
        with gr.Tabs(overflow_behavior="wrap") as tabs:
            links = {}
            for name, tab in TABS.items():
                if hasattr(tab, "offered") and not tab.offered(models):
                    continue
                with gr.Tab(tab.TEXT["title"], id=name):
                    links[name] = tab.build(models, runner, demo)
        restore(links, demo)

        def open_tab(request: gr.Request) -> Any:
            query = dict(request.query_params)
            number = guide.step_of(query)
            tab = gr.Tabs(selected=query["tab"]) if query.get("tab") in links else gr.skip()
            return tab, gr.skip() if number is None else gr.HTML(guide.html(number), visible=True)

        demo.load(open_tab, None, [tabs, step], **OPENING_EVENT)
        with gr.Accordion(TEXT["served_title"], open=False):
            gr.Markdown(served_table(models.describe()), elem_classes="genlab-models")

        def list_models() -> list[dict[str, Any]]:
            """What can be asked for: for every model its id, kind ("ddpm", "vae", …), data set, classes, chain length T, number
            of test pictures, where it is served from, its revision on the Hub, since when it serves (UTC), and what was
            measured on it.
            """
            return models.describe()

        listed = gr.JSON(label="models", visible=False)
        gr.Button(visible=False).click(list_models, None, listed, api_name="models", concurrency_limit=None)
    return demo


def served_line(models: Models) -> str:
    """Return which models are served and from where, in one line: more than `NAMED` of one origin are counted."""
    origins = {served.id: _origin(served.describe()) for served in models.values()}
    groups = []
    for origin in dict.fromkeys(origins.values()):
        ids = [id for id in origins if origins[id] == origin]
        names = TEXT["and"].join(f"`{id}`" for id in ids) if len(ids) <= NAMED else TEXT["count"].format(n=len(ids))
        groups.append(TEXT["of"].format(names=names, origin=each(escape, origin)))
    return TEXT["served"].format(models=TEXT["and"].join(groups))


def _origin(model: dict[str, Any]) -> str:
    """Return where a model comes from; of one on the Hub, which may be replaced, also since when it serves."""
    since = model["since"] if model["revision"] else ""
    return TEXT["since"].format(origin=model["origin"], time=since) if since else model["origin"]


def served_table(models: list[dict[str, Any]]) -> str:
    """Return a Markdown table of the models."""
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
            each(escape, _origin(model)),
            f"{model['parameters']:,}",
            bits,
            escape(str(model["metrics"].get("command", TEXT["unknown"]))),
        )
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)
