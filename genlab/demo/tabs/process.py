"""The forward and the reverse process on one picture, step by step (notes 1.5, figure 5)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import gradio as gr

from genlab.demo.components.player import Player
from genlab.demo.engine import ChainFrame, Engine
from genlab.demo.limits import (
    ANY,
    CHAIN_SAMPLER,
    CHAIN_SAMPLERS,
    CHAIN_STEPS,
    MODEL,
    PICTURES,
    SEED,
    STARTS,
    UNTIL,
    DiffuseRequest,
    label_choices,
    parse_choice,
    parse_diffuse,
)
from genlab.demo.tabs import (
    DICE,
    LATEX,
    LIGHT_EVENT,
    MODEL_EVENT,
    Film,
    choices,
    class_name,
    connect,
    heading,
    of_class,
    pane,
    told,
)
from genlab.demo.tabs.picker import Picker
from genlab.serving.language import both
from genlab.serving.results import save_result

TITLE = both("Diffusion", "扩散")
TEXT = {
    "lead": both(
        "Forward, a fixed rule drowns a picture in noise; in reverse, the network has learned to pull a picture out of it.",
        "前向过程按固定的规则把图片淹没在噪声里；反向过程中，网络学会了从噪声里把图片找回来。",
    ),
    "empty": both(
        "Press “Run the process”: noise grows over the picture, then the network takes it away.",
        "点击“运行过程”：噪声逐步盖住图片，再由网络逐步去除。",
    ),
    "none": both("No diffusion model is served here.", "这里没有加载扩散模型。"),
    "model": both("Model", "模型"),
    "picture": both("Picture", "图片"),
    "class": both("Show one of the class", "换成某一类的图片"),
    "steps": both("Steps", "步数"),
    "steps_info": both("shown on the way there, and taken on the way back", "前向展示的步数，也是反向所走的步数"),
    "sampler": both("Sampler of the way back", "反向过程的采样方法"),
    "sampler_info": both(
        "ancestral is the notes' reverse process; DDIM leaves its chance out",
        "祖先采样即讲义中的反向过程；DDIM 去掉其中的随机性",
    ),
    "until": both("Noise up to t", "加噪到 t"),
    "until_info": both(
        "where the way there ends and the way back starts: how much of the picture survives?",
        "前向过程的终点，也是反向过程的起点：图片还剩下多少？",
    ),
    "start": both("The way back starts from", "反向过程的起点"),
    "label": both("Class for the way back", "反向生成的类别"),
    "label_info": both(
        "what the way back is to make; “any”: the class that the seed falls on, or none from a t < T",
        "希望反向过程生成什么；“任意”：由种子决定类别，从 t < T 出发时则不用类别",
    ),
    "seed": both("Seed of the noise", "噪声的种子"),
    "dice": both("New seed", "换一个种子"),
    "run": both("Run the process", "运行过程"),
    "stop": both("Stop", "停止"),
    "more": both("More", "更多选项"),
    "forward": both("forward q", "前向 q"),
    "reverse": both("reverse p_θ", "反向 p_θ"),
    "caption": "{direction} · t = {t} · ᾱ = {alpha_bar} · SNR = {snr}\n{formula}",
    "forward_formula": both("x_t = √ᾱ_t x_0 + √(1−ᾱ_t) ε;  x_0 and ε are known", "x_t = √ᾱ_t x_0 + √(1−ᾱ_t) ε；x_0 和 ε 已知"),
    "start_formula": both("x_0, the picture itself", "x_0，图片本身"),
    "ancestral_formula": both(
        "x_s ~ N(μ̃(x_t, x̂_0), Σ_θ);  x̂_0 and ε̂ are what the network sees in x_t",
        "x_s ~ N(μ̃(x_t, x̂_0), Σ_θ)；x̂_0 和 ε̂ 是网络从 x_t 中看出的",
    ),
    "DDIM_formula": both(
        "x_s = √ᾱ_s x̂_0 + √(1−ᾱ_s) ε̂;  x̂_0 and ε̂ are what the network sees in x_t",
        "x_s = √ᾱ_s x̂_0 + √(1−ᾱ_s) ε̂；x̂_0 和 ε̂ 是网络从 x_t 中看出的",
    ),
    "end_formula": both(
        "x_0, made by the reverse process: {rms} gray levels (RMS) from the picture, correlation {correlation}",
        "x_0，反向过程生成的图片：与原图相差 {rms} 个灰度级（均方根），相关系数 {correlation}",
    ),
    "formula_title": both("The formula (notes 1.5)", "公式（讲义 1.5）"),
    "formula": both("**Forward**, one step and any number of steps at once:", "**前向过程**，走一步，以及一次走若干步：")
    + r"""

