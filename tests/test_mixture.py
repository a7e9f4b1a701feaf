"""A mixture of Gaussians as a VAE's prior: against torch's own, its fit, and a VAE with N(0, I)."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch import distributions as peer

import genlab
from genlab.config import MixtureConfig, VAEConfig
from genlab.mixture import FLOOR, Mixture, MixtureVAE, fit_mixture
from genlab.package import write_package
from genlab.vae import VAE
from tests import tiny
from training import fit_prior
from training.fit_prior import PriorFit
from training.likelihood import mixture_bound


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def known() -> Mixture:
    """Three Gaussians in the plane, well apart, one of them narrow and aslant."""
    factor = torch.tensor([[[1, 0], [0, 1]], [[0.5, 0], [0.4, 0.2]], [[2, 0], [0, 0.3]]], dtype=torch.float64)
    mean = torch.tensor([[0, 0], [30, 0], [0, 30]], dtype=torch.float64)
    return Mixture(torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64).log(), mean, factor)


def test_agrees_with_torch(known: Mixture) -> None:
    theirs = peer.MixtureSameFamily(
        peer.Categorical(logits=known.log_weight), peer.MultivariateNormal(known.mean, scale_tril=known.factor)
    )
    z = 5 * randn(0, 40, 2)
    torch.testing.assert_close(known.log_prob(z), theirs.log_prob(z), rtol=1e-12, atol=1e-12)


def test_samples_have_the_weights_means_and_covariances(known: Mixture) -> None:
    z = known.sample(randn(1, 100_000, 3))
    nearest = torch.cdist(z, known.mean).argmin(dim=1)
    for k in range(3):
        own = z[nearest == k]
        assert len(own) / len(z) == pytest.approx(float(known.log_weight[k].exp()), abs=0.01)
        torch.testing.assert_close(own.mean(dim=0), known.mean[k], rtol=0, atol=0.06)
        torch.testing.assert_close(own.T.cov(), known.factor[k] @ known.factor[k].T, rtol=0.1, atol=0.05)


def test_the_fit_never_loses_likelihood_and_finds_what_was_drawn(known: Mixture) -> None:
    z, course = known.sample(randn(2, 5_000, 3)), []
    found = fit_mixture(z, 3, generator(), tolerance=1e-9, on_round=course.append)
    assert all(later >= earlier - 1e-9 for earlier, later in pairwise(course))
    assert course[-1] >= float(known.log_prob(z).mean()), "the best fit to these z is no worse than what they came from"
    order = torch.cdist(known.mean, found.mean).argmin(dim=1)
    assert sorted(order.tolist()) == [0, 1, 2]
    torch.testing.assert_close(found.log_weight[order].exp(), known.log_weight.exp(), rtol=0, atol=0.02)
    torch.testing.assert_close(found.mean[order], known.mean, rtol=0, atol=0.2)


def test_one_component_has_the_mean_and_covariance_of_the_codes() -> None:
    z = randn(3, 200, 4) @ randn(4, 4, 4) + 2
    found = fit_mixture(z, 1, generator())
    torch.testing.assert_close(found.mean[0], z.mean(dim=0), rtol=1e-10, atol=1e-10)
    covariance = z.T.cov(correction=0) + FLOOR * torch.eye(4, dtype=torch.float64)
    torch.testing.assert_close(found.factor[0] @ found.factor[0].T, covariance, rtol=1e-10, atol=1e-10)


def test_codes_on_a_line_and_too_few_codes() -> None:
    line = torch.linspace(0, 1, 50, dtype=torch.float64)[:, None] * torch.ones(1, 3, dtype=torch.float64)
    assert bool(torch.isfinite(fit_mixture(line, 2, generator()).log_prob(line)).all())
    with pytest.raises(ValueError, match="expected at least 20 codes for 10 components, got 19"):
        fit_mixture(randn(0, 19, 2), 10, generator())


def tiny_vae() -> VAE:
    torch.manual_seed(0)
    return VAE(VAEConfig(latent=3, width=8, hidden=16, likelihood="logistic"), tiny.dataset("mnist").spec).eval()


def test_with_one_standard_component_the_elbo_is_that_of_the_vae() -> None:
    """Then p(z) = N(0, I), and the two ELBOs differ by the closed form of the KL divergence only."""
    vae, pictures = tiny_vae(), tiny.dataset("mnist").images
    model = MixtureVAE(MixtureConfig(vae.config, 1), vae.data).eval()
    model.vae.load_state_dict(vae.state_dict())
    found = mixture_bound(model, pictures, 0, 8)
    assert found["bound_bits_per_dim"] == pytest.approx(found["standard_normal_prior_bound_bits_per_dim"], rel=1e-6)
    with torch.inference_mode():
        x = pictures.float() / 127.5 - 1
        noise = torch.randn(400, 20, 3, generator=generator())
        mine, theirs = (torch.stack([m.elbo(x, n).total for n in noise]).double().mean() for m in (model, vae))
    assert float(mine) == pytest.approx(float(theirs), abs=0.2)


def test_a_prior_is_fitted_written_and_drawn_from(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    test = genlab.data.load("mnist", "test", str(data_dir))
    torch.manual_seed(0)
    vae = VAE(VAEConfig(latent=3, width=8, hidden=8), test.spec).eval()
    trained = {
        "command": "python training/train_vae.py",
        "training": {"data_sha256": genlab.data.load("mnist", "train", str(data_dir)).sha256},
    }
    write_package(tmp_path / "vae", vae, trained, test)
    words = [str(tmp_path / "vae"), "--components", "2", "--data-dir", str(data_dir), "--run", str(tmp_path / "run")]
    monkeypatch.setattr("sys.argv", ["training/fit_prior.py", *words])
    assert fit_prior.main() == 0
    assert "nats by the mixture" in capsys.readouterr().out
    model = genlab.load(tmp_path / "run")
    assert isinstance(model, MixtureVAE)
    metrics = json.loads((tmp_path / "run" / "model" / "metrics.json").read_text())
    assert metrics["command"] == "python training/fit_prior.py vae --components 2"
    assert metrics["loss"]["training"]["codes"] < metrics["loss"]["training"]["codes_standard_normal"]
    for name, weight in vae.state_dict().items():
        torch.testing.assert_close(model.vae.state_dict()[name], weight.half().float())
    first, again = (genlab.sample(model, 4, seed=5) for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(first[2:], genlab.sample(model, 2, seed=7))

    assert fit_prior.main() == 1
    assert "holds an earlier model: choose another folder with --run" in capsys.readouterr().err
    assert fit_prior.run(PriorFit(str(tmp_path / "run"), data_dir=str(data_dir), run=tmp_path / "two")) == 1
    assert "expected a VAE, got a model of kind mixture-vae" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"), [({"components": 0}, "--components: .* 1 to 1000, got 0"), ({"rounds": 0}, "--rounds")]
)
def test_options_out_of_range_are_refused(changes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PriorFit("vae-mnist", **changes)  # type: ignore[arg-type]
