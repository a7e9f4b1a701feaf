"""New pictures from a model, seen while they form (notes 1.1 and 1.5)."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any

import gradio as gr
import numpy as np

from genlab.data import columns_of, grid
from genlab.demo.components.figure import Figure, FigureData
from genlab.demo.components.player import Player, PlayerData
from genlab.demo.engine import Engine, png
from genlab.demo.limits import (
    ANY,
    COUNT,
    GUIDANCE,
    SAMPLER,
    SAMPLERS,
    SEED,
    STEPS,
    Offer,
    SampleRequest,
    label_choices,
    parse_sample,
)
from genlab.demo.tabs import (
    DICE,
    LATEX,
    LIGHT_EVENT,
    MODEL_EVENT,
    NEWEST_EVENT,
    OPENING_EVENT,
    Film,
    Pace,
    choices,
    class_name,
    connect,
    heading,
    told,
)
from genlab.demo.tabs import steps as steps_curve
from genlab.draw import SampleFrame
from genlab.serving.language import both
from genlab.serving.results import save_result

log = logging.getLogger("genlab.demo")

TITLE = both("Sample", "采样")
WAIT = 30.0
"""Seconds that a visitor's page waits for the poster."""
TEXT = {
    "lead": both(
        "Out of pure noise, step by step: pictures that nobody has ever drawn (notes 1.1).",
        "从纯噪声出发，一步一步得到从未有人画过的图片（讲义 1.1）。",
    ),
    "empty": both("Press “Draw pictures”. They appear here while they form.", "点击“生成图片”，图片会在这里逐渐成形。"),
    "model": both("Model", "模型"),
    "label": both("Class", "类别"),
    "label_info": both("what to draw; “any” takes the classes in turn", "要生成什么；“任意”则各类轮流"),
    "label_none": both("this model was trained without classes", "这个模型训练时没有用类别"),
    "count": both("Number of pictures", "图片数量"),
    "steps": both("Steps", "步数"),
    "steps_info": both(
        "the last three samplers need few; the curve shows what more buy", "后三种方法只需很少几步；曲线显示增加步数的效果"
    ),
    "steps_none": both("a VAE needs one: z → picture", "VAE 只需一步：z → 图片"),
    "sampler": both("Sampler", "采样方法"),
    "sampler_info": both(
        "ancestral draws fresh noise in every step, as in the notes; DDIM walks a fixed path; the others need fewer steps",
        "祖先采样每一步都抽新的噪声，与讲义一致；DDIM 走确定的路径；其余方法需要的步数更少",
    ),
    "guidance": both("Guidance w", "引导强度 w"),
    "guidance_info": both(
        "1: the plain model; more: closer to the class, less varied; twice the work",
        "1：模型本身；更大：更符合类别、更少变化，计算量加倍",
    ),
    "seed": both("Seed", "种子"),
    "seed_info": both(
        "picture i (from 0) has seed + i; the same seed gives the same pictures",
        "第 i 张（从 0 起）用种子 + i；种子相同，图片相同",
    ),
    "dice": both("New seed", "换一个种子"),
    "run": both("Draw pictures", "生成图片"),
    "stop": both("Stop", "停止"),
    "download": both("Download PNG", "下载 PNG"),
    "more": both("More", "更多选项"),
    "formula_title": both("The formula (notes 1.5)", "公式（讲义 1.5）"),
    "formula": both(r"From $x_T \sim \mathcal N(0, I)$ every step draws", r"从 $x_T \sim \mathcal N(0, I)$ 出发，每一步抽样")
    + r"""

$$p_\theta(x_{s}\mid x_t) = \mathcal N\big(\mu_\theta(x_t,t),\,\Sigma_\theta(x_t,t)\big),\qquad
\mu_\theta = \tilde\mu_t\big(x_t,\hat x_0\big),\quad
\hat x_0 = \frac{x_t - \sqrt{1-\bar\alpha_t}\,\hat\varepsilon}{\sqrt{\bar\alpha_t}}$$

"""
    + both(
        r"where the network sees the noise $\hat\varepsilon = \varepsilon_\theta(x_t, t)$ in the picture. DDIM (Song et al. "
        r"2021) leaves the chance out: $x_s = \sqrt{\bar\alpha_s}\,\hat x_0 + \sqrt{1-\bar\alpha_s}\,\hat\varepsilon$. A VAE "
        r"(notes 1.4) needs one step: $z \sim \mathcal N(0, I)$, picture $= \mu(z)$.",
        r"其中 $\hat\varepsilon = \varepsilon_\theta(x_t, t)$ 是网络从图片中看出的噪声。DDIM（Song 等，2021）去掉随机性："
        r"$x_s = \sqrt{\bar\alpha_s}\,\hat x_0 + \sqrt{1-\bar\alpha_s}\,\hat\varepsilon$。VAE（讲义 1.4）只需一步："
        r"$z \sim \mathcal N(0, I)$，图片 $= \mu(z)$。",
    ),
    "formed": both("step {index} of {count} · t = {t}", "第 {index} 步，共 {count} 步 · t = {t}"),
    "noise": both("pure noise · t = {t}", "纯噪声 · t = {t}"),
    "vae": both("z ~ N(0, I) → μ(z), in one step", "z ~ N(0, I) → μ(z)，只需一步"),
}


