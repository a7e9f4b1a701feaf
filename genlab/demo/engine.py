"""The models that are served, and what the page and the API compute with them. No gradio in here.

Every computation is a generator that yields after each step of the network and stops when it is closed, so that a visitor who
leaves costs one step at most. What the models compute for all requests is computed by one thread (`turns`), the steps of walks
with the same model together.
"""

from __future__ import annotations

import io
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from PIL import Image, PngImagePlugin
from torch import Tensor

from genlab import draw, hub
from genlab.config import DataSpec, Sampling, Variance, expanded
from genlab.data import fit, grid, to_model, to_pixels
from genlab.ddpm import DDPM
from genlab.demo import hub_text
from genlab.demo.limits import (
    COMPONENTS,
    PIXELS_AT_ONCE,
    REFERENCE_PIXELS,
    DiffuseRequest,
    InterpolateRequest,
    LimitError,
    Offer,
    Pick,
    PixelRequest,
    SampleRequest,
    StepRequest,
    VAERequest,
    label_choices,
)
from genlab.demo.turns import Turns
from genlab.divergence import Gaussian, kl, standard_normal
from genlab.interpolate import lerp, slerp
from genlab.likelihood import discretised_log_prob, level_log_probs
from genlab.measurements import read_evaluation
from genlab.nn import drawing_precision
from genlab.package import ModelError, Package, find_package, shipped_packages, ships
from genlab.process import Denoised, Predict, eps_from_x0, p_reverse, q_marginal, q_posterior, q_step, reverse_log_var
from genlab.sampler import Frame, Noise, ddim, invert, timesteps, walk
from genlab.schedule import Schedule
from genlab.serving.language import UserFacingError, both
from genlab.vae import VAE, log_mean_exp
from genlab.vlb import prior_term, step_terms

R = TypeVar("R")
log = logging.getLogger("genlab.demo")

DEADLINE = 60.0
"""Seconds of wall clock after which a request is ended."""
HUB_SECONDS = 60.0
"""How long the models may take to come from the Hub, all together."""
EPS_SCALE = 3.0
"""Noise is drawn with 0 as middle gray and this many standard deviations as black and white."""
SIGMA_WHITE = 0.5
"""The σ′ of a Gaussian pixel, in the [−1, 1] scale, that is drawn white; 0 is black. Of a Bernoulli pixel it is 1, the most."""
Z_AT_ONCE = 64
"""How many z are decoded in one turn, of 28×28 pictures."""
BOUND_SEED = 0
"""Of the k samples behind an importance-weighted bound: the same for every picture, so that pictures can be compared."""
NOISY_SNR = 100.0
"""ᾱ_t/(1 − ᾱ_t) at which a picture's noise begins to show: a standard deviation of a twentieth of black to white."""
VAE_LINEAR = both("VAE, straight line", "VAE，沿直线")
VAE_SPHERICAL = both("VAE, along the sphere", "VAE，沿球面")
DDPM_SPHERICAL = both("DDPM, along the sphere", "DDPM，沿球面")

TITLES = {"fashion-mnist": "Fashion-MNIST", "mnist": "MNIST"}
TEXT = {
    "too long": both(
        "stopped after {seconds} seconds; ask for fewer pictures or steps", "已运行 {seconds} 秒，被中止；请减少图片数量或步数"
    ),
    "test picture": both(
        "test picture: expected a number below {count}, got {number}", "测试图片：应为小于 {count} 的编号，实际为 {number}"
    ),
    "no model": both("no model to serve", "没有可用的模型"),
    "not loaded": both("{source} could not be loaded: {error}", "无法加载 {source}：{error}"),
    "hub too slow": both("the Hub did not deliver it within {seconds} seconds", "Hub 没有在 {seconds} 秒内送达"),
    "shipped instead": both(
        "None of the models that were asked for could be loaded; these are the ones that ship with genlab.",
        "指定的模型都无法加载；下面是 genlab 自带的模型。",
    ),
    "ships": both("ships with genlab", "genlab 自带"),
    "folder": both("folder {name}", "文件夹 {name}"),
}


class EngineError(UserFacingError, RuntimeError):
    """A computation could not be done or finished; the message is for people."""


@dataclass(frozen=True)
class Served:
    """One model that is served, and where it is from."""

    id: str
    package: Package
    origin: str

    @property
    def model(self) -> DDPM | VAE:
        """The network, in evaluation mode."""
        return self.package.model

    @property
    def data(self) -> DataSpec:
        """The pictures that it makes."""
        return self.model.data

    @property
    def title(self) -> str:
        """Name for people: the kind and the data set."""
        return f"{self.model.kind.upper()} · {data_title(self.data.name)}"

    @property
    def offer(self) -> Offer:
        """What it can be asked for."""
        T = self.model.schedule.T if isinstance(self.model, DDPM) else 0
        latent = self.model.config.latents if isinstance(self.model, VAE) else 0
        return Offer(self.id, self.model.kind, self.data, T, len(self.package.examples), latent)  # type: ignore[arg-type]

    def describe(self) -> dict[str, Any]:
        """The facts that the page and `/models` show."""
        return {
            "id": self.id,
            "kind": self.model.kind,
            "title": self.title,
            "data": self.data.name,
            "size": self.data.size,
            "channels": self.data.channels,
            "classes": list(label_choices(self.offer)),
            "T": self.offer.T,
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "test_pictures": self.offer.examples,
            "origin": self.origin,
            "revision": self.package.revision,
            "metrics": self.package.metrics,
        }


