"""Draw points, have a model learn them while you watch, and see it go forward and back (notes 1.4, 1.5 and 2 in the plane)."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import gradio as gr
import torch
from torch import Tensor

from genlab.demo.components.figure import Arrows, Axis, Figure, FigureData, Frame, Line, Panel, Points, drawn
from genlab.demo.components.player import Segment
from genlab.demo.engine import Engine
from genlab.demo.limits import DATA_SET, SEED, LimitError, parse_choice
from genlab.demo.limits_plane import (
    DATA,
    DRAWING,
    LEARN_STEPS,
    MODELS,
    SAMPLES,
    WALKS,
    Marks,
    PlayRequest,
    T,
    parse_play,
    parse_walk,
    read_link,
    rounded,
    write_link,
)
from genlab.demo.live import SECONDS, Kept, learn, on_worker
from genlab.demo.tabs import DICE, FILM, LATEX, LIGHT_EVENT, OPENING_EVENT, told
from genlab.demo.tabs.score import NAMES as DATA_TITLES
from genlab.plane import PointDDPM, PointVAE, Progress, Walk, forward, lattice, points, reverse
from genlab.plane import drawn as around
from genlab.plane import field as score_field
from genlab.sampler import Frame as Reversed
from genlab.schedule import linear_schedule
from genlab.serving.language import both

TITLE = both("Playground", "实验场")
TEXT = {
    "lead": both(
        "Choose or draw points, train a model on them here and now, and watch its samples come to lie where the points are.",
        "选一组点，或自己画，当场训练一个模型，看它的样本怎样一步步落到这些点所在的地方。",
    ),
    "train": both("Train", "训练"),
    "stop": both("Stop", "停止"),
    "reset": both("Reset", "重置"),
    "again": both("Run it again, with other noise", "换一份噪声再运行"),
    "data": both("Data", "数据"),
    DRAWING: both("your drawing", "自己画"),
    "model": both("Model", "模型"),
    "model_info": both("DDPM and score model are one network, used in two ways", "DDPM 与分数模型是同一个网络，两种用法"),
    "walk": both("Way back of the score model", "分数模型的反向方式"),
    "walk_other": both("only the score model has a choice", "只有分数模型可以选择"),
    "steps": both("Steps of learning", "学习步数"),
    "steps_info": both("{seconds} s at most, whatever you ask for", "无论多少步，最多 {seconds} 秒"),
    "seed": both("Seed", "种子"),
    "seed_info": both(
        "of weights, batches and noise: the same seed and as many steps taken, the same result",
        "权重、批次与噪声的种子：种子与实际走完的步数相同，结果就相同",
    ),
    "dice": both("New seed", "换一个种子"),
    "link": both("Link to this", "分享链接"),
    "link_label": both("Opens the page like this", "这样打开本页"),
    "board": both("Data: choose below, or draw here", "数据：在下面选择，或在这里画"),
    "learning": both("The model while it learns", "学习中的模型"),
    "samples": both("samples", "样本"),
    "noisy": both("x_t", "x_t"),
    "latent": both("z", "z"),
    "points": both("data", "数据"),
    "score": both("ŝ(x_t, t), scaled by (1−ᾱ_t)", "ŝ(x_t, t)，按 (1−ᾱ_t) 缩放"),
    "stage": both("what the model makes", "模型生成的点"),
    "loss ddpm": both("loss L_{simple}", "损失 L_{simple}"),
    "loss vae": both("loss −ELBO, nats", "损失 −ELBO，奈特"),
    "loss axis": both("step", "步"),
    "ready": both("Press “Train”: the samples move while the model learns.", "点击“训练”：模型学习时样本会移动。"),
    "step zero": both("beginning", "开始"),
    "waiting": both("waiting for other trainings to end: {before}", "等待另外 {before} 个训练"),
    "step": both(
        "step {step} of {steps} · loss {loss} · {seconds} s", "第 {step} 步，共 {steps} 步 · 损失 {loss} · {seconds} 秒"
    ),
    "learned": both("learning", "学习"),
    "forward": both("forward", "前向"),
    "reverse": both("reverse", "反向"),
    "forward t": both("forward: noise is added, t = {t}", "前向：加入噪声，t = {t}"),
    "DDPM t": both("reverse: each step drawn from p_θ, t = {t}", "反向：每一步从 p_θ 抽样，t = {t}"),
    "score model t": both("reverse: along ŝ by {walk}, t = {t}", "反向：沿 ŝ，{walk}，t = {t}"),
    "walk reverse SDE": both("the reverse SDE", "反向 SDE"),
    "walk flow": both("the flow ODE", "概率流 ODE"),
    "walk Langevin": both("annealed Langevin dynamics", "退火朗之万动力学"),
    "encoding": both("encoding: every point moves to its z ~ q(z|x)", "编码：每个点移到它的 z ~ q(z|x)"),
    "latents": both("z ~ q(z|x): together near the prior N(0, I)", "z ~ q(z|x)：合起来接近先验 N(0, I)"),
    "prior": both("fresh z ~ N(0, I)", "新的 z ~ N(0, I)"),
    "decoding": both("decoding: every z moves to its μ′(z)", "解码：每个 z 移到它的 μ′(z)"),
    "drawn x": both("x̂ ~ p(x|z): with the decoder's noise σ′ = {sigma}", "x̂ ~ p(x|z)：加上解码器的噪声 σ′ = {sigma}"),
    "description": both(
        "{model} on {data}: {count} samples over the data, and the loss of every step.",
        "{model}，数据为 {data}：{count} 个样本与数据，以及每一步的损失。",
    ),
    "formula_title": both("The formula (notes 1.4, 1.5, 2)", "公式（讲义 1.4、1.5、2）"),
    "formula": both(
        "The models are those of the other tabs; a picture is a point in 784 dimensions, here it is one in two. **DDPM** and "
        r"**score model** learn by one loss (the network's output is $v$, a rotation of $\varepsilon$ and $x_0$) and differ in "
        r"the way back: down the chain of $p_\theta$, or along $\hat s$. The **VAE** raises its ELBO:",
        r"模型与其他各页相同；一张图片是 784 维空间中的一个点，这里是二维的点。**DDPM** 与**分数模型**用同一个损失学习"
        r"（网络的输出是 $v$，即 $\varepsilon$ 与 $x_0$ 的一个旋转），区别在于反向：沿 $p_\theta$ 的链往回走，"
        r"或者沿 $\hat s$ 走。**VAE** 则提高它的 ELBO：",
    )
    + r"""

