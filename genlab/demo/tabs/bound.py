"""The variational bound of a diffusion model, term by term, and one pixel's two Gaussians at one step (notes 1.5)."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import gradio as gr
import numpy as np
import torch

from genlab.config import Variance
from genlab.data import to_pixels
from genlab.demo.components.canvas import Canvas, CanvasData, canvas_data
from genlab.demo.components.figure import (
    AnyLayer,
    Area,
    Axis,
    Bars,
    Figure,
    FigureData,
    Line,
    Panel,
    Points,
    Rule,
    Selected,
    Stack,
    selected,
)
from genlab.demo.components.player import new_run
from genlab.demo.engine import BoundStep, Engine
from genlab.demo.limits import (
    PICTURES,
    SEED,
    Pick,
    ddpm_offer,
    ddpm_offers,
    parse_step,
)
from genlab.demo.tabs import LATEX, NEWEST_EVENT, ONE_LOOK_EVENT, measurements, pane, told
from genlab.demo.tabs.measurements import SIGMA, own_first, plain, small, with_error
from genlab.demo.tabs.one_picture import OnePicture
from genlab.divergence import bits_per_dim, nats_to_bits
from genlab.measurements import DiffusionBound, Samples, read_evaluation, to_json
from genlab.serving.language import both

TITLE = both("Bound", "变分界")
COLOURS: dict[Variance, str] = {"learned": "p", "posterior": "q", "beta": "x_t"}
TEXT = {
    "lead": both(
        "The bound says how many bits a picture costs, step by step: $L_T$, every $L_{t-1}$, $L_0$. Click a step $t$ in the "
        "curve, then a pixel, and see the two Gaussians whose divergence is paid for there.",
        "这个界说明一张图片要花多少比特，一步一步地算：$L_T$、每个 $L_{t-1}$、$L_0$。在曲线上点选一步 $t$，再点选一个像素，"
        "看看在那里付出的是哪两个高斯分布之间的散度。",
    ),
    "none": both("No diffusion model is served here.", "这里没有加载扩散模型。"),
    "again": both("New noise", "换一份噪声"),
    "t": both("Step t, 1 to {T}", "步 t，1 到 {T}"),
    "seed": both("Seed of the noise in x_t", "x_t 中噪声的种子"),
    "ledger": both("The ledger of the bound", "变分界的账目"),
    "curve_title": both("Bits per dimension of one step: click a t", "每一步的比特/维：点选一个 t"),
    "bars_title": both("Their sum, bits/dim", "总和，比特/维"),
    "step": both("step t", "步 t"),
    "bits": both("bits/dim", "比特/维"),
    "this": both("this picture", "这张图片"),
    "prior": "L_T",
    "transitions": both("Σ L_{t−1}, t = 2 … T", "Σ L_{t−1}，t = 2 … T"),
    "decoder": "L_0",
    "measured": both(
        "{sigma}, the model's own: {total} bits/dim, the mean of {images} test pictures; ± is the standard error",
        "{sigma}（模型自己的）：{total} 比特/维，{images} 张测试图片的平均；± 为标准误差",
    ),
    "unmeasured": both(
        "This model has not been measured; training/evaluate.py does it. What the picture costs at a t is shown all the same.",
        "这个模型还没有测量过；training/evaluate.py 可以测量。仍然可以点选 t，看这张图片在那里的代价。",
    ),
    "canvas": both("The picture at step t, and the bits of each pixel", "第 t 步的图片，以及每个像素的比特数"),
    "pane": both("bits", "比特"),
    "caption": both(
        "t = {t} of {T}, ᾱₜ = {alpha_bar}: L{index} = {bits} bits/dim for this picture{measured}\n"
        "{by_variance}; last picture: the bits of each pixel, white is {white}",
        "t = {t}，共 {T} 步，ᾱₜ = {alpha_bar}：这张图片的 L{index} = {bits} 比特/维{measured}\n"
        "{by_variance}；最后一幅图：每个像素的比特数，白色为 {white}",
    ),
    "on_average": both("; on average {mean} ± {error}", "；平均为 {mean} ± {error}"),
    "pixel": both("One pixel at step t", "第 t 步的一个像素"),
    "gaussians_title": both("The pixel in row {row}, column {column}", "第 {row} 行第 {column} 列的像素"),
    "q": both("q(x_{t−1}|x_t, x_0)", "q(x_{t−1}|x_t, x_0)，后验"),
    "p": both("p_θ(x_{t−1}|x_t)", "p_θ(x_{t−1}|x_t)，模型"),
    "p_levels": both("p_θ(x_0|x_1), mass on each gray level", "p_θ(x_0|x_1)，每个灰度级上的概率"),
    "value": both("x_{t−1}, from black −1 to white 1", "x_{t−1}，黑 −1 到白 1"),
    "level": both("gray level of x_0, 0 to 255", "x_0 的灰度级，0 到 255"),
    "x_0_is": "x_0 = {level}",
    "sigma_title": both("Σ_θ between β̃ and β, log scale", "Σ_θ 在 β̃ 与 β 之间的位置，对数刻度"),
    "share": both("all pixels", "全部像素"),
    "chosen": both("this pixel", "这个像素"),
    "way": "0: β̃, 1: β",
    "kl": both(
        "KL[q ‖ p] = {bits} bits: how far the model's Gaussian p is from q, the one that knows x₀\n"
        "q: mean {q_mean}, σ {q_std}; p: mean {p_mean}, σ {p_std}; x₀ = {x_0}, xₜ = {x_t}, x̂₀ = {x0_hat}",
        "KL[q ‖ p] = {bits} 比特：模型的高斯 p 与知道 x₀ 的高斯 q 之间的差距\n"
        "q：均值 {q_mean}，σ {q_std}；p：均值 {p_mean}，σ {p_std}；x₀ = {x_0}，xₜ = {x_t}，x̂₀ = {x0_hat}",
    ),
    "l_0": both(
        "−log₂ p(x₀|x₁) = {bits} bits, from the mass of the model's p on the gray level of x₀, {level}\n"
        "p: mean {p_mean}, σ {p_std}, where a gray level is 0.0078 wide; x₀ = {x_0}, x₁ = {x_t}, x̂₀ = {x0_hat}",
        "−log₂ p(x₀|x₁) = {bits} 比特，来自模型的 p 在 x₀ 的灰度级 {level} 上的概率\n"
        "p：均值 {p_mean}，σ {p_std}，一个灰度级宽 0.0078；x₀ = {x_0}，x₁ = {x_t}，x̂₀ = {x0_hat}",
    ),
    "sigma": both(
        "{name}: β̃ = {beta_tilde}, Σ of this pixel = {sigma}, β = {beta}",
        "{name}：β̃ = {beta_tilde}，这个像素的 Σ = {sigma}，β = {beta}",
    ),
    "formula_title": both("The formula (notes 1.5)", "公式（讲义 1.5）"),
    "formula": r"""
