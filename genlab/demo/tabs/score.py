"""The score of points in the plane, exact and learned, and three ways of walking along it (notes 2, completed)."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from copy import deepcopy
from functools import lru_cache
from typing import Any

import gradio as gr
import numpy as np
import torch
from torch import Tensor

from genlab.demo.components.figure import (
    Arrows,
    Axis,
    Figure,
    FigureData,
    Frame,
    Handle,
    Heat,
    Line,
    Panel,
    Points,
    Rule,
    positions,
)
from genlab.demo.engine import Engine
from genlab.demo.limits import SEED
from genlab.demo.limits_plane import LEVEL, SIDE, ScoreRequest, T, parse_data, parse_score
from genlab.demo.live import learn, on_worker
from genlab.demo.tabs import DICE, FILM, LATEX, LIGHT_EVENT, NEWEST_EVENT, told
from genlab.oracle import Mixture
from genlab.plane import (
    DATA_NAMES,
    CloudNoise,
    DataName,
    PointDDPM,
    Progress,
    empirical,
    field,
    lattice,
    mixture,
    particles,
    points,
)
from genlab.process import Predict, q_marginal
from genlab.sampler import ddim, spaced, walk
from genlab.schedule import linear_schedule
from genlab.score import reverse_sde, score_from_eps
from genlab.serving.language import both

TITLE = both("Score", "分数")
NAMES = {
    "moons": both("moons", "双月"),
    "rings": both("rings", "同心圆"),
    "spiral": both("spiral", "螺旋"),
    "letters": both("letters", "字母"),
    "gaussians": both("8 Gaussians", "8 个高斯"),
    "blobs": both("3 Gaussians", "3 个高斯"),
    "pinwheel": both("pinwheel", "风车"),
    "checkerboard": both("checkerboard", "棋盘"),
}
TEXT = {
    "lead": both(
        r"At every noise level t, arrows lead to where the data are: the score $s = \nabla\log q(x_t)$. Drag t, train the "
        "network, which learns the arrows without knowing q, and let points walk along them.",
        r"在每个噪声水平 t，都有箭头指向数据所在之处：分数 $s = \nabla\log q(x_t)$。拖动 t；训练网络，它不知道 q 也能学到"
        "这些箭头；再让点沿着箭头走。",
    ),
    "train": both("Train the network", "训练网络"),
    "stop": both("Stop", "停止"),
    "langevin": both("Langevin walk", "朗之万行走"),
    "reverse": both("Reverse walks", "反向行走"),
    "data": both("Data", "数据"),
    "seed": both("Seed of the walks", "行走的种子"),
    "dice": both("New seed", "换一个种子"),
    "figure": both("Score field", "分数场"),
    "exact": both("exact score s", "精确的分数 s"),
    "learned": both("learned score ŝ, after {steps} steps", "学到的分数 ŝ，训练 {steps} 步"),
    "untrained": both("ŝ of the network, not yet trained", "网络的 ŝ，尚未训练"),
    "level": both("noise level t: drag it", "噪声水平 t：可以拖动"),
    "points": both("data x_0", "数据 x_0"),
    "density": both("density q(x_t)", "密度 q(x_t)"),
    "s": both("s, length as √‖s‖", "s，长度按 √‖s‖"),
    "s_hat": both("ŝ, likewise", "ŝ，同样"),
    "signal": both("signal √ᾱ_t", "信号 √ᾱ_t"),
    "noise": both("noise σ_t = √(1−ᾱ_t)", "噪声 σ_t = √(1−ᾱ_t)"),
    "particles": both("particles", "粒子"),
    "sde": both("reverse SDE", "反向 SDE"),
    "ode": both("flow ODE", "概率流 ODE"),
    "handle": both("noise level t", "噪声水平 t"),
    "numbers": both(
        "t = {t} of {T} · ᾱ = {alpha_bar} · σ = {sigma} · mean ‖ŝ − s‖² = {error}, of mean ‖s‖² = {norm}",
        "t = {t}，共 {T} · ᾱ = {alpha_bar} · σ = {sigma} · ‖ŝ − s‖² 的均值 = {error}，‖s‖² 的均值 = {norm}",
    ),
    "learning": both("step {step} of {steps} · loss {loss} · ", "第 {step} 步，共 {steps} 步 · 损失 {loss} · "),
    "waiting": both("waiting for other trainings to end: {before} · ", "等待另外 {before} 个训练 · "),
    "step": both("Langevin step {i} of {n} at t = {t}", "t = {t} 处的朗之万动力学，第 {i} 步，共 {n} 步"),
    "time": both("t = {t} · σ = {sigma}", "t = {t} · σ = {sigma}"),
    "description": both(
        "Data: {data}. Arrows of the exact score on the left, of the network on the right, over the density of the noisy data.",
        "数据：{data}。左边是精确分数的箭头，右边是网络的箭头，底下是加噪数据的密度。",
    ),
    "formula_title": both("The formula (notes 2, completed)", "公式（讲义 2，补全）"),
    "formula": both(
        "The notes have only the heading. The score of the noisy data is the mean noise seen in them, so a DDPM's network is a "
        "score model:",
        "讲义这一节只有标题。加噪数据的分数就是从中看到的平均噪声，因此 DDPM 的网络就是一个分数模型：",
    )
    + r"""