@dataclass(frozen=True)
class PathFrame:
    """The paths while they are computed, and, as the last frame, when they are done.

    Attributes:
        index, count: step `index` of `count`.
        stage: `ends` (the two pictures are led to their noise), `path` (noise is led to pictures), `done`.
        a, b: (C H W) uint8, the two ends at this step.
        t: where on its chain the DDPM is.
        rows: title → (N C H W) uint8, one row for each path. The row of the DDPM is x_t on the way to the noise, and what it
            sees (x̂_0) on the way back, until it is done.
    """

    index: int
    count: int
    stage: Literal["ends", "path", "done"]
    t: int
    a: Tensor
    b: Tensor
    rows: dict[str, Tensor]


@dataclass(frozen=True)
class ChainFrame:
    """One moment of the forward or the reverse process, (C H W) uint8 each.

    Attributes:
        index, count: frame `index` of `count`, from 0.
        direction: `forward` or `reverse`.
        t, alpha_bar, snr: the time, ᾱ_t and ᾱ_t/(1 − ᾱ_t).
        x_t: the state; x0: the picture (forward) or what the model sees (reverse); eps: the noise in x_t, known or seen.
        rms, correlation: how far `x0` is from the picture that the forward process started from, as the root of the mean square
            of the difference of 8-bit pixels, and as the correlation of the pixels (NaN for a picture of one colour).
    """

    index: int
    count: int
    direction: Literal["forward", "reverse"]
    t: int
    alpha_bar: float
    snr: float
    x_t: Tensor
    x0: Tensor
    eps: Tensor
    rms: float
    correlation: float


@dataclass(frozen=True)
class Encoded:
    """A picture's way through a VAE (notes 1.4, figures 2 and 4): x → μ, σ → z → μ′, σ′ → x̂.

    Attributes:
        x: (C H W) uint8, as the model sees it: in black and white where it is one of binarised pictures.
        q: q(z|x), mean and log σ² (D).
        z: (D), drawn from q or set by the request.
        kl: (D) nats, of KL[q(z|x)‖p(z)], whose sum it is.
        mean, std, sample: (C H W) uint8: μ′, σ′ (`SIGMA_WHITE`) and x̂, drawn from p(x|z).
        sigma: (C H W) σ′ in the [−1, 1] scale.
        log_likelihood: log p(x|z) of this z, nats.
        gaussian: whether p(x|z) is a Gaussian; else it is Bernoulli.
    """

    x: Tensor
    q: Gaussian
    z: Tensor
    kl: Tensor
    mean: Tensor
    std: Tensor
    sample: Tensor
    sigma: Tensor
    log_likelihood: float
    gaussian: bool


@dataclass(frozen=True)
class Bound:
    """The terms of log p(x) for one picture, nats, by the `samples` of `count` samples of z that are drawn so far.

    Attributes:
        reconstruction: E_q[log p(x|z)]; kl: KL[q(z|x)‖p(z)], exact; elbo: their difference.
        log_px: L_k, the importance-weighted bound by k = `samples`, which rises towards log p(x).
        gap: log_px − elbo, which rises towards KL[q(z|x)‖p(z|x)].
        curve: (k, L_k) for k = 1, 2, 4, … and `samples`; L_k is the mean of as many disjoint groups of k as there are.
    """

    samples: int
    count: int
    reconstruction: float
    kl: float
    elbo: float
    log_px: float
    curve: tuple[tuple[int, float], ...]

    @property
    def gap(self) -> float:
        return self.log_px - self.elbo


@dataclass(frozen=True)
class PixelDensity:
    """One pixel under a VAE, as a mixture (notes 1.4, figure 3): P(x) ≈ 1/N Σ_i p(x|z_i), z_i ~ N(0, I).

    Attributes:
        mean, std: (N) of p(x|z_i); z_i is the one that seed i of the Sample tab draws.
        data: (M) the pixel in the test pictures. All in the [−1, 1] scale, of the first channel.
        gaussian: p(x|z_i) is N(μ(z_i), σ²(z_i)), not Bernoulli.
    """

    mean: Tensor
    std: Tensor
    data: Tensor
    gaussian: bool

    def components(self, x: Tensor) -> Tensor:
        """N(x; μ(z_i), σ²(z_i)) at the values x, (G) or for each z its own (N, G): (N, G)."""
        x = x.expand(len(self.mean), x.shape[-1])
        mean, std = (each[:, None].expand_as(x).flatten() for each in (self.mean, self.std))
        return Gaussian(mean, 2 * std.log()).log_prob(x.flatten()).exp().reshape(x.shape)

    def mixtures(self, x: Tensor) -> Tensor:
        """P(x) at the values x (G) as the mean over the first 1, 2, … N of the z: (N, G)."""
        return self.components(x).cumsum(dim=0) / torch.arange(1, len(self.mean) + 1)[:, None]