$$-\log p_\theta(x_0) \;\le\; L_{VLB} = L_T + \sum_{t=2}^T L_{t-1} + L_0$$

$$L_T = \mathrm{KL}[q(x_T\mid x_0)\,\|\,p(x_T)],\qquad
L_{t-1} = \mathbb E_{q(x_t|x_0)}\,\mathrm{KL}[q(x_{t-1}\mid x_t,x_0)\,\|\,p_\theta(x_{t-1}\mid x_t)],\qquad
L_0 = \mathbb E_{q(x_1|x_0)}[-\log p_\theta(x_0\mid x_1)]$$

$$q(x_{t-1}\mid x_t,x_0) = \mathcal N(\tilde\mu_t(x_t,x_0),\ \tilde\beta_t I),\qquad
p_\theta(x_{t-1}\mid x_t) = \mathcal N(\tilde\mu_t(x_t,\hat x_0),\ \Sigma_\theta),\qquad
\tilde\beta_t = \tfrac{1-\bar\alpha_{t-1}}{1-\bar\alpha_t}\,\beta_t$$

$$\mathrm{KL} = \tfrac12\sum_i\Big[\log\frac{\Sigma_i}{\tilde\beta_t}
+ \frac{\tilde\beta_t + (\tilde\mu_i-\mu_{\theta,i})^2}{\Sigma_i} - 1\Big],
\qquad \log\Sigma_i = w_i\log\beta_t + (1-w_i)\log\tilde\beta_t$$

