"""Two distributions over six outcomes, as bars to drag: entropy, cross entropy, KL, and their codes (docs/notes.md#n1-2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
import torch

from genlab.demo.components.figure import Axis, Bars, Figure, FigureData, Handle, Line, Panel, Stack, positions
from genlab.demo.documents import notes
from genlab.demo.limits import LimitError, parse_choice, shown
from genlab.demo.tabs.controls import formula
from genlab.demo.tabs.events import LIGHT_EVENT, NEWEST_EVENT, ONE_PASS_EVENT, endpoint, errors_shown
from genlab.divergence import Categorical, code_length, cross_entropy, entropy, kl, kl_terms, nats_to_bits
from genlab.serving.language import both

OUTCOMES = (2, 16)
"""How many outcomes two discrete distributions may have."""
SUM_SLACK = 1e-3
"""How far the sum of given probabilities may be from 1, as it is where they have been rounded; they are divided by it."""


@dataclass(frozen=True)
class CrossEntropyRequest:
    """Two distributions over the same outcomes: probabilities that sum to 1."""

    p: tuple[float, ...]
    q: tuple[float, ...]


def parse_cross_entropy(p: object, q: object) -> CrossEntropyRequest:
    """Return the request of `/cross_entropy`.

    Raises:
        LimitError: p or q is not a list of 2 to 16 probabilities that sum to 1 within `SUM_SLACK`, or they differ in length.
    """
    first, second = _probabilities("p", p), _probabilities("q", q)
    if len(first) != len(second):
        raise LimitError(TEXT["same outcomes"].format(p=len(first), q=len(second)))
    return CrossEntropyRequest(first, second)


def parse_shown(p: object, q: object) -> CrossEntropyRequest:
    """Return the request of the figure on the page, which has `K` outcomes.

    Raises:
        LimitError: see `parse_cross_entropy`; or there are not `K` outcomes.
    """
    request = parse_cross_entropy(p, q)
    if len(request.p) != K:
        raise LimitError(TEXT["outcomes"].format(count=K, value=len(request.p)))
    return request


def _probabilities(name: str, value: object) -> tuple[float, ...]:
    low, high = OUTCOMES
    if isinstance(value, list) and low <= len(value) <= high and all(_probability(v) for v in value):
        total = math.fsum(value)
        if abs(total - 1) <= SUM_SLACK:
            return tuple(v / total for v in value)
    raise LimitError(TEXT["probabilities"].format(name=name, low=low, high=high, value=shown(value)))


def _probability(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1


@dataclass(frozen=True)
class Result:
    """The four `TOTALS` of two distributions in nats and in bits, and in bits the values of every outcome (K)."""

    request: CrossEntropyRequest
    nats: list[float]
    bits: list[float]
    code_p: list[float]
    code_q: list[float]
    forward_terms: list[float]
    reverse_terms: list[float]


def solve(request: CrossEntropyRequest) -> Result:
    """Compute what the figure and the API show."""
    p, q = (Categorical(torch.tensor([prob], dtype=torch.float64)) for prob in (request.p, request.q))
    totals = torch.cat([entropy(p), cross_entropy(p, q), kl(p, q), kl(q, p)])
    each = (code_length(p), code_length(q), kl_terms(p, q), kl_terms(q, p))
    return Result(
        request, totals.tolist(), nats_to_bits(totals).tolist(), *(nats_to_bits(values)[0].tolist() for values in each)
    )


K = 6
"""Outcomes on the page."""
HANDLES = [f"{name}{i}" for name in "pq" for i in range(K)]
WAS = [f"was{i}" for i in range(K)]
"""Handles that are not drawn: p_i and q_i as the server has drawn them, which tells which bar was dragged."""
TALL = 0.88
"""Where an infinite bar ends, as a part of the axis."""
TOTALS = {"entropy": "H(p)", "cross_entropy": "H(p,q)", "forward_kl": "KL[p‖q]", "reverse_kl": "KL[q‖p]"}


def draw(result: Result) -> FigureData:
    """Return the figure: p and q, what codes cost, the totals, and the terms of both divergences."""
    p, q = result.request.p, result.request.q
    high = max(6.0, 1.25 * max(_finite(result.code_p + result.code_q)))
    ends = [value for code in result.code_p for value in ((math.nan,) * 3 if math.isinf(code) else (code, code, math.nan))]
    rest = [text for text in (_missing("q", "p", q, p), _missing("p", "q", p, q)) if text]
    words = dict(zip("hcfr", map(_short, result.bits), strict=True))
    caption = " ".join([TEXT["caption"].format(**words).replace(" = ", "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}"), *rest])
    return FigureData(
        panels=[
            _panel(p, TEXT["p"], "p", Axis(low=0, high=1.1)),
            _panel(q, TEXT["q"], "q", Axis(low=0, high=1.1)),
            _panel(
                result.code_q,
                TEXT["lengths"],
                "q",
                Axis(low=0, high=high),
                name=TEXT["code q"],
                more=[
                    Line(
                        name=TEXT["code p"],
                        colour="p",
                        x=[value for i in range(K) for value in (i - 0.42, i + 0.42, math.nan)],
                        y=ends,
                        width=4,
                    )
                ],
            ),
            _totals(result),
            _panel(result.forward_terms, TEXT["forward"], "kl", _around(result.forward_terms)),
            _panel(result.reverse_terms, TEXT["reverse"], "kl", _around(result.reverse_terms)),
        ],
        handles=[
            *(_handle(0, "p", "p", i, value) for i, value in enumerate(p)),
            *(_handle(1, "q", "q", i, value) for i, value in enumerate(q)),
            *(Handle(id=WAS[i], x=p[i], y=q[i], panels=[]) for i in range(K)),
        ],
        caption=caption,
        description=caption,
    )


def _panel(values: Sequence[float], title: str, colour: str, y: Axis, *, name: str = "", more: Sequence[Line] = ()) -> Panel:
    """Return one bar for each outcome; an infinite one reaches to `TALL`."""
    texts = [_short(value) for value in values]
    lengths = [value if math.isfinite(value) else TALL * y.high for value in values]
    bars = Bars(labels=_labels(), stacks=[Stack(name=name, colour=colour, values=lengths)], texts=texts)
    description = ", ".join(f"{label} {text}" for label, text in zip(_labels(), texts, strict=True))
    return Panel(
        x=Axis(low=-0.6, high=K - 0.4, ticks=False),
        y=y,
        layers=[bars, *more],
        title=title,
        description=description,
        aspect=2.1,
        least=400,
        readout=False,
    )


def _totals(result: Result) -> Panel:
    """Return H(p), H(p,q) = H(p) + KL[p‖q], and both divergences; an infinite bar reaches to `TALL`."""
    h, _, gap, back = result.bits
    high = max(1.0, 1.25 * max(_finite(result.bits)))
    far = TALL * high
    texts = [f"{_short(bits)} ({_short(nats)})" for bits, nats in zip(result.bits, result.nats, strict=True)]
    stacks = [
        Stack(colour="p", values=[h, h, 0, 0], inside="H(p)"),
        Stack(colour="kl", values=[0, min(gap, far - h), min(gap, far), 0], inside="KL[p‖q]"),
        Stack(colour="kl", values=[0, 0, 0, min(back, far)], inside="KL[q‖p]"),
    ]
    return Panel(
        x=Axis(low=0, high=high),
        y=Axis(low=-0.5, high=3.5, ticks=False),
        layers=[Bars(labels=list(TOTALS.values()), stacks=stacks, texts=texts, horizontal=True)],
        title=TEXT["totals"],
        description=" · ".join(f"{name} = {text}" for name, text in zip(TOTALS.values(), texts, strict=True)),
        aspect=2.1,
        least=400,
        readout=False,
    )


def _around(values: Sequence[float]) -> Axis:
    """Return an axis with room for the numbers, longer than the present terms, so that it seldom changes."""
    finite = _finite(values)
    return Axis(low=1.4 * min(-0.15, *finite), high=1.4 * max(0.5, *finite))


def _finite(values: Sequence[float]) -> list[float]:
    return [value for value in values if math.isfinite(value)]


def _missing(lower: str, upper: str, below: Sequence[float], above: Sequence[float]) -> str:
    where = [label for label, b, a in zip(_labels(), below, above, strict=True) if b == 0 < a]
    return TEXT["infinite"].format(lower=lower, upper=upper, where=", ".join(where)) if where else ""


def _labels() -> list[str]:
    return [chr(ord("a") + i) for i in range(K)]


def _short(value: float) -> str:
    text = "∞" if math.isinf(value) else f"{value:.2f}" if abs(value) >= 10 else f"{value:.3f}"
    return text.replace("-", "−").replace("−0.000", "0.000")


def _handle(panel: int, name: str, colour: str, i: int, value: float) -> Handle:
    label = TEXT[f"{name} handle"].format(i=_labels()[i])
    place: dict[str, Any] = {"x": i, "y": value, "axis": "y", "y_low": 0, "y_high": 1}
    return Handle(id=f"{name}{i}", panels=[panel], name=label, colour=colour, shape="bar", **place)


def read(value: Any) -> CrossEntropyRequest:
    """Return the request of the figure in the browser: the bars that were dragged stay, the others make room."""
    at = positions(value, [*HANDLES, *WAS])
    was = [at[name] for name in WAS]
    return CrossEntropyRequest(
        settle([at[f"p{i}"][1] for i in range(K)], [p for p, _ in was]),
        settle([at[f"q{i}"][1] for i in range(K)], [q for _, q in was]),
    )


def settle(wanted: Sequence[float], was: Sequence[float]) -> tuple[float, ...]:
    """Return probabilities that sum to 1: those that differ from `was` as wanted, the others in their proportion.

    If the others were all zero they get equal shares; if those that were moved exceed 1 together, they are scaled.
    """
    values = [min(max(value, 0.0), 1.0) for value in wanted]
    still = [i for i, (a, b) in enumerate(zip(wanted, was, strict=True)) if a == b]
    moved = math.fsum(value for i, value in enumerate(values) if i not in still)
    others = math.fsum(values[i] for i in still)
    for i in still:
        share = values[i] / others if others else 1 / len(still)
        values[i] = share * max(0.0, 1 - moved)
    total = math.fsum(values)
    return tuple(value / total for value in values) if total else (1 / len(values),) * len(values)


def numbers(result: Result) -> dict[str, Any]:
    """Return every number of the figure; infinite ones as the string "Infinity", for JSON has no such number."""
    each = ("code_p", "code_q", "forward_terms", "reverse_terms")
    return {
        "p": list(result.request.p),
        "q": list(result.request.q),
        "bits": dict(zip(TOTALS, map(_json, result.bits), strict=True)),
        "nats": dict(zip(TOTALS, map(_json, result.nats), strict=True)),
        "bits_of_each": {name: [_json(value) for value in getattr(result, name)] for name in each},
    }


def _json(value: float) -> float | str:
    return value if math.isfinite(value) else "Infinity"


TEXT = {
    "probabilities": both(
        "{name}: expected {low} to {high} probabilities that sum to 1, got {value}",
        "{name}：应为 {low} 到 {high} 个和为 1 的概率，实际为 {value}",
    ),
    "same outcomes": both(
        "q: expected as many probabilities as p has, {p}, got {q}", "q：概率的个数应与 p 相同，即 {p} 个，实际为 {q} 个"
    ),
    "outcomes": both("p and q: expected {count} outcomes, got {value}", "p 和 q：应有 {count} 个结果，实际为 {value} 个"),
    "lead": both(
        "### Bits: two distributions over six outcomes\n"
        "Drag the bars of p and q; the others make room, so that each sums to 1. A code made for q spends −log₂ q(x) bits "
        "on x. How many does it take on average if the outcomes come from p? Then drag a bar of q to zero.",
        "### 比特：六个结果上的两个分布\n"
        "拖动 p 和 q 的条形，其余条形会让出位置，使总和保持为 1。为 q 设计的编码在 x 上花费 −log₂ q(x) 比特。"
        "若结果来自 p，平均要花多少比特？再把 q 的一个条形拖到零试试。",
    )
    + notes("n1-2-1"),
    "figure": both("Two discrete distributions", "两个离散分布"),
    "example": both("Example", "例子"),
    "p": both("p, where the outcomes come from", "p，结果的来源"),
    "q": both("q, what the code is made for", "q，编码所针对的分布"),
    "p handle": both("p of outcome {i}", "结果 {i} 的 p"),
    "q handle": both("q of outcome {i}", "结果 {i} 的 q"),
    "lengths": both("bits that each outcome costs", "每个结果花费的比特数"),
    "code q": both("code for q, −log₂ q(x)", "为 q 设计的编码，−log₂ q(x)"),
    "code p": both("code for p, −log₂ p(x)", "为 p 设计的编码，−log₂ p(x)"),
    "totals": both("on average, in bits (in nats)", "平均值，单位为比特（奈特）"),
    "forward": both("p log₂(p/q): adds up to KL[p‖q]", "p log₂(p/q)：总和为 KL[p‖q]"),
    "reverse": both("q log₂(q/p): adds up to KL[q‖p]", "q log₂(q/p)：总和为 KL[q‖p]"),
    "caption": both(
        "The best code for p takes H(p) = {h} bits on average, the code for q takes H(p,q) = {c}: KL[p‖q] = {f} bits are "
        "wasted. The other way round, KL[q‖p] = {r} bits.",
        "为 p 设计的最好编码平均花费 H(p) = {h} 比特，为 q 设计的编码花费 H(p,q) = {c} 比特：浪费了 KL[p‖q] = {f} 比特。"
        "反过来，KL[q‖p] = {r} 比特。",
    ),
    "infinite": both(
        "{lower} is zero where {upper} is not, at {where}: the code for {lower} has no word for it.",
        "在 {where} 处 {lower} 为零而 {upper} 不为零：为 {lower} 设计的编码没有对应的码字。",
    ),
    "formula_title": both("The formula (notes 1.2)", "公式（讲义 1.2）"),
    "formula": r"""
