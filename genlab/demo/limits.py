"""What may be asked of the demo: every limit in one table, and one strict parser for each endpoint.

A parser takes raw JSON values, as a browser, a Python client or a stranger sends them, and gives a frozen request whose every
field has its type and lies in its range, or raises `LimitError` with a message that says what was expected. The page's sliders
take their bounds from the same table. Nothing here knows gradio or holds a model.
"""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

import numpy as np

from genlab.config import DataSpec, SamplerName
from genlab.serving.language import UserFacingError, both

ANY = "any"
"""The choice of no class in particular: the classes take turns, by each picture's seed."""
SAMPLERS: tuple[SamplerName, ...] = get_args(SamplerName)
SAMPLER: SamplerName = "DPM-Solver++ SDE"
"""The one that is chosen at first: the best in few steps (benchmarks/README.md)."""
CHAIN_SAMPLERS: tuple[SamplerName, ...] = ("DDIM", "ancestral")
"""Those that the process is shown with."""
CHAIN_SAMPLER: SamplerName = "ancestral"
"""The one that the process is shown with at first."""
SOURCES = ("test picture", "seed", "upload")
"""Where a picture of the Interpolate tab comes from."""
PICTURES = ("test picture", "upload")
"""Where the picture of the Diffusion tab comes from."""
STARTS = ("the noise reached", "fresh noise")
"""Where the reverse process starts."""

EVALUATIONS = 5000
"""Network evaluations of 28×28 pictures that one request may cost."""
PIXELS_AT_ONCE = 64 * 64 * 64
"""Pixels (pictures × height × width) that may go through a network together."""
REFERENCE_PIXELS = 28 * 28
DRAWN_VALUES = 128 * 128 * 3
"""Values (height × width × channels) that a picture on the drawing canvas may have."""
Z_MOST = 10.0
"""How far from 0 a latent may be set."""
MAX_SEED = 2**32 - 1
MODEL, DATA_SET = both("model", "模型"), both("data set", "数据集")
"""What a choice is called in a message."""
TEXT = {
    "whole": both(
        "{name}: expected a whole number from {low} to {high}, got {value}",
        "{name}：应为 {low} 到 {high} 之间的整数，实际为 {value}",
    ),
    "stepped": both(
        "{name}: expected a number from {low} to {high} in steps of {step}, got {value}",
        "{name}：应为 {low} 到 {high} 之间、以 {step} 为一格的数，实际为 {value}",
    ),
    "choice": both("{name}: expected one of {choices}, got {value}", "{name}：应为 {choices} 之一，实际为 {value}"),
    "no choice": both("none (no such model is loaded)", "（没有加载这样的模型）"),
    "number of pictures": both("number of pictures", "图片数量"),
    "steps": both("steps", "步数"),
    "guidance": both("guidance", "引导强度"),
    "seed": both("seed", "种子"),
    "test picture": both("test picture", "测试图片"),
    "points": both("points on the path", "路径上的点数"),
    "until": both("t up to which noise is added", "加噪到的 t"),
    "t": both("step t", "步 t"),
    "samples": both("samples of z", "z 的样本数"),
    "row": both("row of the pixel", "像素的行"),
    "column": both("column of the pixel", "像素的列"),
    "z": both(
        "z: expected nothing or {count} numbers from −{most} to {most} (null: drawn), got {value}",
        "z：应为空，或 {count} 个 −{most} 到 {most} 之间的数（null 表示抽取），实际为 {value}",
    ),
    "drawing": both(
        "drawing: expected a picture of {height}×{width} pixels from the page's canvas",
        "绘图：应为本页画布上 {height}×{width} 像素的图片",
    ),
    "fresh": both(
        "start of the way back: expected the noise reached, for only x_T, at t = {T}, is as good as fresh noise; "
        "got fresh noise at t = {until}",
        "反向过程的起点：应为前向到达的噪声，因为只有 t = {T} 处的 x_T 才与新的噪声无异；实际为 t = {until} 处的新噪声",
    ),
    "sampler": both("sampler", "采样方法"),
    "start": both("start of the way back", "反向过程的起点"),
    "class": both("class for {model}", "{model} 的类别"),
    "comes from": both("{name} comes from", "来源（{name}）"),
    "seed of": both("{name}, seed", "{name}，种子"),
    "test picture of": both("{name}, test picture", "{name}，测试图片"),
    "no upload": both(
        "{name}: expected an uploaded picture, got none; upload one or choose another source",
        "{name}：还没有上传图片；请上传一张，或换一个来源",
    ),
    "no test pictures": both(
        "{name}: the models of this data set came without test pictures; upload one",
        "{name}：这个数据集的模型没有附带测试图片；请上传一张",
    ),
    "cost": both(
        "{product} = {cost} network evaluations, more than the {allowed} of one request at {size}×{size} pixels; lower {ways}",
        "{product} = {cost} 次网络计算，超过一次请求在 {size}×{size} 像素下允许的 {allowed} 次；请把{ways}",
    ),
    "product": both("{pictures} pictures × {steps} steps", "{pictures} 张图片 × {steps} 步"),
    "guided": both(" × {per_step} (guidance)", " × {per_step}（引导）"),
    "fewer pictures": both("the number to {n}", "数量减到 {n}"),
    "fewer steps": both("the steps to {n}", "步数减到 {n}"),
    "or": both(" or ", "，或把"),
    "both": both("both", "两者都减少"),
    "at once": both(
        "number of pictures: expected at most {most} at {size}×{size} pixels, got {pictures}",
        "图片数量：在 {size}×{size} 像素下最多 {most} 张，实际为 {pictures}",
    ),
    "between": both(
        "{name}: expected a number from {low} to {high}, got {value}",
        "{name}：应为 {low} 到 {high} 之间的数，实际为 {value}",
    ),
    "weight": both("weight of the left mode", "左峰的权重"),
    "mean of a mode": both("mean of a mode", "峰的均值"),
    "std of a mode": both("width of a mode", "峰的宽度"),
    "mean of the start": both("mean of the start", "起点的均值"),
    "std of the start": both("width of the start", "起点的宽度"),
    "probabilities": both(
        "{name}: expected {low} to {high} probabilities that sum to 1, got {value}",
        "{name}：应为 {low} 到 {high} 个和为 1 的概率，实际为 {value}",
    ),
    "same outcomes": both(
        "q: expected as many probabilities as p has, {p}, got {q}", "q：概率的个数应与 p 相同，即 {p} 个，实际为 {q} 个"
    ),
}


