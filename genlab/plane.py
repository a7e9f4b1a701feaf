"""Models of points in the plane: the notes' models, small enough to watch while they learn.

A picture of 28×28 pixels is a point in 784 dimensions; here data are points x in two, so that a whole data set, the noise
around it, the score field and the samples can be seen. The mathematics is the same (`process`, `score`, `vae`); what differs is
the network, a small one of fully connected layers, and the time: seconds on one core.

Two models. `PointDDPM` looks at x_t and t and says which noise is in it; it learns by the mean squared error

    L_simple = ½ E ‖target − prediction‖²,   target v = √ᾱ_t ε − √(1−ᾱ_t) x_0, or ε                      (1)

which is denoising score matching (`score`, eq. 4) up to a weight for each t (1 for ε, 1/ᾱ_t for v). So there is no third model:
"DDPM" and "score model" are one network, learned in one way. The names stand for two ways of using it: the DDPM walks its chain
of p_θ(x_{t−1}|x_t) back (`sampler.ancestral`); the score model follows ŝ = −ε̂/√(1−ᾱ_t) by Langevin dynamics, the reverse SDE
or the flow ODE (`score`), at any noise level and with a likelihood. `PointVAE` is the VAE of the notes with the calibrated σ.

For data x_0 ~ N(m, V) along a dimension both losses have a floor that no network can pass: with c² = ᾱ_t,
Var(ε|x_t) = c² V/(c² V + 1 − c²) and Var(v|x_t) = V/(c² V + 1 − c²), and for the VAE it is the entropy of the data.

Data fill about [−1, 1]². Everything depends on its seed alone.
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
"""Most points that a visitor may draw."""
MAX_POINTS = 100_000
"""Most points of a data set, or of a walk."""
LETTERS = "KL"


# ---- data


def points(name: DataName, count: int, seed: int) -> Tensor:
    """`count` points of the data set of that name, (N, 2) float32 within about [−1, 1]².

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


def drawn(marks: Sequence[Sequence[float]], count: int, seed: int, jitter: float = 0.02) -> Tensor:
    """`count` points around those that a visitor has drawn: each one of them at random, moved by N(0, jitter²); (N, 2) float32.

    Args:
        marks: 1 to 2000 pairs (x, y), within [−1, 1].

    Raises:
        ValueError: the marks are not that, or `count` is not from 1 to 100,000.
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
    """The data whose density, and score at every t, is known: eight Gaussians on a circle, three blobs of unlike weight.

    Raises:
        ValueError: another name.
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
    """Any points x0 (N, 2) as a mixture: a Gaussian of σ = `width` around each. What a perfect network would learn of them."""
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
    """Two half circles of radius 0.6 that reach into one another."""
    arc = _circle(_uniform(0, math.pi, count, generator), 0.6)
    upper = torch.rand(count, 1, generator=generator) < 0.5
    shift = torch.tensor([0.3, 0.15], dtype=torch.float64)
    return torch.where(upper, arc - shift, shift - arc) + _normal(0.03, count, generator)


def _rings(count: int, generator: torch.Generator) -> Tensor:
    """Two circles, of radius 0.4 and 0.85, with as many points on each bit of line."""
    radius = torch.where(torch.rand(count, generator=generator) < 0.32, 0.4, 0.85).double()
    return _circle(_uniform(0, 2 * math.pi, count, generator), radius) + _normal(0.025, count, generator)


def _spiral(count: int, generator: torch.Generator) -> Tensor:
    """One arm, r = 0.9 θ/4π for θ from 0 to 4π."""
    share = _uniform(0.01, 1, count, generator).sqrt()
    return _circle(4 * math.pi * share, 0.9 * share) + _normal(0.02, count, generator)


def _letters(count: int, generator: torch.Generator) -> Tensor:
    """Points within the two letters of the divergence, even over their ink."""
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
    """Five bent arms (Johnson et al. 2016)."""
    along = 1 + 0.3 * torch.randn(count, generator=generator, dtype=torch.float64)
    across = 0.07 * torch.randn(count, generator=generator, dtype=torch.float64)
    arm = torch.randint(5, (count,), generator=generator) * 2 * math.pi / 5
    return 0.55 * torch.stack([along, across], dim=1)[:, None].matmul(_turn(arm + 0.25 * along.exp())).squeeze(1)


