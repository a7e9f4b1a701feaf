"""What training/evaluate.py measured of a model, read from its metrics.json for the page.

A model may come from anywhere, and without measurements: what does not have every field of `training.likelihood`'s ledger, or
of `training.sample_quality`'s distances, with numbers that fit together and can be drawn, counts as not measured.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, RootModel, ValidationError, model_validator

from genlab.config import Variance

Name = Annotated[str, Field(max_length=100)]
Number = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=1e-9, le=1e6, allow_inf_nan=False)]
"""What has a place on a logarithmic axis."""
Columns = dict[Variance, list[Number]]
COUNT = Field(ge=1, le=10**9)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)


class Sums(_Part):
    """The bound with one Σ and its parts, bits/dim, each with its standard error."""

    bound_bits_per_dim: Number
    bound_standard_error_bits_per_dim: Number
    transition_terms_sum_bits_per_dim: Number
    transition_terms_sum_standard_error_bits_per_dim: Number
    decoder_term_L_0_bits_per_dim: Number
    decoder_term_L_0_standard_error_bits_per_dim: Number


class Bound(_Part):
    """The bound on −log p of either kind of model."""

    images: int = COUNT
    bound_bits_per_dim: Number
    bound_standard_error_bits_per_dim: Number


class Strata(_Part):
    """The mean term of one step, in each stratum of t, with each Σ, bits/dim."""

    first_t: list[int] = Field(max_length=100_000)
    last_t: list[int]
    mean_term_bits_per_dim: Columns
    standard_error_bits_per_dim: Columns


class Likelihood(_Part):
    """The ledger of the bound on held-out pictures."""

    images: int = COUNT
    T: int = COUNT
    variance: Variance
    prior_term_L_T_bits_per_dim: Number
    prior_term_L_T_standard_error_bits_per_dim: Number
    by_variance: dict[Variance, Sums]
    ledger: Strata

    @model_validator(mode="after")
    def _fits(self) -> Likelihood:
        strata, names = self.ledger, set(self.by_variance)
        edges = [0, *strata.last_t]
        whole = strata.first_t == [edge + 1 for edge in edges[:-1]] and edges == sorted(set(edges)) and edges[-1] == self.T
        columns = (strata.mean_term_bits_per_dim, strata.standard_error_bits_per_dim)
        full = all(set(column) == names for column in columns) and {
            len(values) for column in columns for values in column.values()
        } == {len(strata.last_t)}
        if not whole or not full or self.variance not in names:
            raise ValueError(f"expected strata of 1…{self.T} and a column for each Σ, got others")
        return self

    def stratum(self, t: int) -> int:
        """Index of the stratum of step t in 1…T."""
        return next(k for k, last in enumerate(self.ledger.last_t) if t <= last)


class ODE(Bound):
    """The bound by the probability-flow ODE, and what half the solver's steps change in it."""

    steps: int = COUNT
    half_the_steps_change_bits_per_dim: Number


class Weighted(_Part):
    """The bound on log p by k samples of z; k = 1 is the ELBO. In bits/dim too, where the pictures are 8-bit."""

    k: int = COUNT
    images: int = COUNT
    bound_nats: Number
    bound_standard_error_nats: Number
    bound_bits_per_dim: Number | None = None
    bound_standard_error_bits_per_dim: Number | None = None


class Evidence(_Part):
    """The parts of a VAE's ELBO, and its bounds by more samples."""

    images: int = COUNT
    reconstruction_nats: Number
    reconstruction_standard_error_nats: Number
    kl_nats: Number
    kl_standard_error_nats: Number
    latents: int = COUNT
    active_latents: int = Field(ge=0)
    importance_weighted: list[Weighted] = Field(min_length=1, max_length=20)


class Features(_Part):
    """The network on whose features distances are measured."""

    name: Name
    sha256: Name
    accuracy: Number


class Samples(_Part):
    """How far samples are from held-out pictures, and what real pictures in their place score."""

    images: int = COUNT
    sampler: Name
    steps: int = COUNT
    features: Features
    frechet_distance: Number
    frechet_interval_95: tuple[Number, Number] = Field(strict=False)
    frechet_floor: Number
    kernel_distance_x1000: Number
    kernel_distance_standard_error_x1000: Number
    kernel_distance_floor_x1000: Number
    precision: Number
    recall: Number
    precision_of_real: Number
    recall_of_real: Number
    memorised_share: Number
    memorised_share_of_held_out: Number


class Chain(RootModel[dict[Variance, Samples]]):
    """The distances of samples by the ancestral chain, with each Σ."""


class Curve(_Part):
    """How far samples are from held-out pictures, by the number of steps of the sampler."""

    images: int = COUNT
    sampler: Name
    features: Features
    steps: list[Annotated[int, COUNT]] = Field(min_length=2, max_length=100)
    frechet_distance: list[Positive]
    frechet_floor: Positive

    @model_validator(mode="after")
    def _fits(self) -> Curve:
        if self.steps != sorted(set(self.steps)) or len(self.frechet_distance) != len(self.steps):
            raise ValueError(f"expected rising steps and a distance for each, got {self.steps} and {self.frechet_distance}")
        return self


def bound_of(metrics: dict[str, Any]) -> Bound | None:
    """The bound of a DDPM or a VAE in the content of metrics.json."""
    return _read(Bound, metrics, "likelihood")


def likelihood_of(metrics: dict[str, Any], T: int) -> Likelihood | None:
    """The ledger in the content of metrics.json, for a chain of T steps."""
    found = _read(Likelihood, metrics, "likelihood")
    return found if found is not None and found.T == T else None


def ode_of(metrics: dict[str, Any]) -> ODE | None:
    """The bound by the flow ODE in the content of metrics.json."""
    return _read(ODE, metrics, "ode")


def evidence_of(metrics: dict[str, Any]) -> Evidence | None:
    """The bounds of a VAE in the content of metrics.json."""
    return _read(Evidence, metrics, "likelihood")


def chain_of(metrics: dict[str, Any]) -> dict[Variance, Samples]:
    """The distances of samples by the ancestral chain with each Σ in the content of metrics.json; empty where none are."""
    found = _read(Chain, metrics, "chain")
    return {} if found is None else found.root


def samples_of(metrics: dict[str, Any]) -> Samples | None:
    """The distances of samples in the content of metrics.json."""
    return _read(Samples, metrics, "samples")


def curve_of(metrics: dict[str, Any]) -> Curve | None:
    """The distances by number of steps in the content of metrics.json."""
    return _read(Curve, metrics, "steps")


def _read(part: type[Any], metrics: dict[str, Any], name: str) -> Any:
    evaluation = metrics.get("evaluation")
    try:
        return part.model_validate(evaluation.get(name) if isinstance(evaluation, dict) else None)
    except ValidationError:
        return None