Choice = TypeVar("Choice", bound=str)


class LimitError(UserFacingError, ValueError):
    """A request asks for something that is not offered; the message is for people and says what to change."""


@dataclass(frozen=True)
class Range:
    """A number from `low` to `high` in whole `step`s from `low`."""

    name: str
    low: float
    high: float
    default: float
    step: float = 1

    def parse(self, value: object, high: float | None = None) -> float:
        """The number, as an int where the step is 1; `high` narrows the range.

        Raises:
            LimitError: not a number, not finite, out of the range, or between two steps.
        """
        top = self.high if high is None else min(high, self.high)
        whole = self.step == 1
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self._refusal(value, top)
        if not self.low <= value <= top or not math.isfinite(value) or (value - self.low) % self.step != 0:
            raise self._refusal(value, top)
        return int(value) if whole else float(value)

    def _refusal(self, value: object, top: float) -> LimitError:
        low, high = f"{self.low:,g}", f"{top:,.10g}"
        kind = "whole" if self.step == 1 else "stepped"
        return LimitError(TEXT[kind].format(name=self.name, low=low, high=high, step=f"{self.step:g}", value=shown(value)))


COUNT = Range(TEXT["number of pictures"], 1, 64, 16)
STEPS = Range(TEXT["steps"], 1, 250, 10)
GUIDANCE = Range(TEXT["guidance"], 0, 8, 1, step=0.5)
SEED = Range(TEXT["seed"], 0, MAX_SEED, 0)
INDEX = Range(TEXT["test picture"], 0, 9999, 0)
POINTS = Range(TEXT["points"], 3, 17, 11)
PATH_STEPS = Range(TEXT["steps"], 2, 200, 50)
CHAIN_STEPS = Range(TEXT["steps"], 2, 200, 50)
UNTIL = Range(TEXT["until"], 0, 100_000, 0)
"""0 stands for T."""
SAMPLES = Range(TEXT["samples"], 1, 2000, 512)
"""Of z for the importance-weighted bound."""
COMPONENTS = Range(TEXT["samples"], 1, 500, 500)
"""Of z for the density of a pixel."""