@dataclass(frozen=True)
class BoundStep:
    """A diffusion model's bound at step t for one picture (notes 1.5), from one look of the network.

    Attributes:
        T, alpha_bar: length of the chain, ᾱ_t.
        x0, x_t, x0_hat: (C H W), in the [−1, 1] scale.
        q: q(x_{t−1}|x_t,x_0), (C H W); None at t = 1, where it is a point mass at x_0.
        p: p_θ(x_{t−1}|x_t) with the model's own Σ, `variance`, (C H W).
        terms: (C H W) nats, whose sum is the picture's L_{t−1} = KL[q‖p], or, at t = 1, L_0 = −log p(x_0|x_1).
        fraction: (C H W) where log Σ lies between log β̃ (0) and log β (1).
        beta_tilde, beta: β̃_t and β_t; at t = 1 β̃_2 stands for β̃_1 = 0.
        by_variance: the sum of `terms` with each Σ that the model can have, nats.
        prior: L_T of the picture, nats.
    """

    t: int
    T: int
    alpha_bar: float
    x0: Tensor
    x_t: Tensor
    x0_hat: Tensor
    q: Gaussian | None
    p: Gaussian
    variance: Variance
    terms: Tensor
    fraction: Tensor
    beta_tilde: float
    beta: float
    by_variance: dict[Variance, float]
    prior: float

    @property
    def per_pixel(self) -> Tensor:
        """The terms of each pixel's channels together, (H W) nats."""
        return self.terms.sum(dim=0)

    @property
    def dearest(self) -> tuple[int, int]:
        """Row and column of the pixel with the largest term."""
        row, column = divmod(int(self.per_pixel.argmax()), self.terms.shape[-1])
        return row, column

    def densities(self, row: int, column: int, x: Tensor) -> list[Tensor]:
        """The densities of q (from t = 2) and p of a pixel's first channel at the values x (G), (G) each."""
        pixels = [_pixel(each, row, column) for each in (self.q, self.p) if each is not None]
        return [pixel.log_prob(x[:, None]).exp() for pixel in pixels]

    def levels(self, row: int, column: int) -> Tensor:
        """The mass that p puts on each gray level of a pixel's first channel, (256)."""
        return level_log_probs(_pixel(self.p, row, column))[0].exp()


