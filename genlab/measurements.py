"""The schema of metrics.json, which training/evaluate.py writes and the card and the page read.

    schema      1: the version of this schema; it changes when a name or a unit changes its meaning
    evaluation  command, seed, device, seconds (since the last start), versions {genlab, torch, numpy}, model_sha256 (of
                model.safetensors), data {name, split, images, sha256, training_sha256}, and a section for each
                measurement:
      likelihood  the bound of a DDPM (`DiffusionBound`), of a VAE (`VAEBound`), or of a VAE with a fitted prior
                  (`LatentBound`); a consistency function has none
      continuous  a DDPM's bound in continuous time (`Continuous`)
      ode         a DDPM's likelihood by the probability-flow ODE (`ODE`)
      samples     distances between samples and held-out pictures, and memorisation (`Samples`)
      reconstructions  the distance of a VAE's reconstructions (`Reconstructions`)
      steps       a DDPM's distance by number of sampling steps (`Curve`)
      chain       Σ → `Samples` of the ancestral chain with that Σ
      few         a consistency function's `Samples` by number of evaluations, without that of `samples`
    times       how the times of a consistency function's evaluations were chosen: command, samples, seed, frechet_distance by
                number of evaluations, to the training pictures
    replay      moments of the training, which its script measured (`Replay`); replay.png has their pictures

A name ends in its unit: _bits_per_dim, _nats, _seconds; without a unit it is a number, a share or a name. A mean over pictures
has its standard error beside it. The fields of the classes below are the keys of the JSON objects; an optional key is absent if
there is no value, and unknown keys are ignored, since a newer genlab may write more.
"""

from __future__ import annotations

import math
import types
import typing
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from functools import cache
from typing import Any, Literal, TypeVar, get_args, get_origin

from genlab.config import Variance

SCHEMA = 1
LARGEST = 1e9
"""Largest magnitude of a number that is read; larger ones break tables and axes."""
MOST_ROWS = 100
"""Largest number of rows of a table, and of points of a curve, that is read."""

Part = TypeVar("Part")
_hints_of = cache(typing.get_type_hints)  # evaluates the text of every annotation


class SchemaError(ValueError):
    """A measurement does not have the form of the schema; the message says where and what was expected."""


@dataclass(frozen=True)
class Sums:
    """The variational bound and its parts for one choice of Σ."""

    bound_bits_per_dim: float
    bound_standard_error_bits_per_dim: float
    bound_standard_error_from_draw_of_t_bits_per_dim: float
    transition_terms_sum_bits_per_dim: float
    transition_terms_sum_standard_error_bits_per_dim: float
    decoder_term_L_0_bits_per_dim: float
    decoder_term_L_0_standard_error_bits_per_dim: float


@dataclass(frozen=True)
class Strata:
    """For each stratum of t, `first_t` to `last_t`: the mean term of a step for each Σ, and the network's errors."""

    first_t: list[int]
    last_t: list[int]
    mean_term_bits_per_dim: dict[Variance, list[float]]
    standard_error_bits_per_dim: dict[Variance, list[float]]
    eps_hat_mean_squared_error: list[float]
    x0_hat_mean_squared_error: list[float]


@dataclass(frozen=True)
class DiffusionBound:
    """The variational bound on −log p of held-out pictures, with the model's own Σ (`variance`) and every Σ it supports."""

    bound_bits_per_dim: float
    bound_standard_error_bits_per_dim: float
    mode: Literal["every t", "stratified"]
    images: int
    T: int
    looks_per_image: int
    variance: Variance
    prior_term_L_T_bits_per_dim: float
    prior_term_L_T_standard_error_bits_per_dim: float
    by_variance: dict[Variance, Sums]
    ledger: Strata

    def __post_init__(self) -> None:
        strata, names = self.ledger, set(self.by_variance)
        edges = [0, *strata.last_t]
        whole = strata.first_t == [edge + 1 for edge in edges[:-1]] and edges == sorted(set(edges)) and edges[-1] == self.T
        by_name = (strata.mean_term_bits_per_dim, strata.standard_error_bits_per_dim)
        columns = [values for column in by_name for values in column.values()]
        columns += [strata.eps_hat_mean_squared_error, strata.x0_hat_mean_squared_error]
        full = all(set(column) == names for column in by_name) and {len(c) for c in columns} == {len(strata.last_t)}
        if not whole or not full or self.variance not in names:
            raise ValueError(f"expected strata of 1…{self.T} and a column for each Σ, got others")

    def stratum(self, t: int) -> int:
        """Return the index of the stratum of step t in 1…T."""
        return next(k for k, last in enumerate(self.ledger.last_t) if t <= last)