def build(engine: Engine, page: gr.Blocks) -> None:
    """The tab, and the endpoints `/sample` and `/sample_stream`."""
    offers = engine.offers
    first = next((o for o in offers.values() if o.kind == "ddpm"), next(iter(offers.values())))
    run, stop = heading(TEXT["lead"], TEXT["run"], TEXT["stop"], "sample-run")
    with gr.Row(equal_height=False):
        with gr.Column(scale=3, min_width=320):
            side = columns_of(int(COUNT.default)) * (first.data.size + 2) + 2
            player = Player(
                label="frames", panes=[first.id], pane_shape=(side, side), colours=["p"], labels={"empty": TEXT["empty"]}
            )
            download = gr.DownloadButton(TEXT["download"], interactive=False, size="sm")
        with gr.Column(scale=2, min_width=300):
            model = gr.Dropdown(list(offers), value=first.id, label=TEXT["model"], interactive=True)
            label = gr.Dropdown(
                choices([ANY, *label_choices(first)]),
                value=ANY,
                label=TEXT["label"],
                info=TEXT["label_info"] if label_choices(first) else TEXT["label_none"],
                interactive=bool(label_choices(first)),
            )
            count = gr.Slider(COUNT.low, COUNT.high, COUNT.default, step=COUNT.step, precision=0, label=TEXT["count"])
            steps = gr.Slider(
                STEPS.low,
                min(STEPS.high, first.T or STEPS.high),
                min(STEPS.default, first.T or STEPS.high),
                step=STEPS.step,
                precision=0,
                label=TEXT["steps"],
                info=TEXT["steps_info"] if first.T else TEXT["steps_none"],
                interactive=bool(first.T),
            )
            seed = gr.Number(
                SEED.default, precision=0, minimum=0, maximum=SEED.high, label=TEXT["seed"], info=TEXT["seed_info"]
            )
            dice = gr.Button(TEXT["dice"], size="sm")
            with gr.Accordion(TEXT["more"], open=False):
                sampler = gr.Radio(choices(SAMPLERS), value=SAMPLER, label=TEXT["sampler"], info=TEXT["sampler_info"])
                guidance = gr.Slider(
                    GUIDANCE.low,
                    GUIDANCE.high,
                    GUIDANCE.default,
                    step=GUIDANCE.step,
                    label=TEXT["guidance"],
                    info=TEXT["guidance_info"],
                )
            begin = steps_curve.show(engine, first.id, int(COUNT.default), int(STEPS.default))
            curve = Figure(
                begin,
                label="curve",
                labels={"player": steps_curve.TEXT["figure"], "empty": steps_curve.TEXT["empty"]},
                visible=bool(first.T),
            )
    with gr.Accordion(TEXT["formula_title"], open=False):
        gr.Markdown(TEXT["formula"], latex_delimiters=LATEX)

    def show(model: Any, label: Any, count: Any, steps: Any, sampler: Any, guidance: Any, seed: Any) -> Iterator[Any]:
        with told():
            request = parse_sample(engine.offers, model, label, count, steps, sampler, guidance, seed)
            film = _film(engine, request)
            for frame in engine.sample(request):
                live = film.add(frame.index, [_sheet(frame)], _caption(frame))
                if live is not None and frame.index < frame.count:
                    yield live, gr.skip()
            yield film.sheet(), gr.update(value=_png_file(frame, request), interactive=True)

    def sample(model: Any, label: Any, count: Any, steps: Any, sampler: Any, guidance: Any, seed: Any) -> Iterator[str | None]:
        """New pictures as one lossless PNG, a grid with 2 white pixels between the pictures. Picture i (from 0, row by
        row) depends on seed + i alone, so the same seed gives the same pictures; seeds are whole numbers from 0 to
        4294967295. `label` is a class of the model, see /models, or "any": the classes take turns, by each picture's
        seed. `sampler` is "DDIM", "ancestral", "DPM-Solver++", "DPM-Solver++ SDE" or "UniPC"; `guidance` goes from 0 to 8 in
        halves and is w in ε̂(∅) + w (ε̂(label) − ε̂(∅)), 1 the plain model. A VAE takes one step, whatever `steps` says.
        Pictures × steps (× 2 where guidance is not 1) may be 5000 at 28×28 pixels.
        """
        with told():
            request = parse_sample(engine.offers, model, label, count, steps, sampler, guidance, seed)
            pace = Pace()
            for frame in engine.sample(request):
                if frame.index == frame.count:
                    yield _png_file(frame, request)
                elif pace.due():
                    yield None

    def sample_stream(model: Any, label: Any, count: Any, steps: Any, sampler: Any, guidance: Any, seed: Any) -> Iterator[str]:
        """The same as /sample, while it forms: a lossless PNG of x_t for every step shown (25 a second at most), the finished
        pictures last. Close the stream or cancel the job to stop the computation.
        """
        with told():
            request = parse_sample(engine.offers, model, label, count, steps, sampler, guidance, seed)
            pace = Pace()
            for frame in engine.sample(request):
                if pace.due() or frame.index == frame.count:
                    yield _png_file(frame, request)

    inputs = [model, label, count, steps, sampler, guidance, seed]
    pictures = gr.Image(label="pictures", format="png", visible=False)
    trigger = gr.Button(visible=False)
    named = [model, class_name(), count, steps, sampler, guidance, seed]
    trigger.click(sample, named, pictures, api_name="sample", **MODEL_EVENT)
    trigger.click(sample_stream, named, pictures, api_name="sample_stream", **MODEL_EVENT)

    connect(run, stop, show, inputs, [player, download])
    dice.click(None, None, seed, js=DICE, api_visibility="private")

    def fit_controls(chosen: Any) -> tuple[Any, Any, Any]:
        offer = engine.offers.get(chosen if isinstance(chosen, str) else "", first)
        classes = label_choices(offer)
        longest = min(STEPS.high, offer.T or STEPS.high)
        return (
            gr.update(
                choices=choices([ANY, *classes]),
                value=ANY,
                interactive=bool(classes),
                info=TEXT["label_info"] if classes else TEXT["label_none"],
            ),
            gr.update(
                maximum=longest,
                value=min(STEPS.default, longest),
                interactive=bool(offer.T),
                info=TEXT["steps_info"] if offer.T else TEXT["steps_none"],
            ),
            gr.update(visible=bool(offer.T)),
        )

    def cost(chosen: Any, number: Any, length: Any, weight: Any) -> FigureData:
        with told():
            return steps_curve.show(engine, chosen, int(COUNT.parse(number)), int(STEPS.parse(length)), GUIDANCE.parse(weight))

    asked = [model, count, steps, guidance]

    model.change(fit_controls, model, [label, steps, curve], **LIGHT_EVENT).then(cost, asked, curve, **LIGHT_EVENT)
    for component in (steps, count, guidance):
        component.input(cost, asked, curve, **NEWEST_EVENT)
    poster = Poster(engine, first)
    page.load(poster.show, None, player, **OPENING_EVENT).then(cost, asked, curve, **OPENING_EVENT)


