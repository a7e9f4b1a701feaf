"""From one picture to another: through the latents of a VAE, and through the noise of a diffusion model (notes 1.4 and 1.5)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr
import torch
from torch import Tensor

from genlab.demo.components.player import Player
from genlab.demo.engine import DDPM_SPHERICAL, VAE_LINEAR, VAE_SPHERICAL, Engine, PathFrame, data_title, png
from genlab.demo.limits import (
    DATA_SET,
    PATH_STEPS,
    POINTS,
    SOURCES,
    InterpolateRequest,
    data_choices,
    data_offers,
    parse_choice,
    parse_interpolate,
)
from genlab.demo.tabs import LATEX, LIGHT_EVENT, MODEL_EVENT, Film, Pace, connect, heading, pane, told
from genlab.demo.tabs.picker import Picker
from genlab.serving.language import both
from genlab.serving.results import save_result

TITLE = both("Interpolate", "插值")
TEXT = {
    "lead": both(
        "What lies between two pictures? A VAE and a diffusion model answer differently: one blends, the other invents.",
        "两张图片之间有什么？VAE 和扩散模型的回答不同：一个混合，一个创造。",
    ),
    "empty": both("Press “Find the paths”, then move the scrubber from A to B.", "点击“寻找路径”，然后把进度条从 A 拖到 B。"),
    "data": both("Pictures of", "数据集"),
    "points": both("Points on the path", "路径上的点数"),
    "points_info": both("columns of the strip, A and B included", "长图的列数，包括 A 和 B"),
    "steps": both("Steps", "步数"),
    "steps_info": both("of the walk to the noise, and again of the walk back", "走到噪声的步数，走回来也是这么多步"),
    "run": both("Find the paths", "寻找路径"),
    "stop": both("Stop", "停止"),
    "strip": both("The paths from A to B", "从 A 到 B 的路径"),
    "rows": both(
        "A on the left, B on the right. Rows, from the top: {rows}. The ends of the VAE's rows are its reconstructions of "
        "A and B, what is left of a picture after a squeeze through z. The diffusion model's ends come back to A and B.",
        "左边是 A，右边是 B。从上到下各行：{rows}。VAE 各行的两端是它对 A 和 B 的重构，也就是图片压缩成 z 之后还留下的东西；"
        "扩散模型的两端会回到 A 和 B。",
    ),
    "and": both("; ", "；"),
    "missing": both(
        "There is no {kind} of this data set here, so its path is missing.", "这里没有这个数据集的 {kind}，所以缺少它的路径。"
    ),
    "ends": both("A and B on their way to noise · t = {t}", "A 和 B 正走向噪声 · t = {t}"),
    "path": both(
        "noise on its way to {points} pictures, the middle one shown · t = {t}",
        "噪声正走向 {points} 张图片，显示的是中间一张 · t = {t}",
    ),
    "point": both(
        "point {index} of {count} · {percent} % of the way from A to B",
        "第 {index} 点，共 {count} 点 · 从 A 到 B 走了 {percent}%",
    ),
    "formula_title": both("The formula (notes 1.4, 1.5)", "公式（讲义 1.4、1.5）"),
    "formula": both(
        r"$a$ and $b$ are the two codes: $z = \mu_\phi(x)$ for the VAE; for the diffusion model the noise $x_T$ to which DDIM, "
        r"run backwards, leads a picture: $x_t = \sqrt{\bar\alpha_t}\,\hat x_0 + \sqrt{1-\bar\alpha_t}\,\hat\varepsilon$ for "
        r"rising $t$. Between them, for $0 \le w \le 1$:",
        r"$a$ 和 $b$ 是两张图片的编码：VAE 取 $z = \mu_\phi(x)$；扩散模型取反着运行 DDIM 所到达的噪声 $x_T$：沿着增大的 $t$，"
        r"$x_t = \sqrt{\bar\alpha_t}\,\hat x_0 + \sqrt{1-\bar\alpha_t}\,\hat\varepsilon$。对 $0 \le w \le 1$，两者之间是：",
    )
    + r"""

$$\text{"""
    + both("straight line:", "直线：")
    + r"""}\quad (1-w)\,a + w\,b \qquad\qquad
