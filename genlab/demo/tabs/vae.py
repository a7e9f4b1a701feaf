"""One picture's way through a variational autoencoder, and what its bound is made of (notes 1.4, figures 2, 3 and 4)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import gradio as gr
import numpy as np
import torch

from genlab.demo.components.canvas import Canvas, CanvasData, canvas_data
from genlab.demo.components.figure import (
    AnyLayer,
    Area,
    Axis,
    Bars,
    Figure,
    FigureData,
    Frame,
    Handle,
    Line,
    Panel,
    Stack,
    positions,
)
from genlab.demo.components.player import new_run
from genlab.demo.engine import SIGMA_WHITE, Z_AT_ONCE, Bound, Encoded, Engine, PixelDensity, png
from genlab.demo.limits import (
    COMPONENTS,
    PICTURES,
    SAMPLES,
    SEED,
    Z_MOST,
    Pick,
    VAERequest,
    evaluations,
    parse_pixel,
    parse_vae,
    vae_offer,
    vae_offers,
)
from genlab.demo.tabs import LATEX, MODEL_EVENT, NEWEST_EVENT, ONE_LOOK_EVENT, Pace, measurements, pane, told
from genlab.demo.tabs.one_picture import OnePicture
from genlab.divergence import bits_per_dim
from genlab.serving.language import both
from genlab.serving.results import save_result

TITLE = "VAE"
TEXT = {
    "lead": both(
        "An encoder squeezes a picture into a few numbers z, a decoder makes a picture of them again: "
        r"$x \to \mu, \sigma \to z \to \mu', \sigma' \to \hat x$. Draw on the first picture or drag a z, and "
        "see what comes out.",
        "编码器把图片压缩成几个数 z，解码器再由它们生成图片："
        r"$x \to \mu, \sigma \to z \to \mu', \sigma' \to \hat x$。在第一张图上画，或拖动某个 z，看看会得到什么。",
    ),
    "none": both("No VAE is served here.", "这里没有加载 VAE。"),
    "again": both("Draw z again", "重新抽取 z"),
    "seed": both("Seed of the noise in z and x̂", "z 和 x̂ 中噪声的种子"),
    "canvas": both("The picture, and what the decoder makes of z", "图片，以及解码器由 z 生成的图片"),
    "caption": both(
        "log p(x|z) = {nats} nats = {bits} bits/dim at this z\nσ′ = {sigma} (white is {white}); x̂ is drawn from N(μ′, σ′²)",
        "在这个 z 处，log p(x|z) = {nats} 奈特 = {bits} 比特/维\nσ′ = {sigma}（白色为 {white}）；x̂ 从 N(μ′, σ′²) 中抽取",
    ),
    "bernoulli_caption": both(
        "log p(x|z) = {nats} nats = {bits} bits/dim at this z\nσ′ = √(1−μ′²) = {sigma} (white is 1); x̂ is drawn pixel by "
        "pixel, light with probability (1+μ′)/2",
        "在这个 z 处，log p(x|z) = {nats} 奈特 = {bits} 比特/维\nσ′ = √(1−μ′²) = {sigma}（白色为 1）；x̂ 逐像素抽取，"
        "为亮的概率是 (1+μ′)/2",
    ),
    "latents": both("Latents", "隐变量"),
    "latents_title": both("q(z|x) and z: drag it", "q(z|x) 与 z：可拖动"),
    "prior": both("p(z) = N(0, 1)", "p(z) = N(0, 1)，先验"),
    "posterior": both("q(z|x) = N(μ, σ²)", "q(z|x) = N(μ, σ²)，编码器"),
    "handle": both("latent z_{i}", "隐变量 z_{i}"),
    "kl_title": both("KL[q(z_i|x) ‖ p(z_i)], nats", "KL[q(z_i|x) ‖ p(z_i)]，奈特"),
    "latent": "{name}: μ {mean}, σ {std}, z {z}, KL {kl}",
    "active": both(
        "The {shown} most active of {all} latents, by the variance of μ over the test pictures.",
        "{all} 个隐变量中最活跃的 {shown} 个，按 μ 在测试图片上的方差排序。",
    ),
    "terms": both("The bound", "下界"),
    "whole_title": both("log p(x) = ELBO + gap", "log p(x) = ELBO + 差距"),
    "end_title": both("its end, enlarged", "末端放大"),
    "curve_title": both("log p(x) by k samples of z", "用 k 个 z 的样本估计 log p(x)"),
    "reconstruction": both("−E_q[log p(x|z)]", "−E_q[log p(x|z)]，重构"),
    "kl": both("KL[q(z|x) ‖ p(z)]", "KL[q(z|x) ‖ p(z)]，正则"),
    "log_px": both("−log p(x)", "−log p(x)，负对数似然"),
    "gap": both("gap KL[q(z|x) ‖ p(z|x)]", "差距 KL[q(z|x) ‖ p(z|x)]"),
    "nats": both("nats", "奈特"),
    "above": both("L_k − ELBO, nats", "L_k − ELBO，奈特"),
    "bits": both("{bits} bits/dim", "{bits} 比特/维"),
    "terms_caption": both(
        "ELBO = {reconstruction} − {kl} = {elbo} nats ({elbo_bits} bits/dim); log p(x) ≥ Lₖ = {log_px} nats "
        "({log_px_bits} bits/dim) by k = {k} importance-weighted samples; the gap is at least {gap} nats",
        "ELBO = {reconstruction} − {kl} = {elbo} 奈特（{elbo_bits} 比特/维）；用 k = {k} 个重要性加权样本，"
        "log p(x) ≥ Lₖ = {log_px} 奈特（{log_px_bits} 比特/维）；差距至少为 {gap} 奈特",
    ),
    "correction": both(
        "The notes fear that log p(x) falls with the gap while the decoder improves; said exactly: log p(x) changes by the "
        "rise of the ELBO plus the change of the gap, and the gap, being ≥ 0, can fall by its old value at most.",
        "讲义担心改进解码器时，log p(x) 会随差距一起下降；准确地说：log p(x) 的变化等于 ELBO 的上升加上差距的变化，"
        "而差距 ≥ 0，最多只能下降它原来的值。",
    ),
    "density": both("The density of one pixel", "一个像素的概率密度"),
    "density_lead": both(
        r"**Many Gaussians add up to P(x)** (figure 3): each $z_i \sim p(z)$ gives a pixel one Gaussian. Press play for more; "
        "click a pixel of a picture above to choose another.",
        r"**许多高斯相加得到 P(x)**（图 3）：每个 $z_i \sim p(z)$ 给像素一个高斯。点击播放，加入更多；"
        "在上面的图片里可点选另一个像素。",
    ),
    "singles": both("N(x; μ(z_i), σ(z_i)²) / N", "N(x; μ(z_i), σ(z_i)²) / N，单个高斯"),
    "sum": both("P(x), their sum", "P(x)，它们的和"),
    "histogram": both("test pictures", "测试图片"),
    "pixel": both("the pixel, from black −1 to white 1", "像素值，黑 −1 到白 1"),
    "pixel_title": both("Pixel in row {row}, column {column}", "第 {row} 行第 {column} 列的像素"),
    "components": both(
        "N = {count}: P(x) ≈ 1/N Σ N(x; μ(zᵢ), σ(zᵢ)²), zᵢ ~ N(0, I)",
        "N = {count}：P(x) ≈ 1/N Σ N(x; μ(zᵢ), σ(zᵢ)²)，zᵢ ~ N(0, I)",
    ),
    "bernoulli": both(
        "This model's decoder is Bernoulli: the pixel is light with probability {light}, the mean over {count} zᵢ.",
        "这个模型的解码器是伯努利分布：像素为亮的概率是 {light}，即 p(x|zᵢ) 对 {count} 个 zᵢ 的平均。",
    ),
    "formula_title": both("The formula (notes 1.4)", "公式（讲义 1.4）"),
    "formula": r"""