def _turn(angle: Tensor) -> Tensor:
    """Rotations (N, 2, 2)."""
    return torch.stack([angle.cos(), angle.sin(), -angle.sin(), angle.cos()], dim=1).reshape(-1, 2, 2)


def _checkerboard(count: int, generator: torch.Generator) -> Tensor:
    """Eight of the sixteen fields of [−1, 1]²."""
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
    """x (B, inside) beside sin and cos of 32 random combinations of it, the same in every model.

    Without them a network of this size would take minutes to see anything finer than a blob (Tancik et al. 2020).
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
    """A hidden layer beside a shortcut, told the time by what is added inside."""

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
        schedule: its chain; 200 steps of the linear one where none is given.
        prediction: what the network outputs, v or ε.
        width, blocks: units of a layer and number of pairs of layers.
        seed: of the weights to start from.
    """

    rate = 4e-3
    """Adam's, for `train`."""

    def __init__(
        self, schedule: Schedule | None = None, prediction: Prediction = "v", width: int = 64, blocks: int = 2, seed: int = 0
    ) -> None:
        super().__init__()
        self.schedule = schedule or linear_schedule(200)
        self.prediction = prediction
        self.net = PointNet(self.schedule.T, width, blocks)
        _start(self, seed)

    def predict(self, x_t: Tensor, t: Tensor) -> Denoised:
        """ε̂ and x̂_0 for x_t (B, 2) at t (B) in 1…T."""
        output = self.net(x_t, t)
        if self.prediction == "eps":
            return Denoised(output, x0_from_eps(self.schedule, x_t, output, t), None)
        return Denoised(eps_from_v(self.schedule, x_t, output, t), x0_from_v(self.schedule, x_t, output, t), None)

    def loss(self, x0: Tensor, generator: torch.Generator) -> Tensor:
        """Eq. 1 for each point at a random t with random noise, (B)."""
        t = torch.randint(1, self.schedule.T + 1, (len(x0),), generator=generator)
        eps = torch.randn(x0.shape, generator=generator)
        target = eps if self.prediction == "eps" else v_from_eps(self.schedule, x0, eps, t)
        return (target - self.net(q_marginal(self.schedule, x0, t).sample(eps), t)).pow(2).mean(dim=1)