class Engine:
    """The models by their short id, and the computations.

    Attributes:
        problems: one sentence for each model that was asked for and could not be loaded.

    Raises:
        EngineError: there is no model.
    """

    def __init__(self, models: Sequence[Served], problems: Sequence[str] = (), deadline: float = DEADLINE) -> None:
        if not models:
            raise EngineError(TEXT["no model"] + "".join(f"\n  {p}" for p in problems))
        self.models = {served.id: served for served in models}
        self.problems = tuple(problems)
        self.deadline = deadline
        self._turns = Turns()
        self._activity: dict[str, Tensor] = {}
        self._decoded: dict[str, list[tuple[Tensor, Tensor]]] = {}
        self._seconds: dict[tuple[str, int], float | None] = {}
        self._later: list[Callable[[], None]] = []

    @classmethod
    def load(cls, sources: Sequence[str] = ()) -> Engine:
        """Serve these models, each a folder (a run's or its own), the name of one that ships, or a Hub id (`user/repo`,
        `user/repo@revision`); none: those that ship with genlab.

        A model that cannot be loaded becomes a problem. Where none of `sources` can, those that ship are served.

        Raises:
            EngineError: nothing can be loaded at all.
        """
        shipped = [str(folder) for folder in shipped_packages()]
        models, problems = _load_all(list(sources) or shipped)
        if not models and sources:
            models, more = _load_all(shipped)
            problems = [*problems, *more]
            if models:
                problems.append(TEXT["shipped instead"])
        return cls(models, problems)

    @property
    def offers(self) -> dict[str, Offer]:
        """What may be asked of each model."""
        return {name: served.offer for name, served in self.models.items()}

    def later(self, begin: Callable[[], None]) -> None:
        """Leave for `catch_up` what visitors will want, but need not wait for before the page is served."""
        self._later.append(begin)

    def catch_up(self) -> None:
        """Begin what was left for later."""
        for begin in self._later:
            begin()

    def describe(self) -> list[dict[str, Any]]:
        """The facts of every model."""
        return [served.describe() for served in self.models.values()]

    def of_data(self, data: str, kind: str) -> Served | None:
        """The first model of that kind for that data set."""
        members = [m for m in self.models.values() if m.data.name == data]
        return next((m for m in members if m.model.kind == kind and m.data.shape == members[0].data.shape), None)

    def examples(self, data: str) -> Package | None:
        """The first package of that data set that came with test pictures."""
        members = [m for m in self.models.values() if m.data.name == data]
        return next((m.package for m in members if len(m.package.examples) and m.data.shape == members[0].data.shape), None)

    def picture(self, data: str, pick: Pick) -> Tensor:
        """The test picture or the upload, (C H W) uint8 of the data set's shape.

        Raises:
            LimitError: there is no test picture of that number.
        """
        spec = next(m.data for m in self.models.values() if m.data.name == data)
        if pick.source == "upload" and pick.upload is not None:
            values = pick.upload
            return fit(Image.fromarray(values.squeeze(-1) if values.shape[-1] == 1 else values), spec.size, spec.channels)
        package = self.examples(data)
        if package is None or pick.number >= len(package.examples):
            count = len(package.examples) if package else 0
            raise LimitError(TEXT["test picture"].format(count=count, number=pick.number))
        return package.examples[pick.number]

    def sample(self, request: SampleRequest) -> Iterator[draw.SampleFrame]:
        """New pictures, step by step; the last frame has the finished ones. A VAE needs one step.

        Raises:
            EngineError: it took too long. TurnError: a turn did not come in time.
        """
        deadline = time.monotonic() + self.deadline
        served = self.models[request.model]
        model, seeds = served.model, range(request.seed, request.seed + request.count)
        if isinstance(model, VAE):
            yield self._once(lambda: next(draw.frames(model, seeds, Sampling())), deadline)
            return
        sampling = Sampling(request.sampler, request.steps)
        labels = draw.class_labels(model, draw.class_of(model, request.label), seeds)
        yield from draw.frames(model, seeds, sampling, self._predictor(served, labels, request.guidance, True, deadline))

    def seconds(self, model_id: str, count: int, steps: int) -> float | None:
        """About how long `sample` takes here where nobody else waits, by the latest steps of that model with as many pictures;
        None before any.
        """
        each = self._seconds.get((model_id, count))
        return None if each is None else each * steps

    def interpolate(self, request: InterpolateRequest) -> Iterator[PathFrame]:
        """The paths between two pictures: a VAE's latents, and a diffusion model's noise, found by DDIM run backwards.

        A picture from a seed is the one that the DDPM draws from that seed's noise (the VAE where there is no DDPM).

        Raises:
            EngineError: it took too long. TurnError: a turn did not come in time.
        """
        deadline = time.monotonic() + self.deadline
        w = torch.linspace(0, 1, request.points)
        ends: list[Tensor | None] = [
            None if p.source == "seed" else self.picture(request.data, p) for p in (request.a, request.b)
        ]
        seeds = [pick.number for pick in (request.a, request.b)]
        vae, ddpm = self.of_data(request.data, "vae"), self.of_data(request.data, "ddpm")
        rows: dict[str, Tensor] = {}
        if ddpm is None:
            decoder: VAE = vae.model  # type: ignore[assignment,union-attr]
            sampled = to_pixels(self._once(lambda: draw.decoder_means(decoder, seeds), deadline))
            ends = [sampled[i] if end is None else end for i, end in enumerate(ends)]
            rows = self._vae_rows(vae, ends, w, deadline)
            yield PathFrame(1, 1, "done", 0, ends[0], ends[1], rows)  # type: ignore[arg-type]
            return

        model: DDPM = ddpm.model  # type: ignore[assignment]
        times = timesteps(model.schedule.T, request.steps)
        predict, count = self._predictor(ddpm, None, 1.0, False, deadline), 2 * request.steps
        rows = self._vae_rows(vae, ends, w, deadline)
        walks: list[tuple[list[int], Iterator[Frame]]] = []
        given = [i for i in (0, 1) if ends[i] is not None]
        drawn = [i for i in (0, 1) if ends[i] is None]
        if given:
            pictures = torch.stack([to_model(p) for p in ends if p is not None])
            walks.append((given, invert(predict, model.schedule, pictures, request.steps)))
        x_T: dict[int, Tensor] = {}
        if drawn:
            noise = Noise.from_seeds([seeds[i] for i in drawn], ddpm.data.shape).draw()
            x_T = dict(zip(drawn, noise, strict=True))
            walks.append((drawn, walk(predict, ddim(model.schedule), noise, times)))
        for index, frames in enumerate(zip(*(steps for _, steps in walks), strict=True), start=1):
            now = {i: x for (who, _), frame in zip(walks, frames, strict=True) for i, x in zip(who, frame.x_s, strict=True)}
            if index == request.steps:
                x_T.update({i: now[i] for i in given})
                ends = [to_pixels(now[i]) if i in drawn else ends[i] for i in (0, 1)]
                rows = self._vae_rows(vae, ends, w, deadline)
            rows = {**rows, DDPM_SPHERICAL: to_pixels(slerp(now[0], now[1], w))}
            yield PathFrame(index, count, "ends", frames[0].s, to_pixels(now[0]), to_pixels(now[1]), rows)

        for frame in walk(predict, ddim(model.schedule), slerp(x_T[0], x_T[1], w), times):
            finished = frame.s == 0
            rows = {**rows, DDPM_SPHERICAL: to_pixels(frame.x_s if finished else frame.x0_hat)}
            index = request.steps + frame.index
            yield PathFrame(index, count, "done" if finished else "path", frame.s, ends[0], ends[1], rows)  # type: ignore[arg-type]

    def diffuse(self, request: DiffuseRequest) -> Iterator[ChainFrame]:
        """The forward chain on one picture up to t = `until`, then the reverse chain from there.

        Forward is one path of the Markov chain: every x_t is drawn by q(x_t|x_{t−1}), all of them, and `steps` + 1 are shown.
        From a middle t, where part of the picture is left, the way back is not led to a class unless the request names one.

        Raises:
            EngineError: it took too long. TurnError: a turn did not come in time.
        """
        deadline = time.monotonic() + self.deadline
        served = self.models[request.model]
        model: DDPM = served.model  # type: ignore[assignment]
        schedule, count = model.schedule, 2 * (request.steps + 1)
        noise = Noise.from_seeds([request.seed], served.data.shape)
        times = timesteps(request.until, request.steps)
        x0 = to_model(self.picture(served.data.name, request.picture))[None]

        def frame(
            index: int, direction: Literal["forward", "reverse"], t: int, x_t: Tensor, seen: Tensor, eps: Tensor
        ) -> ChainFrame:
            alpha_bar, snr = float(schedule.alpha_bar[t]), float(schedule.snr[t])
            shown = (to_pixels(x_t[0]), to_pixels(seen[0]), to_pixels(eps[0] / EPS_SCALE))
            return ChainFrame(index, count, direction, t, alpha_bar, snr, *shown, *_likeness(shown[1], to_pixels(x0[0])))

        x_t = x0
        yield frame(0, "forward", 0, x0, x0, torch.zeros_like(x0))
        for index, (s, t) in enumerate(zip(times[::-1], times[::-1][1:], strict=False), start=1):
            self._in_time(deadline)
            x_t = _forward(schedule, noise, x_t, s, t)
            yield frame(index, "forward", t, x_t, x0, eps_from_x0(schedule, x_t, x0, torch.tensor([t])))

        start = noise.draw() if request.fresh_noise else x_t
        free = request.label is None and request.until < schedule.T
        labels = draw.class_labels(model, "none" if free else draw.class_of(model, request.label), [request.seed])
        predict = self._predictor(served, labels, 1.0, True, deadline)
        for step in walk(predict, draw.make_step(model, Sampling(request.sampler), noise), start, times):
            index = request.steps + step.index
            yield frame(index, "reverse", step.t, step.x_t, step.x0_hat, step.eps_hat)
            if step.s == 0:
                yield frame(index + 1, "reverse", 0, step.x_s, step.x_s, step.eps_hat)

    def encode(self, request: VAERequest) -> Encoded:
        """A picture through encoder and decoder, in one turn.

        Raises:
            TurnError: the turn did not come in time.
        """
        model, x = self._seen(request)
        generator = torch.Generator().manual_seed(request.seed)
        noise, picture_noise = (torch.randn(shape, generator=generator) for shape in ((1, len(request.z)), x.shape))

        def compute() -> Encoded:
            q = model.encode(x)
            by_chance = q.sample(noise)[0]
            z = torch.tensor([[float(drawn) if v is None else v for drawn, v in zip(by_chance, request.z, strict=True)]])
            p = model.decode(z)
            if isinstance(p, Gaussian):
                sigma, white, sample = p.std, SIGMA_WHITE, p.sample(picture_noise)
                log_likelihood = discretised_log_prob(p, x)
            else:
                sigma, white = (1 - p.mean**2).sqrt(), 1.0
                sample = torch.bernoulli((p.mean + 1) / 2, generator=generator) * 2 - 1
                log_likelihood = p.log_prob(x)
            of_latent = Gaussian(q.mean[0], q.log_var[0])
            mean, std, drawn = (to_pixels(v[0]) for v in (p.mean, 2 * sigma / white - 1, sample))
            divergence = kl(of_latent, standard_normal(of_latent.mean))
            return Encoded(
                x=to_pixels(x[0]),
                q=of_latent,
                z=z[0],
                kl=divergence,
                mean=mean,
                std=std,
                sample=drawn,
                sigma=sigma[0],
                log_likelihood=float(log_likelihood),
                gaussian=isinstance(p, Gaussian),
            )

        return self._once(compute, time.monotonic() + self.deadline)

    def bound(self, request: VAERequest) -> Iterator[Bound]:
        """The terms of log p(x), of the mass on 8-bit pixels, better with each yield; one turn for each.

        Raises:
            EngineError: it took too long. TurnError: a turn did not come in time.
        """
        deadline = time.monotonic() + self.deadline
        model, x = self._seen(request)
        noise = torch.randn(request.samples, 1, len(request.z), generator=torch.Generator().manual_seed(BOUND_SEED))
        weights = torch.empty(0)
        ratios = torch.empty(0)

        def compute(some: Tensor) -> tuple[Gaussian, Tensor, Tensor]:
            q = model.encode(x)
            z = q.sample(some)[:, 0]
            return q, model.log_weights(x, some, discretised=True)[:, 0], standard_normal(z).log_prob(z) - q.log_prob(z)

        for some in noise.split(_together(model.data, Z_AT_ONCE)):
            q, weight, ratio = self._once(lambda some=some: compute(some), deadline)  # type: ignore[misc]
            weights, ratios = torch.cat([weights, weight]), torch.cat([ratios, ratio])
            reconstruction = float((weights - ratios).mean())  # log w = log p(x|z) + log p(z)/q(z|x)
            divergence = float(kl(q, standard_normal(q.mean)))
            curve = _bounds(weights)
            yield Bound(
                len(weights), request.samples, reconstruction, divergence, reconstruction - divergence, curve[-1][1], curve
            )

    def activity(self, model_id: str) -> Tensor:
        """How much of each latent a VAE uses: the variance of q's mean over the test pictures, (D); 0 where there are none."""
        if model_id not in self._activity:
            served = self.models[model_id]
            model: VAE = served.model  # type: ignore[assignment]
            package = self.examples(served.data.name)
            if package is None:
                return torch.zeros(model.config.latents)
            x = _as_seen(model, to_model(package.examples))
            parts = x.split(_together(model.data, len(x)))
            means = [
                self._once(lambda part=part: model.encode(part).mean, time.monotonic() + self.deadline)  # type: ignore[misc]
                for part in parts
            ]
            self._activity[model_id] = torch.cat(means).var(dim=0, correction=0)
        return self._activity[model_id]

    def pixel(self, request: PixelRequest) -> PixelDensity:
        """What a VAE, and the test pictures, say of one pixel.

        Raises:
            EngineError: it took too long. TurnError: a turn did not come in time.
        """
        served = self.models[request.model]
        model: VAE = served.model  # type: ignore[assignment]
        deadline = time.monotonic() + self.deadline
        z = Noise.from_seeds(list(range(int(COMPONENTS.high))), (model.config.latents,)).draw()
        parts = z.split(_together(model.data, Z_AT_ONCE))
        done = self._decoded.setdefault(request.model, [])

        def decode(part: Tensor) -> None:
            p = model.decode(part)
            std = p.std if isinstance(p, Gaussian) else (1 - p.mean**2).sqrt()
            done.append((p.mean[:, 0], std[:, 0]))

        while sum(len(mean) for mean, _ in done) < request.count:
            self._once(lambda: decode(parts[len(done)]) if len(done) < len(parts) else None, deadline)
        place = (slice(None), request.row, request.column)
        mean, std = (torch.cat([pair[i][place] for pair in done])[: request.count] for i in (0, 1))
        package = self.examples(served.data.name)
        data = torch.empty(0) if package is None else to_model(package.examples)[:, 0, request.row, request.column]
        return PixelDensity(mean, std, data, not model.binary)

    def bound_step(self, request: StepRequest) -> BoundStep:
        """The bound of a diffusion model at one step, classes hidden, in one turn.

        Raises:
            TurnError: the turn did not come in time.
        """
        served = self.models[request.model]
        x0 = to_model(self.picture(served.data.name, request.picture))[None]
        noise = Noise.from_seeds([request.seed], served.data.shape).draw()
        deadline = time.monotonic() + self.deadline
        return self._once(lambda: _bound_step(served.model, request.t, x0, noise), deadline)  # type: ignore[arg-type]

    def liveliest(self, model_id: str) -> tuple[int, int]:
        """Row and column of the pixel that differs most between the test pictures; the middle where there are none."""
        package, size = self.examples(self.models[model_id].data.name), self.models[model_id].data.size
        if package is None:
            return size // 2, size // 2
        place = int(package.examples[:, 0].float().var(dim=0, correction=0).argmax())
        return place // size, place % size

    def first_noisy(self, model_id: str) -> int:
        """The first t ≥ 2 of a diffusion model's chain at which noise can be seen: x_t has an SNR of `NOISY_SNR` at most."""
        model: DDPM = self.models[model_id].model  # type: ignore[assignment]
        return 2 + int((model.schedule.snr[2:-1] > NOISY_SNR).sum())

    def _seen(self, request: VAERequest) -> tuple[VAE, Tensor]:
        """The VAE, and the picture as it sees it, (1 C H W)."""
        served = self.models[request.model]
        model: VAE = served.model  # type: ignore[assignment]
        return model, _as_seen(model, to_model(self.picture(served.data.name, request.picture)))[None]

    def _vae_rows(self, vae: Served | None, ends: Sequence[Tensor | None], w: Tensor, deadline: float) -> dict[str, Tensor]:
        """The VAE's two paths; gray pictures while an end is not known yet, nothing without a VAE."""
        if vae is None:
            return {}
        model: VAE = vae.model  # type: ignore[assignment]
        if ends[0] is None or ends[1] is None:
            blank = torch.full((len(w), *vae.data.shape), 128, dtype=torch.uint8)
            return {VAE_LINEAR: blank, VAE_SPHERICAL: blank}
        x = _as_seen(model, to_model(torch.stack([ends[0], ends[1]])))

        def compute() -> dict[str, Tensor]:
            a, b = model.encode(x).mean
            return {
                name: to_pixels(model.decode(path(a, b, w)).mean) for name, path in ((VAE_LINEAR, lerp), (VAE_SPHERICAL, slerp))
            }

        return self._once(compute, deadline)

    def _once(self, compute: Callable[[], R], deadline: float) -> R:
        """One computation in its turn."""
        self._in_time(deadline)
        return self._turns.alone(compute, deadline)

    def _predictor(self, served: Served, labels: Tensor | None, guidance: float, clip: bool, deadline: float) -> Predict:
        """What a walk asks at each step, answered together with other walks of the same model, guidance and clipping."""
        kind = (served.id, labels is None, guidance, clip)
        compute = partial(self._look, served, guidance, clip)

        def predict(x_t: Tensor, t: Tensor) -> Denoised:
            self._in_time(deadline)
            size = x_t.numel() * (1 if guidance == 1 else 2)
            return self._turns.together(kind, compute, (x_t, t, labels), size, deadline)

        return predict

    def _look(
        self, served: Served, guidance: float, clip: bool, asked: list[tuple[Tensor, Tensor, Tensor | None]]
    ) -> list[Denoised]:
        """What a model sees in each batch x_t (B C H W) at t (B), with labels (B) for all of them or for none, in one pass of
        its network, in the arithmetic in which pictures are drawn.
        """
        model: DDPM = served.model  # type: ignore[assignment]
        x_t, t = (torch.cat([each[i] for each in asked]) for i in (0, 1))  # type: ignore[misc]
        labels = [each[2] for each in asked if each[2] is not None]
        started = time.perf_counter()
        with drawing_precision():
            seen = model.predict(x_t, t, torch.cat(labels) if labels else None, guidance, clip)
        if guidance == 1:
            self._took((served.id, len(x_t)), time.perf_counter() - started)
        counts = [len(each[0]) for each in asked]
        eps_hats, x0_hats = seen.eps_hat.split(counts), seen.x0_hat.split(counts)
        fractions = [None] * len(asked) if seen.fraction is None else seen.fraction.split(counts)
        return [Denoised(*each) for each in zip(eps_hats, x0_hats, fractions, strict=True)]

    def _took(self, asked: tuple[str, int], seconds: float) -> None:
        """Keep in mind how long a look of a model at so many pictures took; the very first is a cold one."""
        before = self._seconds.get(asked)
        warm = seconds if before is None else 0.8 * before + 0.2 * seconds
        self._seconds[asked] = warm if asked in self._seconds else None

    def _in_time(self, deadline: float) -> None:
        if time.monotonic() > deadline:
            raise EngineError(TEXT["too long"].format(seconds=f"{self.deadline:g}"))


