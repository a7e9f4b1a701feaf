"""Measuring a model: the very code that measures one, where the answer is exact; its records, refusals and resumption."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from torch import Tensor
from torch import distributions as peer

from genlab import card, data, hub
from genlab.config import DataSpec, DDPMConfig, Reading, Sampling, UNetConfig, VAEConfig
from genlab.ddpm import DDPM
from genlab.divergence import Gaussian, cross_entropy, standard_normal
from genlab.draw import draw
from genlab.oracle import GaussianData
from genlab.package import PRETRAINED, write_package
from genlab.process import Denoised, q_marginal, reverse_log_var
from genlab.schedule import Schedule, cosine_schedule, linear_schedule, refined_schedule, spread
from genlab.vae import VAE
from genlab.vlb import draw_times, strata
from tests import tiny
from tests.test_hub import make_film
from training import evaluate, likelihood, partial
from training.choose_times import TimesChoice
from training.evaluate import SCHEMA, Evaluation
from training.fit_prior import PriorFit
from training.likelihood import (
    continuous_bound,
    diffusion_bound,
    diffusion_sums,
    draw_samples,
    ode_likelihood,
    per_stratum,
    vae_bound,
)
from training.partial import Partial, Progress

ROOT = Path(__file__).resolve().parents[1]
SHAPE = (1, 4, 4)
FRESH = Partial(None, {})


def randn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def progress() -> Iterator[Progress]:
    one = Progress(1, "evaluation")
    yield one
    one.close()


@dataclass(frozen=True)
class Perfect:
    """A diffusion model that sees in x_t what is to be seen in it; its learned Σ is the variance of q(x_{t−1}|x_t)."""

    oracle: GaussianData
    config: DDPMConfig
    data: DataSpec = field(default_factory=lambda: DataSpec(size=4))

    @property
    def schedule(self) -> Schedule:
        return self.oracle.schedule

    def predict(self, x_t: Tensor, t: Tensor) -> Denoised:
        predicted = self.oracle.predict(x_t, t)
        low, high = (spread(reverse_log_var(self.schedule, v, t), x_t) for v in ("posterior", "beta"))  # type: ignore[arg-type]
        return replace(predicted, fraction=(self.oracle.reverse(x_t, t).log_var - low) / (high - low))


def gaussian(schedule: Schedule) -> Perfect:
    """Each dimension with a mean and a variance of its own."""
    mean, variance = 0.5 * randn(5, *SHAPE), 0.1 + torch.rand(SHAPE, generator=torch.Generator().manual_seed(6)).double()
    return Perfect(GaussianData(schedule, mean, variance), DDPMConfig(T=schedule.T, schedule="cosine", variance="learned"))


def signs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Both draws of noise that stand for all, +1 and −1: each term is a sum of polynomials of degree 2 in one ε (test_vlb)."""
    for sign in (1.0, -1.0):
        monkeypatch.setattr(torch, "randn", lambda shape, sign=sign, **how: torch.full(shape, sign, dtype=how["dtype"]))
        yield
    monkeypatch.undo()


def bits(nats: Tensor) -> float:
    return float(nats.mean()) / math.log(2) / math.prod(SHAPE)


# The bound