@dataclass(frozen=True)
class Offer:
    """What a model can be asked for.

    Attributes:
        id: its short name; kind: `ddpm` or `vae`; data: the pictures it was made for.
        T: length of its chain, 0 for a VAE.
        examples: number of test pictures that travel with it.
        latent: dimensions of a VAE's z, 0 for a DDPM.
    """

    id: str
    kind: Literal["ddpm", "vae"]
    data: DataSpec
    T: int
    examples: int
    latent: int = 0


@dataclass(frozen=True)
class SampleRequest:
    """New pictures. Picture i (from 0) depends on `seed` + i alone."""

    model: str
    label: int | None
    count: int
    steps: int
    sampler: SamplerName
    guidance: float
    seed: int


@dataclass(frozen=True)
class Pick:
    """One picture: test picture `number`, the one drawn from seed `number`, or `upload` (H W C) uint8."""

    source: Literal["test picture", "seed", "upload"]
    number: int = 0
    upload: np.ndarray | None = None


@dataclass(frozen=True)
class InterpolateRequest:
    """The paths between two pictures of a data set, `points` on each, ends included."""

    data: str
    a: Pick
    b: Pick
    points: int
    steps: int


@dataclass(frozen=True)
class DiffuseRequest:
    """The forward process on a picture up to t = `until`, and the reverse process from there, or from fresh noise."""

    model: str
    picture: Pick
    steps: int
    sampler: SamplerName
    label: int | None
    fresh_noise: bool
    seed: int
    until: int


@dataclass(frozen=True)
class VAERequest:
    """A picture's way through a VAE.

    Attributes:
        z: one number for each latent, None where it is drawn: z = μ + σ·noise.
        samples: k of the importance-weighted bound.
        seed: of the noise in z and in x̂.
    """

    model: str
    picture: Pick
    z: tuple[float | None, ...]
    samples: int
    seed: int


@dataclass(frozen=True)
class PixelRequest:
    """The density of one pixel under a VAE, by `count` samples of z."""

    model: str
    row: int
    column: int
    count: int


@dataclass(frozen=True)
class StepRequest:
    """The bound's term of step t for one picture, and the pixel to look at. x_t is drawn with the noise of `seed`."""

    model: str
    picture: Pick
    t: int
    seed: int
    row: int
    column: int


def parse_sample(
    offers: Mapping[str, Offer],
    model: object,
    label: object,
    count: object,
    steps: object,
    sampler: object,
    guidance: object,
    seed: object,
) -> SampleRequest:
    """The request of `/sample`.

    Raises:
        LimitError: see `Range.parse`; or the request costs too much.
    """
    offer = offers[parse_choice(MODEL, model, tuple(offers))]
    class_index = parse_label(offer, label)
    pictures = int(COUNT.parse(count))
    taken = int(STEPS.parse(steps, offer.T or None))
    how = parse_choice(TEXT["sampler"], sampler, SAMPLERS)
    weight = GUIDANCE.parse(guidance)
    if offer.kind == "ddpm":
        check_cost(offer.data, pictures, taken, 2 if offer.data.classes and weight != 1 else 1)
    else:
        check_cost(offer.data, pictures, 1)
    return SampleRequest(offer.id, class_index, pictures, taken, how, weight, int(SEED.parse(seed)))


def parse_interpolate(
    offers: Mapping[str, Offer], data: object, a: Pick, b: Pick, points: object, steps: object
) -> InterpolateRequest:
    """The request of `/interpolate`; the two pictures by `parse_pick`.

    Raises:
        LimitError: see `Range.parse`; or the request costs too much.
    """
    members = data_offers(offers, data)
    longest = min((o.T for o in members if o.kind == "ddpm"), default=None)
    request = InterpolateRequest(members[0].data.name, a, b, int(POINTS.parse(points)), int(PATH_STEPS.parse(steps, longest)))
    check_cost(members[0].data, request.points + 2, request.steps)
    return request