$$s(x_t,t) = \nabla\log q(x_t) = -\frac{\mathbb E[\varepsilon\mid x_t]}{\sqrt{1-\bar\alpha_t}},\qquad
\sqrt{\bar\alpha_t}\;\mathbb E[x_0\mid x_t] = x_t + (1-\bar\alpha_t)\,s(x_t,t)$$

"""
    + both(
        "An arrow here is a part of the way in the second formula, Tweedie's. **Denoising score matching** (Vincent 2011) "
        "makes it learnable, for the target needs no $q(x_t)$, and $C$ does not depend on the network:",
        "这里的箭头是第二个公式（Tweedie 公式）中那段路的一部分。**去噪分数匹配**（Vincent 2011）使它可以学习：目标不需要 "
        "$q(x_t)$，而 $C$ 与网络无关：",
    )
    + r"""

$$\mathbb E\,\big\|\hat s(x_t,t) - \nabla\log q(x_t\mid x_0)\big\|^2 = \mathbb E\,\big\|\hat s(x_t,t) - s(x_t,t)\big\|^2 + C,
\qquad \nabla\log q(x_t\mid x_0) = -\frac{\varepsilon}{\sqrt{1-\bar\alpha_t}}$$

"""
    + both(
        r"**Langevin dynamics** at one level leads from anywhere to $q(x_t)$, for small $\eta$. Where there is little noise it "
        "hardly crosses from one mode to another, which is why one starts with much (Song & Ermon 2019). **The reverse SDE** "
        r"and **the probability-flow ODE** (Song et al. 2021) go back from $x_T \sim \mathcal N(0, I)$: other paths, but the "
        r"same $q(x_\tau)$ at every $\tau$:",
        r"在一个噪声水平上的**朗之万动力学**，当 $\eta$ 很小时，从任何地方都走到 $q(x_t)$。噪声小时它几乎不能从一个峰"
        r"走到另一个峰，所以要从大的噪声开始（Song 与 Ermon 2019）。**反向 SDE** 与**概率流 ODE**（Song 等，2021）从 "
        r"$x_T \sim \mathcal N(0, I)$ 走回来：路径不同，但在每个 $\tau$ 处 $q(x_\tau)$ 相同：",
    )
    + r"""