def _bound_step(model: DDPM, at: int, x0: Tensor, eps: Tensor) -> BoundStep:
    """The bound at step `at` for a picture (1 C H W) and the noise (1 C H W) in its x_t; classes hidden."""
    schedule, own, t = model.schedule, model.config.variance, torch.tensor([at])
    x_t = q_marginal(schedule, x0, t).sample(eps)
    seen = model.predict(x_t, t)

    variances: tuple[Variance, ...] = ("posterior", "beta", "learned") if own == "learned" else ("posterior", "beta")
    p = [p_reverse(schedule, x_t, seen.x0_hat, t, None, variance, seen.fraction) for variance in variances]
    every_p = Gaussian(torch.cat([each.mean for each in p]), torch.cat([each.log_var for each in p]))
    same = [x.expand(len(p), *x.shape[1:]) for x in (x0, x_t)]
    terms = dict(zip(variances, step_terms(schedule, every_p, same[0], same[1], t.expand(len(p))), strict=True))
    fixed = torch.full_like(x0, 1.0 if own == "beta" else 0.0)
    return BoundStep(
        t=at,
        T=schedule.T,
        alpha_bar=float(schedule.alpha_bar[at]),
        x0=x0[0],
        x_t=x_t[0],
        x0_hat=seen.x0_hat[0],
        q=_first(q_posterior(schedule, x_t, x0, t)) if at > 1 else None,
        p=_first(p[variances.index(own)]),
        variance=own,
        terms=terms[own],
        fraction=(fixed if seen.fraction is None else seen.fraction)[0],
        beta_tilde=float(reverse_log_var(schedule, "posterior", t).exp()),
        beta=float(schedule.beta[at]),
        by_variance={variance: float(each.double().sum()) for variance, each in terms.items()},
        prior=float(prior_term(schedule, x0)),
    )