class PointVAE(nn.Module):
    """A VAE of points in the plane, with a Gaussian decoder of one calibrated σ.

    Args:
        latent: 2 or 1 latent variables; with one, the decoder's mean is a curve.
        width: units of a layer.
        seed: of the weights to start from.
    """

    rate = 1e-2
    """Adam's, for `train`."""

    def __init__(self, latent: int = 2, width: int = 64, seed: int = 0) -> None:
        super().__init__()
        self.latent = latent
        self.encoder = _layers(2, 6.0, width, 2 * latent)
        self.decoder = _layers(latent, 2.0, width, 2)
        self.log_var = nn.Parameter(torch.tensor(-2.0))
        _start(self, seed)

    def encode(self, x: Tensor) -> Gaussian:
        """q(z|x), (B, latent), of x (B, 2)."""
        mean, log_var = self.encoder(x).chunk(2, dim=1)
        return Gaussian(mean, log_var.clamp(-20, 20))

    def decode(self, z: Tensor) -> Gaussian:
        """p(x|z), (B, 2), of z (B, latent)."""
        mean = self.decoder(z)
        return Gaussian(mean, floored(self.log_var, LOWEST_LOG_VAR).expand_as(mean))

    def elbo(self, x: Tensor, noise: Tensor) -> ELBO:
        """The two terms of the ELBO, nats (B) each; noise (B, latent) standard normal."""
        q = self.encode(x)
        return ELBO(self.decode(q.sample(noise)).log_prob(x), kl(q, standard_normal(q.mean)))

    def loss(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """−ELBO in nats, (B)."""
        return -self.elbo(x, torch.randn(len(x), self.latent, generator=generator)).total

    @torch.inference_mode()
    def sample(self, count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """z ~ N(0, I) (N, latent), the decoder's mean there and x ~ p(x|z), (N, 2) each."""
        generator = torch.Generator().manual_seed(seed)
        z = torch.randn(count, self.latent, generator=generator)
        p = self.decode(z)
        return z, p.mean, p.sample(torch.randn(count, 2, generator=generator))


def _layers(inside: int, scale: float, width: int, outside: int) -> nn.Sequential:
    hidden = (nn.Linear(inside + 64, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
    return nn.Sequential(Fourier(inside, scale), *hidden, nn.Linear(width, outside))


def _start(model: nn.Module, seed: int) -> None:
    """Draw the weights of every layer anew from a generator of their own: torch's global one is shared by all visitors."""
    generator = torch.Generator().manual_seed(seed)
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            nn.init.uniform_(layer.weight, -(layer.in_features**-0.5), layer.in_features**-0.5, generator=generator)
            nn.init.zeros_(layer.bias)


# ---- learning


@dataclass(frozen=True)
class Progress:
    """Where the learning stands after an optimiser's step.

    Attributes:
        step, steps: of so many at most.
        loss: mean over the points of the steps since the record before; L_simple (eq. 1), or −ELBO in nats for a VAE.
        seconds: spent learning so far, without what the caller does between two records.
        model: the average of the weights along the way, to draw samples from. It is one model that goes on changing.
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
    """Learn from points (N, 2), yielding a `Progress` after every so many steps and after the last one.

    It ends after `steps` steps, or with the first step past `seconds` seconds of learning, and at once where it is closed. The
    same number of steps from the same seeds comes to the same weights: the rate falls along `steps` by a cosine, whatever
    `seconds` is.

    Args:
        every: steps from one record to the next.
        rate: Adam's at its highest; the model's own where none is given.

    Raises:
        ValueError: the data are not points, or a number is not positive.
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
    """Points on their way into noise: x_t (N, 2) at time t."""

    t: int
    x_t: Tensor


def forward(schedule: Schedule, x0: Tensor, times: Sequence[int], seed: int) -> Iterator[Cloud]:
    """Each of the points x0 (N, 2) on its way along the chain, q(x_t|x_{t−1}) step by step; yields those at the times wanted.

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


def reverse(
    predict: Predict, schedule: Schedule, count: int, seed: int, way: Walk = "ancestral", steps: int | None = None
) -> Iterator[Frame]:
    """Make `count` points from noise, a `Frame` for every step; the last one's x_s are the samples.

    Args:
        predict: a `PointDDPM`'s, or an oracle's.
        way: down the chain by p_θ; along the flow ODE (DDIM); by the reverse SDE; by Langevin dynamics, five steps at each of
            `steps`/5 noise levels. The same seed starts every way from the same noise.
        steps: all T of the chain where none are given.

    Raises:
        ValueError: another way, `count` not from 1 to 100,000, or `steps` not from 1 to T (from 5, by Langevin dynamics).
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
    """Langevin dynamics of the particles x (N, 2) at the noise level t in 1…T: they come to q(x_t) and go on moving in it."""
    schedule.check(torch.tensor([t]))
    return walk(predict, langevin(schedule, CloudNoise.from_seed(seed, len(x)), rate), x, [t] * (steps + 1))


def lattice(side: int, reach: float = 1.5) -> Tensor:
    """side × side points over [−reach, reach]², (side, side, 2) float32; row 0 is the lowest y, column 0 the lowest x."""
    line = torch.linspace(-reach, reach, side)
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x, y], dim=-1)


@torch.inference_mode()
def field(predict: Predict, schedule: Schedule, t: int, side: int, reach: float = 1.5) -> Tensor:
    """The score at time t in 1…T over `lattice`, (side, side, 2): a model's, or, for an oracle's `predict`, the exact one."""
    schedule.check(torch.tensor([t]))
    x, now = lattice(side, reach).flatten(0, 1), torch.full((side**2,), t)
    return score_from_eps(schedule, predict(x, now).eps_hat, now).reshape(side, side, 2)