"""
    + both(
        r"$q(x_{t-1}|x_t,x_0)$ is a product of two Gaussians in $x_{t-1}$, one from $q(x_t|x_{t-1})$, one from "
        r"$q(x_{t-1}|x_0)$: precisions add, $\tfrac{\alpha_t}{\beta_t}+\tfrac1{1-\bar\alpha_{t-1}}=\tfrac1{\tilde\beta_t}$, "
        r"and the mean is weighted by them. The notes' chain of equalities writes ratios of standard deviations for ratios of "
        r"densities on the way; its result is the same.",
        r"$q(x_{t-1}|x_t,x_0)$ 是关于 $x_{t-1}$ 的两个高斯之积，分别来自 $q(x_t|x_{t-1})$ 和 $q(x_{t-1}|x_0)$："
        r"精度相加，$\tfrac{\alpha_t}{\beta_t}+\tfrac1{1-\bar\alpha_{t-1}}=\tfrac1{\tilde\beta_t}$，均值按精度加权。"
        r"讲义的一串等式在途中把密度之比写成了标准差之比，结果是对的。",
    )
    + "\n\n"
    + both(
        r"The notes say that $L_T$ and $L_{t-1}$ are no KL divergences: inside the outer expectation they are, so each has "
        r"a closed form and is $\ge 0$. The best $L_{t-1}$ is not 0 in general, since $p_\theta$ does not see $x_0$. And "
        r"$L_0 \ge 0$ only because gray levels are discrete: it takes the Gaussian's mass within half a level of $x_0$. "
        r"Classes are hidden from the network here; at $t = 1$, where $\tilde\beta_1 = 0$, $\tilde\beta_2$ takes its place.",
        r"讲义说 $L_T$ 和 $L_{t-1}$ 不是 KL 散度：在外层期望之内它们正是，所以每一项都有闭式，且 $\ge 0$。"
        r"$L_{t-1}$ 的最优值一般不是 0，因为 $p_\theta$ 看不到 $x_0$。而 $L_0 \ge 0$ 只因灰度级是离散的："
        r"它取高斯在 $x_0$ 上下半个灰度级之内的概率。这里不把类别告诉网络；"
        r"在 $t = 1$ 处 $\tilde\beta_1 = 0$，以 $\tilde\beta_2$ 代替。",
    ),
}  # fmt: skip
NAMES = ("x₀", "xₜ", "x̂₀", TEXT["pane"])
PANE_COLOURS = ("p", "x_t", "x0_hat", "kl")
CURVE = 400
"""Steps t at most that can be chosen by a click."""
BINS = 40
"""Of the histogram of w."""
REACH = 4
"""Standard deviations to either side that a Gaussian is drawn over."""
LEAST = 1e-12
"""Bits/dim at least of a term that the ledger's curve shows."""
SEEN = 1e-3
"""Least mass of a gray level that is shown."""


