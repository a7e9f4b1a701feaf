"""The models that are served, and what the page and the API compute with them. No gradio in here.

Every computation is a generator that yields after each step of the network and stops when it is closed, so that a visitor who
leaves costs one step at most. The steps of all requests pass one turnstile: one at a time, in the order of asking.
"""

from __future__ import annotations

import io
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from PIL import Image, PngImagePlugin
from torch import Tensor

from genlab import hub
from genlab.config import DataSpec
from genlab.data import fit, grid, to_model, to_pixels
from genlab.ddpm import DDPM, Denoised
from genlab.demo.limits import DiffuseRequest, InterpolateRequest, LimitError, Offer, Pick, SampleRequest, label_choices
from genlab.interpolate import lerp, slerp
from genlab.process import eps_from_x0, q_step
from genlab.sampler import Frame, Noise, Step, ancestral, ddim, invert, timesteps, walk
from genlab.schedule import Schedule
from genlab.vae import VAE

R = TypeVar("R")
log = logging.getLogger("genlab.demo")

PRETRAINED = Path(__file__).parent.parent / "pretrained"
DEADLINE = 60.0
"""Seconds of wall clock after which a request is ended."""
EPS_SCALE = 3.0
"""Noise is drawn with 0 as middle gray and this many standard deviations as black and white."""
VAE_LINEAR, VAE_SPHERICAL, DDPM_SPHERICAL = "VAE, straight line", "VAE, along the sphere", "DDPM, along the sphere"

TITLES = {"fashion-mnist": "Fashion-MNIST", "mnist": "MNIST"}


class EngineError(RuntimeError):
    """A computation could not be done or finished; the message is for people."""


@dataclass(frozen=True)
class Served:
    """One model that is served, and where it is from."""

    id: str
    package: hub.Package
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
        return Offer(self.id, self.model.kind, self.data, T, len(self.package.examples))  # type: ignore[arg-type]

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
class SampleFrame:
    """Pictures while they form: step `index` of `count`, at time t; index 0 is pure noise. A VAE has frame 0 of 0 only.

    Attributes:
        pictures: (N C H W) uint8.
    """

    index: int
    count: int
    t: int
    pictures: Tensor


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


@dataclass
class Turnstile:
    """Lets one thread through at a time, in the order of coming."""

    _condition: threading.Condition = field(default_factory=threading.Condition)
    _waiting: deque[object] = field(default_factory=deque)

    @contextmanager
    def turn(self, deadline: float) -> Iterator[None]:
        """Hold the turnstile; `deadline` is the monotonic time until which to wait.

        Raises:
            EngineError: the turn did not come in time.
        """
        ticket = object()
        with self._condition:
            self._waiting.append(ticket)
            if not self._condition.wait_for(lambda: self._waiting[0] is ticket, max(0.0, deadline - time.monotonic())):
                self._waiting.remove(ticket)
                raise EngineError("the demo is busy and this request's turn did not come in time; try again in a minute")
        try:
            yield
        finally:
            with self._condition:
                self._waiting.popleft()
                self._condition.notify_all()