$$L_{\text{simple}} = \tfrac12\,\mathbb E\,\|v - \hat v(x_t,t)\|^2,\quad
v = \sqrt{\bar\alpha_t}\,\varepsilon - \sqrt{1-\bar\alpha_t}\,x_0,\qquad
\hat s = -\frac{\hat\varepsilon}{\sqrt{1-\bar\alpha_t}}$$

$$-\text{ELBO} = -\mathbb E_q[\log p(x\mid z)] + \mathrm{KL}[q(z\mid x)\,\|\,p(z)]$$
""",
}
NAMES = {
    "DDPM": both("DDPM", "DDPM（扩散）"),
    "score model": both("score model", "分数模型"),
    "VAE": both("VAE", "VAE（变分自编码器）"),
    "reverse SDE": both("reverse SDE", "反向 SDE"),
    "flow": both("flow ODE", "概率流 ODE"),
    "Langevin": both("Langevin", "朗之万"),
}
SCHEDULE = linear_schedule(T)
DATA_SEED = 0
LEARNED_FROM = 4000
"""Points that a model learns from."""
MARKS, CROWD = 500, 300
"""Points of the data, and samples, that are drawn."""
WALK_STEPS, LIVE_STEPS = 50, 20
"""Of the way back, played and while the model learns; five times as many small ones for Langevin dynamics."""
FORWARD_TIMES = [round(T * (i / 24) ** 1.5) for i in range(25)]
"""When the way to noise is seen: more often where little noise changes much."""
MOVES = 10
"""Pictures of a way that is only drawn for the eye, as the VAE's from x to z."""
ARROWS, ARROW = 11, 0.16
"""Arrows along a side, and how long they are, as a part of the way (1 − ᾱ_t) ŝ."""
REACH = 2.0
"""The model's panel shows [−2, 2]²."""
SHOWN_SECONDS = 0.2
"""Least time between two pictures of the learning."""
KEPT_PICTURES = 40
"""Pictures of the learning that can be played again."""
ABSOLUTE = "query => location.origin + location.pathname + '?' + query"
Picture = tuple[str, Tensor, dict[str, dict[str, Any]]]
"""What a frame says, its points (N, 2), and what else of the figure it changes."""
Ways = tuple[list[Picture], list[Picture], list[Picture]]
"""Forward, back, and what is made in the end."""