def parse_diffuse(
    offers: Mapping[str, Offer],
    model: object,
    picture: Pick,
    steps: object,
    sampler: object,
    label: object,
    start: object,
    seed: object,
    until: object = 0,
) -> DiffuseRequest:
    """The request of `/diffuse`; the picture by `parse_pick`. There are no more steps than `until`; 0 stands for T.

    Raises:
        LimitError: see `Range.parse`; or the request costs too much.
    """
    chains = {k: v for k, v in offers.items() if v.kind == "ddpm"}
    offer = chains[parse_choice(MODEL, model, tuple(chains))]
    taken = int(CHAIN_STEPS.parse(steps, offer.T))
    check_cost(offer.data, 1, taken)
    how = parse_choice(TEXT["sampler"], sampler, CHAIN_SAMPLERS)
    fresh = parse_choice(TEXT["start"], start, STARTS) == STARTS[1]
    reached = int(UNTIL.parse(until, offer.T)) or offer.T
    if fresh and reached < offer.T:
        raise LimitError(TEXT["fresh"].format(T=offer.T, until=reached))
    class_index, number = parse_label(offer, label), int(SEED.parse(seed))
    return DiffuseRequest(offer.id, picture, min(taken, reached), how, class_index, fresh, number, reached)


def parse_vae(
    offers: Mapping[str, Offer], model: object, picture: Pick, z: object, samples: object, seed: object
) -> VAERequest:
    """The request of `/vae`; the picture by `parse_pick` or `parse_drawing`.

    Raises:
        LimitError: see `Range.parse`; or `z` is neither None nor a list with a number or None for each latent.
    """
    offer = vae_offer(offers, model)
    k = int(SAMPLES.parse(samples, evaluations(offer.data)))
    return VAERequest(offer.id, picture, _latents(offer, z), k, int(SEED.parse(seed)))


def parse_pixel(offers: Mapping[str, Offer], model: object, row: object, column: object, count: object) -> PixelRequest:
    """The request of `/pixel_density`.

    Raises:
        LimitError: see `Range.parse`.
    """
    offer = vae_offer(offers, model)
    line, place = _place(offer.data, row, column)
    return PixelRequest(offer.id, line, place, int(COMPONENTS.parse(count, evaluations(offer.data))))


def parse_step(
    offers: Mapping[str, Offer], model: object, picture: Pick, t: object, seed: object, row: object, column: object
) -> StepRequest:
    """The request of `/bound`; the picture by `parse_pick` or `parse_drawing`.

    Raises:
        LimitError: see `Range.parse`.
    """
    offer = ddpm_offer(offers, model)
    step, noise = int(Range(TEXT["t"], 1, offer.T, 1).parse(t)), int(SEED.parse(seed))
    return StepRequest(offer.id, picture, step, noise, *_place(offer.data, row, column))


def parse_drawing(data: DataSpec, value: object) -> Pick:
    """The picture on the page's canvas: the base64 of its height × width × channels bytes.

    Raises:
        LimitError: it is anything else.
    """
    count = data.size**2 * data.channels
    if isinstance(value, str) and len(value) == 4 * math.ceil(count / 3) and value.isascii():
        try:
            values = np.frombuffer(base64.b64decode(value, validate=True), dtype=np.uint8)
        except ValueError:
            values = np.empty(0, dtype=np.uint8)
        if len(values) == count:
            return Pick("upload", 0, values.reshape(data.size, data.size, data.channels))
    raise LimitError(TEXT["drawing"].format(height=data.size, width=data.size))


def vae_offers(offers: Mapping[str, Offer]) -> dict[str, Offer]:
    """The VAEs whose pictures fit on the canvas."""
    return _drawable(offers, "vae")


def vae_offer(offers: Mapping[str, Offer], model: object) -> Offer:
    """The offer of the VAE of that name."""
    members = vae_offers(offers)
    return members[parse_choice(MODEL, model, tuple(members))]


def ddpm_offers(offers: Mapping[str, Offer]) -> dict[str, Offer]:
    """The DDPMs whose pictures fit on the canvas."""
    return _drawable(offers, "ddpm")


def ddpm_offer(offers: Mapping[str, Offer], model: object) -> Offer:
    """The offer of the DDPM of that name."""
    members = ddpm_offers(offers)
    return members[parse_choice(MODEL, model, tuple(members))]