@dataclass(frozen=True)
class Continuous:
    """The variational bound in continuous time: that of the same network on a chain of many more steps."""

    bound_bits_per_dim: float
    bound_standard_error_bits_per_dim: float
    images: int
    looks_per_image: int
    steps: int


@dataclass(frozen=True)
class ODE:
    """The bound by the probability-flow ODE, and its change with half the solver's steps."""

    bound_bits_per_dim: float
    bound_standard_error_bits_per_dim: float
    images: int
    steps: int
    probes: int | Literal["exact trace"]
    decoder_term_L_0_bits_per_dim: float
    flow_term_bits_per_dim: float
    half_the_steps_change_bits_per_dim: float


@dataclass(frozen=True)
class Weighted:
    """The importance-weighted bound on log p with k samples of z, for k = 1 the ELBO. `_bits_per_dim`: 8-bit pictures, on −log
    p."""

    k: int
    images: int
    bound_nats: float
    bound_standard_error_nats: float
    bound_bits_per_dim: float | None = None
    bound_standard_error_bits_per_dim: float | None = None

    def __post_init__(self) -> None:
        _check_bits(self.bound_bits_per_dim, self.bound_standard_error_bits_per_dim)


@dataclass(frozen=True, kw_only=True)
class VAEBound:
    """The ELBO of held-out pictures, its parts, the KL of each latent, and the bounds with more samples of z.

    Only a Bernoulli model has `binarisation`; it has no bound in bits/dim.
    """

    bound_bits_per_dim: float | None = None
    bound_standard_error_bits_per_dim: float | None = None
    images: int
    likelihood: str
    elbo_nats: float
    elbo_standard_error_nats: float
    draws_of_z_per_image: int
    reconstruction_nats: float
    reconstruction_standard_error_nats: float
    kl_nats: float
    kl_standard_error_nats: float
    kl_per_latent_nats: list[float]
    posterior_mean_variance_per_latent: list[float]
    latents: int
    active_latents: int
    binarisation: str | None = None
    importance_weighted: list[Weighted]

    def __post_init__(self) -> None:
        _check_bits(self.bound_bits_per_dim, self.bound_standard_error_bits_per_dim)
        columns = (self.kl_per_latent_nats, self.posterior_mean_variance_per_latent)
        if {len(column) for column in columns} != {self.latents}:
            raise ValueError(f"expected a KL and a variance for each of {self.latents} latents, got others")
        if not 1 <= len(self.importance_weighted) <= MOST_ROWS:
            raise ValueError(f"importance_weighted: expected 1 to {MOST_ROWS} bounds, got {len(self.importance_weighted)}")


@dataclass(frozen=True)
class LatentBound:
    """The ELBO of held-out pictures, and its parts, for a VAE with a fitted prior: a DDPM of its codes or a mixture (`latent`,
    eqs. 2 and 3; `mixture`, eq. 1).

    `codes` is the DDPM's bound on −log p_θ(u), in bits per dimension of the codes; `standard_normal_prior_*` is the ELBO with
    the same draws of z and the prior N(0, I).
    """

    bound_bits_per_dim: float
    bound_standard_error_bits_per_dim: float
    images: int
    likelihood: str
    reconstruction_nats: float
    entropy_of_q_nats: float
    prior_nats: float
    prior_standard_error_nats: float
    standard_normal_prior_bound_bits_per_dim: float
    latents: int
    codes: DiffusionBound | None = None


def _check_bits(bound: float | None, error: float | None) -> None:
    if (bound is None) != (error is None):
        raise ValueError(f"expected a bound in bits/dim and its standard error together, got {bound} and {error}")


@dataclass(frozen=True)
class Features:
    """The network on whose features distances are measured: its name, the hash of its weights and its accuracy."""

    name: str
    sha256: str
    accuracy: float
    dims: int