def png(
    pictures: Tensor, columns: int | None = None, gap: int = 2, scale: int = 1, facts: Mapping[str, object] | None = None
) -> bytes:
    """Pictures (N C H W) uint8 as one lossless PNG, in rows of `columns`; `facts` travel inside the file as text.

    Args:
        gap: white pixels around each picture; scale: side of the square that every pixel becomes.
    """
    info = PngImagePlugin.PngInfo()
    info.add_text("Software", "genlab")
    for name, fact in (facts or {}).items():
        info.add_text(name, str(fact))
    sheet = grid(pictures, columns, gap)
    buffer = io.BytesIO()
    sheet.resize((sheet.width * scale, sheet.height * scale), Image.Resampling.NEAREST).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def data_title(name: str) -> str:
    """Name of a data set for people."""
    return TITLES.get(name, name)


def _forward(schedule: Schedule, noise: Noise, x: Tensor, s: int, t: int) -> Tensor:
    """x_s → x_t by every step of the chain between them."""
    for now in range(s + 1, t + 1):
        x = q_step(schedule, x, torch.tensor([now])).sample(noise.draw())
    return x


def _likeness(a: Tensor, b: Tensor) -> tuple[float, float]:
    """Root mean square difference and correlation of two pictures' pixels."""
    a, b = a.double().flatten(), b.double().flatten()
    return float((a - b).square().mean().sqrt()), float(torch.corrcoef(torch.stack([a, b]))[0, 1])


