"""Models of points in the plane: the notes' models, small enough to train within seconds.

A picture of 28×28 pixels is a point in 784 dimensions; here data are points x in two, so that a whole data set, the noise
around it, the score field and the samples can be plotted. The mathematics is the same (`process`, `score`, `vae`); only the
network differs, a small one of fully connected layers, trained in seconds on one core.

Two models. `PointDDPM` predicts the noise in x_t from x_t and t; it is trained with the mean squared error

    L_simple = ½ E ‖target − prediction‖²,   target v = √ᾱ_t ε − √(1−ᾱ_t) x_0, or ε                      (1)

which is denoising score matching (`score`, eq. 4) up to a weight for each t (1 for ε, 1/ᾱ_t for v). So there is no third model:
"DDPM" and "score model" are one network, trained in one way and used in two: as a DDPM, sampled along its chain of
p_θ(x_{t−1}|x_t) (`sampler.ancestral`); as a score model, sampled with ŝ = −ε̂/√(1−ᾱ_t) by Langevin dynamics, the reverse SDE or
the flow ODE (`score`), at any noise level and with a likelihood. With the target u = ε − x_0 and `flow.straight_schedule` it is
a flow-matching model. `PointVAE` is the VAE of the notes with the calibrated σ.

For data x_0 ~ N(m, V) along a dimension both losses have a lower bound that no network can beat: with c² = ᾱ_t,
Var(ε|x_t) = c² V/(c² V + 1 − c²) and Var(v|x_t) = V/(c² V + 1 − c²), and for the VAE it is the entropy of the data.

Data lie within about [−1, 1]². Every result is determined by its seed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from genlab import flow
from genlab.config import Prediction
from genlab.divergence import Gaussian, kl, standard_normal
from genlab.nn import sinusoidal_embedding
from genlab.oracle import Mixture
from genlab.process import Denoised, Predict, eps_from_v, q_marginal, q_step, v_from_eps, x0_from_eps, x0_from_v
from genlab.sampler import Frame, Noise, ancestral, ddim, timesteps, walk
from genlab.schedule import Schedule, linear_schedule
from genlab.score import annealed_times, langevin, reverse_sde, score_from_eps
from genlab.vae import ELBO, LOWEST_LOG_VAR, floored

DataName = Literal["moons", "rings", "spiral", "letters", "gaussians", "blobs", "pinwheel", "checkerboard"]
DATA_NAMES: tuple[DataName, ...] = get_args(DataName)
MAX_DRAWN = 2000
"""Largest number of points that a visitor may draw."""
MAX_POINTS = 100_000
"""Largest number of points of a data set, or of a walk."""
LETTERS = "KL"


# ---- data


def points(name: DataName, count: int, seed: int) -> Tensor:
    """Return `count` points of the data set of that name, (N, 2) float32 within about [−1, 1]².

    Raises:
        ValueError: there is no such data set, or `count` is not from 1 to 100,000.
    """
    if name not in DATA_NAMES:
        raise ValueError(f"expected a data set of {', '.join(DATA_NAMES)}; got {name!r}")
    _check_count(count)
    generator = torch.Generator().manual_seed(seed)
    if name in ("gaussians", "blobs"):
        return mixture(name, linear_schedule(100)).sample(count, generator).float()
    return _SHAPES[name](count, generator).float()


def around(marks: Sequence[Sequence[float]], count: int, seed: int, jitter: float = 0.02) -> Tensor:
    """Return `count` points around drawn ones: each a random one of these plus N(0, jitter²) noise, (N, 2) float32.

    Args:
        marks: 1 to 2000 pairs (x, y), within [−1, 1].

    Raises:
        ValueError: the marks are not of this form, or `count` is not from 1 to 100,000.
    """
    _check_count(count)
    if not 1 <= len(marks) <= MAX_DRAWN:
        raise ValueError(f"expected 1 to {MAX_DRAWN} drawn points, got {len(marks)}")
    for mark in marks:
        try:
            good = len(mark) == 2 and all(-1 <= float(value) <= 1 for value in mark)
        except (TypeError, ValueError):
            good = False
        if not good:
            raise ValueError(f"expected drawn points as pairs (x, y) from -1 to 1, got {str(mark)[:40]}")
    generator = torch.Generator().manual_seed(seed)
    where = torch.tensor([[float(value) for value in mark] for mark in marks])
    chosen = where[torch.randint(len(where), (count,), generator=generator)]
    return chosen + jitter * torch.randn(count, 2, generator=generator)


def mixture(name: Literal["gaussians", "blobs"], schedule: Schedule) -> Mixture:
    """Return data with known density and score at every t: eight Gaussians on a circle, or three blobs of unequal weight.

    Raises:
        ValueError: there is no mixture of that name.
    """
    if name == "gaussians":
        turn = torch.arange(8, dtype=torch.float64) * math.pi / 4
        mean = 0.8 * torch.stack([turn.cos(), turn.sin()], dim=1)
        return Mixture(schedule, torch.full((8,), 1 / 8, dtype=torch.float64), mean, torch.full_like(mean, 0.07**2))
    if name == "blobs":
        mean = torch.tensor([[-0.6, -0.5], [0.65, -0.3], [0.0, 0.65]], dtype=torch.float64)
        weight = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
        return Mixture(schedule, weight, mean, torch.full_like(mean, 0.14**2))
    raise ValueError(f"expected gaussians or blobs, got {name!r}")


def empirical(x0: Tensor, schedule: Schedule, width: float = 0.03) -> Mixture:
    """Return points x0 (N, 2) as a mixture, a Gaussian of σ = `width` around each: what a perfect network would learn."""
    mean = x0.double()
    weight = torch.full((len(mean),), 1 / len(mean), dtype=torch.float64)
    return Mixture(schedule, weight, mean, torch.full((len(mean), 1), width**2, dtype=torch.float64))


def _check_count(count: int) -> None:
    if not 1 <= count <= MAX_POINTS:
        raise ValueError(f"expected 1 to {MAX_POINTS} points, got {count}")


def _uniform(low: float, high: float, count: int, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(count, generator=generator, dtype=torch.float64)


def _normal(std: float, count: int, generator: torch.Generator) -> Tensor:
    return std * torch.randn(count, 2, generator=generator, dtype=torch.float64)


def _circle(angle: Tensor, radius: Tensor | float = 1.0) -> Tensor:
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)


def _moons(count: int, generator: torch.Generator) -> Tensor:
    """Draw points on two interleaved half circles of radius 0.6."""
    arc = _circle(_uniform(0, math.pi, count, generator), 0.6)
    upper = torch.rand(count, 1, generator=generator) < 0.5
    shift = torch.tensor([0.3, 0.15], dtype=torch.float64)
    return torch.where(upper, arc - shift, shift - arc) + _normal(0.03, count, generator)


def _rings(count: int, generator: torch.Generator) -> Tensor:
    """Draw points on two circles, of radius 0.4 and 0.85, uniform along both."""
    radius = torch.where(torch.rand(count, generator=generator) < 0.32, 0.4, 0.85).double()
    return _circle(_uniform(0, 2 * math.pi, count, generator), radius) + _normal(0.025, count, generator)


def _spiral(count: int, generator: torch.Generator) -> Tensor:
    """Draw points on one arm, r = 0.9 θ/4π for θ from 0 to 4π."""
    share = _uniform(0.01, 1, count, generator).sqrt()
    return _circle(4 * math.pi * share, 0.9 * share) + _normal(0.02, count, generator)


def _letters(count: int, generator: torch.Generator) -> Tensor:
    """Draw points uniformly within the two letters of the divergence."""
    font = ImageFont.load_default(200)
    left, top, right, bottom = font.getbbox(LETTERS)
    sheet = Image.new("L", (math.ceil(right - left), math.ceil(bottom - top)))
    ImageDraw.Draw(sheet).text((-left, -top), LETTERS, fill=255, font=font)
    ink = torch.from_numpy(np.argwhere(np.asarray(sheet) > 127).copy()).double()
    pixel = ink[torch.randint(len(ink), (count,), generator=generator)]
    place = pixel + torch.rand(count, 2, generator=generator, dtype=torch.float64)
    size = torch.tensor(sheet.size, dtype=torch.float64)
    return 0.95 * (2 * place.flip(1) - size) / size.max() * torch.tensor([1.0, -1.0], dtype=torch.float64)


def _pinwheel(count: int, generator: torch.Generator) -> Tensor:
    """Draw points of five bent arms (Johnson et al. 2016)."""
    along = 1 + 0.3 * torch.randn(count, generator=generator, dtype=torch.float64)
    across = 0.07 * torch.randn(count, generator=generator, dtype=torch.float64)
    arm = torch.randint(5, (count,), generator=generator) * 2 * math.pi / 5
    return 0.55 * torch.stack([along, across], dim=1)[:, None].matmul(_turn(arm + 0.25 * along.exp())).squeeze(1)


def _turn(angle: Tensor) -> Tensor:
    """Return rotation matrices (N, 2, 2) for angles (N)."""
    return torch.stack([angle.cos(), angle.sin(), -angle.sin(), angle.cos()], dim=1).reshape(-1, 2, 2)


def _checkerboard(count: int, generator: torch.Generator) -> Tensor:
    """Draw points uniformly on eight of the sixteen fields of [−1, 1]²."""
    field = torch.randint(8, (count,), generator=generator)
    row, column = field // 2, 2 * (field % 2)
    corner = torch.stack([column + row % 2, row], dim=1).double()
    return (corner + torch.rand(count, 2, generator=generator, dtype=torch.float64)) / 2 - 1


_SHAPES: dict[str, Callable[[int, torch.Generator], Tensor]] = {
    "moons": _moons,
    "rings": _rings,
    "spiral": _spiral,
    "letters": _letters,
    "pinwheel": _pinwheel,
    "checkerboard": _checkerboard,
}


# ---- models


class Fourier(nn.Module):
    """Maps x (B, inside) to x and the sin and cos of 32 random projections of it, which are the same in every model.

    Without them a network of this size would need minutes to learn fine structure (Tancik et al. 2020).
    """

    frequency: Tensor

    def __init__(self, inside: int, scale: float) -> None:
        super().__init__()
        frequency = scale * torch.randn(inside, 32, generator=torch.Generator().manual_seed(0))
        self.register_buffer("frequency", frequency, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        angle = x @ self.frequency
        return torch.cat([x, angle.sin(), angle.cos()], dim=1)


class _Block(nn.Module):
    """A residual block with one hidden layer, to which the embedding of the time is added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.time = nn.Linear(width, width)
        self.inward = nn.Linear(width, width)
        self.outward = nn.Linear(width, width)

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        return h + self.outward(F.silu(self.inward(F.silu(h)) + self.time(embedding)))