$$p(x) = \int p(z)\,p(x\mid z)\,dz,\qquad z\sim\mathcal N(0,I),\qquad x\mid z\sim\mathcal N\big(\mu'(z),\sigma'^2(z)\big)$$

$$\log p(x) = \underbrace{\mathbb E_{q(z|x)}[\log p(x\mid z)] - \mathrm{KL}[q(z\mid x)\,\|\,p(z)]}_{\text{ELBO}}
+ \underbrace{\mathrm{KL}[q(z\mid x)\,\|\,p(z\mid x)]}_{\ge 0}$$

$$\text{ELBO} = L_1 \le L_k = \mathbb E\Big[\log\frac1k\sum_{i=1}^k\frac{p(x,z_i)}{q(z_i\mid x)}\Big] \le \log p(x),
\qquad z_i\sim q(z\mid x)$$

"""
    + both(
        "$p(x|z)$ is the mass on each pixel's gray level, so that the numbers are those of an 8-bit picture and can be "
        r"compared with other models. Samples are drawn by $z = \mu + \sigma\varepsilon$, $\varepsilon\sim\mathcal N(0, I)$, "
        r"so that the gradient passes through $\mu$ and $\sigma$.",
        "$p(x|z)$ 取每个像素灰度级上的概率，因此这些数值针对 8 位图片，可与其他模型比较。"
        r"样本按 $z = \mu + \sigma\varepsilon$，$\varepsilon\sim\mathcal N(0, I)$ 抽取，使梯度能通过 $\mu$ 和 $\sigma$ 传递。",
    ),
}  # fmt: skip
NAMES = ("x", "μ′(z)", "σ′(z)", "x̂")
COLOURS = ("p", "p", "p", "p")
SLIDERS = 8
"""Latents that can be dragged, at most."""
SINGLES = 60
"""Gaussians drawn one by one, at most."""
BINS = 24
"""Of the histogram of a pixel."""


def build(engine: Engine, page: gr.Blocks) -> None:
    """The tab, and the endpoints `/vae` and `/pixel_density`."""
    offers = vae_offers(engine.offers)
    if not offers:
        gr.Markdown(TEXT["none"])
        return
    one = OnePicture(engine, "vae", offers, partial(vae_offer, engine.offers))
    first = one.first

    def stages(model: Any, pick: Pick, z: Any, seed: Any, token: str, chosen: Any) -> tuple[CanvasData, FigureData]:
        request = parse_vae(engine.offers, model, pick, z, 1, seed)
        encoded = engine.encode(request)
        return _canvas(encoded, request, token, chosen), _latents(encoded, order(request.model))

    def order(model: str) -> list[int]:
        """The latents that can be dragged, the most active first."""
        return engine.activity(model).argsort(descending=True, stable=True)[:SLIDERS].tolist()

    def density(model: Any, chosen: Any) -> FigureData:
        row, column = chosen if isinstance(chosen, (tuple, list)) and len(chosen) == 2 else (None, None)
        most = min(int(COMPONENTS.high), evaluations(vae_offer(engine.offers, model).data))
        request = parse_pixel(engine.offers, model, row, column, most)
        return _density(engine.pixel(request), request.row, request.column)

    def begin(model: str, seed: Any) -> tuple[Any, ...]:
        """Everything that a model's first test picture gives, as far as it is quick."""
        chosen = engine.liveliest(model)
        canvas, latents = stages(model, one.start(model), None, seed, new_run(), chosen)
        return canvas, latents, density(model, chosen)

    one.lead(TEXT["lead"], TEXT["again"])
    shown = begin(first.id, int(SEED.default))
    few = parse_vae(engine.offers, first.id, one.start(first.id), None, Z_AT_ONCE, 0)
    canvas = Canvas(shown[0], label="pictures", labels={"canvas": TEXT["canvas"]}, elem_id="vae-canvas")
    latents = Figure(shown[1], label="latents", labels={"player": TEXT["latents"]}, elem_id="vae-latents")
    with gr.Row():
        one.choose_model()
    terms = Figure(
        _terms(engine, first.id, next(engine.bound(few))),
        label="terms",
        labels={"player": TEXT["terms"]},
        elem_id="vae-terms",
    )
    gr.Markdown(TEXT["correction"])
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=300):
            gr.Markdown(TEXT["density_lead"], latex_delimiters=LATEX)
            one.choose_picture(TEXT["seed"])
        with gr.Column(scale=3, min_width=300):
            pixel = Figure(shown[2], label="density", animated=True, labels={"player": TEXT["density"]}, elem_id="vae-density")
    tables = measurements.show(engine, first.id)
    with gr.Accordion(TEXT["formula_title"], open=False):
        gr.Markdown(TEXT["formula"], latex_delimiters=LATEX)

    def show_test(model: Any, number: Any, seed: Any, canvas: Any) -> Any:
        if number is None or seed is None:  # the field is being filled
            return gr.skip(), gr.skip()
        with told():
            pick = one.parse(model, "test picture", number, None)
            return stages(model, pick, None, seed, new_run(), one.drawn(model, canvas)[2])

    def show_upload(model: Any, upload_value: Any, seed: Any, canvas: Any) -> Any:
        if upload_value is None:
            return gr.skip(), gr.skip()
        with told():
            pick = one.parse(model, "upload", None, upload_value)
            return stages(model, pick, None, seed, new_run(), one.drawn(model, canvas)[2])

    def show_drawing(model: Any, canvas: Any, seed: Any) -> Any:
        if seed is None:  # the field is being filled
            return gr.skip(), gr.skip()
        with told():
            pick, token, chosen = one.drawn(model, canvas)
            return stages(model, pick, None, seed, token, chosen)

    def show_z(model: Any, canvas: Any, figure: Any, seed: Any) -> Any:
        with told():
            pick, token, chosen = one.drawn(model, canvas)
            z: list[float | None] = [None] * vae_offer(engine.offers, model).latent
            try:
                for name, (value, _) in positions(figure, [f"z{i}" for i in order(model)]).items():
                    z[int(name[1:])] = value
            except ValueError:  # the figure still shows another model
                return gr.skip(), gr.skip()
            return stages(model, pick, z, seed, token, chosen)

    def show_model(model: Any, seed: Any) -> Any:
        with told():
            vae_offer(engine.offers, model)  # refuses what is no model here
            return *begin(model, seed), *measurements.tables(engine, model), *one.fit(model)

    def show_density(model: Any, canvas: Any, figure: Any, seed: Any) -> Any:
        with told():
            return density(model, one.drawn(model, canvas)[2]), show_z(model, canvas, figure, seed)[0]

    def show_bound(model: Any, canvas: Any) -> Iterator[FigureData]:
        with told():
            samples = min(int(SAMPLES.default), evaluations(vae_offer(engine.offers, model).data))
            request = parse_vae(engine.offers, model, one.drawn(model, canvas)[0], None, samples, 0)
            pace = Pace()
            for bound in engine.bound(request):
                if pace.due() or bound.samples == bound.count:
                    yield _terms(engine, model, bound)

    bound_event: dict[str, Any] = {**NEWEST_EVENT, "concurrency_id": "bound", "concurrency_limit": 1}
    model, number, upload, seed = one.model, one.number, one.upload, one.seed
    held = [model, canvas]

    one.connect()
    number.change(show_test, [model, number, seed, canvas], [canvas, latents], **NEWEST_EVENT).then(
        show_bound, held, terms, **bound_event
    )
    upload.change(show_upload, [model, upload, seed, canvas], [canvas, latents], **NEWEST_EVENT).then(
        show_bound, held, terms, **bound_event
    )
    canvas.input(show_drawing, [model, canvas, seed], [canvas, latents], **NEWEST_EVENT)
    canvas.release(show_bound, held, terms, **bound_event)
    canvas.select(show_density, [model, canvas, latents, seed], [pixel, canvas], **NEWEST_EVENT)
    latents.input(show_z, [model, canvas, latents, seed], [canvas, latents], **NEWEST_EVENT)
    seed.change(show_drawing, [model, canvas, seed], [canvas, latents], **NEWEST_EVENT)
    model.change(show_model, [model, seed], [canvas, latents, pixel, *tables, number, one.kind], **NEWEST_EVENT).then(
        show_bound, held, terms, **bound_event
    )

    def vae(
        model: Any, picture_from: Any, number: Any, samples: Any, seed: Any, z: Any = None, upload: Any = None
    ) -> Iterator[tuple[str | None, dict[str, Any] | None]]:
        """A picture through a VAE: its reconstruction, the decoder's mean μ′(z), as a lossless PNG, and every number of the
        page's VAE tab. The picture is test picture `number` or an upload, as `picture_from` says. z = μ + σ·ε with the noise of
        `seed`, but where the list `z` has a number for a latent. `nats` has the terms of log p(x): reconstruction, kl, elbo,
        log_px (the importance-weighted bound by k = `samples` samples of z, 1 to 2000, the same for every picture), gap, and
        log_px_given_z at this z; `bits_per_dim` the same; `latents` for each latent the mean, log_var, z, kl and activity (the
        variance of the mean over the test pictures); `curve` pairs of k and L_k; `sigma` the least, mean and largest σ′.
        """
        with told():
            request = parse_vae(engine.offers, model, one.parse(model, picture_from, number, upload), z, samples, seed)
            pace = Pace()
            for bound in engine.bound(request):
                if bound.samples < bound.count and pace.due():
                    yield None, None
            encoded = engine.encode(request)
            picture = save_result(png(encoded.mean[None], columns=1, gap=0), f"{request.model}-reconstruction.png")
            yield picture, _numbers(engine, request, encoded, bound)

    def pixel_density(model: Any, row: Any, column: Any, count: Any) -> dict[str, Any]:
        """One pixel under a VAE, as a mixture: the mean and the σ of p(x|z_i) for `count` samples z_i ~ N(0, I), z_i being the
        one that seed i of /sample draws (`count` from 1 to 500); and that pixel in the test pictures. All values in the scale
        from black −1 to white 1.
        """
        with told():
            found = engine.pixel(parse_pixel(engine.offers, model, row, column, count))
            return {"mean": found.mean.tolist(), "std": found.std.tolist(), "test_pictures": found.data.tolist()}

    source = gr.Textbox(PICTURES[0], label="Picture from", visible=False)
    samples = gr.Number(SAMPLES.default, precision=0, label="Samples", visible=False)
    values = gr.JSON(label="z", visible=False)
    reconstruction = gr.Image(label="reconstruction", format="png", visible=False)
    numbers = gr.JSON(label="numbers", visible=False)
    gr.Button(visible=False).click(
        vae, [model, source, number, samples, seed, values, upload], [reconstruction, numbers], api_name="vae", **MODEL_EVENT
    )
    row = gr.Number(first.data.size // 2, precision=0, label="Row", visible=False)
    column = gr.Number(first.data.size // 2, precision=0, label="Column", visible=False)
    count = gr.Number(COMPONENTS.default, precision=0, label="Count", visible=False)
    mixture = gr.JSON(label="density", visible=False)
    gr.Button(visible=False).click(
        pixel_density, [model, row, column, count], mixture, api_name="pixel_density", **ONE_LOOK_EVENT
    )


def _canvas(encoded: Encoded, request: VAERequest, token: str, chosen: Any) -> CanvasData:
    count, sigma = encoded.x.numel(), encoded.sigma
    low, high = (f"{float(value):.2f}" for value in (sigma.min(), sigma.max()))
    caption = TEXT["caption" if encoded.gaussian else "bernoulli_caption"].format(
        nats=_number(encoded.log_likelihood),
        bits=_bits(encoded.log_likelihood, count),
        sigma=low if low == high else f"{low} … {high}",
        white=SIGMA_WHITE,
    )
    panes = [pane(picture) for picture in (encoded.x, encoded.mean, encoded.std, encoded.sample)]
    return canvas_data(token, panes, NAMES, COLOURS, chosen, caption)


def _latents(encoded: Encoded, order: list[int]) -> FigureData:
    """q(z|x) of each latent as a curve over the prior's, z as a handle at its foot, and the KL beside it."""
    mean, std, z, kl = encoded.q.mean.numpy(), encoded.q.std.numpy(), encoded.z.numpy(), encoded.kl.numpy()
    reach = float(min(Z_MOST, max(5, math.ceil(np.abs(np.concatenate([z[order], mean[order]])).max()))))
    u, wide = np.linspace(-3.5, 3.5, 29), np.linspace(-reach, reach, 81)
    gap, foot = np.array([np.nan]), 0.32
    rows = range(len(order))
    names = [f"z_{{{i + 1}}}" for i in order]
    layers: list[AnyLayer] = [
        Bars(labels=names, stacks=[Stack(values=[0.0] * len(order))], horizontal=True),
        Line(
            name=TEXT["prior"],
            colour="p",
            width=1.5,
            x=np.concatenate([np.append(wide, gap) for _ in rows]),
            y=np.concatenate([np.append(row + foot - 0.35 * np.exp(-(wide**2) / 2), gap) for row in rows]),
        ),
        Line(
            name=TEXT["posterior"],
            colour="q",
            width=2.5,
            x=np.concatenate([np.append(mean[i] + std[i] * u, gap) for i in order]),
            y=np.concatenate([np.append(row + foot - 0.75 * np.exp(-(u**2) / 2), gap) for row in rows]),
        ),
    ]
    told = [
        TEXT["latent"].format(name=f"z_{i + 1}", mean=f"{mean[i]:.2f}", std=f"{std[i]:.2f}", z=f"{z[i]:.2f}", kl=f"{kl[i]:.2f}")
        for i in order
    ]
    text = TEXT["active"].format(shown=len(order), all=len(z))
    across = Axis(low=-0.5, high=len(order) - 0.5, ticks=False)
    return FigureData(
        panels=[
            Panel(
                x=Axis(low=-reach, high=reach, name="z_i"),
                y=across,
                layers=layers,
                title=TEXT["latents_title"],
                description="; ".join(told),
                aspect=1.35,
                least=300,
                readout=False,
            ),
            Panel(
                x=Axis(low=0, high=max(1.0, 1.15 * float(kl.max()))),
                y=across,
                layers=[
                    Bars(
                        labels=names,
                        stacks=[Stack(colour="kl", values=[max(0.0, float(kl[i])) for i in order])],
                        texts=[f"{kl[i]:.1f}" for i in order],
                        horizontal=True,
                    )
                ],
                title=TEXT["kl_title"],
                description="; ".join(told),
                aspect=1.1,
                least=200,
                readout=False,
            ),
        ],
        handles=[
            Handle(id=f"z{i}", x=float(np.clip(z[i], -reach, reach)), y=row + foot, name=TEXT["handle"].format(i=i + 1))
            for row, i in enumerate(order)
        ],
        caption=text,
        description=text,
    )  # fmt: skip


def _terms(engine: Engine, model: str, bound: Bound) -> FigureData:
    """The terms of log p(x): as two bars of one length, their ends enlarged, and L_k by k."""
    data = engine.offers[model].data
    dims = data.size**2 * data.channels
    gap, cost = max(0.0, bound.gap), [-bound.reconstruction, -bound.log_px]
    labels = ["−ELBO", "−log p(x)"]
    stacks = [
        Stack(name=TEXT["reconstruction"], colour="p", values=[cost[0], 0.0], inside=_number(cost[0])),
        Stack(name=TEXT["kl"], colour="kl", values=[bound.kl, 0.0], inside=_number(bound.kl)),
        Stack(name=TEXT["log_px"], colour="p", values=[0.0, cost[1]], inside=_number(cost[1])),
        Stack(name=TEXT["gap"], colour="gap", values=[0.0, gap], inside=_number(gap)),
    ]
    total = max(-bound.elbo, 1e-3)
    span = max(bound.kl, gap, 1e-3)
    bits = [TEXT["bits"].format(bits=_bits(-value, dims)) for value in (bound.elbo, bound.log_px)]
    caption = TEXT["terms_caption"].format(
        reconstruction=_number(bound.reconstruction),
        kl=_number(bound.kl),
        elbo=_number(bound.elbo),
        elbo_bits=_bits(bound.elbo, dims),
        log_px=_number(bound.log_px),
        log_px_bits=_bits(bound.log_px, dims),
        k=bound.samples,
        gap=_number(bound.gap),
    )
    across = Axis(low=-0.5, high=1.5, ticks=False)
    k = [k for k, _ in bound.curve]
    gained = [value - bound.curve[0][1] for _, value in bound.curve]
    look: dict[str, Any] = {"aspect": 1.9, "least": 280, "readout": False, "description": caption}
    return FigureData(
        panels=[
            Panel(
                x=Axis(low=0, high=total, name=TEXT["nats"]),
                y=across,
                layers=[Bars(labels=labels, stacks=stacks, texts=bits, horizontal=True)],
                title=TEXT["whole_title"],
                **look,
            ),
            Panel(
                x=Axis(low=total - 1.4 * span, high=total + 0.1 * span, name=TEXT["nats"]),
                y=across,
                layers=[Bars(labels=labels, stacks=stacks, horizontal=True)],
                title=TEXT["end_title"],
                **look,
            ),
            Panel(
                x=Axis(low=1, high=max(2, bound.count), scale="log", name="k"),
                y=Axis(low=0, high=1.15 * max(gap, *gained, 1e-2), name=TEXT["above"]),
                layers=[Line(colour="gap", x=k, y=gained)],
                title=TEXT["curve_title"],
                **look,
            ),
        ],
        caption=caption,
        description="; ".join(bits),
    )


def _density(found: PixelDensity, row: int, column: int) -> FigureData:
    """One pixel's density as the sum of more and more Gaussians, over the histogram of the test pictures."""
    values, edges = np.histogram(found.data.numpy(), bins=BINS, range=(-1, 1), density=len(found.data) > 0)
    bars = Area(
        name=TEXT["histogram"], colour="p", edge=False, opacity=0.45,
        x=np.repeat(edges, 2), y=np.concatenate([[0], np.repeat(values, 2), [0]]),
    )  # fmt: skip
    title = TEXT["pixel_title"].format(row=row, column=column)
    count = len(found.mean)
    if not found.gaussian:
        light = f"{float((found.mean.mean() + 1) / 2):.3f}"
        axis = Axis(low=0, high=1.1 * float(max(values.max(), 1e-3)))
        panel = Panel(x=Axis(low=-1.1, high=1.1, name=TEXT["pixel"]), y=axis, layers=[bars], title=title, aspect=1.6)
        return FigureData(panels=[panel], caption=TEXT["bernoulli"].format(light=light, count=count))

    x = torch.linspace(-1.8, 1.8, 181)
    sums = found.mixtures(x)
    counts = sorted({n for n in [*range(1, 21), *(round(20 * (500 / 20) ** (i / 20)) for i in range(21)), count] if n <= count})
    frames = [
        Frame(
            caption=TEXT["components"].format(count=n),
            layers={"singles": _singles(found, n), "sum": {"y": sums[n - 1]}},
        )
        for n in counts
    ]
    top = 1.1 * float(sums[[n - 1 for n in counts]].max())
    start = frames[-1].layers
    layers: list[AnyLayer] = [
        bars,
        Line(id="singles", name=TEXT["singles"], colour="p", width=1, **start["singles"]),
        Line(id="sum", name=TEXT["sum"], colour="p", width=3.5, x=x, **start["sum"]),
    ]
    panel = Panel(
        x=Axis(low=-1.8, high=1.8, name=TEXT["pixel"]), y=Axis(low=0, high=top), layers=layers, title=title, aspect=1.6,
        description=title,
    )  # fmt: skip
    return FigureData(panels=[panel], frames=frames, first=min(7, len(frames) - 1), fps=4, description=title)


def _singles(found: PixelDensity, count: int) -> dict[str, Any]:
    """The first Gaussians of `count`, each 1/count high, as one line with gaps."""
    shown = min(count, SINGLES)
    few = replace(found, mean=found.mean[:shown], std=found.std[:shown])
    u = torch.cat([torch.linspace(-3, 3, 17), torch.tensor([math.nan])])
    x = few.mean[:, None] + few.std[:, None] * u
    return {"x": x.flatten(), "y": (few.components(x) / count).flatten()}


def _numbers(engine: Engine, request: VAERequest, encoded: Encoded, bound: Bound) -> dict[str, Any]:
    nats = {
        "reconstruction": bound.reconstruction,
        "kl": bound.kl,
        "elbo": bound.elbo,
        "log_px": bound.log_px,
        "gap": bound.gap,
        "log_px_given_z": encoded.log_likelihood,
    }
    dims = encoded.x.numel()
    sigma = encoded.sigma
    return {
        "k": bound.samples,
        "nats": nats,
        "bits_per_dim": {name: float(bits_per_dim(torch.tensor(value), dims)) for name, value in nats.items()},
        "latents": {
            "mean": encoded.q.mean.tolist(),
            "log_var": encoded.q.log_var.tolist(),
            "z": encoded.z.tolist(),
            "kl": encoded.kl.tolist(),
            "activity": engine.activity(request.model).tolist(),
        },
        "curve": [list(point) for point in bound.curve],
        "sigma": {"least": float(sigma.min()), "mean": float(sigma.mean()), "largest": float(sigma.max())},
    }


def _number(nats: float) -> str:
    return f"{nats:,.1f}".replace("-", "−")


def _bits(nats: float, dims: int) -> str:
    return f"{float(bits_per_dim(torch.tensor(nats), dims)):.2f}".replace("-", "−")