@dataclass(frozen=True, kw_only=True)
class Samples:
    """How samples were drawn, their distances to held-out pictures, and the scores of real pictures in their place.

    They are the pictures of the seeds `first_seed`, `first_seed` + 1, …; `seed` also fixes which real pictures are compared.
    """

    images: int
    seed: int
    first_seed: int | None = None
    sampler: str
    steps: int
    network_evaluations: int
    spacing: str | None = None
    labels: int | str | None = None
    eta: float | None = None
    variance: Variance | None = None
    guidance: float | None = None
    arithmetic: str | None = None
    reference: str
    reference_images: int
    reference_data_sha256: str
    training_data_sha256: str
    features: Features
    frechet_distance: float
    frechet_interval_95: tuple[float, float]
    frechet_floor: float
    frechet_extrapolated: float | None = None
    frechet_extrapolated_floor: float | None = None
    kernel_distance_x1000: float
    kernel_distance_standard_error_x1000: float
    kernel_distance_floor_x1000: float
    neighbours: int
    precision: float
    recall: float
    precision_of_real: float
    recall_of_real: float
    memorised_share: float
    memorised_share_of_held_out: float


@dataclass(frozen=True)
class Reconstructions:
    """The Fréchet distance of a VAE's reconstructions of training pictures, and of those pictures themselves.

    It is that of samples with a perfect prior, and tells whether prior or decoder limits the samples.
    """

    images: int
    features: Features
    frechet_distance: float
    frechet_interval_95: tuple[float, float]
    frechet_floor: float


@dataclass(frozen=True)
class Curve:
    """The Fréchet distance of samples to held-out pictures by the number of steps of the sampler."""

    images: int
    sampler: str
    spacing: str
    features: Features
    steps: list[int]
    frechet_distance: list[float]
    frechet_floor: float

    def __post_init__(self) -> None:
        rising = self.steps == sorted(set(self.steps)) and 1 <= len(self.steps) <= MOST_ROWS and self.steps[0] >= 1
        if not rising or len(self.frechet_distance) != len(self.steps):
            raise ValueError(
                f"expected 1 to {MOST_ROWS} rising steps and a distance for each, got {self.steps} and {self.frechet_distance}"
            )


@dataclass(frozen=True, kw_only=True)
class Moment:
    """A moment of a training: its losses and, of the averaged weights, the bound and the distance, where they were measured.

    `training_loss` is the mean since the last record of the log; the others are of held-out pictures.
    """

    step: int
    images_seen: int
    epoch: float
    training_loss: float
    held_out_loss: float
    held_out_loss_of_last_weights: float
    bound_bits_per_dim: float | None = None
    bound_standard_error_bits_per_dim: float | None = None
    frechet_distance: float | None = None

    def __post_init__(self) -> None:
        _check_bits(self.bound_bits_per_dim, self.bound_standard_error_bits_per_dim)
        if not 1 <= self.step <= self.images_seen:
            raise ValueError(f"expected 1 ≤ step ≤ images_seen, got {self.step} and {self.images_seen}")


@dataclass(frozen=True, kw_only=True)
class Replay:
    """Moments of a training in their order, and how many pictures their figures are means over.

    replay.png has a row for each moment: the pictures of the seeds 0 … `samples` − 1 by the weights of the moment, then by the
    averaged weights, from the same noise. `frechet_floor` is the distance of as many training pictures.
    """

    samples: int
    held_out_images: int
    bound_images: int | None = None
    frechet_images: int | None = None
    frechet_floor: float | None = None
    features: Features | None = None
    moments: list[Moment]

    def __post_init__(self) -> None:
        if not 1 <= self.samples <= MOST_ROWS or not 1 <= len(self.moments) <= MOST_ROWS:
            raise ValueError(f"expected 1 to {MOST_ROWS} samples and moments, got {self.samples} and {len(self.moments)}")
        steps = [moment.step for moment in self.moments]
        if steps != sorted(set(steps)):
            raise ValueError(f"moments: expected rising steps, got {steps}")
        given = (self.frechet_images, self.frechet_floor, self.features)
        if any(moment.frechet_distance is not None for moment in self.moments) and None in given:
            raise ValueError("expected frechet_images, frechet_floor and features with a distance, got none")
        if any(moment.bound_bits_per_dim is not None for moment in self.moments) and self.bound_images is None:
            raise ValueError("expected bound_images with a bound, got none")


@dataclass(frozen=True)
class Data:
    """The held-out pictures, and the hash of the training pictures."""

    name: str
    split: str
    images: int
    sha256: str
    training_sha256: str


