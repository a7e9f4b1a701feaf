"""What a model is, in plain values, as written to `config.json`, and how pictures are drawn from it.

This module does not import torch, so that command lines built from these classes start fast.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

MAX_SIZE = 256
"""Largest side of a picture that a model may declare, pixels."""
LARGE = 48
"""Side from which on the network is narrower by default, pixels."""
MAX_CLASSES = 1000
MAX_NAME = 100
"""Largest number of characters of the name of a data set or a class."""
MAX_WIDTH = 512
"""Largest number of channels of a layer that a configuration may declare."""

KNOWN = {
    "fashion-mnist": (
        "zalando-datasets/fashion_mnist",
        ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    "mnist": ("ylecun/mnist", tuple("0123456789")),
}
"""Data sets with a name: name → their id on the Hub, their classes."""
EMOJI = "emoji"
"""Name of the data set rendered from Debian's emoji font."""

ScheduleName = Literal["mixed", "linear", "cosine"]
Variance = Literal["posterior", "beta", "learned"]
Prediction = Literal["eps", "v"]
SamplerName = Literal["DDIM", "ancestral", "DPM-Solver++", "DPM-Solver++ SDE", "UniPC"]
"""Names of the samplers; `sampler.SAMPLERS` has the step of each."""
Spacing = Literal["uniform", "quadratic", "log-SNR", "Karras"]
"""Names of the spacings of sampling times; see `sampler.spaced`."""
Kind = Literal["ddpm", "vae", "latent-ddpm", "mixture-vae", "consistency"]
"""Names of the kinds of model in config.json; `models.KINDS` has the class of each."""
DecoderName = Literal["gaussian", "gaussian-per-pixel", "logistic", "logistic-per-pixel", "bernoulli"]


def expanded(path: str | Path) -> Path:
    """Return a path with a leading ~ or ~user expanded; unchanged if there is no such user."""
    return Path(os.path.expanduser(path))


def on_hub(dataset: str) -> bool:
    """Return True if `--dataset` has the form user/name of a data set on the Hub and does not exist as a folder or file."""
    form = dataset.count("/") == 1 and not dataset.startswith((".", "/", "~")) and not dataset.endswith("/")
    return form and not expanded(dataset).exists()


def dataset_name(dataset: str | Path) -> str:
    """Return the short name of a data set that was given as `--dataset`: the last part of its folder or Hub id.

    The names in KNOWN and EMOJI are reserved: a folder of such a name becomes NAME-folder, a data set on the Hub USER-NAME.
    """
    given = str(dataset)
    name = expanded(given).resolve().name.removesuffix(".zip")
    if name not in (*KNOWN, EMOJI) or given == name:
        return name
    if not on_hub(given):
        return f"{name}-folder"
    return name if name in KNOWN and given == KNOWN[name][0] else given.replace("/", "-")


def published_dataset(dataset: str) -> str:
    """Return `--dataset` as it may be published: for a local folder only its short name."""
    folder = expanded(dataset)
    is_local = folder.exists() or folder.is_absolute() or dataset.startswith(".")
    return dataset_name(dataset) if is_local else dataset


def _check(condition: bool, name: str, expected: str, got: object) -> None:
    if not condition:
        raise ValueError(f"{name}: expected {expected}, got {got!r}")


def _whole(name: str, value: object, low: int, high: int) -> None:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    _check(is_whole and low <= value <= high, name, f"a whole number from {low} to {high}", value)  # type: ignore[operator]


def _number(name: str, value: object, low: float, high: float) -> None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    _check(is_number and low <= value <= high, name, f"a number from {low:g} to {high:g}", value)  # type: ignore[operator]


def _choice(name: str, value: object, literal: Any) -> None:
    choices = get_args(literal)
    _check(isinstance(value, str) and value in choices, name, "one of " + ", ".join(choices), value)