$$q(x_t\mid x_{t-1}) = \mathcal N\big(\sqrt{1-\beta_t}\,x_{t-1},\ \beta_t I\big),\qquad
q(x_t\mid x_0) = \mathcal N\big(\sqrt{\bar\alpha_t}\,x_0,\ (1-\bar\alpha_t) I\big),\qquad
\bar\alpha_t = \prod_{i\le t}(1-\beta_i)$$

"""
    + both(
        r"These are two distributions; the notes' “$q(x_t|x_{t-1}) = q(x_t|x_0)$” is a slip. What is shown is one path of "
        r"the chain, each $x_t$ drawn from the one before. The signal-to-noise ratio is $\bar\alpha_t/(1-\bar\alpha_t)$, in "
        r"decibels $10\log_{10}$ of it.",
        r"这是两个不同的分布；讲义中的“$q(x_t|x_{t-1}) = q(x_t|x_0)$”是笔误。这里展示的是链上的一条路径，每个 $x_t$ "
        r"都由前一个抽样得到。信噪比为 $\bar\alpha_t/(1-\bar\alpha_t)$，分贝数是它的 $10\log_{10}$。",
    )
    + "\n\n"
    + both(
        r"**Reverse**: $\;p_\theta(x_{t-1}\mid x_t) = \mathcal N\big(\mu_\theta(x_t,t),\ \Sigma_\theta(x_t,t)\big)$ with the "
        r"posterior's mean, in which the network's $\hat x_0$ stands for the unknown picture:",
        r"**反向过程**：$\;p_\theta(x_{t-1}\mid x_t) = \mathcal N\big(\mu_\theta(x_t,t),\ \Sigma_\theta(x_t,t)\big)$，"
        r"均值取后验分布的均值，其中未知的原图由网络给出的 $\hat x_0$ 代替：",
    )
    + r"""

$$\mu_\theta = \frac{\sqrt{\alpha_t}(1-\bar\alpha_{t-1})}{1-\bar\alpha_t}\,x_t +
\frac{\sqrt{\bar\alpha_{t-1}}\,\beta_t}{1-\bar\alpha_t}\,\hat x_0,
\qquad \hat x_0 = \frac{x_t-\sqrt{1-\bar\alpha_t}\,\hat\varepsilon}{\sqrt{\bar\alpha_t}}$$