class Engine:
    """The models by their short id, and the computations.

    Attributes:
        problems: one sentence for each model that was asked for and could not be loaded.

    Raises:
        EngineError: there is no model.
    """

    def __init__(self, models: Sequence[Served], problems: Sequence[str] = (), deadline: float = DEADLINE) -> None:
        if not models:
            raise EngineError("no model to serve" + "".join(f"\n  {p}" for p in problems))
        self.models = {served.id: served for served in models}
        self.problems = tuple(problems)
        self.deadline = deadline
        self._turnstile = Turnstile()

    @classmethod
    def load(cls, sources: Sequence[str] = ()) -> Engine:
        """Serve the models in these folders or Hub ids (`user/repo`, `user/repo@revision`); none: those that ship with genlab.

        A model that cannot be loaded becomes a problem. Where none of `sources` can, those that ship are served.

        Raises:
            EngineError: nothing can be loaded at all.
        """
        models, problems = _load_all(list(sources) or _shipped())
        if not models and sources:
            models, more = _load_all(_shipped())
            problems = [*problems, *more]
            if models:
                problems.append(
                    "None of the models that were asked for could be loaded; these are the ones that ship with genlab."
                )
        return cls(models, problems)

    @property
    def offers(self) -> dict[str, Offer]:
        """What may be asked of each model."""
        return {name: served.offer for name, served in self.models.items()}

    def describe(self) -> list[dict[str, Any]]:
        """The facts of every model."""
        return [served.describe() for served in self.models.values()]

    def of_data(self, data: str, kind: str) -> Served | None:
        """The first model of that kind for that data set."""
        members = [m for m in self.models.values() if m.data.name == data]
        return next((m for m in members if m.model.kind == kind and m.data.shape == members[0].data.shape), None)

    def examples(self, data: str) -> hub.Package | None:
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
            raise LimitError(
                f"test picture: expected a number below {len(package.examples) if package else 0}, got {pick.number}"
            )
        return package.examples[pick.number]

    def sample(self, request: SampleRequest) -> Iterator[SampleFrame]:
        """New pictures, step by step; the last frame has the finished ones. A VAE needs one step.

        Raises:
            EngineError: it took too long.
        """
        deadline = time.monotonic() + self.deadline
        served = self.models[request.model]
        model, seeds = served.model, [request.seed + i for i in range(request.count)]
        if isinstance(model, VAE):
            yield SampleFrame(0, 0, 0, self._once(lambda: _vae_sample(model, seeds), deadline))
            return
        noise = Noise.from_seeds(seeds, served.data.shape)
        x_T = noise.draw()
        yield SampleFrame(0, request.steps, model.schedule.T, to_pixels(x_T))
        predict = _predictor(model, _labels(model, request.label, seeds), request.guidance, clip=True)
        step = _step(model, request.sampler, noise)
        for frame in self._steps(walk(predict, step, x_T, timesteps(model.schedule.T, request.steps)), deadline):
            yield SampleFrame(frame.index, frame.count, frame.s, to_pixels(frame.x_s))

    def interpolate(self, request: InterpolateRequest) -> Iterator[PathFrame]:
        """The paths between two pictures: a VAE's latents, and a diffusion model's noise, found by DDIM run backwards.

        A picture from a seed is the one that the DDPM draws from that seed's noise (the VAE where there is no DDPM).

        Raises:
            EngineError: it took too long.
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
            sampled = self._once(lambda: _vae_sample(decoder, seeds), deadline)
            ends = [sampled[i] if end is None else end for i, end in enumerate(ends)]
            rows = self._vae_rows(vae, ends, w, deadline)
            yield PathFrame(1, 1, "done", 0, ends[0], ends[1], rows)  # type: ignore[arg-type]
            return

        model: DDPM = ddpm.model  # type: ignore[assignment]
        times = timesteps(model.schedule.T, request.steps)
        predict, count = _predictor(model, None, 1.0, clip=False), 2 * request.steps
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
        for index, frames in enumerate(zip(*(self._steps(steps, deadline) for _, steps in walks), strict=True), start=1):
            now = {i: x for (who, _), frame in zip(walks, frames, strict=True) for i, x in zip(who, frame.x_s, strict=True)}
            if index == request.steps:
                x_T.update({i: now[i] for i in given})
                ends = [to_pixels(now[i]) if i in drawn else ends[i] for i in (0, 1)]
                rows = self._vae_rows(vae, ends, w, deadline)
            rows = {**rows, DDPM_SPHERICAL: to_pixels(slerp(now[0], now[1], w))}
            yield PathFrame(index, count, "ends", frames[0].s, to_pixels(now[0]), to_pixels(now[1]), rows)

        for frame in self._steps(walk(predict, ddim(model.schedule), slerp(x_T[0], x_T[1], w), times), deadline):
            finished = frame.s == 0
            rows = {**rows, DDPM_SPHERICAL: to_pixels(frame.x_s if finished else frame.x0_hat)}
            index = request.steps + frame.index
            yield PathFrame(index, count, "done" if finished else "path", frame.s, ends[0], ends[1], rows)  # type: ignore[arg-type]

    def diffuse(self, request: DiffuseRequest) -> Iterator[ChainFrame]:
        """The forward chain on one picture, then the reverse chain.

        Forward is one path of the Markov chain: every x_t is drawn by q(x_t|x_{t−1}), all T of them, and `steps` + 1 are shown.

        Raises:
            EngineError: it took too long.
        """
        deadline = time.monotonic() + self.deadline
        served = self.models[request.model]
        model: DDPM = served.model  # type: ignore[assignment]
        schedule, count = model.schedule, 2 * (request.steps + 1)
        noise = Noise.from_seeds([request.seed], served.data.shape)
        times = timesteps(schedule.T, request.steps)

        def frame(
            index: int, direction: Literal["forward", "reverse"], t: int, x_t: Tensor, x0: Tensor, eps: Tensor
        ) -> ChainFrame:
            alpha_bar, snr = float(schedule.alpha_bar[t]), float(schedule.snr[t])
            shown = (to_pixels(x_t[0]), to_pixels(x0[0]), to_pixels(eps[0] / EPS_SCALE))
            return ChainFrame(index, count, direction, t, alpha_bar, snr, *shown)

        x0 = to_model(self.picture(served.data.name, request.picture))[None]
        x_t = x0
        yield frame(0, "forward", 0, x0, x0, torch.zeros_like(x0))
        for index, (s, t) in enumerate(zip(times[::-1], times[::-1][1:], strict=False), start=1):
            x_t = self._once(lambda x=x_t, s=s, t=t: _forward(schedule, noise, x, s, t), deadline)  # type: ignore[misc]
            yield frame(index, "forward", t, x_t, x0, eps_from_x0(schedule, x_t, x0, torch.tensor([t])))

        start = noise.draw() if request.fresh_noise else x_t
        predict = _predictor(model, _labels(model, request.label, [request.seed]), 1.0, clip=True)
        for step in self._steps(walk(predict, _step(model, request.sampler, noise), start, times), deadline):
            index = request.steps + step.index
            yield frame(index, "reverse", step.t, step.x_t, step.x0_hat, step.eps_hat)
            if step.s == 0:
                yield frame(index + 1, "reverse", 0, step.x_s, step.x_s, step.eps_hat)

    def _vae_rows(self, vae: Served | None, ends: Sequence[Tensor | None], w: Tensor, deadline: float) -> dict[str, Tensor]:
        """The VAE's two paths; gray pictures while an end is not known yet, nothing without a VAE."""
        if vae is None:
            return {}
        model: VAE = vae.model  # type: ignore[assignment]
        if ends[0] is None or ends[1] is None:
            blank = torch.full((len(w), *vae.data.shape), 128, dtype=torch.uint8)
            return {VAE_LINEAR: blank, VAE_SPHERICAL: blank}
        x = to_model(torch.stack([ends[0], ends[1]]))
        x = torch.where(x > 0, 1.0, -1.0) if model.binary else x

        def compute() -> dict[str, Tensor]:
            a, b = model.encode(x).mean
            return {
                name: to_pixels(model.decode(path(a, b, w)).mean) for name, path in ((VAE_LINEAR, lerp), (VAE_SPHERICAL, slerp))
            }

        return self._once(compute, deadline)

    def _once(self, compute: Callable[[], R], deadline: float) -> R:
        """One computation in its turn."""
        if time.monotonic() > deadline:
            raise EngineError(f"stopped after {self.deadline:g} seconds; ask for fewer pictures or steps")
        with self._turnstile.turn(deadline), torch.inference_mode():
            return compute()

    def _steps(self, steps: Iterator[Frame], deadline: float) -> Iterator[Frame]:
        """The same frames, every step in its turn."""
        while (frame := self._once(lambda: next(steps, None), deadline)) is not None:
            yield frame


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
    sheet = grid(pictures, columns or columns_of(len(pictures)), gap)
    buffer = io.BytesIO()
    sheet.resize((sheet.width * scale, sheet.height * scale), Image.Resampling.NEAREST).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def columns_of(count: int) -> int:
    """Columns of the most nearly square sheet of `count` pictures that is not higher than wide."""
    return math.ceil(math.sqrt(count))


