"""One Gaussian fitted to two modes, once under each direction of the KL divergence (notes 1.2 and 1.3, figure 1)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import gradio as gr
import torch
from torch import Tensor

from genlab.demo.components.figure import Area, Axis, Bars, Figure, FigureData, Frame, Handle, Line, Panel, Stack, positions
from genlab.demo.engine import Engine
from genlab.demo.limits import (
    FIT_MEAN,
    FIT_START_MEAN,
    FIT_START_STD,
    FIT_STD,
    FIT_WEIGHT,
    FitRequest,
    Interval,
    parse_choice,
    parse_fit,
)
from genlab.demo.tabs import LATEX, NEWEST_EVENT, ONE_LOOK_EVENT, outcomes, told
from genlab.divergence import (
    Direction,
    Gaussian,
    Tabulated,
    cross_entropy,
    fit,
    forward,
    kl,
    kl_integrand,
    mixture,
    reverse,
    tabulate,
)
from genlab.serving.language import both

TITLE = both("KL", "KL 散度")
TEXT = {
    "lead": both(
        "One Gaussian q for a p of two modes. Under KL[p‖q] it must cover both and lands between them; under KL[q‖p] it picks "
        "one. Drag the modes, or the start of q.",
        "用一个高斯 q 去拟合双峰的 p。按 KL[p‖q]，它必须盖住两个峰，于是落在中间；按 KL[q‖p]，它只选一个峰。"
        "可以拖动两个峰，也可以拖动 q 的起点。",
    ),
    "run": both("Run both fits", "运行两种拟合"),
    "other": both("Mirror the start", "镜像起点"),
    "example": both("Example", "例子"),
    "figure": both("Fits under the two directions of KL", "两种方向的 KL 下的拟合"),
    "forward": both("forward, KL[p‖q]: q covers p", "前向 KL[p‖q]：q 盖住 p"),
    "reverse": both("reverse, KL[q‖p]: q picks a mode", "反向 KL[q‖p]：q 选一个峰"),
    "p": both("p, the data", "p，数据"),
    "q": both("q, the fit", "q，拟合"),
    "start": both("start of q", "q 的起点"),
    "forward_integrand": both("p log(p/q): its area is KL[p‖q]", "p log(p/q)：面积为 KL[p‖q]"),
    "reverse_integrand": both("q log(q/p): its area is KL[q‖p]", "q log(q/p)：面积为 KL[q‖p]"),
    "forward_bars": both("in nats, for the forward q", "前向的 q，单位奈特"),
    "reverse_bars": both("in nats, for the reverse q", "反向的 q，单位奈特"),
    "left": both("left mode: mean and height", "左峰：均值与高度"),
    "left_width": both("left mode: width", "左峰：宽度"),
    "right": both("right mode: mean and height", "右峰：均值与高度"),
    "right_width": both("right mode: width", "右峰：宽度"),
    "start_mean": both("start of q: mean", "q 的起点：均值"),
    "start_width": both("start of q: width", "q 的起点：宽度"),
    "fitted": both("fitted", "拟合结果"),
    "step": both("step {i} of {n}", "第 {i} 步，共 {n} 步"),
    "caption": both(
        "{when} · forward: m = {m_f}, s = {s_f}, KL[p‖q] = {kl_f} · reverse: m = {m_r}, s = {s_r}, KL[q‖p] = {kl_r}",
        "{when} · 前向：m = {m_f}，s = {s_f}，KL[p‖q] = {kl_f} · 反向：m = {m_r}，s = {s_r}，KL[q‖p] = {kl_r}",
    ),
    "description": both(
        "p is {w} N({lm}, {ls}²) + {v} N({rm}, {rs}²), H(p) = {h} nats. q starts from N({sm}, {ss}²).",
        "p 为 {w} N({lm}, {ls}²) + {v} N({rm}, {rs}²)，H(p) = {h} 奈特。q 从 N({sm}, {ss}²) 出发。",
    ),
    "fit": both("q ends as N({m}, {s}²), with {name} = {value} nats.", "q 最后是 N({m}, {s}²)，{name} = {value} 奈特。"),
    "formula_title": both("The formula (notes 1.2, 1.3)", "公式（讲义 1.2、1.3）"),
    "formula": both(
        r"With $H(p) = -\mathbb E_p[\log p(x)]$ and the cross entropy $H(p,q) = -\mathbb E_p[\log q(x)]$, in nats:",
        r"设 $H(p) = -\mathbb E_p[\log p(x)]$，交叉熵 $H(p,q) = -\mathbb E_p[\log q(x)]$，单位为奈特：",
    )
    + r"""