"""
    + both(
        r"In $x_T$ nearly nothing of the picture is left ($\bar\alpha_T \approx 0$), so the way back leads to another picture. "
        r"From a middle $t$ it keeps what the noise has left, coarse before fine, and invents the rest: move “Noise up to t”.",
        r"在 $x_T$ 处，原图几乎什么也没留下（$\bar\alpha_T \approx 0$），所以反向过程会走到另一张图片。"
        r"从中间的 $t$ 出发，它保留噪声没有淹没的部分（先是轮廓，后是细节），其余由它创造：试试移动“加噪到 t”。",
    ),
}
NAMES = ("x_t", "x̂_0", "ε̂")


def build(engine: Engine, page: gr.Blocks) -> None:
    """The tab, and the endpoint `/diffuse`."""
    chains = [o for o in engine.offers.values() if o.kind == "ddpm"]
    if not chains:
        gr.Markdown(TEXT["none"])
        return
    first, models = chains[0], tuple(o.id for o in chains)

    def data_of(chosen: Any) -> str:
        return engine.offers[parse_choice(MODEL, chosen, models)].data.name

    run, stop = heading(TEXT["lead"], TEXT["run"], TEXT["stop"], "diffusion-run")
    player = Player(
        label="frames",
        panes=NAMES,
        pane_shape=(first.data.size, first.data.size),
        segmented=True,
        lines=(2, 4),
        labels={"empty": TEXT["empty"]},
    )
    longest = min(CHAIN_STEPS.high, first.T)
    with gr.Row(equal_height=False):
        with gr.Column(min_width=300):
            picker = Picker(engine, TEXT["picture"], 0, PICTURES, data_of, first.id)
        with gr.Column(min_width=300):
            model = gr.Dropdown(list(models), value=first.id, label=TEXT["model"], interactive=len(models) > 1)
            kind = gr.Dropdown(
                choices(first.data.classes), value=None, label=TEXT["class"], visible=bool(first.data.classes), interactive=True
            )
            steps = gr.Slider(
                CHAIN_STEPS.low,
                longest,
                min(CHAIN_STEPS.default, longest),
                step=1,
                precision=0,
                label=TEXT["steps"],
                info=TEXT["steps_info"],
            )
            until = gr.Slider(1, first.T, first.T, step=1, precision=0, label=TEXT["until"], info=TEXT["until_info"])
        with gr.Column(min_width=300), gr.Accordion(TEXT["more"], open=False):
            sampler = gr.Radio(choices(CHAIN_SAMPLERS), value=CHAIN_SAMPLER, label=TEXT["sampler"], info=TEXT["sampler_info"])
            start = gr.Radio(choices(STARTS), value=STARTS[0], label=TEXT["start"])
            label = gr.Dropdown(
                choices([ANY, *label_choices(first)]),
                value=ANY,
                label=TEXT["label"],
                info=TEXT["label_info"],
                interactive=bool(label_choices(first)),
            )
            seed = gr.Number(SEED.default, precision=0, minimum=0, maximum=SEED.high, label=TEXT["seed"])
            dice = gr.Button(TEXT["dice"], size="sm")
    with gr.Accordion(TEXT["formula_title"], open=False):
        gr.Markdown(TEXT["formula"], latex_delimiters=LATEX)
    picker.connect(model)

    def parse(
        model: Any, ends: tuple[Any, Any, Any], steps: Any, sampler: Any, start: Any, label: Any, seed: Any, until: Any
    ) -> DiffuseRequest:
        data_of(model)
        return parse_diffuse(engine.offers, model, picker.parse(model, *ends), steps, sampler, label, start, seed, until)

    def show(model: Any, source: Any, number: Any, upload: Any, *values: Any) -> Iterator[Any]:
        with told():
            request = parse(model, (source, number, upload), *values)
            film = _film(engine, request)
            for frame in engine.diffuse(request):
                live = film.add(frame.index, _panes(frame), _caption(frame, request))
                if live is not None and frame.index < frame.count - 1:
                    yield live
            yield film.sheet()

    def diffuse(
        model: Any,
        picture_from: Any,
        number: Any,
        steps: Any,
        sampler: Any,
        start: Any,
        label: Any,
        seed: Any,
        upload: Any = None,
        until: Any = 0,
    ) -> Iterator[tuple[str | None, list[dict[str, Any]] | None]]:
        """The forward process on a picture and the reverse process from its end, as one lossless animated WebP (x_t, x̂_0
        and ε̂ side by side; forward, x_0 and ε are the true ones), and the numbers of each of its 2 (steps + 1) frames:
        direction, t, alpha_bar (ᾱ_t), snr (ᾱ_t / (1 − ᾱ_t), null for infinite); in reverse also how far x̂_0 is from the
        picture: rms (root mean square, in the 255 gray levels) and correlation (null for a picture of one gray). The picture
        is test picture `number` or an upload, as `picture_from` says. `start` says whether the way back starts from "the noise
        reached" or from "fresh noise"; `label` is the class that the way back is to make, or "any": the one that the seed
        falls on. `until` is the t at which the way there ends and the way back starts, 0 for T; there are no more steps than
        that, and below T "any" leads the way back to no class. `steps` are shown on the way there and taken on the way back, by
        `sampler`, "DDIM" or "ancestral"; `seed` is that of the noise.
        """
        with told():
            request = parse(model, (picture_from, number, upload), steps, sampler, start, label, seed, until)
            film, numbers = _film(engine, request), []
            for frame in engine.diffuse(request):
                if film.add(frame.index, _panes(frame), "") is not None:
                    yield None, None
                numbers.append(_numbers(frame))
            yield save_result(film.webp(), f"{request.model}-process.webp"), numbers

    inputs = [model, *picker.inputs, steps, sampler, start, label, seed, until]
    animation = gr.File(label="animation", visible=False)
    numbers = gr.JSON(label="frames", visible=False)
    up_to = gr.Number(UNTIL.default, precision=0, label="Until", visible=False)
    named = [model, picker.source, picker.number, steps, sampler, start, class_name(), seed, picker.upload, up_to]
    gr.Button(visible=False).click(diffuse, named, [animation, numbers], api_name="diffuse", **MODEL_EVENT)
    connect(run, stop, show, inputs, [player])
    dice.click(None, None, seed, js=DICE, api_visibility="private")

    @told()
    def next_of_class(chosen: Any, name: Any, current: Any) -> Any:
        return of_class(engine, engine.offers[parse_choice(MODEL, chosen, models)].data, name, current)

    kind.input(next_of_class, [model, kind, picker.number], picker.number, **LIGHT_EVENT)

    def fit_controls(chosen: Any) -> tuple[Any, ...]:
        offer = engine.offers.get(chosen if isinstance(chosen, str) else "", first)
        longest = min(CHAIN_STEPS.high, offer.T)
        return (
            gr.update(choices=choices(offer.data.classes), value=None, visible=bool(offer.data.classes)),
            gr.update(maximum=longest, value=min(CHAIN_STEPS.default, longest)),
            gr.update(choices=choices([ANY, *label_choices(offer)]), value=ANY, interactive=bool(label_choices(offer))),
            gr.update(maximum=offer.T, value=offer.T),
        )

    model.change(fit_controls, model, [kind, steps, label, until], **LIGHT_EVENT)


def _film(engine: Engine, request: DiffuseRequest) -> Film:
    size = engine.offers[request.model].data.size
    segments = [(0, TEXT["forward"]), (request.steps + 1, TEXT["reverse"])]
    return Film(2 * (request.steps + 1), NAMES, (size, size), segments=segments)


def _panes(frame: ChainFrame) -> list[Any]:
    return [pane(picture) for picture in (frame.x_t, frame.x0, frame.eps)]


def _caption(frame: ChainFrame, request: DiffuseRequest) -> str:
    if frame.direction == "forward":
        formula = TEXT["start_formula" if frame.t == 0 else "forward_formula"]
    else:
        formula = TEXT["end_formula" if frame.t == 0 else f"{request.sampler}_formula"]
        correlation = "–" if math.isnan(frame.correlation) else f"{frame.correlation:.2f}".replace("-", "−")
        formula = formula.format(rms=f"{frame.rms:.0f}", correlation=correlation)
    snr = "∞" if math.isinf(frame.snr) else f"{frame.snr:.3g} ({10 * math.log10(frame.snr):+.1f} dB)"
    return TEXT["caption"].format(
        direction=TEXT[frame.direction], t=frame.t, alpha_bar=f"{frame.alpha_bar:.3g}", snr=snr, formula=formula
    )


def _numbers(frame: ChainFrame) -> dict[str, Any]:
    snr = None if math.isinf(frame.snr) else frame.snr
    numbers: dict[str, Any] = {"direction": frame.direction, "t": frame.t, "alpha_bar": frame.alpha_bar, "snr": snr}
    if frame.direction == "reverse":
        numbers.update(rms=frame.rms, correlation=None if math.isnan(frame.correlation) else frame.correlation)
    return numbers