@dataclass
class Run:
    """What has been learned so far, and how it went.

    Attributes:
        model: the average of the weights along the way, which goes on changing; None before the first step.
        step, seconds: where the learning stands.
        losses: (step, loss).
        pictures: samples along the way, and the number of losses there were then.
    """

    request: PlayRequest
    model: PointDDPM | PointVAE | None = None
    step: int = 0
    seconds: float = 0.0
    losses: list[tuple[int, float]] = field(default_factory=list)
    pictures: list[tuple[int, Tensor]] = field(default_factory=list)

    def note(self, record: Progress) -> None:
        """Take down where the learning stands."""
        self.model, self.step, self.seconds = record.model, record.step, record.seconds
        self.losses.append((record.step, record.loss))

    def add(self, picture: Tensor) -> None:
        """Keep a picture; of many, every other one goes."""
        if len(self.pictures) >= 2 * KEPT_PICTURES:
            del self.pictures[1::2]
        self.pictures.append((len(self.losses), picture))


@lru_cache(64)
def data_of(data: str, marks: Marks, count: int) -> Tensor:
    """Points of a data set, or around the marks of a drawing, (N, 2)."""
    return around(marks, count, DATA_SEED) if data == DRAWING else points(data, count, DATA_SEED)  # type: ignore[arg-type]


def new_model(request: PlayRequest) -> PointDDPM | PointVAE:
    """The model before it has learned anything."""
    return PointVAE(seed=request.seed) if request.model == "VAE" else PointDDPM(SCHEDULE, seed=request.seed)


def play(request: PlayRequest, run: Run) -> Iterator[int | Run]:
    """Learn: how many others are waited for, while there are any, then `run` as it stands, every few steps."""
    for record in learn(new_model(request), data_of(request.data, request.marks, LEARNED_FROM), request.steps, request.seed):
        if isinstance(record, int):
            yield record
        else:
            run.note(record)
            yield run


def way_back(request: PlayRequest, model: PointDDPM, count: int, seed: int, steps: int) -> Iterator[Reversed]:
    """From noise to samples, as the request has it."""
    way: Walk = "ancestral" if request.model == "DDPM" else request.walk
    return reverse(model.predict, model.schedule, count, seed, way, 5 * steps if way == "Langevin" else steps)


@torch.inference_mode()
def samples(request: PlayRequest, model: PointDDPM | PointVAE, count: int, steps: int = WALK_STEPS) -> Tensor:
    """Samples (N, 2); the same seed always starts from the same noise."""
    if isinstance(model, PointVAE):
        return model.sample(count, request.seed)[2]
    *_, last = way_back(request, model, count, request.seed, steps)
    return last.x_s


# ---- the figures


def board(data: str, marks: Marks) -> FigureData:
    """The data, to be drawn upon."""
    x = data_of(data, (), MARKS) if data != DRAWING else torch.empty(0, 2)
    axis = Axis(low=-1, high=1)
    cloud = Points(colour="ink", x=x[:, 0], y=x[:, 1], size=4, opacity=0.9, hollow=True)
    panel = Panel(
        x=axis, y=axis, layers=[cloud], title=TEXT["board"], description=_name(data), aspect=1, equal=True, draw=True,
        readout=False,
    )  # fmt: skip
    return FigureData(panels=[panel], drawn=list(marks), legend=False, description=_name(data))


def _name(data: str) -> str:
    return TEXT[DRAWING] if data == DRAWING else DATA_TITLES[data]