@dataclass(frozen=True)
class DataSpec:
    """The pictures that a model was made for."""

    name: str = "fashion-mnist"
    """Short name of the data set."""
    channels: int = 1
    """1 for gray, 3 for RGB."""
    size: int = 28
    """Side of the square pictures, pixels."""
    classes: tuple[str, ...] = ()
    """Names of the classes, in the order of their labels; empty for none."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(self.classes))
        _check(isinstance(self.name, str) and 0 < len(self.name) <= MAX_NAME, "data.name", "1 to 100 characters", self.name)
        _check(self.channels in (1, 3) and self.channels is not True, "data.channels", "1 or 3", self.channels)
        _whole("data.size", self.size, 4, MAX_SIZE)
        _check(len(self.classes) <= MAX_CLASSES, "data.classes", "at most 1000 names", len(self.classes))
        for label in self.classes:
            _check(isinstance(label, str) and 0 < len(label) <= MAX_NAME, "data.classes", "names of 1 to 100 characters", label)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return C, H, W of one picture."""
        return (self.channels, self.size, self.size)

    @property
    def dims(self) -> int:
        """Return the number of values in one picture, C·H·W."""
        return math.prod(self.shape)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How the pictures of a folder, an archive or a table are read, where the default is not what you mean."""

    classes: str | None = None
    """none, folders, or a column of metadata.csv or of a table; by default as the first lines of the training state."""
    held_out: str | None = None
    """What to hold out for testing: a share such as 0.1, a folder or a split; by default a split named test, else a tenth."""
    image_column: str | None = None
    """Column of the pictures, for a table with several."""
    config_name: str | None = None
    """Configuration of a data set on the Hub that has several."""
    white: float | None = None
    """Value of white in pictures of 16 or 32 bits; by default that of 8, 10, 12, 14, 16 or 32 bits, by their largest value."""
    skip_broken: bool = False
    """Leave out pictures that cannot be read, in place of stopping at the first."""
    cache: str | None = None
    """Folder for decoded pictures, or off; by default GENLAB_CACHE, else genlab in the user's cache folder."""

    def __post_init__(self) -> None:
        if self.white is not None and not (math.isfinite(self.white) and self.white > 0):
            raise ValueError(f"--white: expected a number above 0, got {self.white}")

    @property
    def reading(self) -> Reading:
        """Return these options without those of a class that adds some."""
        return Reading(**{each.name: getattr(self, each.name) for each in fields(Reading)})


@dataclass(frozen=True)
class LatentSpec(DataSpec):
    """The latent maps z of a VAE, as data of a diffusion model: any number of channels, any side."""

    def __post_init__(self) -> None:
        _whole("latent", self.channels, 1, 1024)
        _whole("side", self.size, 1, 64)


@dataclass(frozen=True)
class UNetConfig:
    """Shape of the network that predicts the noise."""

    patch: int = 2
    """Side of the pixel blocks folded into channels at the input; 2 makes the network several times cheaper."""
    width: int = 48
    """Channels at the finest level."""
    multipliers: tuple[int, ...] = ()
    """Channels of each level as multiples of the width, each level half the side; by default 1 2, from 48 pixels on 1 1."""
    blocks: int = 1
    """Residual blocks per level on the way down."""
    dropout: float = 0.0
    """Probability that an activation inside a residual block is dropped in training."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "multipliers", tuple(self.multipliers))
        _whole("patch", self.patch, 1, 8)
        _whole("width", self.width, 8, MAX_WIDTH)
        _check(self.width % 8 == 0, "width", "a multiple of 8", self.width)
        _check(len(self.multipliers) <= 6, "multipliers", "1 to 6 levels", self.multipliers)
        for multiplier in self.multipliers:
            _whole("multipliers", multiplier, 1, 16)
            _whole("width × multiplier", self.width * multiplier, 8, MAX_WIDTH * 4)
        _whole("blocks", self.blocks, 1, 8)
        _number("dropout", self.dropout, 0.0, 0.9)

    @property
    def stride(self) -> int:
        """Return the factor by which the network reduces a picture's side, which must be a multiple of it."""
        return self.patch * 2 ** (len(self.multipliers) - 1)

    def at(self, size: int) -> UNetConfig:
        """Return this shape with multipliers, for pictures of side `size` (compared in benchmarks/README.md, section 7)."""
        return self if self.multipliers else replace(self, multipliers=(1, 1) if size >= LARGE else (1, 2))


@dataclass(frozen=True)
class DDPMConfig:
    """A denoising diffusion model: its chain, what its network predicts, and the network."""

    T: int = 1000
    """Number of steps of the chain."""
    schedule: ScheduleName = "mixed"
    """How β grows: linear (the notes), cosine (Nichol & Dhariwal 2021), or mixed: linear, a quarter spread over log-SNR."""
    variance: Variance = "learned"
    """Σ of the reverse step: posterior (β̃), beta (β), or learned between the two."""
    prediction: Prediction = "v"
    """What the network outputs: the noise eps, or v = √ᾱ·ε − √(1−ᾱ)·x_0 (Salimans & Ho 2022), from which ε̂ follows."""
    grids: tuple[int, ...] = (1, 5, 15, 51)
    """Spacings of gray-level grids, in levels: E[ε|x_t] of each grid is a further input of the network (`process.grid_eps`)."""
    unet: UNetConfig = field(default_factory=UNetConfig)

    def __post_init__(self) -> None:
        object.__setattr__(self, "grids", tuple(self.grids))
        _check(len(self.grids) <= 8, "grids", "at most 8 spacings", self.grids)
        for spacing in self.grids:
            _whole("grids", spacing, 1, 255)
        _whole("T", self.T, 2, 10_000)
        _choice("schedule", self.schedule, ScheduleName)
        _choice("variance", self.variance, Variance)
        _choice("prediction", self.prediction, Prediction)