$$x \leftarrow x + \eta\, s(x,t) + \sqrt{2\eta}\, z,\qquad
\mathrm dx = -\tfrac12\beta\,[x + 2s]\,\mathrm d\tau + \sqrt\beta\,\mathrm d\bar w,\qquad
\mathrm dx = -\tfrac12\beta\,[x + s]\,\mathrm d\tau$$
""",
}

SCHEDULE = linear_schedule(T)
REACH = 2.2
"""The panels show [−2.2, 2.2]²."""
DATA_SEED, NET_SEED = 0, 0
MARKS = 120
"""Points of a data set that is no mixture of few Gaussians: each is the middle of one, so that the score is known exactly."""
WIDTH = 0.04
"""σ of these Gaussians."""
LEARN_STEPS = 1000
LEARNED_FROM = 20_000
"""Points that the network learns from."""
TRIED = 400
"""Draws of x_t that ‖ŝ − s‖² is averaged over."""
ARROWS, ARROW = 15, 0.22
"""Arrows along a side, and how long they are: this times the square root of ‖(1 − ᾱ_t) s‖, so that small ones can be seen."""
HEAT = 32
"""Cells of the density along a side."""
DARK = 0.35
"""Opacity of the highest density."""
CROWD, CROWD_STEPS, CROWD_EVERY = 14, 80, 2
"""Particles along a side of the grid that they start from, their steps, and steps from one frame to the next."""
STARTS, WALK_STEPS, WALK_EVERY = 4, 60, 2
"""The same of the reverse walks."""
SHOWN_SECONDS = 0.2
"""Least time between two pictures of the learning."""


@lru_cache
def exact(data: DataName) -> Mixture:
    """The data as a mixture, whose score is known."""
    if data in ("gaussians", "blobs"):
        return mixture(data, SCHEDULE)
    return empirical(points(data, MARKS, DATA_SEED), SCHEDULE, WIDTH)


@lru_cache
def _drawn(data: DataName, count: int) -> Tensor:
    """So many draws of x_0, (N, 2)."""
    return exact(data).sample(count, torch.Generator().manual_seed(DATA_SEED)).float()


def fresh_net() -> PointDDPM:
    """The network before it has learned anything."""
    return PointDDPM(SCHEDULE, seed=NET_SEED).eval()


class Nets:
    """The networks that have learned, one for each data set, for everybody: the steps they took, and the network."""

    def __init__(self) -> None:
        self._learned: dict[str, tuple[int, PointDDPM]] = {}
        self._fresh = fresh_net()

    def get(self, data: DataName) -> tuple[int, PointDDPM]:
        """Steps, 0 where it has not learned yet, and the network."""
        return self._learned.get(data, (0, self._fresh))

    def learn(self, data: DataName) -> Iterator[int | Progress]:
        """Learn this data set, as `live.learn`; nothing where somebody has had it learned to the end already.

        What was learned so far is there for everybody, and stays where it is left or a busy machine cuts it short, until
        somebody gets further.
        """
        if self.get(data)[0] == LEARN_STEPS:
            return
        for record in learn(fresh_net(), _drawn(data, LEARNED_FROM), LEARN_STEPS, NET_SEED):
            if self.get(data)[0] == LEARN_STEPS:
                return
            if isinstance(record, Progress) and isinstance(record.model, PointDDPM) and record.step > self.get(data)[0]:
                self._learned[data] = (record.step, deepcopy(record.model))
            yield record


@torch.inference_mode()
def score_at(predict: Predict, x_t: Tensor, t: int) -> Tensor:
    """The score that belongs to the noise seen in x_t (N, 2)."""
    now = torch.full((len(x_t),), t)
    return score_from_eps(SCHEDULE, predict(x_t, now).eps_hat, now)


@torch.inference_mode()
def errors(oracle: Mixture, net: PointDDPM, data: DataName, t: int) -> tuple[float, float]:
    """Means of ‖ŝ − s‖² and of ‖s‖² over q(x_t)."""
    x0 = _drawn(data, TRIED)
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(DATA_SEED))
    x_t = q_marginal(SCHEDULE, x0, torch.full((len(x0),), t)).sample(eps)
    s, s_hat = score_at(oracle.predict, x_t, t), score_at(net.predict, x_t, t)
    return float((s_hat - s).square().sum(dim=1).mean()), float(s.square().sum(dim=1).mean())


def log_density(oracle: Mixture, t: int, side: int) -> Tensor:
    """log q(x_t) over the lattice, nats (side, side)."""
    return oracle.log_prob(lattice(side, REACH).flatten(0, 1), torch.full((side**2,), t)).reshape(side, side)


# ---- the figure


def draw(data: DataName, t: int, steps: int, net: PointDDPM, before: str = "") -> FigureData:
    """Both fields at the noise level t."""
    oracle = exact(data)
    layers = {name: [_arrows(name, predict, t)] for name, predict in (("exact", oracle.predict), ("learned", net.predict))}
    caption = before + _numbers(oracle, net, data, t)
    return _figure(data, t, steps, layers, caption)


def _figure(
    data: DataName, t: int, steps: int, layers: dict[str, list[Any]], caption: str, frames: Sequence[Frame] = ()
) -> FigureData:
    """The two panels with these layers over density and data, and the noise level."""
    oracle = exact(data)
    heat = _heat(oracle, t)
    x0 = _drawn(data, TRIED)
    axis = Axis(low=-REACH, high=REACH, ticks=False)
    titles = {"exact": TEXT["exact"], "learned": TEXT["learned"].format(steps=f"{steps:,}") if steps else TEXT["untrained"]}
    panels = [
        Panel(
            x=axis,
            y=axis,
            layers=[
                Heat(id=f"{name}-heat", name=TEXT["density"], colour="q", columns=HEAT, values=heat, high=1 / DARK),
                Points(name=TEXT["points"], colour="ink", x=x0[:, 0], y=x0[:, 1], size=4, opacity=0.6, hollow=True),
                *layers[name],
            ],
            title=titles[name],
            description=caption,
            aspect=1,
            least=240,
            equal=True,
            readout=False,
        )
        for name in ("exact", "learned")
    ]
    times = np.arange(T + 1)
    panels.append(
        Panel(
            x=Axis(low=0, high=T, name="t"),
            y=Axis(low=0, high=1.08),
            layers=[
                Line(name=TEXT["signal"], colour="p", x=times, y=SCHEDULE.alpha_bar.sqrt()),
                Line(name=TEXT["noise"], colour="eps", x=times, y=(1 - SCHEDULE.alpha_bar).sqrt()),
                Rule(id="now", axis="x", at=t),
            ],
            title=TEXT["level"],
            description=caption,
            aspect=7,
            least=560,
        )
    )
    handle = Handle(id="level", x=t, y=0.54, axis="x", panels=[2], name=TEXT["handle"], x_low=LEVEL.low, x_high=LEVEL.high)
    return FigureData(
        panels=panels,
        handles=[handle],
        caption=caption,
        description=TEXT["description"].format(data=NAMES[data]),
        frames=list(frames),
        first=0 if frames else None,
        autoplay=bool(frames),
        fps=12,
    )


def _arrows(name: str, predict: Predict, t: int) -> Arrows:
    x = lattice(ARROWS, REACH).flatten(0, 1)
    way = float(1 - SCHEDULE.alpha_bar[t]) * field(predict, SCHEDULE, t, ARROWS, REACH).flatten(0, 1)
    way = ARROW * way / way.norm(dim=1, keepdim=True).sqrt().clamp(min=1e-6)
    look = {"exact": ("s", "q"), "learned": ("s_hat", "eps")}[name]
    return Arrows(name=TEXT[look[0]], colour=look[1], x=x[:, 0], y=x[:, 1], u=way[:, 0], v=way[:, 1], width=1.4)


def _heat(oracle: Mixture, t: int) -> Tensor:
    """The density by its highest value, row by row from the top left."""
    density = log_density(oracle, t, HEAT)
    return (density - density.max()).exp().flip(0).flatten()


def _numbers(oracle: Mixture, net: PointDDPM, data: DataName, t: int) -> str:
    alpha_bar = float(SCHEDULE.alpha_bar[t])
    error, norm = errors(oracle, net, data, t)
    values = {"alpha_bar": f"{alpha_bar:.3g}", "sigma": f"{(1 - alpha_bar) ** 0.5:.3f}", "error": f"{error:.3g}"}
    return TEXT["numbers"].format(t=t, T=T, norm=f"{norm:.3g}", **values)


def langevin_film(data: DataName, t: int, steps: int, net: PointDDPM, seed: int) -> FigureData:
    """Particles from a lattice, walking at the level t under both scores with the same noise."""
    oracle, start = exact(data), lattice(CROWD, REACH).flatten(0, 1)
    clouds = {
        name: [start] + [frame.x_s for frame in particles(predict, SCHEDULE, start, t, CROWD_STEPS, seed)]
        for name, predict in (("exact", oracle.predict), ("learned", net.predict))
    }
    layers: dict[str, list[Any]] = {}
    for name, predict in (("exact", oracle.predict), ("learned", net.predict)):
        look: dict[str, Any] = {"name": TEXT["particles"], "colour": "x_t", "size": 5, "opacity": 0.9}
        cloud = Points(id=f"{name}-cloud", x=start[:, 0], y=start[:, 1], **look)
        layers[name] = [cloud, _arrows(name, predict, t)]
    frames = [
        Frame(
            caption=TEXT["step"].format(i=i, n=CROWD_STEPS, t=t),
            layers={f"{name}-cloud": {"x": cloud[i][:, 0], "y": cloud[i][:, 1]} for name, cloud in clouds.items()},
        )
        for i in range(0, CROWD_STEPS + 1, CROWD_EVERY)
    ]
    return _figure(data, t, steps, layers, "", frames)


def reverse_film(data: DataName, t: int, steps: int, net: PointDDPM, seed: int) -> FigureData:
    """From noise to data under both scores: the SDE and the ODE from the same starts, their lines growing."""
    oracle, times = exact(data), spaced(SCHEDULE, WALK_STEPS, "quadratic")
    layers: dict[str, list[Any]] = {}
    paths: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name, predict in (("exact", oracle.predict), ("learned", net.predict)):
        layers[name] = []
        for way, colour, width in (("sde", "x_t", 1.2), ("ode", "ink", 2.5)):
            noise = CloudNoise.from_seed(seed, STARTS)
            start = noise.draw()
            step = reverse_sde(SCHEDULE, noise) if way == "sde" else ddim(SCHEDULE)
            with torch.inference_mode():
                x, y = _polyline(torch.stack([start] + [frame.x_s for frame in walk(predict, step, start, times)]))
            layers[name].append(Line(id=f"{name}-{way}", name=TEXT[way], colour=colour, x=x, y=y, width=width))
            paths[f"{name}-{way}"] = (x, y)
        layers[name].append(Points(colour="ink", x=start[:, 0], y=start[:, 1], size=7, opacity=1))
    frames = []
    for i in range(0, WALK_STEPS + 1, WALK_EVERY):
        changes: dict[str, dict[str, Any]] = {}
        for key, (_, y) in paths.items():
            changes[key] = {"y": np.where(np.tile(np.arange(WALK_STEPS + 2), STARTS) <= i, y, np.nan)}
        heat = _heat(oracle, max(1, times[i]))
        changes |= {f"{name}-heat": {"values": heat} for name in ("exact", "learned")}
        changes["now"] = {"at": times[i]}
        sigma = f"{float(1 - SCHEDULE.alpha_bar[times[i]]) ** 0.5:.3f}"
        frames.append(Frame(caption=TEXT["time"].format(t=times[i], sigma=sigma), layers=changes))
    return _figure(data, t, steps, layers, "", frames)


def _polyline(path: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Walks (steps + 1, N, 2) as one line with a gap after each."""
    ended = torch.cat([path, torch.full_like(path[:1], torch.nan)]).transpose(0, 1).flatten(0, 1).double()
    return ended[:, 0].numpy(), ended[:, 1].numpy()