def build(engine: Engine, page: gr.Blocks) -> None:
    """The tab, and the endpoint `/bound`."""
    offers = ddpm_offers(engine.offers)
    if not offers:
        gr.Markdown(TEXT["none"])
        return
    one = OnePicture(engine, "bound", offers, partial(ddpm_offer, engine.offers))
    first = one.first

    def measured(model: str) -> DiffusionBound | None:
        return read_evaluation(engine.models[model].package.metrics).bound_of_chain(engine.offers[model].T)

    def stages(model: Any, pick: Pick, t: Any, seed: Any, token: str, chosen: Any) -> tuple[FigureData, CanvasData, FigureData]:
        """The ledger, the pictures, the pixel; no pixel chosen: the one that costs most."""
        place = (0, 0) if chosen is None else chosen
        row, column = place if isinstance(place, (tuple, list)) and len(place) == 2 else (None, None)
        request = parse_step(engine.offers, model, pick, t, seed, row, column)
        step, ledger = engine.bound_step(request), measured(request.model)
        at = step.dearest if chosen is None else (request.row, request.column)
        return _ledger(ledger, step), _canvas(ledger, step, token, at), _pixel(step, *at)

    def begin(model: str, seed: Any) -> tuple[FigureData, CanvasData, FigureData]:
        return stages(model, one.start(model), engine.first_noisy(model), seed, new_run(), None)

    one.lead(TEXT["lead"], TEXT["again"])
    shown = begin(first.id, int(SEED.default))
    ledger = Figure(shown[0], label="ledger", labels={"player": TEXT["ledger"]}, elem_id="bound-ledger")
    with gr.Row():
        t = gr.Number(
            engine.first_noisy(first.id),
            precision=0,
            minimum=1,
            maximum=first.T,
            label=TEXT["t"].format(T=first.T),
            min_width=140,
            elem_id="bound-t",
        )
        one.choose_model()
    canvas = Canvas(shown[1], label="pictures", labels={"canvas": TEXT["canvas"]}, elem_id="bound-canvas")
    pixel = Figure(shown[2], label="pixel", labels={"player": TEXT["pixel"]}, elem_id="bound-pixel")
    tables = measurements.show(engine, first.id)
    one.choose_picture(TEXT["seed"])
    with gr.Accordion(TEXT["formula_title"], open=False):
        gr.Markdown(TEXT["formula"], latex_delimiters=LATEX)

    def show_test(model: Any, number: Any, t: Any, seed: Any, canvas: Any) -> Any:
        if None in (number, t, seed):  # the field is being filled
            return gr.skip(), gr.skip(), gr.skip()
        with told():
            pick = one.parse(model, "test picture", number, None)
            return stages(model, pick, t, seed, new_run(), one.drawn(model, canvas)[2])

    def show_upload(model: Any, upload_value: Any, t: Any, seed: Any, canvas: Any) -> Any:
        if upload_value is None:
            return gr.skip(), gr.skip(), gr.skip()
        with told():
            pick = one.parse(model, "upload", None, upload_value)
            return stages(model, pick, t, seed, new_run(), one.drawn(model, canvas)[2])

    def show(model: Any, t: Any, seed: Any, canvas: Any) -> Any:
        if t is None or seed is None:  # the field is being filled
            return gr.skip(), gr.skip(), gr.skip()
        with told():
            pick, token, chosen = one.drawn(model, canvas)
            return stages(model, pick, t, seed, token, chosen)

    def show_chosen(model: Any, figure: Any, t: Any, seed: Any, canvas: Any) -> Any:
        chosen = selected(figure)
        step = t if chosen is None else round(chosen[1])
        return step, *show(model, step, seed, canvas)

    def show_model(model: Any, seed: Any) -> Any:
        with told():
            offer = one.offer_of(model)
            return (
                *begin(model, seed),
                *measurements.tables(engine, model),
                gr.update(value=engine.first_noisy(model), maximum=offer.T, label=TEXT["t"].format(T=offer.T)),
                *one.fit(model),
            )

    model, number, upload, seed = one.model, one.number, one.upload, one.seed
    stage: list[Any] = [ledger, canvas, pixel]
    state: list[Any] = [t, seed, canvas]
    one.connect()
    ledger.select(show_chosen, [model, ledger, *state], [t, *stage], **NEWEST_EVENT)
    t.input(show, [model, *state], stage, **NEWEST_EVENT)
    seed.change(show, [model, *state], stage, **NEWEST_EVENT)
    canvas.input(show, [model, *state], stage, **NEWEST_EVENT)
    canvas.select(show, [model, *state], stage, **NEWEST_EVENT)
    number.change(show_test, [model, number, *state], stage, **NEWEST_EVENT)
    upload.change(show_upload, [model, upload, *state], stage, **NEWEST_EVENT)
    model.change(show_model, [model, seed], [*stage, *tables, t, number, one.kind], **NEWEST_EVENT)

    def bound(
        model: Any, picture_from: Any, number: Any, t: Any, seed: Any, row: Any, column: Any, upload: Any = None
    ) -> dict[str, Any]:
        """The bound of a DDPM at step t for one picture, every number of the page's Bound tab. The picture is test picture
        `number` or an upload, as `picture_from` says; x_t is drawn with the noise of `seed`; classes are hidden. The step has
        `t` of `T`, `alpha_bar` (ᾱ_t), `beta_tilde` and `beta` (β̃_t, at t = 1 β̃_2, and β_t), and `variance`, which Σ is the
        model's own. `bits_per_dim` has `term`, the picture's L_{t−1}, or L_0 at t = 1, with that Σ, `by_variance`, the same
        with each Σ that the model can have, and `prior`, its L_T. `bits` has the term's bits of every pixel, row by row, and
        `fractions` where log Σ lies between log β̃ (0) and log β (1), as (C H W). `pixel` is the one in `row` and `column` (its
        first channel): `x_0`, `x_t`, `x0_hat`, mean and variance of `q`, q(x_{t−1}|x_t,x_0) (null at t = 1), and of `p`,
        p_θ(x_{t−1}|x_t), its `bits` and `fraction` and, at t = 1, `levels`: the mass on each gray level (else null). `measured`
        has what was measured on the test pictures: the `likelihood`'s ledger and the quality of `samples`, or null.
        """
        with told():
            pick = one.parse(model, picture_from, number, upload)
            request = parse_step(engine.offers, model, pick, t, seed, row, column)
            samples = read_evaluation(engine.models[request.model].package.metrics).samples
            return _numbers(engine.bound_step(request), request.row, request.column, measured(request.model), samples)

    source = gr.Textbox(PICTURES[0], label="Picture from", visible=False)
    row = gr.Number(first.data.size // 2, precision=0, label="Row", visible=False)
    column = gr.Number(first.data.size // 2, precision=0, label="Column", visible=False)
    numbers = gr.JSON(label="numbers", visible=False)
    gr.Button(visible=False).click(
        bound, [model, source, number, t, seed, row, column, upload], numbers, api_name="bound", **ONE_LOOK_EVENT
    )


def _ledger(ledger: DiffusionBound | None, step: BoundStep) -> FigureData:
    """The mean term of every step, this picture's, and the sums."""
    times = np.unique(np.geomspace(1, step.T, CURVE).round())
    now = max(_bits_per_dim(step, float(step.terms.double().sum())), 0.0)
    if ledger is None:
        terms: dict[Variance, np.ndarray] = {step.variance: np.full(len(times), math.nan)}
        low, high = 1e-7, 10.0
    else:
        strata = [ledger.stratum(int(t)) for t in times]
        each = ledger.ledger.mean_term_bits_per_dim
        terms = {name: np.array(each[name])[strata] for name in own_first(ledger)}
        there = np.array([v for values in terms.values() for v in values if v > LEAST] or [1.0])
        low, high = (10.0 ** f(math.log10(v)) for f, v in ((math.floor, there.min() / 9), (math.ceil, 2 * there.max())))
    layers: list[AnyLayer] = [
        Line(
            name=SIGMA[name],
            colour=COLOURS[name],
            width=3 if name == step.variance else 1.5,
            dash=name != step.variance,
            x=times,
            y=np.where(values > LEAST, values, math.nan),
        )
        for name, values in terms.items()
    ]
    layers.append(Points(name=TEXT["this"], colour="ink", size=10, opacity=1, x=[step.t], y=[min(max(now, low), high)]))
    caption = TEXT["unmeasured"] if ledger is None else _sentence(ledger)
    panels = [
        Panel(
            x=Axis(low=0.8, high=1.25 * step.T, scale="log", name=TEXT["step"]),
            y=Axis(low=low, high=high, scale="log", name=TEXT["bits"]),
            layers=layers,
            title=TEXT["curve_title"],
            description=caption,
            aspect=1.75 if ledger else 3,
            share=1.4,
            least=300,
            select=True,
        )
    ]
    if ledger is not None:
        names = own_first(ledger)
        sums = [ledger.by_variance[name] for name in names]
        total = max(max(s.bound_bits_per_dim for s in sums), 1e-3)
        parts = (
            ("decoder", "p", [s.decoder_term_L_0_bits_per_dim for s in sums]),
            ("transitions", "kl", [s.transition_terms_sum_bits_per_dim for s in sums]),
            ("prior", "gap", [ledger.prior_term_L_T_bits_per_dim] * len(sums)),
        )
        stacks = [Stack(name=TEXT[part], colour=colour, values=values) for part, colour, values in parts]
        texts = [with_error(s.bound_bits_per_dim, s.bound_standard_error_bits_per_dim) for s in sums]
        bars = Bars(labels=[SIGMA[name] for name in names], stacks=stacks, texts=texts, horizontal=True)
        panels.append(
            Panel(
                x=Axis(low=0, high=1.02 * total, name=TEXT["bits"]),
                y=Axis(low=-0.5, high=len(names) - 0.5, ticks=False),
                layers=[bars],
                title=TEXT["bars_title"],
                description=caption,
                aspect=1.46,
                least=280,
                readout=False,
            )
        )
    return FigureData(panels=panels, selected=Selected(panel=0, x=step.t), caption=caption, description=caption)


def _sentence(ledger: DiffusionBound) -> str:
    own = ledger.by_variance[ledger.variance]
    return TEXT["measured"].format(
        sigma=SIGMA[ledger.variance],
        total=with_error(own.bound_bits_per_dim, own.bound_standard_error_bits_per_dim),
        images=f"{ledger.images:,}",
    )


def _canvas(ledger: DiffusionBound | None, step: BoundStep, token: str, chosen: tuple[int, int]) -> CanvasData:
    bits = nats_to_bits(step.per_pixel)
    white = max(float(bits.max()), 1e-12)
    heat = to_pixels((2 * bits / white - 1).expand_as(step.x0))
    average = ""
    if ledger is not None:
        k, strata = ledger.stratum(step.t), ledger.ledger
        mean, error = strata.mean_term_bits_per_dim[step.variance][k], strata.standard_error_bits_per_dim[step.variance][k]
        average = TEXT["on_average"].format(mean=small(mean), error=small(error, 2))
    caption = TEXT["caption"].format(
        t=step.t,
        T=step.T,
        alpha_bar=small(step.alpha_bar),
        index=_index(step.t - 1),
        bits=small(_bits_per_dim(step, float(step.terms.double().sum()))),
        measured=average,
        by_variance=", ".join(f"{SIGMA[name]}: {small(_bits_per_dim(step, v))}" for name, v in step.by_variance.items()),
        white=small(white),
    )
    panes = [pane(picture) for picture in (*(to_pixels(x) for x in (step.x0, step.x_t, step.x0_hat)), heat)]
    return canvas_data(token, panes, NAMES, PANE_COLOURS, chosen, caption)


def _pixel(step: BoundStep, row: int, column: int) -> FigureData:
    """The Gaussians of one pixel, or the mass on its gray levels, and where its Σ lies."""
    place = (0, row, column)
    mean, std = float(step.p.mean[place]), float(step.p.std[place])
    x0, x_t, x0_hat = (float(x[place]) for x in (step.x0, step.x_t, step.x0_hat))
    bits = small(float(nats_to_bits(step.terms[place])))
    told = {
        "bits": bits, "p_mean": plain(mean), "p_std": small(std),
        "x_0": plain(x0), "x_t": plain(x_t), "x0_hat": plain(x0_hat),
    }  # fmt: skip
    if step.q is None:
        level = int(to_pixels(step.x0)[place])
        caption, panel = TEXT["l_0"].format(level=level, **told), _levels(step, row, column, level)
    else:
        q_mean, q_std = float(step.q.mean[place]), float(step.q.std[place])
        caption = TEXT["kl"].format(q_mean=plain(q_mean), q_std=small(q_std), **told)
        low, high = (f(q_mean + s * REACH * q_std, mean + s * REACH * std) for f, s in ((min, -1), (max, 1)))
        x = torch.linspace(low, high, 241)
        q, p = step.densities(row, column, x)
        top = 1.1 * float(torch.cat([q, p]).max())
        layers: list[AnyLayer] = [
            Area(name=TEXT["q"], colour="q", x=x, y=q),
            Line(name=TEXT["p"], colour="p", width=3, x=x, y=p),
        ]
        for name, colour, at in (("x_0", "p", x0), ("x_t", "x_t", x_t), ("x̂_0", "x0_hat", x0_hat)):
            if low < at < high:
                layers.append(Points(name=name, colour=colour, size=11, opacity=1, x=[at], y=[0.04 * top]))
        panel = Panel(x=Axis(low=low, high=high, name=TEXT["value"]), y=Axis(low=0, high=top), layers=layers)
    caption += "\n" + TEXT["sigma"].format(
        name=SIGMA[step.variance],
        beta_tilde=small(step.beta_tilde),
        sigma=small(float(step.p.variance[place])),
        beta=small(step.beta),
    )
    panel.title, panel.description = TEXT["gaussians_title"].format(row=row, column=column), caption
    panel.aspect, panel.share, panel.least = 1.75, 1.4, 300
    panels = [panel, _between(step, float(step.fraction[place]), caption)]
    return FigureData(panels=panels, caption=caption, description=caption)


def _levels(step: BoundStep, row: int, column: int, level: int) -> Panel:
    """p_θ(x_0|x_1) of a pixel: the mass on each gray level near it."""
    mass = step.levels(row, column).numpy()
    seen = [level, *np.flatnonzero(mass > SEEN).tolist()]
    low, high = max(0, min(seen) - 3), min(255, max(seen) + 3)
    some = mass[low : high + 1]
    edges = np.arange(low, high + 2) - 0.5
    layers: list[AnyLayer] = [
        Area(
            name=TEXT["p_levels"],
            colour="p",
            x=np.repeat(edges, 2),
            y=np.concatenate([[0], np.repeat(some, 2), [0]]),
        ),
        Rule(colour="p", at=level, text=TEXT["x_0_is"].format(level=level)),
    ]
    y = Axis(low=0, high=1.25 * max(float(some.max()), 1e-3))
    return Panel(x=Axis(low=low - 1, high=high + 1, name=TEXT["level"]), y=y, layers=layers)


def _between(step: BoundStep, chosen: float, description: str) -> Panel:
    """Where log Σ lies between log β̃ (0) and log β (1): all pixels as a histogram, and the chosen one."""
    fraction = step.fraction.flatten().double().numpy()
    low, high = min(-0.2, float(fraction.min()) - 0.1), max(1.2, float(fraction.max()) + 0.1)
    count, edges = np.histogram(fraction, bins=BINS, range=(low, high))
    share = count / len(fraction)
    layers: list[AnyLayer] = [
        Area(
            name=TEXT["share"],
            colour="p",
            edge=False,
            opacity=0.3,
            x=np.repeat(edges, 2),
            y=np.concatenate([[0], np.repeat(share, 2), [0]]),
        ),
        Rule(colour="q", at=0, text="β̃"),
        Rule(colour="x_t", at=1, text="β"),
        Points(name=TEXT["chosen"], colour="p", size=13, opacity=1, x=[chosen], y=[0.06 * float(share.max())]),
    ]
    return Panel(
        x=Axis(low=low, high=high, name=TEXT["way"]),
        y=Axis(low=0, high=1.3 * float(share.max()), ticks=False),
        layers=layers,
        title=TEXT["sigma_title"],
        description=description,
        aspect=1.46,
        least=280,
        readout=False,
    )


def _numbers(step: BoundStep, row: int, column: int, ledger: DiffusionBound | None, samples: Samples | None) -> dict[str, Any]:
    place = (0, row, column)

    def of(gaussian: Any) -> dict[str, float] | None:
        return None if gaussian is None else {"mean": float(gaussian.mean[place]), "variance": float(gaussian.variance[place])}

    return {
        "t": step.t,
        "T": step.T,
        "alpha_bar": step.alpha_bar,
        "variance": step.variance,
        "beta_tilde": step.beta_tilde,
        "beta": step.beta,
        "bits_per_dim": {
            "term": _bits_per_dim(step, float(step.terms.double().sum())),
            "by_variance": {name: _bits_per_dim(step, nats) for name, nats in step.by_variance.items()},
            "prior": _bits_per_dim(step, step.prior),
        },
        "pixel": {
            "x_0": float(step.x0[place]),
            "x_t": float(step.x_t[place]),
            "x0_hat": float(step.x0_hat[place]),
            "q": of(step.q),
            "p": of(step.p),
            "bits": float(nats_to_bits(step.terms[place])),
            "fraction": float(step.fraction[place]),
            "levels": step.levels(row, column).tolist() if step.q is None else None,
        },
        "bits": nats_to_bits(step.per_pixel).tolist(),
        "fractions": step.fraction.tolist(),
        "measured": {
            "likelihood": to_json(ledger) if ledger else None,
            "samples": to_json(samples) if samples else None,
        },
    }


def _bits_per_dim(step: BoundStep, nats: float) -> float:
    return float(bits_per_dim(torch.tensor(nats, dtype=torch.float64), step.x0.numel()))


def _index(number: int) -> str:
    """A number as an index in plain text."""
    return str(number).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))