\text{"""
    + both("along the sphere:", "沿球面：")
    + r"""}\quad \frac{\sin((1-w)\theta)}{\sin\theta}\,a + \frac{\sin(w\theta)}{\sin\theta}\,b,\quad
\cos\theta = \frac{a\cdot b}{\lVert a\rVert\,\lVert b\rVert}$$

"""
    + both(
        r"In many dimensions nearly all of $\mathcal N(0, I)$ lies close to a sphere. The middle of a straight line is "
        "far inside it, where the model has never been; hence the sphere. Where $a$ and $b$ have different lengths, the "
        "length moves evenly from one to the other.",
        r"在高维空间里，$\mathcal N(0, I)$ 的样本几乎都靠近一个球面。直线的中点深在球面之内，模型从未见过那里；"
        "所以要沿着球面走。$a$ 与 $b$ 长度不同时，长度从一端均匀变到另一端。",
    ),
}
NAMES = (VAE_LINEAR, VAE_SPHERICAL, DDPM_SPHERICAL)
STRIP_WIDTH = 1000
"""Least width of the strip on the page, pixels."""
STRIP_PAUSE = 12
"""Steps between two updates of the strip."""


def build(engine: Engine, page: gr.Blocks) -> None:
    """The tab, and the endpoint `/interpolate`."""
    choices = data_choices(engine.offers)
    first = next((d for d in choices if engine.of_data(d, "vae") and engine.of_data(d, "ddpm")), choices[0])
    size = data_offers(engine.offers, first)[0].data.size
    longest = min((o.T for o in engine.offers.values() if o.T), default=int(PATH_STEPS.high))

    def data_of(chosen: Any) -> str:
        return parse_choice(DATA_SET, chosen, choices)

    run, stop = heading(TEXT["lead"], TEXT["run"], TEXT["stop"], "interpolate-run")
    with gr.Row(equal_height=False):
        with gr.Column(scale=3, min_width=320):
            player = Player(
                label="path", panes=NAMES, pane_shape=(size, size), colours=["p"] * 3, labels={"empty": TEXT["empty"]}
            )
            strip = gr.Image(
                _blank_strip(engine, first),
                label=TEXT["strip"],
                show_label=False,
                alt_text=TEXT["strip"],
                format="png",
                interactive=False,
                buttons=["download"],
            )
            legend = gr.Markdown(_legend(engine, first))
        with gr.Column(scale=2, min_width=300):
            data = gr.Dropdown(
                [(data_title(d), d) for d in choices], value=first, label=TEXT["data"], interactive=len(choices) > 1
            )
            with gr.Row():
                with gr.Column(min_width=140):
                    a = Picker(engine, "A", 0, SOURCES, data_of, first)
                with gr.Column(min_width=140):
                    b = Picker(engine, "B", 1, SOURCES, data_of, first)
            points = gr.Slider(
                POINTS.low, POINTS.high, POINTS.default, step=1, precision=0, label=TEXT["points"], info=TEXT["points_info"]
            )
            steps = gr.Slider(
                PATH_STEPS.low,
                min(PATH_STEPS.high, longest),
                min(PATH_STEPS.default, longest),
                step=1,
                precision=0,
                label=TEXT["steps"],
                info=TEXT["steps_info"],
            )
    with gr.Accordion(TEXT["formula_title"], open=False):
        gr.Markdown(TEXT["formula"], latex_delimiters=LATEX)
    a.connect(data)
    b.connect(data)
    data.change(told()(lambda chosen: _legend(engine, data_of(chosen))), data, legend, **LIGHT_EVENT)

    def parse(data: Any, ends: tuple[Any, ...], points: Any, steps: Any) -> InterpolateRequest:
        data_of(data)
        return parse_interpolate(engine.offers, data, a.parse(data, *ends[:3]), b.parse(data, *ends[3:]), points, steps)

    def show(data: Any, *values: Any) -> Iterator[Any]:
        with told():
            request = parse(data, values[:6], *values[6:])
            film: Film | None = None
            for frame in engine.interpolate(request):
                if frame.stage == "done":
                    yield _path(frame).sheet(first=0), _strip(frame, request)
                    return
                film = film or _film(engine, frame, request.data)
                middle = [pane(row[request.points // 2]) for row in frame.rows.values()]
                live = film.add(frame.index - 1, middle, TEXT[frame.stage].format(t=frame.t, points=request.points))
                if live is not None:
                    yield live, _strip(frame, request) if frame.index % STRIP_PAUSE == 1 else gr.skip()

    def interpolate(
        data: Any,
        a_from: Any,
        a_number: Any,
        b_from: Any,
        b_number: Any,
        points: Any,
        steps: Any,
        a_upload: Any = None,
        b_upload: Any = None,
    ) -> Iterator[str | None]:
        """The paths from picture A to picture B of the data set `data`, as one lossless PNG: one row for each path (VAE
        along a straight line, VAE along the sphere, DDPM along the sphere), `points` columns, 2 white pixels between the
        pictures. A and B are each the test picture number `a_number`, the picture drawn from the seed `a_number`, or an
        upload, as `a_from` says. `steps` are those of the DDPM on its way to the noise, and back. The ends of the VAE's rows
        are its reconstructions; the DDPM's come back to A and B.
        """
        with told():
            request = parse(data, (a_from, a_number, a_upload, b_from, b_number, b_upload), points, steps)
            pace = Pace()
            for frame in engine.interpolate(request):
                if frame.stage == "done":
                    yield _strip(frame, request, scale=1)
                elif pace.due():
                    yield None

    inputs = [data, *a.inputs, *b.inputs, points, steps]
    picture = gr.Image(label="paths", format="png", visible=False)
    named = [data, a.source, a.number, b.source, b.number, points, steps, a.upload, b.upload]
    gr.Button(visible=False).click(interpolate, named, picture, api_name="interpolate", **MODEL_EVENT)
    connect(run, stop, show, inputs, [player, strip])


def _film(engine: Engine, frame: PathFrame, data: str) -> Film:
    """The run while it is computed: the middle of each path, one frame for each step."""
    size = data_offers(engine.offers, data)[0].data.size
    return Film(frame.count, list(frame.rows), (size, size), colours=["p"] * len(frame.rows))


def _path(frame: PathFrame) -> Film:
    """The finished paths: one frame for each point."""
    rows = list(frame.rows.values())
    count = len(rows[0])
    film = Film(count, list(frame.rows), tuple(rows[0].shape[-2:]), colours=["p"] * len(rows), fps=6)  # type: ignore[arg-type]
    for i in range(count):
        caption = TEXT["point"].format(index=i + 1, count=count, percent=round(100 * i / (count - 1)))
        film.add(i, [pane(row[i]) for row in rows], caption)
    return film


def _strip(frame: PathFrame, request: InterpolateRequest, scale: int | None = None) -> str:
    """File with one row for each path; by default large enough for the page."""
    return _strip_file(torch.cat(list(frame.rows.values())), request.points, request.data, scale)


def _strip_file(pictures: Tensor, points: int, data: str, scale: int | None = None) -> str:
    scale = scale or -(-STRIP_WIDTH // ((pictures.shape[-1] + 2) * points + 2))
    return save_result(png(pictures, columns=points, scale=scale), f"{data}-paths.png")


def _blank_strip(engine: Engine, data: str) -> str:
    """File with a strip of empty places, so that nothing moves when the paths come."""
    rows = 2 * bool(engine.of_data(data, "vae")) + bool(engine.of_data(data, "ddpm"))
    points, spec = int(POINTS.default), data_offers(engine.offers, data)[0].data
    return _strip_file(torch.full((rows * points, *spec.shape), 200, dtype=torch.uint8), points, data)


def _legend(engine: Engine, data: str) -> str:
    """What the rows are, and which are missing."""
    names = {"vae": (VAE_LINEAR, VAE_SPHERICAL), "ddpm": (DDPM_SPHERICAL,)}
    rows = [name for kind, row in names.items() if engine.of_data(data, kind) for name in row]
    missing = [TEXT["missing"].format(kind=kind.upper()) for kind in names if not engine.of_data(data, kind)]
    return " ".join([TEXT["rows"].format(rows=TEXT["and"].join(rows)), *missing])