$$H(p) = -\sum_i p_i\log p_i,\qquad H(p,q) = -\sum_i p_i\log q_i,\qquad
\mathrm{KL}[p\,\|\,q] = \sum_i p_i\log\frac{p_i}{q_i} = H(p,q) - H(p) \;\ge\; 0$$

"""
    + both(
        r"With $\log_2$ they count bits, with the natural logarithm nats: 1 nat $= 1/\ln 2 \approx 1.443$ bits. "
        r"**Codes**: an outcome that is given the probability $q_i$ costs $-\log_2 q_i$ bits (a whole number where $q_i$ is a "
        r"power of $\tfrac12$; over long messages an arithmetic coder comes as near as one likes). On outcomes from $p$ "
        r"that takes $H(p,q)$ on average, least for $q = p$. **Training**: the pictures come from $p$ and the model is $q$; "
        r"$H(p)$ does not depend on $q$, so to minimise the cross entropy is to minimise $\mathrm{KL}[p\,\|\,q]$. "
        r"**Single terms** may be negative, where $q_i > p_i$; their sum is not. **Zeros**: a term is $0$ where "
        r"$p_i = 0$, and infinite where $q_i = 0 < p_i$: "
        r"forward KL never forgives a model that rules out what happens, reverse KL does.",
        r"用 $\log_2$ 时单位为比特，用自然对数时单位为奈特：1 奈特 $= 1/\ln 2 \approx 1.443$ 比特。"
        r"**编码**：概率记为 $q_i$ 的结果花费 $-\log_2 q_i$ 比特（$q_i$ 为 $\tfrac12$ 的幂时是整数；消息很长时，"
        r"算术编码可以任意接近）。结果来自 $p$ 时平均花费 $H(p,q)$，$q = p$ 时最小。"
        r"**训练**：图片来自 $p$，模型是 $q$；$H(p)$ 与 $q$ 无关，所以让交叉熵最小就是让 $\mathrm{KL}[p\,\|\,q]$ 最小。"
        r"**单独一项**在 $q_i > p_i$ 处可以为负，总和不会。**零**：$p_i = 0$ 时该项为 $0$；$q_i = 0 < p_i$ 时为无穷大："
        r"前向 KL 绝不原谅把会发生的事排除在外的模型，反向 KL 会。",
    ),
}
EXAMPLES: dict[str, tuple[str, tuple[float, ...], tuple[float, ...]]] = {
    "nearly right": (both("nearly right", "接近"), (0.35, 0.25, 0.2, 0.1, 0.06, 0.04), (0.2, 0.2, 0.25, 0.15, 0.12, 0.08)),
    "powers of one half": (both("powers of ½", "½ 的幂"), (0.5, 0.25, 0.125, 0.0625, 0.03125, 0.03125), (1 / K,) * K),
    "q forgets one": (
        both("q forgets one", "q 漏掉一个"),
        (0.3, 0.25, 0.2, 0.15, 0.07, 0.03),
        (0.3, 0.25, 0.22, 0.15, 0.08, 0),
    ),
    "q sees two": (both("q sees two", "q 只看到两个"), (0.3, 0.2, 0, 0, 0.2, 0.3), (0.55, 0.45, 0, 0, 0, 0)),
    "q = p": (both("q = p", "q = p"), (0.3, 0.25, 0.2, 0.1, 0.1, 0.05), (0.3, 0.25, 0.2, 0.1, 0.1, 0.05)),
}
"""Name of an example → its name on the page, p and q."""


def show(request: CrossEntropyRequest) -> tuple[FigureData, str | None]:
    """Return the figure of a request of `K` outcomes, and the example that it is, or None."""
    drawn = torch.tensor([request.p, request.q])
    same = (key for key, (_, *pair) in EXAMPLES.items() if torch.allclose(torch.tensor(pair), drawn, atol=1e-5))
    return draw(solve(request)), next(same, None)


def build() -> tuple[Figure, gr.Radio, list[gr.JSON]]:
    """Make the section of the KL tab, and the endpoint `/cross_entropy`.

    Returns:
        The figure, the choice of an example, and p and q as the endpoint takes them.
    """
    first = next(iter(EXAMPLES.values()))
    gr.Markdown(TEXT["lead"])
    figure = Figure(
        draw(solve(CrossEntropyRequest(*first[1:]))), label="figure", elem_id="outcomes", labels={"player": TEXT["figure"]}
    )
    example = gr.Radio(
        [(name, key) for key, (name, *_) in EXAMPLES.items()],
        value=next(iter(EXAMPLES)),
        label=TEXT["example"],
        elem_id="outcomes-example",
    )
    formula(TEXT)

    def dragged(value: Any) -> FigureData:
        with errors_shown():
            return draw(solve(read(value)))

    def show_example(name: Any) -> FigureData:
        with errors_shown():
            return draw(solve(CrossEntropyRequest(*EXAMPLES[parse_choice(TEXT["example"], name, tuple(EXAMPLES))][1:])))

    def cross_entropy(p: Any, q: Any) -> dict[str, Any]:
        """Two distributions p and q over the same 2 to 16 outcomes, as lists of probabilities that sum to 1 (within 0.001; they
        are divided by their sum). In `bits` and in `nats`: the entropy H(p), the cross entropy H(p,q), `forward_kl` KL[p‖q] and
        `reverse_kl` KL[q‖p]. `bits_of_each` has for every outcome what the best code for p and for q spends on it, −log2 p and
        −log2 q, and the terms p log2(p/q) and q log2(q/p) of the two divergences. An infinite value is the string "Infinity".
        """
        with errors_shown():
            return numbers(solve(parse_cross_entropy(p, q)))

    figure.input(dragged, figure, figure, **NEWEST_EVENT)
    example.input(show_example, example, figure, **LIGHT_EVENT)
    named = [gr.JSON(list(prob), label=name, visible=False) for name, prob in zip("pq", first[1:], strict=True)]
    result = gr.JSON(label="cross_entropy", visible=False)
    endpoint(cross_entropy, named, result, **ONE_PASS_EVENT)
    return figure, example, named