def _film(engine: Engine, request: SampleRequest) -> Film:
    side = columns_of(request.count) * (engine.offers[request.model].data.size + 2) + 2
    length = request.steps + 1 if engine.offers[request.model].T else 1
    return Film(length, [request.model], (side, side), colours=["p"])


def _sheet(frame: SampleFrame) -> np.ndarray:
    """The pictures of a frame as one square picture, (side side [3])."""
    columns = columns_of(len(frame.pictures))
    picture = np.asarray(grid(frame.pictures, columns))
    missing = picture.shape[1] - picture.shape[0]
    return np.pad(picture, ((0, missing), *[(0, 0)] * (picture.ndim - 1)), constant_values=255)


def _caption(frame: SampleFrame) -> str:
    if frame.count == 0:
        return TEXT["vae"]
    return TEXT["noise" if frame.index == 0 else "formed"].format(index=frame.index, count=frame.count, t=frame.t)


def _png_file(frame: SampleFrame, request: SampleRequest) -> str:
    facts = {"Model": request.model, "Seed": request.seed, "Steps": request.steps, "Sampler": request.sampler}
    return save_result(png(frame.pictures, facts=facts), f"{request.model}-seed-{request.seed}.png")


class Poster:
    """What moves before anyone has pressed a button: one small run, made once, in the background, when the page is served."""

    def __init__(self, engine: Engine, offer: Offer) -> None:
        self._engine, self._offer = engine, offer
        self._film: Future[Film | None] = Future()
        self._begun = threading.Lock()
        engine.later(self.begin)

    def begin(self) -> None:
        """Make it, if nobody has begun."""
        if self._begun.acquire(blocking=False):
            threading.Thread(target=self._make).start()

    def _make(self) -> None:
        engine, offer = self._engine, self._offer
        try:
            steps = min(STEPS.default, offer.T or 1)
            request = parse_sample(engine.offers, offer.id, ANY, COUNT.default, steps, SAMPLER, GUIDANCE.default, SEED.default)
            film = _film(engine, request)
            for frame in engine.sample(request):
                if not threading.main_thread().is_alive():
                    return
                film.add(frame.index, [_sheet(frame)], _caption(frame))
            self._film.set_result(film)
        except Exception:  # without a poster the page is whole: the player says what to press
            log.warning("the first pictures could not be made", exc_info=True)
            self._film.set_result(None)

    def show(self) -> PlayerData:
        """The film, playing; an empty player where there is none, or none yet."""
        self.begin()
        try:
            film = self._film.result(timeout=WAIT)
        except FutureTimeout:  # before Python 3.11 not the built-in TimeoutError
            film = None
        return PlayerData() if film is None else film.sheet(autoplay=True, loop=True, first=0)