@dataclass(frozen=True)
class ConsistencyConfig:
    """A consistency function that was distilled from a diffusion model."""

    ddpm: DDPMConfig = field(default_factory=DDPMConfig)
    """The diffusion model whose flow it belongs to."""
    teacher: str = ""
    """Name of that model."""
    times: tuple[int, ...] = (1000,)
    """Times that it was trained at: T first, then in the order in which further evaluations take them."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "times", tuple(self.times))
        _check(isinstance(self.teacher, str) and len(self.teacher) <= 200, "teacher", "at most 200 characters", self.teacher)
        _check(1 <= len(self.times) <= 1000, "times", "1 to 1000 times", len(self.times))
        for time in self.times:
            _whole("times", time, 1, self.ddpm.T)
        once = len(set(self.times)) == len(self.times)
        _check(once and self.times[0] == self.ddpm.T, "times", f"T = {self.ddpm.T}, then other times, each once", self.times)


@dataclass(frozen=True)
class VAEConfig:
    """A variational autoencoder: its latent variable, its likelihood and the network."""

    latent: int = 32
    """Number of latent variables: the length of z, or its channels if z is a map."""
    side: int = 1
    """Side of the map that z is: 1 for a vector (the notes), or a picture's side halved once or more, 14 or 7 for 28."""
    likelihood: DecoderName = "gaussian"
    """p(x|z): gaussian (one σ), logistic (one scale a pixel position), either -per-pixel (from z), or bernoulli (binarised)."""
    width: int = 32
    """Channels of the first convolution; each halving of the picture doubles them, unless z is a map."""
    hidden: int = 256
    """Units of the fully connected layers next to z, if z is a vector."""
    blocks: int = 3
    """Residual blocks at each side of encoder and decoder, if z is a map."""
    dropout: float = 0.0
    """Probability that an activation inside a residual block is dropped in training."""

    def __post_init__(self) -> None:
        _whole("latent", self.latent, 1, 1024)
        _whole("side", self.side, 1, 64)
        _choice("likelihood", self.likelihood, DecoderName)
        _whole("width", self.width, 8, MAX_WIDTH)
        _whole("hidden", self.hidden, 8, 4096)
        _whole("blocks", self.blocks, 1, 16)
        _number("dropout", self.dropout, 0.0, 0.9)

    @property
    def latents(self) -> int:
        """Return the number of values of z, latent·side²."""
        return self.latent * self.side**2


@dataclass(frozen=True)
class Sampling:
    """Options for drawing pictures from a diffusion model; a VAE has none: it draws the mean of p(x|z) for z ~ N(0, I)."""

    sampler: SamplerName = "DPM-Solver++ SDE"
    """The reverse step: DDIM, ancestral, or a multistep solver of the probability flow (SDE: with fresh noise)."""
    steps: int = 10
    """Steps from noise to picture."""
    spacing: Literal["own", Spacing] = "own"
    """How the steps lie along the chain; own is the one that suits the sampler."""
    eta: float = 0.0
    """Share of fresh noise in a step of DDIM, from 0 (none) to 1 (as much as the ancestral step)."""
    variance: Literal["own", Variance] = "own"
    """Σ of the ancestral step: the model's own, β̃, β, or between them where it learned that."""
    label: int | Literal["in turn", "none"] = "in turn"
    """Class of the pictures by its number, one class after the other, or none."""
    guidance: float = 1.0
    """w of classifier-free guidance; 1 is the plain conditional model."""
    precision: Literal["fp32", "auto"] = "fp32"
    """Arithmetic of the network on a CPU: fp32 (measurements), or auto, bf16 if the CPU has the instructions (the page)."""

    def __post_init__(self) -> None:
        _choice("sampler", self.sampler, SamplerName)
        _whole("steps", self.steps, 1, 10_000)
        _choice("spacing", self.spacing, Literal["own", Spacing])
        _number("eta", self.eta, 0.0, 1.0)
        _choice("variance", self.variance, Literal["own", Variance])
        if self.label not in ("in turn", "none"):
            _whole("label", self.label, 0, 999)
        _number("guidance", self.guidance, -1000.0, 1000.0)
        _choice("precision", self.precision, Literal["fp32", "auto"])


@dataclass(frozen=True)
class LatentConfig:
    """A VAE whose prior is a diffusion model of its codes."""

    ddpm: DDPMConfig = field(default_factory=DDPMConfig)
    """The diffusion model of the codes."""
    vae: VAEConfig = field(default_factory=VAEConfig)
    """The VAE."""

    def __post_init__(self) -> None:
        _check(not self.ddpm.grids, "grids", "none: codes have no gray levels", self.ddpm.grids)


@dataclass(frozen=True)
class MixtureConfig:
    """A VAE whose prior is a mixture of Gaussians."""

    vae: VAEConfig = field(default_factory=VAEConfig)
    """The VAE."""
    components: int = 10
    """Number of Gaussians."""

    def __post_init__(self) -> None:
        _whole("components", self.components, 1, 1000)
        _whole("components × latents²", self.components * self.vae.latents**2, 1, 10**7)