def stage(
    run: Run, caption: str, picture: Tensor | None = None, frames: list[Frame] | None = None, starts: Sequence[int] = ()
) -> FigureData:
    """Samples over the data, and the losses; with frames, what they change."""
    request = run.request
    x0 = data_of(request.data, request.marks, MARKS)
    cloud = torch.empty(0, 2) if picture is None else picture
    axis = Axis(low=-REACH, high=REACH)
    vae = request.model == "VAE"
    grid = lattice(ARROWS, REACH).flatten(0, 1)
    nowhere = torch.full((len(grid),), torch.nan)
    layers: list[Any] = [
        Points(name=TEXT["points"], colour="ink", x=x0[:, 0], y=x0[:, 1], size=4, opacity=0.6, hollow=True),
        Points(id="noisy", name=TEXT["latent" if vae else "noisy"], colour="x_t", x=[], y=[], size=5, opacity=0.9),
        Points(id="samples", name=TEXT["samples"], colour="p", x=cloud[:, 0], y=cloud[:, 1], size=5, opacity=0.9),
    ]
    if request.model == "score model":
        arrows = Arrows(
            id="field", name=TEXT["score"], colour="eps", x=grid[:, 0], y=grid[:, 1], u=nowhere, v=nowhere, width=1.2
        )
        layers.append(arrows)
    steps, losses = _losses(run, len(run.losses))
    low, high = (min(losses), max(losses)) if losses else (0.0, 1.0)
    room = max(0.1, 0.1 * (high - low))
    panels = [
        Panel(
            x=axis, y=axis, layers=layers, title=TEXT["stage"], description=caption, aspect=1, equal=True, least=300,
            readout=False, share=2.2,
        ),
        Panel(
            x=Axis(low=0, high=request.steps, name=TEXT["loss axis"]),
            y=Axis(low=low - room, high=high + room),
            layers=[Line(id="loss", colour="kl", x=steps, y=losses)],
            title=TEXT["loss vae" if vae else "loss ddpm"],
            description=caption,
            aspect=0.8,
            least=200,
        ),
    ]  # fmt: skip
    text = TEXT["description"].format(model=NAMES[request.model], data=_name(request.data), count=len(cloud))
    names = ("learned", "forward", "reverse")
    return FigureData(
        panels=panels,
        caption=caption,
        description=text,
        frames=frames or [],
        segments=[Segment(start=start, label=TEXT[name]) for start, name in zip(starts, names, strict=False)],
        first=starts[1] if frames else None,
        autoplay=bool(frames),
        fps=12,
    )


def _losses(run: Run, count: int) -> tuple[list[int], list[float]]:
    return [step for step, _ in run.losses[:count]], [loss for _, loss in run.losses[:count]]


def progress(run: Run, index: int = -1) -> str:
    """Where the learning stands, or stood at one of the losses, in words."""
    step, loss = run.losses[index]
    seconds = run.seconds * step / run.step
    return TEXT["step"].format(
        step=step, steps=run.request.steps, loss=f"{loss:.3f}".replace("-", "−"), seconds=f"{seconds:.1f}"
    )


def live(run: Run) -> FigureData:
    """The run as it stands."""
    assert run.model is not None
    picture = samples(run.request, run.model, CROWD, LIVE_STEPS)
    run.add(picture)
    return stage(run, progress(run), picture)