class PointNet(nn.Module):
    """Maps x_t (B, 2) and t (B) in 1…T to two numbers for each point."""

    embedding: Tensor

    def __init__(self, T: int, width: int, blocks: int) -> None:
        super().__init__()
        self.register_buffer("embedding", sinusoidal_embedding(torch.arange(T + 1) * (1000 / T), 32), persistent=False)
        self.time = nn.Linear(32, width)
        self.enter = nn.Sequential(Fourier(2, scale=6.0), nn.Linear(2 + 64, width))
        self.blocks = nn.ModuleList([_Block(width) for _ in range(blocks)])
        self.leave = nn.Linear(width, 2)

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        embedding = F.silu(self.time(self.embedding[t]))
        h = self.enter(x_t)
        for block in self.blocks:
            h = block(h, embedding)
        return self.leave(F.silu(h))


class PointDDPM(nn.Module):
    """A diffusion model, or score model, of points in the plane.

    Args:
        schedule: its chain; by default the linear one with 200 steps.
        prediction: what the network outputs: v, ε, or the velocity u (`flow`).
        width, blocks: units of a layer, number of residual blocks.
        seed: of the initial weights.
    """

    rate = 4e-3
    """Learning rate of Adam in `train`."""

    def __init__(
        self,
        schedule: Schedule | None = None,
        prediction: Prediction | Literal["velocity"] = "v",
        width: int = 64,
        blocks: int = 2,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.schedule = schedule or linear_schedule(200)
        self.prediction = prediction
        self.net = PointNet(self.schedule.T, width, blocks)
        _start(self, seed)

    def predict(self, x_t: Tensor, t: Tensor) -> Denoised:
        """Return ε̂ and x̂_0 for x_t (B, 2) at t (B) in 1…T."""
        output = self.net(x_t, t)
        if self.prediction == "eps":
            return Denoised(output, x0_from_eps(self.schedule, x_t, output, t), None)
        if self.prediction == "velocity":
            eps, x0 = (convert(self.schedule, x_t, output, t) for convert in (flow.eps_from_velocity, flow.x0_from_velocity))
            return Denoised(eps, x0, None)
        return Denoised(eps_from_v(self.schedule, x_t, output, t), x0_from_v(self.schedule, x_t, output, t), None)

    def loss(self, x0: Tensor, generator: torch.Generator) -> Tensor:
        """Return eq. 1 for each point at a random t with random noise, (B)."""
        t = torch.randint(1, self.schedule.T + 1, (len(x0),), generator=generator)
        eps = torch.randn(x0.shape, generator=generator)
        targets = {"eps": eps, "velocity": eps - x0, "v": v_from_eps(self.schedule, x0, eps, t)}
        return (targets[self.prediction] - self.net(q_marginal(self.schedule, x0, t).sample(eps), t)).pow(2).mean(dim=1)


class PointVAE(nn.Module):
    """A VAE of points in the plane, with a Gaussian decoder of one calibrated σ.

    Args:
        latent: 2 or 1 latent variables; with one, the decoder's mean is a curve.
        width: units of a layer.
        seed: of the initial weights.
    """

    rate = 1e-2
    """Learning rate of Adam in `train`."""

    def __init__(self, latent: int = 2, width: int = 64, seed: int = 0) -> None:
        super().__init__()
        self.latent = latent
        self.encoder = _layers(2, 6.0, width, 2 * latent)
        self.decoder = _layers(latent, 2.0, width, 2)
        self.log_var = nn.Parameter(torch.tensor(-2.0))
        _start(self, seed)

    def encode(self, x: Tensor) -> Gaussian:
        """Return q(z|x), (B, latent), of x (B, 2)."""
        mean, log_var = self.encoder(x).chunk(2, dim=1)
        return Gaussian(mean, log_var.clamp(-20, 20))

    def decode(self, z: Tensor) -> Gaussian:
        """Return p(x|z), (B, 2), of z (B, latent)."""
        mean = self.decoder(z)
        return Gaussian(mean, floored(self.log_var, LOWEST_LOG_VAR).expand_as(mean))

    def elbo(self, x: Tensor, noise: Tensor) -> ELBO:
        """Return the two terms of the ELBO, nats (B) each; noise (B, latent) standard normal."""
        q = self.encode(x)
        return ELBO(self.decode(q.sample(noise)).log_prob(x), kl(q, standard_normal(q.mean)))

    def loss(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return −ELBO in nats, (B)."""
        return -self.elbo(x, torch.randn(len(x), self.latent, generator=generator)).total

    @torch.inference_mode()
    def sample(self, count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """Draw z ~ N(0, I), (N, latent), and x ~ p(x|z); return z, the decoder's mean and x, (N, 2) each."""
        generator = torch.Generator().manual_seed(seed)
        z = torch.randn(count, self.latent, generator=generator)
        p = self.decode(z)
        return z, p.mean, p.sample(torch.randn(count, 2, generator=generator))


def _layers(inside: int, scale: float, width: int, outside: int) -> nn.Sequential:
    hidden = (nn.Linear(inside + 64, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
    return nn.Sequential(Fourier(inside, scale), *hidden, nn.Linear(width, outside))


def _start(model: nn.Module, seed: int) -> None:
    """Draw the initial weights of every layer from a generator of its own: torch's global one is shared by all visitors."""
    generator = torch.Generator().manual_seed(seed)
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            nn.init.uniform_(layer.weight, -(layer.in_features**-0.5), layer.in_features**-0.5, generator=generator)
            nn.init.zeros_(layer.bias)


# ---- training


@dataclass(frozen=True)
class Progress:
    """The state of training after an optimiser's step.

    Attributes:
        step, steps: number of this step, from 1, and the largest number of steps.
        loss: mean over the points of the steps since the last record; L_simple (eq. 1), or −ELBO in nats for a VAE.
        seconds: training time so far, without the caller's time between two records.
        model: the moving average of the weights, to draw samples from. Every record has the same model, updated in place.
    """

    step: int
    steps: int
    loss: float
    seconds: float
    model: PointDDPM | PointVAE


def train(
    model: PointDDPM | PointVAE,
    data: Tensor,
    steps: int = 2000,
    seconds: float = 20.0,
    seed: int = 0,
    every: int = 25,
    batch: int = 256,
    rate: float | None = None,
) -> Iterator[Progress]:
    """Train on points (N, 2), yielding a `Progress` every `every` steps and after the last one.

    Training ends after `steps` steps, with the first step past `seconds` seconds of training, or when the generator is closed.
    The same number of steps with the same seeds gives the same weights, whatever `seconds` is: the learning rate falls by a
    cosine over `steps`.

    Args:
        every: steps from one record to the next.
        rate: highest learning rate of Adam; by default that of the model.

    Raises:
        ValueError: the data do not have the shape (N, 2) with N ≥ 1, or a number is not positive.
    """
    rate = model.rate if rate is None else rate
    if data.ndim != 2 or data.shape[1] != 2 or len(data) == 0:
        raise ValueError(f"expected points of shape (N, 2), got {tuple(data.shape)}")
    for name, value in (("steps", steps), ("seconds", seconds), ("every", every), ("batch", batch), ("rate", rate)):
        if not value > 0:
            raise ValueError(f"expected {name} > 0, got {value}")
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(model.parameters(), lr=rate, betas=(0.9, 0.99), fused=True)
    average = deepcopy(model).requires_grad_(False).eval()
    averages: list[Tensor] = list(average.parameters())
    spent, total, since = 0.0, torch.zeros(()), 0
    began = time.perf_counter()
    for step in range(1, steps + 1):
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1.0, step / 50) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))
        loss = model.loss(data[torch.randint(len(data), (batch,), generator=generator)], generator).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        torch._foreach_lerp_(averages, [weight.detach() for weight in model.parameters()], 1 - min(0.99, step / (step + 10)))
        total, since = total + loss.detach(), since + 1
        last = step == steps or spent + time.perf_counter() - began >= seconds
        if last or step % every == 0:
            spent += time.perf_counter() - began
            yield Progress(step, steps, float(total) / since, spent, average)
            began, total, since = time.perf_counter(), torch.zeros(()), 0
        if last:
            return


# ---- walking


Walk = Literal["ancestral", "flow", "reverse SDE", "Langevin"]
WALKS: tuple[Walk, ...] = get_args(Walk)


class CloudNoise(Noise):
    """Standard normal noise for a cloud of points, (N, 2), from one stream."""

    @classmethod
    def from_seed(cls, seed: int, count: int) -> CloudNoise:
        return cls((torch.Generator().manual_seed(seed),), (count, 2))

    def draw(self) -> Tensor:
        return super().draw()[0]


@dataclass(frozen=True)
class Cloud:
    """Points of the noising process: x_t (N, 2) at time t."""

    t: int
    x_t: Tensor


def noising(schedule: Schedule, x0: Tensor, times: Sequence[int], seed: int) -> Iterator[Cloud]:
    """Draw x_t along the chain from points x0 (N, 2), step by step from q(x_t|x_{t−1}); yields x_t at `times`.

    Raises:
        ValueError: the times are not rising within 0…T.
    """
    if list(times) != sorted(set(times)) or not times or times[0] < 0 or times[-1] > schedule.T:
        raise ValueError(f"expected rising times from 0 to {schedule.T}, got {list(times)[:8]}")
    noise, x, t = CloudNoise.from_seed(seed, len(x0)), x0, 0
    for wanted in times:
        while t < wanted:
            t += 1
            x = q_step(schedule, x, torch.full((len(x),), t)).sample(noise.draw().to(x))
        yield Cloud(t, x)


def denoising(
    predict: Predict, schedule: Schedule, count: int, seed: int, way: Walk = "ancestral", steps: int | None = None
) -> Iterator[Frame]:
    """Draw `count` points from noise, yielding a `Frame` for each step; x_s of the last one are the samples.

    Args:
        predict: that of a `PointDDPM`, or of an oracle.
        way: ancestral, by p_θ; along the flow ODE (DDIM); by the reverse SDE; by Langevin dynamics, five steps at each of
            `steps`/5 noise levels. For a seed, all start from the same noise.
        steps: number of steps, by default T.

    Raises:
        ValueError: there is no such way, `count` is not from 1 to 100,000, or `steps` not from 1 (Langevin: 5) to T.
    """
    _check_count(count)
    noise = CloudNoise.from_seed(seed, count)
    start, steps = noise.draw(), schedule.T if steps is None else steps
    if way == "Langevin":
        if not 5 <= steps <= schedule.T:
            raise ValueError(f"expected 5 to {schedule.T} steps of Langevin dynamics, got {steps}")
        return walk(predict, langevin(schedule, noise, rate=0.3), start, annealed_times(schedule.T, steps // 5, 5))
    times = timesteps(schedule.T, steps)
    if way == "ancestral":
        return walk(predict, ancestral(schedule, noise), start, times)
    if way == "flow":
        return walk(predict, ddim(schedule), start, times)
    if way == "reverse SDE":
        return walk(predict, reverse_sde(schedule, noise), start, times)
    raise ValueError(f"expected one of {', '.join(WALKS)}; got {way!r}")


def particles(
    predict: Predict, schedule: Schedule, x: Tensor, t: int, steps: int, seed: int, rate: float = 0.1
) -> Iterator[Frame]:
    """Move particles x (N, 2) by Langevin dynamics at the noise level t in 1…T, whose stationary distribution is q(x_t)."""
    schedule.check(torch.tensor([t]))
    return walk(predict, langevin(schedule, CloudNoise.from_seed(seed, len(x)), rate), x, [t] * (steps + 1))


def lattice(side: int, reach: float = 1.5) -> Tensor:
    """Return a grid of points over [−reach, reach]², (side, side, 2) float32; row 0 has the lowest y, column 0 the lowest x."""
    line = torch.linspace(-reach, reach, side)
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x, y], dim=-1)


@torch.inference_mode()
def field(predict: Predict, schedule: Schedule, t: int, side: int, reach: float = 1.5) -> Tensor:
    """Return the score at time t in 1…T over `lattice`, (side, side, 2); the exact one for the `predict` of an oracle."""
    schedule.check(torch.tensor([t]))
    x, now = lattice(side, reach).flatten(0, 1), torch.full((side**2,), t)
    return score_from_eps(schedule, predict(x, now).eps_hat, now).reshape(side, side, 2)