$$\mathrm{KL}[p\,\|\,q] = \mathbb E_p\Big[\log\frac{p(x)}{q(x)}\Big] = H(p,q) - H(p) \;\ge\; 0$$

"""
    + both(
        r"**Forward**: $H(p)$ does not depend on $q$, so the least $\mathrm{KL}[p\,\|\,q]$ is the least cross entropy, that is "
        r"maximum likelihood. $p\log(p/q)$ is large where $p$ is and $q$ is not: $q$ must be nowhere near zero where $p$ is "
        "(zero-avoiding), and the best Gaussian has the mean and the variance of $p$ (mean-seeking), from every start.",
        r"**前向**：$H(p)$ 与 $q$ 无关，所以让 $\mathrm{KL}[p\,\|\,q]$ 最小就是让交叉熵最小，即最大似然。在 $p$ 大而 $q$ 小处，"
        r"$p\log(p/q)$ 很大，所以凡 $p$ 不为零处 $q$ 都不能接近零（zero-avoiding）；最好的高斯具有 $p$ 的均值和方差"
        "（mean-seeking），与起点无关。",
    )
    + "\n\n"
    + both(
        r"**Reverse**: $\mathrm{KL}[q\,\|\,p] = \mathbb E_q[\log(q/p)]$ weighs by $q$. It costs nothing where $q$ is zero and "
        r"much where $q$ is and $p$ is not (zero-forcing), so $q$ settles on one mode (mode-seeking): which one depends on the "
        r"start. A mode of weight $w$, far from the other, costs $-\log w$.",
        r"**反向**：$\mathrm{KL}[q\,\|\,p] = \mathbb E_q[\log(q/p)]$ 按 $q$ 加权。$q$ 为零处没有代价，$q$ 不为零而 $p$ 接近零处"
        r"代价很大（zero-forcing），所以 $q$ 停在一个峰上（mode-seeking），停在哪个由起点决定。若两峰相距很远，"
        r"选中权重为 $w$ 的峰，代价为 $-\log w$。",
    )
    + "\n\n"
    + both(
        r"A step of the walk, by the natural gradient of either divergence $D$ for $q = \mathcal N(m, s^2)$ (smaller where it "
        "would lead too far):",
        r"每走一步，对 $q = \mathcal N(m, s^2)$ 沿相应散度 $D$ 的自然梯度下降（可能走得太远时步子减小）：",
    )
    + r"""