def _first(batch: Gaussian) -> Gaussian:
    """The first of a batch."""
    return Gaussian(batch.mean[0], batch.log_var[0])


def _pixel(picture: Gaussian, row: int, column: int) -> Gaussian:
    """The first channel of one pixel of a picture (C H W), (1)."""
    return Gaussian(picture.mean[:1, row, column], picture.log_var[:1, row, column])


def _as_seen(model: VAE, x: Tensor) -> Tensor:
    """Pictures in [−1, 1] as the model sees them: rounded to −1 and 1 where it is one of binarised pictures."""
    return torch.where(x > 0, 1.0, -1.0) if model.binary else x


def _together(data: DataSpec, most: int) -> int:
    """How many pictures go through a network in one turn: `most` of 28×28, fewer of larger ones."""
    return max(1, min(most * REFERENCE_PIXELS, PIXELS_AT_ONCE) // data.size**2)


def _bounds(log_weights: Tensor) -> tuple[tuple[int, float], ...]:
    """(k, L_k) of log-weights (n) for k = 1, 2, 4, … < n and n; every L_k is the mean over the n // k disjoint groups of k."""
    n = len(log_weights)
    sizes = [2**i for i in range(n.bit_length()) if 2**i < n] + [n]
    return tuple((k, float(log_mean_exp(log_weights[: n // k * k].reshape(-1, k).T).mean())) for k in sizes)


def _load_all(sources: Sequence[str]) -> tuple[list[Served], list[str]]:
    models: list[Served] = []
    problems: list[str] = []
    folders = [find_package(source) or expanded(source) for source in sources]
    coming = [None if folder.is_dir() else _ask_hub(source) for source, folder in zip(sources, folders, strict=True)]
    deadline = time.monotonic() + HUB_SECONDS
    for source, folder, awaited in zip(sources, folders, coming, strict=True):
        name = source if awaited is None else source.partition("@")[0]
        try:
            package = hub.read(folder) if awaited is None else _from_hub(awaited, deadline)
        except Exception as error:  # one model that is broken in whatever way must not keep the others from being served
            log.warning("could not load %s", source, exc_info=not isinstance(error, (ModelError, EngineError)))
            message = error.text if isinstance(error, EngineError) else hub_text.told(error)
            shown = _name(folder) if folder.is_dir() or source.startswith((".", "/", "~")) else source
            problems.append(TEXT["not loaded"].format(source=shown, error=message.replace(str(folder), shown)))
            continue
        for problem in read_evaluation(package.metrics).problems:
            log.warning("%s: metrics.json: %s; it is not shown", source, problem)
        stem = _name(folder) if folder.is_dir() else name.rpartition("/")[2]
        taken = [m.id for m in models]
        short = next(i for i in (stem, *(f"{stem}-{n}" for n in range(2, len(taken) + 3))) if i not in taken)
        models.append(Served(short, package, _origin(folder, name, package)))
    return models, problems


def _ask_hub(source: str) -> Future[Package]:
    """The model of that id on the Hub, read in a thread of its own: a Hub that says nothing holds up nothing else."""
    package: Future[Package] = Future()
    name, _, revision = source.partition("@")

    def read() -> None:
        try:
            package.set_result(hub.read(name, revision=revision or None))
        except Exception as error:
            package.set_exception(error)

    threading.Thread(target=read, name=f"read {name}", daemon=True).start()
    return package


def _from_hub(package: Future[Package], deadline: float) -> Package:
    """A model that was asked for, waited for until the deadline, monotonic.

    Raises:
        EngineError: it took longer. ModelError: see `hub.read`.
    """
    if not wait([package], max(0.0, deadline - time.monotonic())).done:
        raise EngineError(TEXT["hub too slow"].format(seconds=f"{HUB_SECONDS:g}"))
    return package.result()


def _origin(folder: Path, name: str, package: Package) -> str:
    if not folder.is_dir():
        return f"{name} @ {package.revision}" if package.revision else name
    return TEXT["ships"] if ships(folder) else TEXT["folder"].format(name=_name(folder))


def _name(folder: Path) -> str:
    """What a model in a folder is called: as the folder, in a run as the run."""
    place = folder.resolve()
    return place.parent.name if place.name == "model" else place.name