# ---- the numbers


def numbers(request: ScoreRequest, steps: int, net: PointDDPM) -> dict[str, Any]:
    """What `/score` answers."""
    oracle, t, side = exact(request.data), request.t, request.side
    error, norm = errors(oracle, net, request.data, t)
    return {
        "t": t,
        "T": T,
        "alpha_bar": float(SCHEDULE.alpha_bar[t]),
        "sigma": float(1 - SCHEDULE.alpha_bar[t]) ** 0.5,
        "grid": lattice(side, REACH)[0, :, 0].tolist(),
        "exact": field(oracle.predict, SCHEDULE, t, side, REACH).tolist(),
        "learned": field(net.predict, SCHEDULE, t, side, REACH).tolist(),
        "log_density": log_density(oracle, t, side).tolist(),
        "error": error,
        "norm": norm,
        "learning_steps": steps,
    }


def read(value: Any, data: Any) -> tuple[DataName, int]:
    """The data set and the noise level that the page asks for."""
    (at, _) = positions(value, ["level"])["level"]
    return parse_data(data), int(min(max(round(at), LEVEL.low), LEVEL.high))


def build(engine: Engine, page: gr.Blocks) -> None:
    """The tab, and the endpoint `/score`."""
    nets = Nets()
    first: DataName = "gaussians"
    with gr.Row(equal_height=False):
        with gr.Column(scale=3, min_width=320):
            gr.Markdown(TEXT["lead"], latex_delimiters=LATEX)
        with gr.Column(scale=2, min_width=320):
            with gr.Row():
                run = gr.Button(TEXT["train"], variant="primary", elem_id="score-train", scale=3, min_width=150)
                stop = gr.Button(TEXT["stop"], interactive=False, scale=1, min_width=80)
            with gr.Row():
                particles_button = gr.Button(TEXT["langevin"], elem_id="score-langevin", min_width=140)
                reverse_button = gr.Button(TEXT["reverse"], elem_id="score-reverse", min_width=140)
    figure = Figure(
        draw(first, int(LEVEL.default), *nets.get(first)),
        label="figure",
        animated=True,
        elem_id="score",
        labels={"player": TEXT["figure"]},
    )
    with gr.Row(equal_height=False):
        offered = [(NAMES[name], name) for name in DATA_NAMES]
        data = gr.Radio(offered, value=first, label=TEXT["data"], scale=4, min_width=320)
        with gr.Column(scale=1, min_width=160):
            seed = gr.Number(SEED.default, precision=0, minimum=0, maximum=SEED.high, label=TEXT["seed"])
            dice = gr.Button(TEXT["dice"], size="sm")
    with gr.Accordion(TEXT["formula_title"], open=False):
        gr.Markdown(TEXT["formula"], latex_delimiters=LATEX)

    def show(value: Any, chosen: Any) -> FigureData:
        with told():
            name, t = read(value, chosen)
            return draw(name, t, *nets.get(name))

    def train_it(value: Any, chosen: Any) -> Iterator[Any]:
        with told():
            name, t = read(value, chosen)
            shown = 0.0
            for record in nets.learn(name):
                if isinstance(record, int):
                    yield draw(name, t, *nets.get(name), TEXT["waiting"].format(before=record))
                elif time.monotonic() - shown > SHOWN_SECONDS:
                    before = TEXT["learning"].format(step=record.step, steps=record.steps, loss=f"{record.loss:.3f}")
                    yield on_worker(lambda r=record, b=before: draw(name, t, r.step, r.model, b))  # type: ignore[misc]
                    shown = time.monotonic()
            yield draw(name, t, *nets.get(name))

    def particles_walk(value: Any, chosen: Any, number: Any) -> FigureData:
        with told():
            name, t = read(value, chosen)
            return langevin_film(name, t, *nets.get(name), int(SEED.parse(number)))

    def reverse_walk(value: Any, chosen: Any, number: Any) -> FigureData:
        with told():
            name, t = read(value, chosen)
            return reverse_film(name, t, *nets.get(name), int(SEED.parse(number)))

    def score(data: Any, t: Any, side: Any) -> Iterator[dict[str, Any] | None]:
        """The score of noisy points in the plane at time t (1 to 200), over a grid of side × side points (3 to 41; `grid` has
        their x, and their y from below): `exact`, the gradient of log q(x_t), `learned`, a small network's (trained when the
        data set is first asked for; seconds), rows of [s_x, s_y] each, and `log_density` in nats. `error` is the mean of
        ‖learned − exact‖² over q(x_t), `norm` that of ‖exact‖². Data that are no mixture of Gaussians are 120 points with a
        narrow Gaussian around each, so that the score is exact at every t.
        """
        with told():
            request = parse_score(data, t, side)
            for _ in nets.learn(request.data):
                yield None
            yield numbers(request, *nets.get(request.data))

    def switch(running: bool) -> Any:
        return lambda: (gr.update(interactive=not running), gr.update(interactive=running))

    films = {**NEWEST_EVENT, "trigger_mode": "once", **FILM}
    figure.input(show, [figure, data], figure, **NEWEST_EVENT)
    data.input(show, [figure, data], figure, **NEWEST_EVENT)
    event = run.click(switch(True), None, [run, stop], **LIGHT_EVENT).then(train_it, [figure, data], figure, **LIGHT_EVENT)
    for over in (event.success, event.failure):
        over(switch(False), None, [run, stop], **LIGHT_EVENT)
    ended = stop.click(switch(False), None, [run, stop], cancels=[event], **LIGHT_EVENT)
    ended.then(show, [figure, data], figure, **NEWEST_EVENT)
    particles_button.click(particles_walk, [figure, data, seed], figure, **films)
    reverse_button.click(reverse_walk, [figure, data, seed], figure, **films)
    dice.click(None, None, seed, js=DICE, api_visibility="private")
    named = [
        data,
        gr.Number(LEVEL.default, label="t", visible=False),
        gr.Number(SIDE.default, label="side", visible=False),
    ]
    result = gr.JSON(label="score", visible=False)
    gr.Button(visible=False).click(
        score, named, result, api_name="score", concurrency_limit=None, preprocess=False, show_progress="hidden"
    )