def _drawable(offers: Mapping[str, Offer], kind: str) -> dict[str, Offer]:
    return {k: v for k, v in offers.items() if v.kind == kind and v.data.size**2 * v.data.channels <= DRAWN_VALUES}


def _place(data: DataSpec, row: object, column: object) -> tuple[int, int]:
    line, place = (Range(TEXT[name], 0, data.size - 1, 0).parse(value) for name, value in (("row", row), ("column", column)))
    return int(line), int(place)


def _latents(offer: Offer, z: object) -> tuple[float | None, ...]:
    if z is None:
        return (None,) * offer.latent
    numbers = z if isinstance(z, list) else []
    for value in numbers:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if value is not None and not (number and -Z_MOST <= value <= Z_MOST):
            numbers = []
            break
    if len(numbers) != offer.latent:
        raise LimitError(TEXT["z"].format(count=offer.latent, most=f"{Z_MOST:g}", value=shown(z)))
    return tuple(None if value is None else float(value) for value in numbers)


def parse_pick(
    name: str, source: object, number: object, upload: np.ndarray | None, examples: int, sources: Sequence[str] = SOURCES
) -> Pick:
    """One chosen picture; `examples` is the number of test pictures there are.

    Raises:
        LimitError: an unknown source, a number out of range, or an upload that is missing.
    """
    where = parse_choice(TEXT["comes from"].format(name=name), source, tuple(sources))
    if where == "upload":
        if upload is None:
            raise LimitError(TEXT["no upload"].format(name=name))
        return Pick("upload", 0, upload)
    if where == "seed":
        return Pick("seed", int(Range(TEXT["seed of"].format(name=name), 0, MAX_SEED, 0).parse(number)))
    if examples < 1:
        raise LimitError(TEXT["no test pictures"].format(name=name))
    return Pick("test picture", int(Range(TEXT["test picture of"].format(name=name), 0, examples - 1, 0).parse(number)))


def parse_choice(name: str, value: object, choices: tuple[Choice, ...]) -> Choice:
    """`value` where it is exactly one of `choices`."""
    if not isinstance(value, str) or value not in choices:
        offered = ", ".join(choices) or TEXT["no choice"]
        raise LimitError(TEXT["choice"].format(name=name, choices=offered, value=shown(value)))
    return value


def parse_label(offer: Offer, label: object) -> int | None:
    """Index of the class of that name, None for any. VAEs are not conditional on a class."""
    choices = (ANY, *label_choices(offer))
    chosen = parse_choice(TEXT["class"].format(model=offer.id), label, choices)
    return None if chosen == ANY else offer.data.classes.index(chosen)


def label_choices(offer: Offer) -> tuple[str, ...]:
    """Classes that the model can be asked for."""
    return offer.data.classes if offer.kind == "ddpm" else ()


def data_offers(offers: Mapping[str, Offer], data: object) -> list[Offer]:
    """The models of the data set of that name, as far as their pictures have the shape of the first one's."""
    name = parse_choice(DATA_SET, data, data_choices(offers))
    members = [o for o in offers.values() if o.data.name == name]
    return [o for o in members if o.data.shape == members[0].data.shape]


def data_choices(offers: Mapping[str, Offer]) -> tuple[str, ...]:
    """Names of the data sets that the models were made for."""
    return tuple(dict.fromkeys(o.data.name for o in offers.values()))