@torch.inference_mode()
def film(run: Run, seed: int) -> FigureData:
    """The learning, then the forward and the reverse process of what was learned, with the noise of that seed."""
    request, model = run.request, run.model
    if model is None:
        return stage(run, TEXT["ready"])
    seen = run.pictures or [(len(run.losses), samples(request, model, CROWD))]
    shown = seen[:: -(-len(seen) // KEPT_PICTURES)]
    frames = [
        Frame(caption=progress(run, count - 1), layers={"samples": _xy(picture), "loss": _curve(run, count)})
        for count, picture in shown
    ]
    x0 = data_of(request.data, request.marks, MARKS)[:CROWD]
    ways = _vae_ways(model, x0, seed) if isinstance(model, PointVAE) else _chain_ways(request, model, x0, seed)
    there, back, made = ways
    starts = [0, len(frames), len(frames) + len(there)]
    frames += [Frame(caption=text, layers={"samples": _xy(x0[:0]), "noisy": _xy(x), **more}) for text, x, more in there + back]
    frames += [Frame(caption=text, layers={"samples": _xy(x), **more}) for text, x, more in made]
    return stage(run, progress(run), made[-1][1], frames, starts)


def _chain_ways(request: PlayRequest, model: PointDDPM, x0: Tensor, seed: int) -> Ways:
    """x_t on the way to noise and on the way back, and the samples."""
    there: list[Picture] = [
        (TEXT["forward t"].format(t=cloud.t), cloud.x_t, {}) for cloud in forward(SCHEDULE, x0, FORWARD_TIMES, seed)
    ]
    key = f"{request.model} t"
    walk = TEXT[f"walk {request.walk}"]
    back: list[Picture] = []
    kept = list(way_back(request, model, CROWD, seed, WALK_STEPS))
    for frame in kept[:: len(kept) // WALK_STEPS]:
        back.append((TEXT[key].format(t=frame.t, walk=walk), frame.x_t, _arrows(request, model, frame.t)))
    return there, back, [(TEXT[key].format(t=0, walk=walk), kept[-1].x_s, {})]


def _arrows(request: PlayRequest, model: PointDDPM, t: int) -> dict[str, dict[str, Any]]:
    if request.model != "score model":
        return {}
    way = ARROW * float(1 - SCHEDULE.alpha_bar[t]) * score_field(model.predict, SCHEDULE, t, ARROWS, REACH).flatten(0, 1)
    return {"field": {"u": way[:, 0], "v": way[:, 1]}}


def _vae_ways(model: PointVAE, x0: Tensor, seed: int) -> Ways:
    """x to z, z to its mean in x, and the samples; what lies between them is drawn for the eye."""
    noise = torch.randn(len(x0), model.latent, generator=torch.Generator().manual_seed(seed))
    encoded = model.encode(x0).sample(noise)
    z, mean, x = model.sample(CROWD, seed)
    sigma = f"{float(model.decode(z[:1]).std[0, 0]):.3f}"
    there = _move(TEXT["encoding"], x0, encoded) + _move(TEXT["latents"], encoded, encoded, 3)
    back = _move(TEXT["prior"], z, z, 3) + _move(TEXT["decoding"], z, mean)
    return there, back, _move(TEXT["drawn x"].format(sigma=sigma), mean, x, 4)


def _move(text: str, a: Tensor, b: Tensor, count: int = MOVES) -> list[Picture]:
    return [(text, torch.lerp(a, b, i / (count - 1)), {}) for i in range(count)]


def _xy(x: Tensor) -> dict[str, Any]:
    return {"x": x[:, 0], "y": x[:, 1]}


def _curve(run: Run, count: int) -> dict[str, Any]:
    steps, losses = _losses(run, count)
    return {"x": steps, "y": losses}


# ---- the tab


def build(engine: Engine, page: gr.Blocks) -> None:
    """The tab, and the endpoint `/playground`."""
    runs: Kept[Run] = Kept()
    first = PlayRequest("moons", (), MODELS[0], WALKS[0], int(LEARN_STEPS.default), int(SEED.default))
    with gr.Row(equal_height=False):
        with gr.Column(scale=3, min_width=320):
            gr.Markdown(TEXT["lead"])
        with gr.Column(scale=2, min_width=320), gr.Row():
            train = gr.Button(TEXT["train"], variant="primary", elem_id="playground-train", scale=3, min_width=120)
            stop = gr.Button(TEXT["stop"], interactive=False, elem_id="playground-stop", scale=1, min_width=80)
            reset = gr.Button(TEXT["reset"], elem_id="playground-reset", scale=1, min_width=80)
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=300):
            drawing = Figure(
                board(first.data, ()), label="drawing", elem_id="playground-data", labels={"player": TEXT["board"]}
            )
            data = gr.Radio([(_name(name), name) for name in DATA], value=first.data, label=TEXT["data"])
        with gr.Column(scale=5, min_width=320):
            figure = Figure(
                stage(Run(first), TEXT["ready"]),
                label="figure",
                animated=True,
                segmented=True,
                elem_id="playground",
                labels={"player": TEXT["learning"]},
            )
            again = gr.Button(TEXT["again"], interactive=False, elem_id="playground-again", size="sm")
    with gr.Row(equal_height=False):
        model = gr.Radio(_offered(MODELS), value=first.model, label=TEXT["model"], info=TEXT["model_info"], min_width=300)
        walk = gr.Radio(
            _offered(WALKS), value=first.walk, label=TEXT["walk"], info=TEXT["walk_other"], interactive=False, min_width=300
        )
        steps = gr.Slider(
            LEARN_STEPS.low,
            LEARN_STEPS.high,
            first.steps,
            step=LEARN_STEPS.step,
            precision=0,
            label=TEXT["steps"],
            info=TEXT["steps_info"].format(seconds=f"{SECONDS:g}"),
            min_width=220,
        )
        with gr.Column(min_width=220):
            seed = gr.Number(first.seed, precision=0, minimum=0, maximum=SEED.high, label=TEXT["seed"], info=TEXT["seed_info"])
            dice = gr.Button(TEXT["dice"], size="sm")
    with gr.Row(equal_height=False):
        share = gr.Button(TEXT["link"], size="sm", elem_id="playground-share", scale=1, min_width=160)
        link = gr.Textbox(
            label=TEXT["link_label"], interactive=False, max_lines=1, buttons=["copy"], elem_id="playground-link", scale=5
        )
    with gr.Accordion(TEXT["formula_title"], open=False):
        gr.Markdown(TEXT["formula"], latex_delimiters=LATEX)
    name = gr.State("")
    controls = [data, drawing, model, walk, steps, seed]

    def request_of(data: Any, drawn_in: Any, model: Any, walk: Any, steps: Any, seed: Any) -> PlayRequest:
        marks = rounded(drawn(drawn_in)) if data == DRAWING else None
        return parse_play(data, marks, model, walk, steps, seed)

    def train_it(*chosen: Any) -> Iterator[Any]:
        with told():
            request = request_of(*chosen)
            run, kept = Run(request), ""
            yield stage(run, TEXT["step zero"]), kept
            shown = time.monotonic()
            for record in play(request, run):
                if isinstance(record, int):
                    yield stage(run, TEXT["waiting"].format(before=record)), kept
                    continue
                kept = kept or runs.put(run)
                if time.monotonic() - shown > SHOWN_SECONDS or run.step == request.steps:
                    yield on_worker(lambda: live(run)), kept
                    shown = time.monotonic()
            yield on_worker(lambda: film(run, request.seed)), kept

    def stopped(name: Any, *chosen: Any) -> FigureData:
        """Of the model that was being trained, as far as it came; nothing is kept of one that only waited for its turn."""
        with told():
            if name == "":
                return fresh(*chosen)[0]
            run = runs.get(name)
            return on_worker(lambda: film(run, run.request.seed))

    def run_again(name: Any, walk: Any) -> FigureData:
        """Of the model that is kept, the other noise, and the way back that is chosen now."""
        with told():
            run = runs.get(name)
            changed = replace(run, request=replace(run.request, walk=parse_walk(walk)))
            return on_worker(lambda: film(changed, secrets.randbits(32)))

    def fresh(*chosen: Any) -> tuple[Any, Any]:
        try:
            request = request_of(*chosen)
        except LimitError:
            request = first
        return stage(Run(request), TEXT["ready"]), ""

    def choose_data(data: Any, drawn_in: Any) -> FigureData:
        with told():
            parse_choice(DATA_SET, data, DATA)
            return board(data, rounded(drawn(drawn_in)) if data == DRAWING else ())

    def has_drawn(drawn_in: Any) -> tuple[Any, Any]:
        with told():
            return DRAWING, board(DRAWING, rounded(drawn(drawn_in)))

    def choose_model(model: Any) -> Any:
        own = model == "score model"
        return gr.update(interactive=own, info=None if own else TEXT["walk_other"])

    def link_of(*chosen: Any) -> str:
        with told():
            return write_link(request_of(*chosen))

    def opened(request: gr.Request) -> Any:
        with told():
            asked = read_link(dict(request.query_params))
        if asked is None:
            return [gr.skip()] * 6
        own = asked.model == "score model"
        look = gr.update(value=asked.walk, interactive=own, info=None if own else TEXT["walk_other"])
        return asked.data, asked.model, look, asked.steps, asked.seed, (asked.data, asked.marks)

    def linked(points: Any) -> FigureData:
        # A page without a link, too, has its state reported as new by gradio: its figure, not there yet, takes no value.
        if not points:
            raise gr.Error("no link", visible=False, print_exception=False)
        data, marks = points
        return board(data, tuple(tuple(mark) for mark in marks))

    def playground(
        data: Any, points: Any, model: Any, walk: Any, steps: Any, seed: Any, count: Any
    ) -> Iterator[dict[str, Any] | None]:
        """Train a small model on points in the plane, and draw from it. `data` names a data set, or is "drawing": then
        `points` are 1 to 2000 pairs [x, y] of numbers from −1 to 1, else it is null. `walk` is the way back of a score model.
        `steps` are those of the optimiser (100 to 3000 in hundreds; it stops after 20 s of learning, or 60 s in all), `seed` is
        that of everything random. Streams {"step", "steps", "seconds", "loss", "samples"}, and null while it waits for others'
        trainings; the last one has `count` samples (1 to 2000) as [x, y], and the loss of the last steps: L_simple, or −ELBO in
        nats for a VAE. Close the stream or cancel the job to stop the training.
        """
        with told():
            request = parse_play(data, points, model, walk, steps, seed)
            wanted = int(SAMPLES.parse(count))
            run = Run(request)
            shown = 0.0
            for record in play(request, run):
                if isinstance(record, int):
                    yield None
                elif time.monotonic() - shown > SHOWN_SECONDS:
                    yield answer(run, [])
                    shown = time.monotonic()
            drawn_from = run.model
            assert drawn_from is not None
            yield answer(run, on_worker(lambda: samples(request, drawn_from, wanted)).tolist())

    def switch(running: bool) -> Callable[[], tuple[Any, ...]]:
        return lambda: tuple(gr.update(interactive=on) for on in (not running, running, not running))

    buttons = [train, stop, again]
    films = {**LIGHT_EVENT, **FILM}
    event = train.click(switch(True), None, buttons, **LIGHT_EVENT).then(train_it, controls, [figure, name], **LIGHT_EVENT)
    event.success(switch(False), None, buttons, **LIGHT_EVENT)
    event.failure(lambda: (gr.update(interactive=True), gr.update(interactive=False)), None, [train, stop], **LIGHT_EVENT)
    stop.click(switch(False), None, buttons, cancels=[event], **LIGHT_EVENT).then(stopped, [name, *controls], figure, **films)
    reset.click(
        lambda: tuple(gr.update(interactive=on) for on in (True, False, False)), None, buttons, cancels=[event], **LIGHT_EVENT
    ).then(fresh, controls, [figure, name], **LIGHT_EVENT)
    again.click(run_again, [name, walk], figure, **films)
    data.input(choose_data, [data, drawing], drawing, **LIGHT_EVENT)
    drawing.release(has_drawn, drawing, [data, drawing], **LIGHT_EVENT)
    model.change(choose_model, model, walk, **LIGHT_EVENT)
    dice.click(None, None, seed, js=DICE, api_visibility="private")
    share.click(link_of, controls, link, **LIGHT_EVENT).success(None, link, link, js=ABSOLUTE, api_visibility="private")
    points = gr.State(())  # not the drawing itself, so that a page without a link leaves it alone
    page.load(opened, None, [data, model, walk, steps, seed, points], **OPENING_EVENT)
    gr.on([points.change], linked, points, drawing, **OPENING_EVENT)

    named = [
        data,
        gr.JSON(None, label="points", visible=False),
        model,
        walk,
        steps,
        seed,
        gr.Number(SAMPLES.default, label="count", visible=False),
    ]
    result = gr.JSON(label="playground", visible=False)
    gr.Button(visible=False).click(
        playground, named, result, api_name="playground", concurrency_limit=None, preprocess=False, show_progress="hidden"
    )


def _offered(values: Sequence[str]) -> list[tuple[str, str]]:
    return [(NAMES[value], value) for value in values]


def answer(run: Run, drawn_points: list[list[float]]) -> dict[str, Any]:
    """What `/playground` answers."""
    return {
        "step": run.step,
        "steps": run.request.steps,
        "seconds": run.seconds,
        "loss": run.losses[-1][1],
        "samples": drawn_points,
    }