$$m \leftarrow m - c\,s^2\,\frac{\partial D}{\partial m},\qquad
\log s \leftarrow \log s - \frac c2\,\frac{\partial D}{\partial\log s},\qquad c = \tfrac14$$
""",
}
EXAMPLES: dict[str, tuple[str, tuple[float, ...]]] = {
    "two modes": (both("two modes", "两个峰"), (0.45, -3.0, 0.7, 3.0, 1.0, -1.0, 0.7)),
    "far apart": (both("far apart", "相距很远"), (0.5, -4.5, 0.6, 4.5, 0.6, -1.5, 1.0)),
    "narrow and wide": (both("narrow and wide", "一窄一宽"), (0.35, -2.5, 0.3, 2.0, 1.6, -5.0, 0.8)),
    "nearly one": (both("nearly one", "几乎合一"), (0.5, -1.0, 1.0, 1.0, 1.0, -4.0, 0.5)),
}
"""Name of an example → its name on the page, and the values of a request in its order."""
X = torch.linspace(-40, 40, 1601, dtype=torch.float64)
"""Where densities are tabulated: beyond nine widths of everything that may be asked for, in steps of a sixth of the least."""
SHOWN = slice(640, 961, 2)
"""What is drawn of it: −8 … 8 in steps of 0.1."""
TOLERANCE = 1e-4
"""Fisher length of the step at which a walk has arrived."""
FRAMES = 48
"""Most frames of an animation."""
SPREAD = 1.4
"""How far the axes reach beyond the largest value that is to be seen at the end."""
BOTH: dict[str, Direction] = {"forward": forward, "reverse": reverse}
HANDLES = ("left", "left_width", "was_left", "right", "right_width", "was_right", "start", "start_width")
KL_NAMES = {"forward": "KL[p‖q]", "reverse": "KL[q‖p]"}


@dataclass(frozen=True)
class Walk:
    """One fit: q after every step, or at the start and the end alone, as rows."""

    q: Gaussian
    table: Tabulated
    cross_entropy: Tensor
    forward_kl: Tensor
    reverse_kl: Tensor
    integrand: Tensor


@dataclass(frozen=True)
class Solution:
    """Both fits of a request."""

    request: FitRequest
    p: Tabulated
    walks: dict[str, Walk]


def solve(request: FitRequest, whole: bool = True) -> Solution:
    """Fit q under both directions; `whole`: keep every step, else only the start and the end."""
    weight = torch.tensor([request.weight, 1 - request.weight], dtype=torch.float64)
    modes = _gaussians((request.left_mean, request.left_std), (request.right_mean, request.right_std))
    start = _gaussians((request.start_mean, request.start_std))
    p = mixture(weight, modes, X)
    walks = {}
    for name, direction in BOTH.items():
        path = list(fit(p, start, direction, tolerance=TOLERANCE))
        path = path if whole else [path[0], path[-1]]
        q = Gaussian(torch.cat([step.mean for step in path]), torch.cat([step.log_var for step in path]))
        table = tabulate(q, X)
        integrand = kl_integrand(p, table) if direction is forward else kl_integrand(table, p)
        walks[name] = Walk(q, table, cross_entropy(p, table), kl(p, table), kl(table, p), integrand)
    return Solution(request, p, walks)


def _gaussians(*pairs: tuple[float, float]) -> Gaussian:
    mean, std = torch.tensor(pairs, dtype=torch.float64).T[:, :, None]
    return Gaussian(mean, 2 * std.log())


def draw(solution: Solution, animated: bool = False) -> FigureData:
    """The figure: the fits at their end, and with `animated` the way there."""
    request, p, walks = solution.request, solution.p, solution.walks
    x, last = X[SHOWN], -1
    density = p.density[0, SHOWN]
    start = walks["forward"].table.density[0, SHOWN]
    entropy = float(p.entropy)
    top = 1.2 * max(float(density.max()), *(float(walk.table.density[last].max()) for walk in walks.values()))
    peak = max(float(walk.integrand[last].max()) for walk in walks.values())
    where = Axis(low=-8, high=8)
    panels = [
        Panel(
            x=where,
            y=Axis(low=-0.09 * top, high=top, ticks=False),
            layers=[
                Area(name=TEXT["p"], colour="p", x=x, y=density),
                Line(name=TEXT["start"], colour="q", x=x, y=start, dash=True, width=1.5),
                Line(id=f"{name}-q", name=TEXT["q"], colour="q", x=x, y=walk.table.density[last, SHOWN], width=3),
            ],
            title=TEXT[name],
            description=TEXT["fit"].format(**_numbers(walk, last, name)),
            aspect=1.9,
            least=400,
        )
        for name, walk in walks.items()
    ]
    panels += [
        Panel(
            x=where,
            y=Axis(low=-max(0.12, 0.6 * peak), high=max(0.2, SPREAD * peak)),
            layers=[Area(id=f"{name}-integrand", colour="kl", x=x, y=walk.integrand[last, SHOWN], opacity=0.4)],
            title=TEXT[f"{name}_integrand"],
            description=TEXT["fit"].format(**_numbers(walk, last, name)),
            aspect=3.2,
            least=400,
        )
        for name, walk in walks.items()
    ]
    panels += [
        Panel(
            x=Axis(low=0, high=max(1.0, SPREAD * max(float(walk.cross_entropy[last]), float(walk.reverse_kl[last])))),
            y=Axis(low=-0.5, high=3.5, ticks=False),
            layers=[
                Bars(
                    id=f"{name}-bars",
                    labels=["H(p)", "H(p,q)", *KL_NAMES.values()],
                    horizontal=True,
                    **_bars(walk, last, entropy),
                )
            ],
            title=TEXT[f"{name}_bars"],
            description=" · ".join(_texts(walk, last, entropy)),
            aspect=2.8,
            least=400,
        )
        for name, walk in walks.items()
    ]
    ends = {name: len(walk.q.mean) - 1 for name, walk in walks.items()}
    frames = []
    for i in _kept(max(ends.values()) + 1) if animated else []:
        layers: dict[str, dict[str, Any]] = {}
        at = {name: min(i, end) for name, end in ends.items()}
        for name, walk in walks.items():
            layers[f"{name}-q"] = {"y": walk.table.density[at[name], SHOWN]}
            layers[f"{name}-integrand"] = {"y": walk.integrand[at[name], SHOWN]}
            layers[f"{name}-bars"] = _bars(walk, at[name], entropy)
        frames.append(Frame(caption=_caption(walks, at, TEXT["step"].format(i=i, n=max(ends.values()))), layers=layers))
    return FigureData(
        panels=panels,
        handles=_handles(request, top),
        caption=_caption(walks, ends, TEXT["fitted"]),
        description=TEXT["description"].format(
            w=_short(request.weight),
            v=_short(1 - request.weight),
            lm=_short(request.left_mean),
            ls=_short(request.left_std),
            rm=_short(request.right_mean),
            rs=_short(request.right_std),
            sm=_short(request.start_mean),
            ss=_short(request.start_std),
            h=_short(entropy),
        ),
        frames=frames,
        first=0 if animated else None,
        autoplay=animated,
        fps=10,
    )


def _kept(count: int) -> list[int]:
    """Which of `count` steps become frames: all, or `FRAMES` of them, ends included."""
    most = min(count, FRAMES)
    return sorted({round(i * (count - 1) / max(1, most - 1)) for i in range(most)})


def _bars(walk: Walk, i: int, entropy: float) -> dict[str, Any]:
    """H(p), H(p,q) = H(p) + KL[p‖q], KL[p‖q] and KL[q‖p] of q at step i."""
    gap, back = float(walk.forward_kl[i]), float(walk.reverse_kl[i])
    return {
        "stacks": [
            Stack(colour="p", values=[entropy, entropy, 0, 0], inside="H(p)"),
            Stack(colour="kl", values=[0, gap, gap, 0], inside="KL[p‖q]"),
            Stack(colour="kl", values=[0, 0, 0, back], inside="KL[q‖p]"),
        ],
        "texts": [_short(value) for value in (entropy, float(walk.cross_entropy[i]), gap, back)],
    }


def _texts(walk: Walk, i: int, entropy: float) -> list[str]:
    labels = ("H(p)", "H(p,q)", *KL_NAMES.values())
    return [f"{label} = {text}" for label, text in zip(labels, _bars(walk, i, entropy)["texts"], strict=True)]


def _numbers(walk: Walk, i: int, name: str) -> dict[str, str]:
    value = walk.forward_kl if name == "forward" else walk.reverse_kl
    mean, std = float(walk.q.mean[i]), float(walk.q.std[i])
    return {"m": _short(mean), "s": _short(std), "value": _short(float(value[i])), "name": KL_NAMES[name]}


def _caption(walks: dict[str, Walk], at: dict[str, int], when: str) -> str:
    f, r = (_numbers(walks[name], at[name], name) for name in BOTH)
    text = TEXT["caption"].format(when=when, m_f=f["m"], s_f=f["s"], kl_f=f["value"], m_r=r["m"], s_r=r["s"], kl_r=r["value"])
    return text.replace(" = ", "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}")


def _short(value: float) -> str:
    text = f"{value:.1f}" if abs(value) >= 100 else f"{value:.2f}" if abs(value) >= 10 else f"{value:.3f}"
    return text.replace("-", "−")


def _handles(request: FitRequest, top: float) -> list[Handle]:
    """The tops of the two modes (mean and weight), one width beside them (width), and the start of q at the axis.

    Two that are not drawn, "was_left" and "was_right", carry the weights and widths that the heights belong to.
    """
    handles = []
    for side, weight in (("left", request.weight), ("right", 1 - request.weight)):
        mean, std = getattr(request, f"{side}_mean"), getattr(request, f"{side}_std")
        height = _height(std)
        look: dict[str, Any] = {"panels": [0, 1], "colour": "p"}
        top_bounds: dict[str, Any] = {"y_low": FIT_WEIGHT.low * height, "y_high": min(FIT_WEIGHT.high * height, top)}
        handles += [
            Handle(id=side, x=mean, y=weight * height, axis="xy", name=TEXT[side], **_bounds(FIT_MEAN), **top_bounds, **look),
            Handle(id=f"was_{side}", x=weight, y=std, panels=[]),
            _width_handle(f"{side}_width", side, mean, std, weight * _height(std, std), FIT_STD, **look),
        ]
    mean, std = request.start_mean, request.start_std
    return [
        *handles,
        Handle(id="start", x=mean, y=0, name=TEXT["start_mean"], panels=[0, 1], colour="q", **_bounds(FIT_START_MEAN)),
        _width_handle("start_width", "start", mean, std, 0, FIT_START_STD, panels=[0, 1], colour="q"),
    ]


def _width_handle(name: str, of: str, mean: float, std: float, y: float, limits: Interval, **look: Any) -> Handle:
    place: dict[str, Any] = {"x": mean + std, "y": y, **_bounds(limits, mean)}
    return Handle(id=name, name=TEXT[name], shape="bar", with_=of, **place, **look)


def _bounds(limits: Interval, origin: float = 0.0) -> dict[str, Any]:
    """Of a handle that moves along x."""
    return {"x_low": origin + limits.low, "x_high": origin + limits.high}


def _height(std: float, away: float = 0.0) -> float:
    """Of the density of N(0, std²), so far away from its top."""
    return float(_gaussians((0, std)).log_prob(torch.tensor([[away]], dtype=torch.float64)).exp())


def read(value: Any) -> FitRequest:
    """What the figure in the browser asks for; whatever lies outside of the limits is brought to them."""
    at = positions(value, HANDLES)
    std = {side: FIT_STD.nearest(at[f"{side}_width"][0] - at[side][0]) for side in ("left", "right")}
    weights = {side: at[side][1] / _height(FIT_STD.nearest(at[f"was_{side}"][1])) for side in ("left", "right")}
    changes = {side: abs(weights[side] - at[f"was_{side}"][0]) for side in weights}
    weight = weights["left"] if changes["left"] >= changes["right"] else 1 - weights["right"]
    return FitRequest(
        weight=FIT_WEIGHT.nearest(weight),
        left_mean=FIT_MEAN.nearest(at["left"][0]),
        left_std=std["left"],
        right_mean=FIT_MEAN.nearest(at["right"][0]),
        right_std=std["right"],
        start_mean=FIT_START_MEAN.nearest(at["start"][0]),
        start_std=FIT_START_STD.nearest(at["start_width"][0] - at["start"][0]),
    )


def numbers(solution: Solution) -> dict[str, Any]:
    """Every number of the page."""
    p = solution.p
    result: dict[str, Any] = {
        "unit": "nats",
        "p": {"entropy": float(p.entropy), "mean": float(p.moments.mean), "std": float(p.moments.std)},
        "x": X[SHOWN].tolist(),
        "p_density": p.density[0, SHOWN].tolist(),
    }
    for name, walk in solution.walks.items():
        result[name] = {
            "steps": [
                dict(zip(("mean", "std", "cross_entropy", "forward_kl", "reverse_kl"), row, strict=True))
                for row in torch.cat(
                    [walk.q.mean, walk.q.std, *(v[:, None] for v in (walk.cross_entropy, walk.forward_kl, walk.reverse_kl))],
                    dim=1,
                ).tolist()
            ],
            "q_density": walk.table.density[-1, SHOWN].tolist(),
            "integrand": walk.integrand[-1, SHOWN].tolist(),
        }
    return result


def build(engine: Engine, page: gr.Blocks) -> None:
    """The tab, and the endpoint `/divergence`; below figure 1, the section of discrete distributions."""
    first = FitRequest(*next(iter(EXAMPLES.values()))[1])
    with gr.Row(equal_height=False):
        with gr.Column(scale=3, min_width=320):
            gr.Markdown(TEXT["lead"])
        with gr.Column(scale=2, min_width=320), gr.Row():
            run = gr.Button(TEXT["run"], variant="primary", elem_id="divergence-run", scale=2, min_width=140)
            other = gr.Button(TEXT["other"], elem_id="divergence-other", scale=2, min_width=140)
    figure = Figure(
        draw(solve(first, whole=False)), label="figure", animated=True, elem_id="divergence", labels={"player": TEXT["figure"]}
    )
    example = gr.Radio([(name, key) for key, (name, _) in EXAMPLES.items()], value=next(iter(EXAMPLES)), label=TEXT["example"])
    with gr.Accordion(TEXT["formula_title"], open=False):
        gr.Markdown(TEXT["formula"], latex_delimiters=LATEX)

    def dragged(value: Any) -> FigureData:
        with told():
            return draw(solve(read(value), whole=False))

    def play(value: Any) -> FigureData:
        with told():
            return draw(solve(read(value)), animated=True)

    def mirrored(value: Any) -> FigureData:
        """The start of q on the other side of the middle between the modes."""
        with told():
            request = read(value)
            start = FIT_START_MEAN.nearest(request.left_mean + request.right_mean - request.start_mean)
            return draw(solve(replace(request, start_mean=start)), animated=True)

    def shown(name: Any) -> FigureData:
        with told():
            key = parse_choice(TEXT["example"], name, tuple(EXAMPLES))
            return draw(solve(FitRequest(*EXAMPLES[key][1])), animated=True)

    def divergence(
        weight: Any,
        left_mean: Any,
        left_std: Any,
        right_mean: Any,
        right_std: Any,
        start_mean: Any,
        start_std: Any,
    ) -> dict[str, Any]:
        """One Gaussian q fitted to p = weight N(left_mean, left_std²) + (1 − weight) N(right_mean, right_std²) under both
        directions of the KL divergence, from the start N(start_mean, start_std²). In nats: `p` has the entropy H(p), mean and
        standard deviation of p; `forward` (KL[p‖q]) and `reverse` (KL[q‖p]) have, for the start and after each step of the
        optimiser, q's mean and standard deviation, H(p,q), KL[p‖q] and KL[q‖p]; and for the last q its density and
        the integrand of its divergence at the points `x`. Weights are from 0.05 to 0.95, means from −6 to 6 (the start's
        from −7 to 7), standard deviations from 0.3 to 2.5 (the start's to 3).
        """
        with told():
            return numbers(solve(parse_fit(weight, left_mean, left_std, right_mean, right_std, start_mean, start_std)))

    figure.input(dragged, figure, figure, **NEWEST_EVENT)
    run.click(play, figure, figure, **NEWEST_EVENT)
    other.click(mirrored, figure, figure, **NEWEST_EVENT)
    example.input(shown, example, figure, **NEWEST_EVENT)
    named = [gr.Number(value, label=key, visible=False) for key, value in asdict(first).items()]
    result = gr.JSON(label="divergence", visible=False)
    gr.Button(visible=False).click(
        divergence,
        named,
        result,
        api_name="divergence",
        **ONE_LOOK_EVENT,
    )
    outcomes.build()