@pytest.mark.parametrize("T", [2, 12, 40])
def test_the_bound_of_standard_normal_data_is_its_negative_log_likelihood(
    T: int, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule = cosine_schedule(T)
    model = Perfect(GaussianData.standard(schedule, SHAPE), DDPMConfig(T=T, schedule="cosine", variance="beta"))
    x0 = 2 * randn(0, 7, *SHAPE)
    found = [diffusion_bound(model, x0, T, 0, 3, FRESH, progress, decoder=Gaussian.log_prob) for _ in signs(monkeypatch)]
    assert {section["mode"] for section in found} == {"every t"}
    got = sum(section["bound_bits_per_dim"] for section in found) / 2
    assert got == pytest.approx(bits(-peer.Normal(0.0, 1.0).log_prob(x0).sum(dim=(1, 2, 3))), rel=1e-12)


@pytest.mark.parametrize("T", [2, 12, 40])
def test_the_bound_of_gaussian_data_is_loose_by_the_prior_alone(
    T: int, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L_VLB = −log q(x_0) + E_q(x_T|x_0) [log q(x_T) − log N(x_T; 0, I)] with the exact μ and Σ."""
    model = gaussian(cosine_schedule(T))
    oracle, x0 = model.oracle, 1.5 * randn(0, 7, *SHAPE)
    end = q_marginal(model.schedule, x0, torch.full((7,), T))
    alpha_bar = model.schedule.alpha_bar[-1]
    q_T = Gaussian(alpha_bar.sqrt() * oracle.mean, (alpha_bar * oracle.covariance + 1 - alpha_bar).log().expand_as(x0))
    loose = cross_entropy(end, standard_normal(end.mean)) - cross_entropy(end, q_T)
    exact = peer.Normal(oracle.mean, oracle.covariance.sqrt()).log_prob(x0).sum(dim=(1, 2, 3))
    found = [diffusion_bound(model, x0, T, 0, 3, FRESH, progress, decoder=Gaussian.log_prob) for _ in signs(monkeypatch)]
    assert sum(section["bound_bits_per_dim"] for section in found) / 2 == pytest.approx(bits(loose - exact), rel=1e-11)
    for name in ("posterior", "beta"):  # no Σ beats the exact one over many pictures; here it differs
        assert found[0]["by_variance"][name]["bound_bits_per_dim"] != pytest.approx(found[0]["bound_bits_per_dim"], abs=1e-4)


def test_the_stratified_bound_has_the_mean_of_the_full_one(progress: Progress, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over every t of every stratum equally often, and both signs of the noise, L̂ is L_VLB to rounding."""
    T, count, x0 = 9, 3, randn(1, 1, *SHAPE).expand(6, *SHAPE)
    model = gaussian(cosine_schedule(T))
    assert strata(T, count) == (1, 3, 9)
    full = [diffusion_bound(model, x0, T, 0, 4, FRESH, progress, decoder=Gaussian.log_prob) for _ in signs(monkeypatch)]
    lots = torch.tensor([[1, 2 + i % 2, 4 + i] for i in range(6)])
    batches = iter([lots[:4], lots[4:]] * 2)
    monkeypatch.setattr(likelihood, "draw_times", lambda last, size, generator: next(batches))
    some = []
    for sign in (1.0, -1.0):
        with monkeypatch.context() as patch:
            patch.setattr(torch, "randn", lambda shape, sign=sign, **how: torch.full(shape, sign, dtype=how["dtype"]))
            some.append(diffusion_bound(model, x0, count, 0, 4, FRESH, progress, decoder=Gaussian.log_prob))
    assert {section["mode"] for section in some} == {"stratified"}
    for name in ("posterior", "beta", "learned"):
        expected, got = (sum(s["by_variance"][name]["bound_bits_per_dim"] for s in sections) for sections in (full, some))
        assert got == pytest.approx(expected, rel=1e-12)
    # Nothing but t and the sign makes these six differ, so that t makes all of the error but for the rounding of a variance.
    terms = [s["ledger"]["mean_term_bits_per_dim"]["learned"] for s in full]
    spread_of_t = sum(
        len(part) ** 2 * float(torch.tensor(part).double().var(correction=0)) for part in (terms[0][1:3], terms[0][3:9])
    )
    reported = some[0]["by_variance"]["learned"]["bound_standard_error_from_draw_of_t_bits_per_dim"]
    assert 0.5 < reported**2 / (spread_of_t / 6) < 2


def test_strata_cover_every_step_once_and_the_first_alone() -> None:
    for T in range(2, 60):
        for count in range(2, T + 1):
            last = strata(T, count)
            assert len(last) == count
            assert last[0] == 1
            assert last[-1] == T
            assert all(a < b for a, b in pairwise(last))
    lengths = torch.tensor(strata(1000, 24)).diff()
    assert bool((lengths.diff() >= 0).all())
    for count in (0, 1, 11):
        with pytest.raises(ValueError, match=f"expected 2 to 10 strata of the 10 steps, got {count}"):
            strata(10, count)


def test_draws_are_even_in_each_stratum_and_free_of_each_other() -> None:
    last, N = strata(10, 4), 20_000
    times = draw_times(last, N, torch.Generator().manual_seed(0))
    first = [1, *(e + 1 for e in last[:-1])]
    for k, (low, high) in enumerate(zip(first, last, strict=True)):
        n = high - low + 1
        counts = torch.bincount(times[:, k], minlength=11)
        assert int(counts[low : high + 1].sum()) == N
        assert float((counts[low : high + 1] - N / n).abs().max()) < 5 * (N / n) ** 0.5
    tables = torch.corrcoef(times[:, 1:].T.double()).fill_diagonal_(0)
    assert float(tables.nan_to_num().abs().max()) < 5 / N**0.5


def test_the_error_is_that_of_repeated_measurements(progress: Progress) -> None:
    """Other pictures, t's and noise each time: the scatter of the means is what one run says its error is."""
    model = gaussian(cosine_schedule(20))
    runs = []
    for seed in range(60):
        x0 = model.oracle.sample(50, torch.Generator().manual_seed(1000 + seed))
        runs.append(diffusion_bound(model, x0, 3, seed, 50, FRESH, progress, decoder=Gaussian.log_prob))
    scatter = torch.tensor([r["bound_bits_per_dim"] for r in runs]).std()
    claimed = torch.tensor([r["bound_standard_error_bits_per_dim"] for r in runs]).square().mean().sqrt()
    assert 0.7 < float(scatter / claimed) < 1.4  # 60 runs tell a standard deviation to 9 %
    assert all(r["by_variance"]["learned"]["bound_standard_error_from_draw_of_t_bits_per_dim"] > 0 for r in runs)


def test_the_part_of_t_in_the_variance() -> None:
    """Terms m(t) + noise in one stratum of five: V is the variance of m, whatever the noise."""
    generator, m = torch.Generator().manual_seed(0), torch.tensor([0.0, 1.0, 2.0, 4.0, 8.0], dtype=torch.float64)
    t = torch.randint(5, (20_000,), generator=generator)
    for noise in (0.0, 3.0):
        terms = m[t] + noise * torch.randn(len(t), generator=generator, dtype=torch.float64)
        sums = [torch.zeros(7, dtype=torch.float64) for _ in range(3)]
        for total, values in zip(sums, (torch.ones_like(terms), terms, terms**2), strict=True):
            total[2:] = torch.zeros(5, dtype=torch.float64).index_add_(0, t, values)
            total[1] = len(t)  # the first stratum: one step, always 1
        mean, variance, from_t = per_stratum((1, 6), *sums)
        assert float(mean[1]) == pytest.approx(3.0, abs=0.1)
        assert float(variance[1]) == pytest.approx(8.0 + noise**2, rel=0.05)
        assert float(from_t[1]) == pytest.approx(8.0, rel=0.06)
        assert float(from_t[0]) == 0


# The bound in continuous time


@pytest.mark.parametrize("T", [6, 20])
def test_the_bound_in_continuous_time_is_an_integral_over_the_snr(
    T: int, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For data N(m, v), with d = x_0 − m and γ the SNR, E‖x_0 − x̂_0‖² = (d² + v²γ)/(1 + vγ)² for every x_0, so that

    ∫ E‖x_0 − x̂_0‖² dγ = [−d²/(v (1 + vγ)) + log(1 + vγ) + 1/(1 + vγ)].
    """
    schedule = cosine_schedule(T)
    model, x0 = gaussian(schedule), 1.5 * randn(0, 3, *SHAPE)
    mean, v = model.oracle.mean, model.oracle.covariance

    def primitive(snr: Tensor) -> Tensor:
        return (-((x0 - mean) ** 2) / v / (1 + v * snr) + (1 + v * snr).log() + 1 / (1 + v * snr)).sum(dim=(1, 2, 3))

    inside = (primitive(schedule.snr[1]) - primitive(schedule.snr[T])) / 2
    ends = [diffusion_sums(model, x0, T, 0, 3, FRESH, progress, "cpu", Gaussian.log_prob) for _ in signs(monkeypatch)]
    outside = sum(each["prior"] + each["decoder"][2] for each in ends) / 2
    fine, many = gaussian(refined_schedule(schedule, 500)), x0.repeat(2000, 1, 1, 1)
    found = continuous_bound(fine, 500, many, min(T, 8), 0, 3000, FRESH, progress, decoder=Gaussian.log_prob)
    error = found["bound_standard_error_bits_per_dim"]
    assert error < 0.02
    assert found["bound_bits_per_dim"] == pytest.approx(bits(inside + outside), abs=3 * error)
    by_posterior = diffusion_bound(model, many, min(T, 8), 0, 3000, FRESH, progress, decoder=Gaussian.log_prob)
    chain = by_posterior["by_variance"]["posterior"]["transition_terms_sum_bits_per_dim"]
    assert chain > bits(inside) + 5 * error, "the chain is too fine to tell them apart"


@pytest.mark.parametrize("prediction", ["v", "eps"])
def test_a_refined_ddpm_is_the_same_network_between_its_times(prediction: str) -> None:
    config = DDPMConfig(T=12, schedule="cosine", prediction=prediction, unet=UNetConfig(width=8, multipliers=(1,)))  # type: ignore[arg-type]
    model = DDPM(config, DataSpec("mnist", 1, 8, ("a", "b"))).eval()
    torch.nn.init.normal_(model.unet.leave[-1].weight, std=0.05)
    fine, x = model.refined(4), randn(0, 5, 1, 8, 8).float()
    t = torch.tensor([1, 2, 5, 11, 12])
    for name in ("x0_hat", "eps_hat", "fraction"):
        own, same, other = (
            getattr(m.predict(x, at), name) for m, at in ((model, t), (fine, 4 * t - 3), (fine, (4 * t - 2).clamp(max=45)))
        )
        torch.testing.assert_close(own, same, rtol=1e-4, atol=1e-5)
        assert (other - own).abs().max() > 1e-3
    assert model.schedule.T == 12


# The ODE


def test_the_ode_gives_the_likelihood_of_gaussian_data(progress: Progress) -> None:
    """For a perfect network decoder + flow is −log p(x_0) for each x_1; here to 1e-3 bits/dim, with the exact trace."""
    schedule = linear_schedule(1000)
    model = gaussian(schedule)
    x0 = model.oracle.sample(5, torch.Generator().manual_seed(0))
    section = ode_likelihood(model, x0, 0, 3, FRESH, progress, decoder=Gaussian.log_prob, probes=None)
    exact = peer.Normal(model.oracle.mean, model.oracle.covariance.sqrt()).log_prob(x0).sum(dim=(1, 2, 3))
    assert section["bound_bits_per_dim"] == pytest.approx(bits(-exact), abs=1e-3)
    assert abs(section["half_the_steps_change_bits_per_dim"]) < 5e-3
    assert section["decoder_term_L_0_bits_per_dim"] + section["flow_term_bits_per_dim"] == pytest.approx(
        section["bound_bits_per_dim"]
    )


@pytest.mark.parametrize("T", [2, 3, 40, 1000])
def test_the_work_of_the_ode_is_that_of_its_looks(T: int, progress: Progress, monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = gaussian(cosine_schedule(T)), []
    real = type(model).predict
    monkeypatch.setattr(type(model), "predict", lambda self, x, *rest: seen.append(len(x)) or real(self, x, *rest))
    ode_likelihood(model, model.oracle.sample(5, torch.Generator().manual_seed(0)), 0, 3, FRESH, progress)
    for_L_0 = 5 + 3  # the 3 of the first batch a second time, with half the steps
    assert 3 * (sum(seen) - for_L_0) == likelihood.ode_work(model, 5, 3, 1)


# Resuming


class Killed(BaseException):
    """What a signal that cannot be caught does to a run."""


def tiny_ddpm() -> DDPM:
    torch.manual_seed(0)
    unet = UNetConfig(width=8, patch=2, multipliers=(1,))
    model = DDPM(DDPMConfig(T=12, schedule="cosine", unet=unet), DataSpec("mnist", 1, 8, data.KNOWN["mnist"][1])).eval()
    torch.nn.init.normal_(model.unet.leave[-1].weight, std=0.05)
    return model


def tiny_vae(likelihood_name: str = "gaussian") -> VAE:
    torch.manual_seed(0)
    config = VAEConfig(latent=3, likelihood=likelihood_name, width=8, hidden=8)  # type: ignore[arg-type]
    return VAE(config, DataSpec("mnist", 1, 8, data.KNOWN["mnist"][1])).eval()


def measured(model: DDPM | VAE, pictures: Tensor, kept: Partial, progress: Progress) -> dict[str, Any]:
    if isinstance(model, VAE):
        return vae_bound(model, pictures, 3, 20, 6, 1, 4, kept, progress)
    return {
        "likelihood": diffusion_bound(model, pictures, 4, 1, 4, kept, progress),
        "ode": ode_likelihood(model, pictures[:6], 1, 4, kept, progress),
        "samples": draw_samples(model, 7, 1, 3, Sampling("ancestral", 4), kept, progress).tolist(),
    }


@pytest.mark.parametrize("kind", ["ddpm", "vae"])
def test_a_run_that_was_killed_goes_on_and_gives_the_same_numbers(
    kind: str, tmp_path: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    model: DDPM | VAE = tiny_ddpm() if kind == "ddpm" else tiny_vae()
    pictures = torch.randint(0, 256, (11, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(partial, "SAVE_EVERY", 0.0)
    evaluations = 0
    network = model.unet if isinstance(model, DDPM) else model.decoder
    forward = network.forward

    def counted(*given: Any, limit: int) -> Tensor:
        nonlocal evaluations
        evaluations += 1
        if evaluations > limit:
            raise Killed
        return forward(*given)

    monkeypatch.setattr(network, "forward", lambda *given: counted(*given, limit=10**9))
    expected = measured(model, pictures, FRESH, progress)
    whole = evaluations
    for limit in (whole // 3, 2 * whole // 3):
        kept, evaluations = Partial(tmp_path / str(limit), {"seed": 1}), 0
        kept.folder.mkdir()  # type: ignore[union-attr]
        monkeypatch.setattr(network, "forward", lambda *given, limit=limit: counted(*given, limit=limit))
        with pytest.raises(Killed):
            measured(model, pictures, kept, progress)
        evaluations = 0
        monkeypatch.setattr(network, "forward", lambda *given: counted(*given, limit=10**9))
        assert json.dumps(measured(model, pictures, kept, progress)) == json.dumps(expected)
        assert 0 < evaluations < whole
        # Sums that were made of anything else are not used, nor a damaged file.
        evaluations = 0
        measured(model, pictures, Partial(kept.folder, {"seed": 2}), progress)
        assert evaluations == whole
        for file in kept.folder.iterdir():  # type: ignore[union-attr]
            file.write_bytes(file.read_bytes()[:-3])
        evaluations = 0
        assert json.dumps(measured(model, pictures, kept, progress)) == json.dumps(expected)
        assert evaluations == whole
        kept.remove()
        assert not list(kept.folder.iterdir())  # type: ignore[union-attr]


def test_samples_are_those_that_are_drawn_at_once(progress: Progress) -> None:
    model, sampling = tiny_ddpm(), Sampling("ancestral", 4)
    in_parts = draw_samples(model, 7, 5, 3, sampling, FRESH, progress)
    assert torch.equal(in_parts, torch.cat(list(draw(model, 7, 5_000_000, sampling, batch_size=3))))
    assert len(in_parts.flatten(1).unique(dim=0)) == 7


def test_lines_of_progress_say_how_much_is_left(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    progress = Progress(1000, "evaluation")
    progress.part("bound")
    progress.skip(400)
    clock[0] = 100.0
    progress.update(200)  # 200 in 100 s, 400 to go
    progress.close()
    assert capsys.readouterr().err == "bound: 600 of 1,000 evaluations, 0:03:20 left\n"


# The command


@pytest.fixture(scope="module")
def models(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a DDPM and a VAE of the 8×8 pictures."""
    root = tmp_path_factory.mktemp("models")
    test, train = (data.load("mnist", split, str(data_dir)) for split in ("test", "train"))
    for model in (tiny_ddpm(), tiny_vae()):
        metrics = {"command": f"python training/train_{model.kind}.py", "seed": 3, "training": {"data_sha256": train.sha256}}
        write_package(root / model.kind, model, metrics, test)
    return root


@pytest.fixture
def no_plot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(likelihood, "plot_ledger", lambda section, path: None)


@pytest.fixture
def folder(models: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    copy = tmp_path / "model"
    copy.mkdir()
    for file in (models / getattr(request, "param", "ddpm")).iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    return copy


def options(folder: Path, data_dir: Path, **changes: Any) -> Evaluation:
    given = {"images": 6, "strata": 4, "ode_images": 2, "importance": 20, "importance_images": 4, "device": "cpu"}
    return Evaluation(data_dir=str(data_dir), **{"model": str(folder), **given, **changes})


@pytest.mark.parametrize("folder", ["ddpm", "vae"], indirect=True)
def test_one_command_measures_writes_and_says_with_what(
    folder: Path, data_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert evaluate.run(options(folder, data_dir)) == 0
    out = capsys.readouterr()
    assert "samples are not measured: " in out.err
    metrics = json.loads((folder / "metrics.json").read_text())
    evaluation = metrics["evaluation"]
    assert next(iter(metrics)) == "schema"
    assert (metrics["schema"], metrics["seed"], evaluation["seed"], evaluation["device"]) == (SCHEMA, 3, 0, "cpu")
    assert set(evaluation["versions"]) == {"genlab", "torch", "numpy"}
    assert evaluation["model_sha256"] == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    test = data.load("mnist", "test", str(data_dir))
    assert (evaluation["data"]["sha256"], evaluation["data"]["images"]) == (test.sha256, 20)
    bound = evaluation["likelihood"]["bound_bits_per_dim"]
    assert evaluation["likelihood"]["images"] == 6
    assert bound > 0 < evaluation["likelihood"]["bound_standard_error_bits_per_dim"]
    assert not [p.name for p in folder.iterdir() if p.name.startswith(".")]
    with Image.open(folder / "ledger.png") as picture:
        picture.load()
        assert min(picture.size) > 300
    card = ModelCard((folder / "README.md").read_text())
    results = {r.metric_type: r for r in card.data.eval_results}
    assert results["bits_per_dim_bound"].metric_value == bound
    assert results["bits_per_dim_bound"].dataset_name == "mnist"
    assert "](ledger.png)" in card.text
    assert f"{bound:.2f}"[:4] in out.out
    for name in ("metrics.json", "README.md"):
        assert str(folder.parent) not in (folder / name).read_text()

    # The recorded command, the data folder added, gives the same numbers; another seed gives others.
    monkeypatch.setattr(likelihood, "plot_ledger", lambda section, path: None)
    words = shlex.split(evaluation["command"])
    assert words[:3] == ["python", "training/evaluate.py", "model"]
    again = [str(folder), *words[3:], "--data-dir", str(data_dir), "--device", "cpu"]
    for extra, same in (([], True), (["--seed", "1"], False)):
        monkeypatch.setattr("sys.argv", ["training/evaluate.py", *again, *extra])
        assert evaluate.main() == 0
        assert (
            json.loads((folder / "metrics.json").read_text())["evaluation"]["likelihood"] == evaluation["likelihood"]
        ) == same
    capsys.readouterr()


SAMPLES = {
    "images": 100, "seed": 0, "sampler": "DDIM", "steps": 5, "network_evaluations": 5, "neighbours": 3,
    "reference": "test", "reference_images": 20, "reference_data_sha256": "ab", "training_data_sha256": "cd",
    "features": {"name": "mnist", "sha256": "ab" * 32, "accuracy": 0.99, "dims": 64},
    "frechet_distance": 2.5, "frechet_interval_95": [2.0, 3.0], "frechet_floor": 0.5,
    "kernel_distance_x1000": 1.5, "kernel_distance_standard_error_x1000": 0.25, "kernel_distance_floor_x1000": 0.01,
    "precision": 0.75, "recall": 0.5, "precision_of_real": 0.9, "recall_of_real": 0.9,
    "memorised_share": 0.02, "memorised_share_of_held_out": 0.01,
}  # fmt: skip
CURVE = {
    "images": 3, "sampler": "UniPC", "spacing": "Karras", "features": SAMPLES["features"], "steps": [4, 1000],
    "frechet_distance": [2.0, 1.5], "frechet_floor": 0.25,
}  # fmt: skip


@pytest.mark.usefixtures("no_plot")
def test_samples_stand_beside_real_pictures_and_are_not_called_fid(
    folder: Path, data_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.sample_quality.check", lambda *given: None)
    drawn: dict[int, Tensor] = {}
    walks: list[tuple[Sampling, int]] = []

    def measured(model: object, reference: object, count: int, seed: int, how: Sampling, *_: Any, pictures: Tensor):
        walks.append((how, len(pictures)))
        return SAMPLES, pictures

    monkeypatch.setattr("training.sample_quality.measure", measured)
    monkeypatch.setattr("training.sample_quality.curve", lambda reference, pictures, *_: drawn.update(pictures) or CURVE)
    assert evaluate.run(options(folder, data_dir, curve_samples=3, chain_samples=4)) == 0
    evaluation = json.loads((folder / "metrics.json").read_text())["evaluation"]
    assert evaluation["samples"] == SAMPLES
    # The ancestral chain with each Σ that this model can have.
    assert evaluation["chain"] == {"posterior": SAMPLES, "beta": SAMPLES, "learned": SAMPLES}
    assert walks[1:] == [(Sampling("ancestral", 12, variance=v), 4) for v in ("posterior", "beta", "learned")]
    # As many pictures for every number of steps that the chain has, none for a VAE.
    is_ddpm = json.loads((folder / "config.json").read_text())["kind"] == "ddpm"
    assert evaluation.get("steps") == (CURVE if is_ddpm else None)
    assert {steps: tuple(p.shape) for steps, p in drawn.items()} == dict.fromkeys([4, 5, 6, 8, 10] * is_ddpm, (3, 1, 8, 8))
    card = ModelCard((folder / "README.md").read_text())
    results = {r.metric_type: r for r in card.data.eval_results}
    assert results["frechet_distance"].metric_name == (
        "Fréchet distance (features of genlab's mnist classifier abababababab, n = 100; real against real 0.5), not FID"
    )
    assert (results["frechet_distance"].metric_value, results["recall"].metric_value) == (2.5, 0.5)
    assert not any(re.search(r"(?<!not )\b[FK]ID\b", r.metric_name) for r in card.data.eval_results)
    assert "| Fréchet distance | 2.5 (95 %: 2 to 3) | 0.5 |" in card.text
    assert "| kernel distance × 1000 | 1.50 ± 0.25 | 0.01 |" in card.text
    assert "abababababab…" in card.text
    assert "| Σ = β | 2.5 (95 %: 2 to 3) | 0.75 | 0.5 | 0.02 |\n" in card.text
    assert "| real pictures | 0.5 | 0.9 | 0.9 | 0.01 |" in card.text
    assert "| steps | 4 | 1,000 |\n| --- | --- | --- |\n| Fréchet distance | 2 | 1.5 |" in card.text
    assert "as many real pictures score 0.25" in card.text
    assert "| steps: " not in card.text
    capsys.readouterr()


@pytest.mark.usefixtures("no_plot")
def test_the_exact_trace_can_be_asked_for(folder: Path, data_dir: Path) -> None:
    found = []
    for probes in (0, 3):
        assert evaluate.run(options(folder, data_dir, ode_probes=probes, samples=0)) == 0
        section = json.loads((folder / "metrics.json").read_text())["evaluation"]
        assert section["ode"]["probes"] == (probes or "exact trace")
        assert f"--ode-probes {probes}" in section["command"]
        found.append(section["ode"]["flow_term_bits_per_dim"])
    assert found[0] != found[1]
    assert found[0] == pytest.approx(found[1], abs=0.5)


@pytest.mark.usefixtures("no_plot")
def test_every_t_is_the_same_bound_with_every_term(folder: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.run(options(folder, data_dir, strata=12, ode_images=0, samples=0)) == 0
    section = json.loads((folder / "metrics.json").read_text())["evaluation"]["likelihood"]
    assert (section["mode"], section["looks_per_image"]) == ("every t", 12)
    assert section["ledger"]["first_t"] == section["ledger"]["last_t"] == list(range(1, 13))
    for name, numbers in section["by_variance"].items():
        terms = section["ledger"]["mean_term_bits_per_dim"][name]
        assert terms[0] == pytest.approx(numbers["decoder_term_L_0_bits_per_dim"], rel=1e-5)
        assert sum(terms) + section["prior_term_L_T_bits_per_dim"] == pytest.approx(numbers["bound_bits_per_dim"], rel=1e-5)
        assert numbers["bound_standard_error_from_draw_of_t_bits_per_dim"] == 0
    assert "every one of the 12 steps t" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images": 21}, "--images: expected at most the 20 held-out pictures of mnist, got 21"),
        ({"ode_images": 21}, "--ode-images: expected at most the 20"),
        ({"strata": 13}, "--strata: expected at most the 12 steps of the model, got 13"),
        ({"dataset": "nothing"}, "--dataset: expected one of fashion-mnist, mnist"),
        ({"dataset": "fashion-mnist"}, "--dataset: expected classes 0, 1, 2, .*, got T-shirt/top, Trouser.* in fashion-mnist"),
        ({"data_dir": "/nowhere"}, "data set mnist was not found"),
        ({"samples": 10}, "no feature network was trained on these 40 pictures of mnist"),
        ({"model": "no-such-model"}, "no model 'no-such-model'"),
        ({"device": "cuda"}, "--device: expected a GPU for cuda, got none"),
    ],
)
def test_what_cannot_be_measured_is_refused_without_a_number(
    changes: dict[str, Any],
    words: str,
    folder: Path,
    data_dir: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("GENLAB_DATA_DIR", raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("genlab.tables._on_hub", lambda *given: (_ for _ in ()).throw(data.DataError("no connection")))
    monkeypatch.setattr("genlab.data.DEBIAN", Path("/nowhere"))
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    given = replace(options(folder, data_dir), **changes)
    assert evaluate.run(given) == 1
    out = capsys.readouterr()
    assert re.search(f"error: .*(?:{words})", out.err, re.DOTALL), out.err
    assert not re.search(r"\d\.\d", out.out)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


@pytest.mark.parametrize("given", [None, "me/cats"])
def test_the_data_set_on_the_hub_that_a_model_was_trained_on_is_found(
    given: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = DataSpec("cats", 3, 64, ("a", "b"))
    asked: list[tuple[Any, ...]] = []

    def load(name: str, *more: Any, reading: Reading) -> tuple[data.Dataset, data.Dataset]:
        asked.append((name, *more))
        return (data.Dataset(spec, torch.zeros(2, 3, 64, 64, dtype=torch.uint8), torch.tensor([0, 1]), "Hub: me/cats"),) * 2

    monkeypatch.setattr(data, "load_both", load)
    trained = load("me/cats", reading=Reading())[0].sha256
    package = SimpleNamespace(
        folder=Path("nowhere"),
        model=SimpleNamespace(data=spec),
        metrics={"dataset": "me/cats", "training": {"data_sha256": trained}},
    )
    asked.clear()
    evaluate.load_data(Evaluation("m", dataset=given), package)  # type: ignore[arg-type]
    assert asked == [("me/cats", None, 64, 3)]
    package.metrics["training"]["data_sha256"] = "0" * 64
    with pytest.raises(data.DataError, match="expected the pictures that the model was trained on"):
        evaluate.load_data(Evaluation("m", dataset=given), package)  # type: ignore[arg-type]
    for said in ("me/dogs", "../cats", "/home/cats", "cats", 5, None):
        package.metrics["dataset"] = said
        asked.clear()
        with pytest.raises(data.DataError, match="m: its training pictures, cats, are not known here; name them by --dataset"):
            evaluate.load_data(Evaluation("m"), package)  # type: ignore[arg-type]
        assert not asked, said


def test_samples_that_are_asked_for_by_name_are_drawn_without_the_main_ones() -> None:
    model, pictures = tiny.ddpm(DataSpec("mnist", 1, 28)), tiny.dataset("mnist")
    for chosen, expected in (({}, (0, 0)), ({"chain_samples": 5}, (0, 5)), ({"curve_samples": 4, "chain_samples": 0}, (4, 0))):
        plan = evaluate.make_plan(Evaluation("m", samples=0, **chosen), model, pictures)  # type: ignore[arg-type]
        assert (plan.samples, plan.curve_samples, plan.chain_samples) == (0, *expected)


@pytest.mark.parametrize(
    ("name", "size", "channels", "words"),
    [
        ("wide", 16, 1, "--dataset: expected size 16, as the model was trained with, got 8 in mnist"),
        ("wide", 8, 3, "--dataset: expected channels 3, as the model was trained with, got 1 in mnist"),
    ],
)
def test_a_model_of_other_pictures_is_refused(
    name: str, size: int, channels: int, words: str, tmp_path: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = DataSpec(name, channels, size, data.KNOWN["mnist"][1])
    torch.manual_seed(0)
    model = VAE(VAEConfig(latent=2, width=8, hidden=8), spec)
    pictures = torch.zeros(2, channels, size, size, dtype=torch.uint8)
    write_package(tmp_path, model, {}, data.Dataset(spec, pictures, None, "the tests"))
    assert evaluate.run(options(tmp_path, data_dir, dataset="mnist")) == 1
    assert words in capsys.readouterr().err


def test_other_training_pictures_than_the_models_are_refused(
    folder: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["training"]["data_sha256"] = "0" * 64
    (folder / "metrics.json").write_text(json.dumps(metrics))
    assert evaluate.run(options(folder, data_dir)) == 1
    assert "mnist: expected the pictures that the model was trained on (SHA-256 0000" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images": 1}, "--images: expected 2 or more, got 1"),
        ({"ode_images": 1}, "--ode-images: expected 0, or 2 or more, got 1"),
        ({"ode_probes": -1}, "--ode-probes: expected 0 or more, got -1"),
        ({"strata": 1}, "--strata: expected 2 or more, got 1"),
        ({"seed": -1}, "--seed: expected a whole number from 0 to 4294967295, got -1"),
    ],
)
def test_bad_options_are_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Evaluation("model", **changes)


def test_a_binarised_model_is_measured_in_nats_and_names_the_binarisation(progress: Progress) -> None:
    pictures = torch.randint(0, 256, (9, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    section = vae_bound(tiny_vae("bernoulli"), pictures, 3, 20, 4, 0, 4, FRESH, progress)
    assert (section["likelihood"], section["binarisation"]) == ("bernoulli", "dynamic")
    assert not [name for name in section if "bits" in name]
    assert [(row["k"], row["images"]) for row in section["importance_weighted"]] == [(1, 9), (3, 9), (1, 4), (3, 4), (20, 4)]
    assert all(-200 < row["bound_nats"] < 0 for row in section["importance_weighted"])


@pytest.mark.usefixtures("no_plot")
def test_another_folder_gets_the_whole_model(folder: Path, data_dir: Path, tmp_path: Path) -> None:
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    out = tmp_path / "elsewhere"
    assert evaluate.run(options(folder, data_dir, out=out, ode_images=0)) == 0
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    found = hub.read(out)
    words = shlex.split(found.metrics["evaluation"]["command"])
    assert words[words.index("--ode-images") + 1] == "0"
    assert "--out" not in words


@pytest.mark.usefixtures("no_plot")
def test_what_ships_is_written_only_where_out_names_it(
    folder: Path, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genlab.package.PRETRAINED", tmp_path)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    for named in ("model", str(folder)):
        given = options(folder, data_dir, model=named, ode_images=0)
        assert evaluate.run(given) == 0
        assert "evaluation" in hub.read("runs/model-measured").metrics
        assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert evaluate.run(replace(given, out=folder)) == 0
    assert "evaluation" in hub.read(folder).metrics


@pytest.mark.parametrize("there", [{"README.md": "mine"}, {"model.safetensors": "another model"}])
def test_a_folder_with_other_content_is_left_alone(
    folder: Path, data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], there: dict[str, str]
) -> None:
    out = tmp_path / "mine"
    out.mkdir()
    for name, content in there.items():
        (out / name).write_text(content)
    assert evaluate.run(options(folder, data_dir, out=out)) == 1
    assert f"error: {out}: expected no folder, an empty one, or one with this model" in capsys.readouterr().err
    assert {p.name: p.read_text() for p in out.iterdir()} == there


@pytest.mark.usefixtures("no_plot")
def test_what_was_measured_elsewhere_stays_until_it_is_measured_anew(folder: Path, data_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "elsewhere"
    assert evaluate.run(options(folder, data_dir, out=out, ode_images=0)) == 0
    measured = (out / "metrics.json").read_bytes()
    package = hub.read(folder)
    assert evaluate.folder_for(options(folder, data_dir, out=out), package) == out
    assert (out / "metrics.json").read_bytes() == measured


@pytest.mark.usefixtures("no_plot")
def test_a_film_of_the_training_stays_when_the_model_is_measured(folder: Path, data_dir: Path, tmp_path: Path) -> None:
    film = make_film()
    test, train = (data.load("mnist", split, str(data_dir)) for split in ("test", "train"))
    write_package(folder, tiny_ddpm(), {"training": {"data_sha256": train.sha256}}, test, film=film)
    for out in (tmp_path / "elsewhere", folder):
        assert evaluate.run(options(folder, data_dir, out=out, ode_images=0)) == 0
        found = hub.read(out)
        assert "evaluation" in found.metrics
        assert found.film is not None
        assert found.film.replay == film.replay


@pytest.mark.parametrize("measured_on", ["mnist", "letters"])
def test_the_card_tells_the_hub_on_what_was_measured(measured_on: str) -> None:
    metrics = json.loads((PRETRAINED / "ddpm-mnist" / "metrics.json").read_text())
    metrics["evaluation"]["data"]["name"] = measured_on
    matter = card._front_matter("ddpm", "mnist", "ylecun/mnist", metrics)
    kind = "ylecun/mnist" if measured_on == "mnist" else measured_on
    assert f'name: "{measured_on}"\n      type: "{kind}"\n      split: test' in matter


def _paths(tree: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where each value of a JSON tree lies, the tree's own place left out."""
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        yield (*above, key)
        yield from _paths(value, (*above, key))


@pytest.mark.parametrize("name", ["ddpm-mnist", "vae-mnist"])
def test_a_card_is_written_whatever_form_the_measurements_have(name: str) -> None:
    """Each value of a real measurement in turn is of another form; the tables that do not count on it stay."""
    shipped = PRETRAINED / name
    config, metrics = (json.loads((shipped / file).read_text()) for file in ("config.json", "metrics.json"))
    whole = card.measured_tables(metrics)
    for path in _paths(metrics["evaluation"]):
        if len(path) > 1 and path[1] == "ledger":  # long lists that the card does not read
            continue
        for wrong in ("words", None, [], {}, -1):
            broken = copy.deepcopy(metrics)
            place = broken["evaluation"]
            for key in path[:-1]:
                place = place[key]
            place[path[-1]] = wrong
            card.write_card(config, broken, 1, [], None)
            lost = [table for table in whole if table not in card.measured_tables(broken)]
            assert len(lost) <= 3, path


@pytest.mark.parametrize("training", [5, [], "words", None, {"options": 5}, {"options": {"from_model": 5}}], ids=str)
def test_a_card_is_written_whatever_form_the_training_has(training: Any) -> None:
    config = json.loads((PRETRAINED / "ddpm-mnist" / "config.json").read_text())
    assert "# DDPM of mnist" in card.write_card(config, {"training": training}, 1, [], None)


def test_an_interrupt_says_how_to_go_on(
    folder: Path, data_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*given: Any, **named: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(likelihood, "ode_likelihood", interrupted)
    assert evaluate.run(options(folder, data_dir)) == 130
    assert "the same command continues from here" in capsys.readouterr().err
    parts = {".evaluation-bound.safetensors", ".evaluation-continuous-time.safetensors"}
    assert {p.name for p in folder.iterdir() if p.name.startswith(".evaluation-")} == parts


def test_what_a_kill_leaves_goes_when_all_is_measured(tmp_path: Path) -> None:
    for name in (".evaluation-ode.safetensors", ".evaluation-ode.safetensors.4711", "model.safetensors"):
        (tmp_path / name).touch()
    Partial(tmp_path, {}).remove()
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_help_needs_no_torch() -> None:
    script = ROOT / "training" / "evaluate.py"
    code = f"""
import atexit, runpy, sys
heavy = ("torch", "numpy", "PIL", "datasets", "huggingface_hub", "matplotlib")
atexit.register(lambda: print("imported:", [name for name in heavy if name in sys.modules]))
sys.argv = [{str(script)!r}, "--help"]
sys.path[0] = {str(script.parent)!r}
runpy.run_path({str(script)!r}, run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/", timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("imported: []")
    assert "--no-" not in done.stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (Evaluation("m", dataset="fashion-mnist", data_dir="d", out=Path("o"), seed=3), "evaluate.py m --seed 3"),
        (PriorFit("m", dataset="fashion-mnist", data_dir="d", run=Path("o"), components=3), "fit_prior.py m --components 3"),
        (TimesChoice("m", dataset="fashion-mnist", data_dir="d", out=Path("o"), samples=3), "choose_times.py m --samples 3"),
    ],
)
def test_the_published_command_has_all_that_changes_the_figures(options: Any, words: str) -> None:
    """The data set too; folders of this machine not."""
    command = options.command()
    assert sorted(command.split()) == sorted(f"python training/{words} --dataset fashion-mnist".split())
