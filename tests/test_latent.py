"""A diffusion model as a VAE's prior, against the linear-Gaussian VAE, whose evidence is known."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from genlab import hub
from genlab.config import DataSpec, DDPMConfig, LatentConfig, UNetConfig, VAEConfig
from genlab.latent import LatentDDPM
from genlab.oracle import GaussianData, LinearGaussianVAE
from genlab.package import ModelError
from genlab.schedule import cosine_schedule, linear_schedule
from tests.test_training import options, task_of
from tests.test_vae import LATENT, SIDE, as_vae
from training import train_ddpm
from training.run import main

CONFIG = LatentConfig(
    DDPMConfig(T=40, grids=(), variance="beta", schedule="cosine", unet=UNetConfig(patch=1, width=8, multipliers=(1,))),
    VAEConfig(latent=LATENT, width=8, hidden=8),
)


def linear() -> LinearGaussianVAE:
    axes, _ = torch.linalg.qr(torch.randn(SIDE**2, LATENT, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    mean = torch.randn(SIDE**2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return LinearGaussianVAE(axes * torch.tensor([2.0, 0.7, 0.05], dtype=torch.float64), mean, 0.1)


def exact(oracle: LinearGaussianVAE, mean: Tensor, std: Tensor, T: int) -> LatentDDPM:
    """The linear VAE with the exact diffusion model of u = (z − m)/s for z ~ N(0, I)."""
    model = LatentDDPM(CONFIG, DataSpec(size=SIDE)).double()
    model.vae = as_vae(oracle)
    model.mean.copy_(mean)
    model.std.copy_(std)
    model.ddpm.schedule = cosine_schedule(T) if T < 100 else linear_schedule(T)
    data = GaussianData(model.ddpm.schedule, (-mean / std).reshape(LATENT, 1, 1), (1 / std**2).reshape(LATENT, 1, 1))
    model.ddpm.predict = lambda x_t, t, *_, **__: data.predict(x_t, t)  # type: ignore[method-assign, assignment]
    return model


def exact_elbo(model: LatentDDPM, x: Tensor, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """The ELBO's expectation over z and the chain's noise: a polynomial of degree 2 in each, so ±1 with equal odds will do."""
    terms = []
    for noise in (1.0, -1.0):
        for sign in (1.0, -1.0):
            with monkeypatch.context() as patched:
                patched.setattr(torch, "randn", lambda shape, sign=sign, **how: torch.full(shape, sign, dtype=how["dtype"]))
                z_noise = torch.full((len(x), LATENT), noise, dtype=torch.float64)
                terms.append(model.elbo(x.reshape(-1, 1, SIDE, SIDE), z_noise, torch.Generator()).total)
    return torch.stack(terms).mean(dim=0)


@pytest.mark.parametrize("T", [2, 7, 40])
def test_with_the_exact_prior_the_elbo_is_the_evidence(T: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """For u = z ~ N(0, I) the bound of the chain is tight for every T, and the exact posterior closes the rest."""
    oracle, x = linear(), 2 * torch.randn(5, SIDE**2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    model = exact(oracle, torch.zeros(LATENT, dtype=torch.float64), torch.ones(LATENT, dtype=torch.float64), T)
    with torch.no_grad():
        torch.testing.assert_close(exact_elbo(model, x, monkeypatch), oracle.log_evidence(x), rtol=1e-10, atol=1e-10)


def test_the_scale_of_the_codes_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """u = (z − m)/s is a change of variables; what is left is the error of a chain of T = 1000 steps."""
    oracle, x = linear(), 2 * torch.randn(5, SIDE**2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    mean, std = (torch.tensor(values, dtype=torch.float64) for values in ((0.5, -1.0, 0.2), (2.0, 0.5, 1.3)))
    model = exact(oracle, mean, std, 1000)
    with torch.no_grad():
        found = exact_elbo(model, x, monkeypatch)
    torch.testing.assert_close(found, oracle.log_evidence(x), rtol=0, atol=0.05)
    assert bool((found < oracle.log_evidence(x)).all())  # a bound


def test_the_codes_have_mean_0_and_variance_1() -> None:
    torch.manual_seed(0)
    model = LatentDDPM(LatentConfig(CONFIG.ddpm, VAEConfig(latent=2, side=4, width=8, blocks=1)), DataSpec(size=8)).eval()
    x = torch.rand(300, 1, 8, 8) * 2 - 1
    model.measure_codes(x, at_once=70)
    with torch.no_grad():
        q = model.vae.encode(x)
        u = torch.cat([model.to_codes(q.sample(torch.randn(len(x), 32))) for _ in range(20)])
        torch.testing.assert_close(u.mean(dim=(0, 2, 3)), torch.zeros(2), atol=5e-3, rtol=0)
        torch.testing.assert_close(u.std(dim=(0, 2, 3)), torch.ones(2), atol=5e-3, rtol=0)
        z = q.sample(torch.zeros(300, 32))
        torch.testing.assert_close(model.to_latents(model.to_codes(z)), z)


def test_training_moves_the_ddpm_alone() -> None:
    torch.manual_seed(0)
    model = LatentDDPM(CONFIG, DataSpec(size=8))
    model.vae.requires_grad_(False)
    x, eps = torch.rand(4, 1, 8, 8), torch.randn(4, LATENT, 1, 1)
    model(x, torch.tensor([1, 10, 20, 40]), eps).total.mean().backward()
    assert all(p.grad is None for part in (model.vae,) for p in part.parameters())
    assert model.mean.grad is None
    assert any(p.grad is not None and bool(p.grad.any()) for p in model.ddpm.parameters())


def test_the_codes_of_a_trained_vae_have_no_dropout() -> None:
    """Training mode is for the DDPM alone: the VAE is finished."""
    torch.manual_seed(0)
    vae = VAEConfig(latent=2, side=4, width=8, blocks=1, dropout=0.5)
    model, x = LatentDDPM(LatentConfig(CONFIG.ddpm, vae), DataSpec(size=8)), torch.rand(2, 1, 8, 8)
    for parameter in model.vae.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.train()
    assert model.ddpm.training
    assert torch.equal(model.vae.encode(x).mean, model.vae.encode(x).mean)


def test_gray_level_grids_are_refused() -> None:
    with pytest.raises(ValueError, match="grids: expected none"):
        LatentConfig(DDPMConfig(), VAEConfig())


def test_a_ddpm_is_trained_on_the_codes_of_a_vae(tmp_path: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vae = options("vae", tmp_path / "vae", data_dir, model=VAEConfig(latent=2, side=4, width=8, blocks=1), store="fp32")
    assert main(vae, task_of(vae)) == 0
    config = options("ddpm", tmp_path / "latent", data_dir, model=DDPMConfig(T=25), vae=str(tmp_path / "vae"), store="fp32")
    assert config.kind == "latent-ddpm"
    assert main(config, train_ddpm.task(config)) == 0
    assert "2 × 4 × 4; the network has patch 1, multipliers 1 and no grids" in capsys.readouterr().out
    package = hub.read(tmp_path / "latent")
    assert isinstance(package.model, LatentDDPM)
    before = hub.read(tmp_path / "vae").model.state_dict()
    assert all(torch.equal(tensor, before[name]) for name, tensor in package.model.vae.state_dict().items())
    assert not torch.equal(package.model.std, torch.ones(2))
    assert package.metrics["command"].startswith("python training/train_ddpm.py --dataset mnist")


def test_only_a_vae_has_codes(tmp_path: Path, data_dir: Path) -> None:
    ddpm = options("ddpm", tmp_path / "ddpm", data_dir, steps=1)
    assert main(ddpm, task_of(ddpm)) == 0
    with pytest.raises(ModelError, match="expected a VAE, got a model of kind ddpm"):
        train_ddpm.task(options("ddpm", tmp_path / "latent", data_dir, vae=str(tmp_path / "ddpm")))