def data_title(name: str) -> str:
    """Name of a data set for people."""
    return TITLES.get(name, name)


def _forward(schedule: Schedule, noise: Noise, x: Tensor, s: int, t: int) -> Tensor:
    """x_s → x_t by every step of the chain between them."""
    for now in range(s + 1, t + 1):
        x = q_step(schedule, x, torch.tensor([now])).sample(noise.draw())
    return x


def _labels(model: DDPM, label: int | None, seeds: Sequence[int]) -> Tensor | None:
    """The class of each picture, (B): `label`, or, where any will do, the classes in turn by the picture's seed."""
    classes = len(model.data.classes)
    return torch.tensor([seed % classes if label is None else label for seed in seeds]) if classes else None


def _predictor(model: DDPM, labels: Tensor | None, guidance: float, clip: bool) -> Callable[[Tensor, Tensor], Denoised]:
    def predict(x_t: Tensor, t: Tensor) -> Denoised:
        return model.predict(x_t, t, labels, guidance, clip)

    return predict


def _step(model: DDPM, sampler: str, noise: Noise) -> Step:
    return ddim(model.schedule) if sampler == "DDIM" else ancestral(model.schedule, noise, model.config.variance)


def _vae_sample(model: VAE, seeds: list[int]) -> Tensor:
    """Pictures (N C H W) uint8: the decoder's mean at z ~ N(0, I)."""
    return to_pixels(model.decode(Noise.from_seeds(seeds, (model.config.latent,)).draw()).mean)


def _shipped() -> list[str]:
    return sorted(str(config.parent) for config in PRETRAINED.glob("*/config.json"))


def _load_all(sources: Sequence[str]) -> tuple[list[Served], list[str]]:
    models: list[Served] = []
    problems: list[str] = []
    for source in sources:
        folder = Path(source).expanduser()
        name, _, revision = (source, "", "") if folder.is_dir() else source.partition("@")
        try:
            package = hub.read(folder if folder.is_dir() else name, revision=revision or None)
        except Exception as error:  # one model that is broken in whatever way must not keep the others from being served
            log.warning("could not load %s", source, exc_info=not isinstance(error, hub.HubError))
            shown = folder.name if folder.is_dir() or source.startswith((".", "/", "~")) else source
            problems.append(f"{shown} could not be loaded: {error}".replace(str(folder), shown))
            continue
        stem = folder.resolve().name if folder.is_dir() else name.rpartition("/")[2]
        taken = [m.id for m in models]
        short = next(i for i in (stem, *(f"{stem}-{n}" for n in range(2, len(taken) + 3))) if i not in taken)
        models.append(Served(short, package, _origin(folder, name, package)))
    return models, problems


def _origin(folder: Path, name: str, package: hub.Package) -> str:
    if not folder.is_dir():
        return f"{name} @ {package.revision}" if package.revision else name
    return "ships with genlab" if folder.resolve().parent == PRETRAINED.resolve() else f"folder {folder.resolve().name}"