def check_cost(data: DataSpec, pictures: int, steps: int, per_step: int = 1) -> None:
    """Raise LimitError where pictures × steps × evaluations a step are more than one request may cost.

    `EVALUATIONS` holds for 28×28 pictures; larger pictures cost in proportion to their pixels.
    """
    allowed = evaluations(data)
    cost = pictures * steps * per_step
    if cost > allowed:
        product = TEXT["product"].format(pictures=pictures, steps=steps)
        product += TEXT["guided"].format(per_step=per_step) if per_step > 1 else ""
        ways = []
        if allowed // (steps * per_step) >= 1:
            ways.append(TEXT["fewer pictures"].format(n=allowed // (steps * per_step)))
        if allowed // (pictures * per_step) >= 1:
            ways.append(TEXT["fewer steps"].format(n=allowed // (pictures * per_step)))
        numbers = {"cost": f"{cost:,}", "allowed": f"{allowed:,}", "size": data.size}
        raise LimitError(TEXT["cost"].format(product=product, ways=TEXT["or"].join(ways) or TEXT["both"], **numbers))
    most = max(1, PIXELS_AT_ONCE // data.size**2)
    if pictures > most:
        raise LimitError(TEXT["at once"].format(most=most, size=data.size, pictures=pictures))


def evaluations(data: DataSpec) -> int:
    """Network evaluations that one request may cost; fewer where the pictures are larger than 28×28."""
    return int(EVALUATIONS * min(1.0, REFERENCE_PIXELS / data.size**2))


def shown(value: Any) -> str:
    """A value for a message: short, and harmless on a web page."""
    text = str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else repr(value)
    return html.escape(text if len(text) <= 40 else text[:37] + "…", quote=False)


@dataclass(frozen=True)
class Interval:
    """Any number from `low` to `high`."""

    name: str
    low: float
    high: float

    def parse(self, value: object) -> float:
        """The number.

        Raises:
            LimitError: not a number, not finite, or outside.
        """
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not self.low <= value <= self.high:
            low, high = f"{self.low:g}", f"{self.high:g}"
            raise LimitError(TEXT["between"].format(name=self.name, low=low, high=high, value=shown(value)))
        return float(value)

    def nearest(self, value: float) -> float:
        """The number of the interval that is nearest to a finite one."""
        return min(max(value, self.low), self.high)


FIT_WEIGHT = Interval(TEXT["weight"], 0.05, 0.95)
FIT_MEAN = Interval(TEXT["mean of a mode"], -6, 6)
FIT_STD = Interval(TEXT["std of a mode"], 0.3, 2.5)
FIT_START_MEAN = Interval(TEXT["mean of the start"], -7, 7)
FIT_START_STD = Interval(TEXT["std of the start"], 0.3, 3)


@dataclass(frozen=True)
class FitRequest:
    """p = weight N(left_mean, left_std²) + (1 − weight) N(right_mean, right_std²); q begins at N(start_mean, start_std²)."""

    weight: float
    left_mean: float
    left_std: float
    right_mean: float
    right_std: float
    start_mean: float
    start_std: float


def parse_fit(
    weight: object,
    left_mean: object,
    left_std: object,
    right_mean: object,
    right_std: object,
    start_mean: object,
    start_std: object,
) -> FitRequest:
    """The request of `/divergence`.

    Raises:
        LimitError: see `Interval.parse`.
    """
    return FitRequest(
        FIT_WEIGHT.parse(weight),
        FIT_MEAN.parse(left_mean),
        FIT_STD.parse(left_std),
        FIT_MEAN.parse(right_mean),
        FIT_STD.parse(right_std),
        FIT_START_MEAN.parse(start_mean),
        FIT_START_STD.parse(start_std),
    )


OUTCOMES = (2, 16)
"""How many outcomes two discrete distributions may have."""
SUM_SLACK = 1e-3
"""How far the sum of given probabilities may be from 1, as it is where they have been rounded; they are divided by it."""


@dataclass(frozen=True)
class OutcomesRequest:
    """Two distributions over the same outcomes: probabilities that sum to 1."""

    p: tuple[float, ...]
    q: tuple[float, ...]


def parse_outcomes(p: object, q: object) -> OutcomesRequest:
    """The request of `/cross_entropy`.

    Raises:
        LimitError: p or q is not a list of 2 to 16 probabilities that sum to 1 within `SUM_SLACK`, or they differ in length.
    """
    first, second = _probabilities("p", p), _probabilities("q", q)
    if len(first) != len(second):
        raise LimitError(TEXT["same outcomes"].format(p=len(first), q=len(second)))
    return OutcomesRequest(first, second)


def _probabilities(name: str, value: object) -> tuple[float, ...]:
    low, high = OUTCOMES
    if isinstance(value, list) and low <= len(value) <= high and all(_probability(v) for v in value):
        total = math.fsum(value)
        if abs(total - 1) <= SUM_SLACK:
            return tuple(v / total for v in value)
    raise LimitError(TEXT["probabilities"].format(name=name, low=low, high=high, value=shown(value)))


def _probability(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1