@dataclass(frozen=True)
class Evaluation:
    """The measurements of a model; a part is None if it was not measured or cannot be read.

    Attributes:
        problems: an error message for each part that does not have the form of the schema.
    """

    command: str | None = None
    data: Data | None = None
    likelihood: DiffusionBound | VAEBound | LatentBound | None = None
    continuous: Continuous | None = None
    ode: ODE | None = None
    samples: Samples | None = None
    reconstructions: Reconstructions | None = None
    steps: Curve | None = None
    chain: dict[Variance, Samples] | None = None
    few: dict[str, Samples] | None = None
    problems: tuple[str, ...] = ()

    def bound_of_chain(self, T: int) -> DiffusionBound | None:
        """Return the variational bound if it was measured on a chain of T steps, else None."""
        found = self.likelihood
        return found if isinstance(found, DiffusionBound) and found.T == T else None


def read_evaluation(metrics: dict[str, Any]) -> Evaluation:
    """Return the measurements in the content of metrics.json; an invalid part becomes an entry of `problems`."""
    found = metrics.get("evaluation", {})
    if not isinstance(found, dict):
        return Evaluation(problems=(f"evaluation: expected an object, got {found!r:.100}",))
    parts: dict[str, Any] = {}
    problems = []
    for name, hint in _hints_of(Evaluation).items():
        if name in found and name != "problems":
            try:
                parts[name] = _parsed(hint, found[name], f"evaluation.{name}")
            except SchemaError as error:
                problems.append(str(error))
    return Evaluation(**parts, problems=tuple(problems))


def read_replay(metrics: dict[str, Any]) -> Replay | None:
    """Return the moments of a training in the content of metrics.json, None if there are none.

    Raises:
        SchemaError: they do not have the form of the schema.
    """
    return _object(Replay, metrics["replay"], "replay") if "replay" in metrics else None


def to_json(part: Any) -> Any:
    """Return a measurement as a JSON object for metrics.json."""
    return _plain(asdict(part))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items() if each is not None}
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value


def _parsed(hint: Any, value: Any, where: str) -> Any:
    """Return a JSON value as an instance of a type.

    Raises:
        SchemaError: the value does not have that type.
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _parsed(_member(arguments, value), value, where)
    if is_dataclass(hint):
        return _object(typing.cast("type[Any]", hint), value, where)
    if origin is dict and isinstance(value, dict) and value:
        key, content = arguments
        return {_parsed(key, name, where): _parsed(content, each, f"{where}.{name:.100}") for name, each in value.items()}
    if origin is list and isinstance(value, list):
        return [_parsed(arguments[0], each, where) for each in value]
    if origin is tuple and isinstance(value, list) and len(value) == len(arguments):
        return tuple(_parsed(each, item, where) for each, item in zip(arguments, value, strict=True))
    if origin is Literal and isinstance(value, str) and value in arguments:
        return value
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is float and number and abs(value) <= LARGEST and math.isfinite(value):
        return float(value)
    if hint is int and number and isinstance(value, int) and 0 <= value < 2**63:
        return value
    if (hint is str and isinstance(value, str)) or (hint is type(None) and value is None):
        return value
    raise SchemaError(f"{where}: expected {_expected(hint)}, got {value!r:.100}")


def _object(cls: type[Part], value: Any, where: str) -> Part:
    if not isinstance(value, dict):
        raise SchemaError(f"{where}: expected an object, got {value!r:.100}")
    hints, known = _hints_of(cls), {}  # type: ignore[arg-type]
    for field in fields(cls):  # type: ignore[arg-type]
        if field.name in value:
            known[field.name] = _parsed(hints[field.name], value[field.name], f"{where}.{field.name}")
        elif field.default is MISSING:
            raise SchemaError(f"{where}: expected the key {field.name!r}, which is missing")
    try:
        return cls(**known)
    except ValueError as error:
        raise SchemaError(f"{where}: {error}") from error


def _member(choices: tuple[Any, ...], value: Any) -> Any:
    """Return the type of a union that a value most likely has."""
    if value is None and type(None) in choices:
        return type(None)
    if DiffusionBound in choices:
        keys = value if isinstance(value, dict) else {}
        return DiffusionBound if "by_variance" in keys else LatentBound if "prior_nats" in keys else VAEBound
    wanted = str if isinstance(value, str) else int
    left = [choice for choice in choices if choice is not type(None)]
    return next((each for each in left if each is wanted or (wanted is str and get_origin(each) is Literal)), left[0])


def _expected(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, get_args(hint)))
    return {float: "a number", int: "a whole number", str: "a text"}.get(hint, "another form")
