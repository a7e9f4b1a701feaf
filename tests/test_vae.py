"""The VAE against the linear-Gaussian one, whose evidence is known, and its distributions against torch.distributions."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from torch import Tensor, nn
from torch import distributions as peer

from genlab.config import DataSpec, DecoderName, VAEConfig
from genlab.divergence import Gaussian
from genlab.likelihood import Bernoulli
from genlab.oracle import LinearGaussianVAE
from genlab.vae import LOWEST_LOG_VAR, VAE, floored
from training.likelihood import vae_bound
from training.partial import Partial, Progress

SIDE, LATENT = 4, 3


@pytest.fixture
def linear() -> LinearGaussianVAE:
    """D = 16, M = 3, columns of different lengths."""
    generator = torch.Generator().manual_seed(0)
    axes, _ = torch.linalg.qr(torch.randn(SIDE**2, LATENT, generator=generator, dtype=torch.float64))
    mean = torch.randn(SIDE**2, generator=generator, dtype=torch.float64)
    return LinearGaussianVAE(axes * torch.tensor([2.0, 0.7, 0.05], dtype=torch.float64), mean, 0.1)


@pytest.fixture
def x() -> Tensor:
    return 2 * torch.randn(6, SIDE**2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


class Encoder(nn.Module):
    """The exact posterior of a linear-Gaussian VAE in the place of the network, off by `shift` where one is given."""

    def __init__(self, oracle: LinearGaussianVAE, shift: float = 0.0) -> None:
        super().__init__()
        self.oracle, self.shift = oracle, shift

    def forward(self, x: Tensor) -> Tensor:
        q = self.oracle.posterior(x.flatten(1))
        return torch.cat([q.mean + self.shift, q.log_var - self.shift], dim=1)


class Decoder(nn.Module):
    def __init__(self, oracle: LinearGaussianVAE) -> None:
        super().__init__()
        self.oracle = oracle

    def forward(self, z: Tensor) -> Tensor:
        return self.oracle.decode(z).mean.reshape(-1, 1, SIDE, SIDE)


def as_vae(oracle: LinearGaussianVAE, shift: float = 0.0) -> VAE:
    """The `VAE` itself with linear maps for its two networks."""
    vae = VAE(VAEConfig(latent=LATENT, width=8, hidden=8), DataSpec(size=SIDE)).double()
    vae.encoder, vae.decoder = Encoder(oracle, shift), Decoder(oracle)  # type: ignore[assignment]
    vae.log_var = nn.Parameter(torch.tensor(oracle.variance, dtype=torch.float64).log())
    return vae


@pytest.mark.parametrize("likelihood", get_args(DecoderName))
def test_the_elbo_is_computed_in_fp32_where_the_network_is_not(likelihood: str) -> None:
    vae, x = tiny(likelihood), torch.rand(3, 1, 8, 8).round() * 2 - 1
    with torch.autocast("cpu", torch.bfloat16):
        elbo = vae.elbo(x, torch.randn(3, LATENT))
    assert elbo.reconstruction.dtype == elbo.kl.dtype == torch.float32


def test_a_sigma_below_its_floor_comes_back() -> None:
    log_var = torch.tensor(LOWEST_LOG_VAR - 1, requires_grad=True)
    assert floored(log_var, LOWEST_LOG_VAR).item() == LOWEST_LOG_VAR
    value = floored(log_var, LOWEST_LOG_VAR)
    (0.5 * (value + torch.exp(-value))).backward()  # −log N(1; 0, σ²), which wants a larger σ
    assert log_var.grad < -1e3
    assert float(floored(torch.tensor(-3.0), LOWEST_LOG_VAR)) == -3


def tiny(likelihood: str) -> VAE:
    torch.manual_seed(0)
    return VAE(VAEConfig(latent=LATENT, likelihood=likelihood, width=8, hidden=16), DataSpec(size=8)).eval()  # type: ignore[arg-type]


def test_the_exact_posterior_makes_the_elbo_the_evidence(linear: LinearGaussianVAE, x: Tensor) -> None:
    evidence = peer.MultivariateNormal(linear.mean, linear.weight @ linear.weight.T + 0.1 * torch.eye(16, dtype=torch.float64))
    torch.testing.assert_close(linear.elbo(x, linear.posterior(x)), evidence.log_prob(x), rtol=1e-10, atol=1e-10)

    # Through VAE.elbo: log p(x|z) is a sum of polynomials of degree 2 in each z_j (the columns of W are orthogonal), whose mean
    # over z_j's noise is the same for ±1 with equal odds as for N(0, 1).
    vae, pictures = as_vae(linear), x.reshape(6, 1, SIDE, SIDE)
    both = [vae.elbo(pictures, torch.full((6, LATENT), sign, dtype=torch.float64)) for sign in (1.0, -1.0)]
    torch.testing.assert_close((both[0].total + both[1].total) / 2, evidence.log_prob(x), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(vae(pictures, torch.ones(6, LATENT).double()).total, both[0].total)


def test_the_elbo_falls_short_by_the_kl_to_the_posterior(linear: LinearGaussianVAE, x: Tensor) -> None:
    """Eq. 2 of the module: log p(x) = ELBO + KL[q(z|x) ‖ p(z|x)] for every q and every x."""
    shift = 0.4
    vae, posterior, pictures = as_vae(linear, shift), linear.posterior(x), x.reshape(6, 1, SIDE, SIDE)
    q = vae.encode(pictures)
    gap = peer.kl_divergence(peer.Normal(q.mean, q.std), peer.Normal(posterior.mean, posterior.std)).sum(dim=1)
    both = [vae.elbo(pictures, torch.full((6, LATENT), sign, dtype=torch.float64)).total for sign in (1.0, -1.0)]
    torch.testing.assert_close((both[0] + both[1]) / 2 + gap, linear.log_evidence(x), rtol=1e-10, atol=1e-10)
    assert bool((gap > 0.1).all())


@pytest.mark.parametrize("k", [1, 2, 7])
def test_the_importance_weighted_bound_is_the_evidence_at_the_exact_posterior(
    linear: LinearGaussianVAE, x: Tensor, k: int
) -> None:
    """Every weight p(x, z)/q(z|x) is then p(x) itself, whichever z was drawn."""
    noise = 3 * torch.randn(k, 6, LATENT, generator=torch.Generator().manual_seed(k), dtype=torch.float64)
    got = as_vae(linear).importance_weighted_bound(x.reshape(6, 1, SIDE, SIDE), noise)
    torch.testing.assert_close(got, linear.log_evidence(x), rtol=1e-10, atol=1e-10)


def test_more_importance_samples_close_the_gap(linear: LinearGaussianVAE, x: Tensor) -> None:
    vae, many = as_vae(linear, 0.4), x.repeat(100, 1)
    generator = torch.Generator().manual_seed(0)
    gaps = []
    for k in (1, 10, 200):
        noise = torch.randn(k, len(many), LATENT, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            bound = vae.importance_weighted_bound(many.reshape(-1, 1, SIDE, SIDE), noise)
        gaps.append(float((linear.log_evidence(many) - bound).mean()))
    assert gaps[0] > 2 * gaps[1] > 4 * abs(gaps[2])


def test_how_many_are_decoded_together_changes_nothing(linear: LinearGaussianVAE, x: Tensor) -> None:
    vae, pictures = as_vae(linear, 0.4), x.reshape(6, 1, SIDE, SIDE)
    noise = torch.randn(7, 6, LATENT, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    whole = vae.log_weights(pictures, noise)
    assert whole.shape == (7, 6)
    for at_once in (1, 6, 13, 100):
        torch.testing.assert_close(vae.log_weights(pictures, noise, at_once=at_once), whole, rtol=1e-12, atol=1e-12)


class LinearEncoder(nn.Module):
    """q(z|x) = N(A x + b, Σ), Σ diagonal and the same for every x."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Linear(SIDE**2, LATENT)
        self.log_var = nn.Parameter(torch.zeros(LATENT))

    def forward(self, x: Tensor) -> Tensor:
        mean = self.mean(x.flatten(1))
        return torch.cat([mean, self.log_var.expand_as(mean)], dim=1)


def test_a_trained_linear_vae_reaches_the_evidence_of_probabilistic_pca(linear: LinearGaussianVAE) -> None:
    """Trained on its ELBO alone, with no look at the answer (Tipping & Bishop 1999; Lucas et al. 2019).

    The reconstruction is a polynomial of degree 2 in the three noises of z. Over the four points of `noise` these have means 0,
    variances 1 and no correlation, as under N(0, I): so the loss is exact, and L-BFGS can be used.
    """
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(300, LATENT, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 1.5, 20.0], dtype=torch.float64)
    x = linear.decode(z).sample(torch.randn(300, SIDE**2, generator=generator, dtype=torch.float64))
    torch.manual_seed(0)
    vae = VAE(VAEConfig(latent=LATENT, width=8, hidden=8), DataSpec(size=SIDE))
    vae.encoder = LinearEncoder()  # type: ignore[assignment]
    vae.decoder = nn.Sequential(nn.Linear(LATENT, SIDE**2), nn.Unflatten(1, (1, SIDE, SIDE)))  # type: ignore[assignment]
    vae.double()
    noise = torch.tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=torch.float64).repeat_interleave(300, dim=0)
    pictures = x.reshape(300, 1, SIDE, SIDE)
    optimiser = torch.optim.LBFGS(
        vae.parameters(), max_iter=500, history_size=50, tolerance_change=0, tolerance_grad=1e-7, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimiser.zero_grad()
        total = -vae(pictures.repeat(4, 1, 1, 1), noise).total.mean()
        total.backward()
        return total

    optimiser.step(loss)
    best = LinearGaussianVAE.fit(x, LATENT)
    evidence = float(best.log_evidence(x).mean())
    assert -loss().item() == pytest.approx(evidence, abs=5e-5)
    assert vae.log_var is not None
    assert vae.log_var.exp().item() == pytest.approx(best.variance, rel=1e-3)

    # Measured as any VAE is: the posterior is exact by now, so that every weight is log p(x), and so is every bound.
    vae.requires_grad_(False)
    section = vae_bound(vae, pictures, 3, 200, 50, 0, 64, *nowhere(), discretised=False)
    for row in section["importance_weighted"]:
        assert row["bound_nats"] == pytest.approx(float(best.log_evidence(x[: row["images"]]).mean()), abs=1e-3)


def nowhere() -> tuple[Partial, Progress]:
    progress = Progress(1, "decoding")
    progress.close()
    return Partial(None, {}), progress


def test_measured_bounds_rise_with_k_to_the_evidence(linear: LinearGaussianVAE, x: Tensor) -> None:
    shift = 0.1
    vae, many = as_vae(linear, shift).requires_grad_(False), x.repeat(50, 1)
    section = vae_bound(vae, many.reshape(-1, 1, SIDE, SIDE), 10, 1000, 120, 0, 64, *nowhere(), discretised=False)
    rows = {(row["k"], row["images"]): row for row in section["importance_weighted"]}
    assert set(rows) == {(1, 300), (10, 300), (1000, 120), (1, 120), (10, 120)}
    some = [rows[k, 120]["bound_nats"] for k in (1, 10, 1000)]
    evidence, posterior = float(linear.log_evidence(many[:120]).mean()), linear.posterior(x)
    q = peer.Normal(posterior.mean + shift, posterior.std * math.exp(-shift / 2))
    gap = float(peer.kl_divergence(q, peer.Normal(posterior.mean, posterior.std)).sum(dim=1).mean())
    assert some[0] < some[1] < some[2]
    assert some[2] == pytest.approx(evidence, abs=0.02)
    assert evidence - some[0] == pytest.approx(gap, rel=0.2)
    assert evidence - some[1] > 0.05 * gap
    assert section["reconstruction_nats"] - section["kl_nats"] == pytest.approx(section["elbo_nats"], abs=1e-9)
    assert rows[1000, 120]["bound_bits_per_dim"] == pytest.approx(-some[2] / math.log(2) / 16)


def test_kl_and_activity_of_each_latent(linear: LinearGaussianVAE) -> None:
    """The posterior mean of z_j has, over the data, the variance |w_j|²/(|w_j|² + σ²): here 0.98, 0.83 and 0.024."""
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(4000, LATENT, generator=generator, dtype=torch.float64)
    x = linear.decode(z).sample(torch.randn(4000, 16, generator=generator, dtype=torch.float64))
    vae = as_vae(linear).requires_grad_(False)
    section = vae_bound(vae, x.reshape(-1, 1, SIDE, SIDE), 2, 5, 0, 0, 500, *nowhere(), discretised=False)
    power = (linear.weight**2).sum(dim=0)
    share = power / (power + linear.variance)
    assert section["posterior_mean_variance_per_latent"] == pytest.approx(share.tolist(), rel=0.1)
    assert (section["active_latents"], section["latents"]) == (3, 3)
    q = linear.posterior(x)
    expected = peer.kl_divergence(peer.Normal(q.mean, q.std), peer.Normal(0.0, 1.0)).mean(dim=0)
    assert section["kl_per_latent_nats"] == pytest.approx(expected.tolist(), rel=1e-5)
    assert section["kl_nats"] == pytest.approx(float(expected.sum()))
    dead = LinearGaussianVAE(linear.weight * torch.tensor([1.0, 1.0, 0.5]).double(), linear.mean, linear.variance)  # 0.006
    quiet = as_vae(dead).requires_grad_(False)
    x = dead.decode(z).sample(torch.randn(4000, 16, generator=generator, dtype=torch.float64))
    section = vae_bound(quiet, x.reshape(-1, 1, SIDE, SIDE), 2, 5, 0, 0, 500, *nowhere(), discretised=False)
    assert section["active_latents"] == 2


def test_the_importance_weighted_bound_is_its_definition() -> None:
    vae = tiny("gaussian-per-pixel")
    x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    noise = torch.randn(5, 4, LATENT, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        q, log_ratios = vae.encode(x), []
        for one in noise:
            z = q.mean + q.std * one
            p = vae.decode(z)
            assert isinstance(p, Gaussian)
            log_p_x = peer.Normal(p.mean, p.std).log_prob(x).sum(dim=(1, 2, 3))
            log_p_z = peer.Normal(0.0, 1.0).log_prob(z).sum(dim=1)
            log_ratios.append(log_p_x + log_p_z - peer.Normal(q.mean, q.std).log_prob(z).sum(dim=1))
        expected = torch.stack(log_ratios).double().exp().mean(dim=0).log()
        assert bool(torch.isfinite(expected).all())
        got = vae.importance_weighted_bound(x, noise).double()
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-3)


def test_the_best_fit_is_a_stationary_point_with_a_likelihood_above_its_neighbours() -> None:
    generator = torch.Generator().manual_seed(0)
    noise, mixing = (torch.randn(rows, 6, generator=generator, dtype=torch.float64) for rows in (200, 6))
    x = noise @ mixing
    fitted = LinearGaussianVAE.fit(x, 2)
    weight, mean = fitted.weight.clone().requires_grad_(), fitted.mean.clone().requires_grad_()
    log_variance = torch.tensor(math.log(fitted.variance), dtype=torch.float64, requires_grad=True)
    covariance = weight @ weight.T + log_variance.exp() * torch.eye(6, dtype=torch.float64)
    total = peer.MultivariateNormal(mean, covariance).log_prob(x).mean()
    for gradient in torch.autograd.grad(total, (weight, mean, log_variance)):
        assert float(gradient.abs().max()) < 1e-9
    assert total.item() == pytest.approx(fitted.log_evidence(x).mean().item(), rel=1e-12)
    # Another two axes are stationary too, but lower: the fit takes the largest.
    eigenvalue, axes = torch.linalg.eigh((x - x.mean(0)).T @ (x - x.mean(0)) / 200)
    chosen = [3, 5]
    rest = float(eigenvalue[[0, 1, 2, 4]].mean())
    other = LinearGaussianVAE(axes[:, chosen] * (eigenvalue[chosen] - rest).clamp(min=0).sqrt(), fitted.mean, rest)
    assert float(other.log_evidence(x).mean()) < total.item()


def test_the_fit_finds_what_made_the_data(linear: LinearGaussianVAE) -> None:
    generator = torch.Generator().manual_seed(3)
    z = torch.randn(20_000, LATENT, generator=generator, dtype=torch.float64)
    x = linear.decode(z).sample(torch.randn(20_000, 16, generator=generator, dtype=torch.float64))
    fitted = LinearGaussianVAE.fit(x, LATENT)
    assert fitted.variance == pytest.approx(linear.variance, rel=0.02)
    torch.testing.assert_close(fitted.mean, linear.mean, rtol=0, atol=5 * math.sqrt(4.1 / 20_000))
    torch.testing.assert_close(fitted.weight @ fitted.weight.T, linear.weight @ linear.weight.T, rtol=0, atol=0.1)


def test_linear_vaes_that_are_none_are_refused() -> None:
    mean = torch.zeros(3)
    with pytest.raises(ValueError, match="expected W with orthogonal columns, got some that are not"):
        LinearGaussianVAE(torch.tensor([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0]]), mean, 0.1)
    with pytest.raises(ValueError, match=r"expected W with fewer columns than rows, got shape \(3, 3\)"):
        LinearGaussianVAE(torch.eye(3), mean, 0.1)
    with pytest.raises(ValueError, match="expected σ² > 0, got 0"):
        LinearGaussianVAE(torch.eye(3)[:, :2], mean, 0.0)


@pytest.mark.parametrize("likelihood", ["gaussian", "gaussian-per-pixel", "bernoulli"])
def test_log_likelihoods_agree_with_torch_distributions(likelihood: str) -> None:
    vae = tiny(likelihood)
    x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    noise = torch.randn(4, LATENT, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        q = vae.encode(x)
        p = vae.decode(q.sample(noise))
        if isinstance(p, Bernoulli):
            x = x.sign()
            q = vae.encode(x)
            p = vae.decode(q.sample(noise))
            assert isinstance(p, Bernoulli)
            theirs: peer.Distribution = peer.Bernoulli(logits=p.logits)
            expected = theirs.log_prob((x + 1) / 2)
            torch.testing.assert_close(p.mean, 2 * theirs.mean - 1, rtol=1e-5, atol=1e-6)
        else:
            expected = peer.Normal(p.mean, p.std).log_prob(x)
        parts = vae.elbo(x, noise)
        theirs_kl = peer.kl_divergence(peer.Normal(q.mean, q.std), peer.Normal(torch.zeros(1), torch.ones(1))).sum(dim=1)
    torch.testing.assert_close(parts.reconstruction, expected.sum(dim=(1, 2, 3)), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(parts.kl, theirs_kl, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(parts.total, parts.reconstruction - parts.kl)


def test_bernoulli_probabilities_sum_to_one() -> None:
    logits = torch.tensor([[[[-40.0, -3.0, 0.0, 2.0, 40.0]]]])
    light, dark = (Bernoulli(logits[..., i : i + 1]) for i in (3, 1))
    for p in (light, dark):
        one = torch.ones(1, 1, 1, 1)
        assert float(p.log_prob(one).exp() + p.log_prob(-one).exp()) == pytest.approx(1, abs=1e-6)
    # At large logits neither overflows: log p is −40 and about 0.
    assert Bernoulli(logits[..., :1]).log_prob(torch.ones(1, 1, 1, 1)).item() == pytest.approx(-40)
    assert Bernoulli(logits[..., :1]).log_prob(-torch.ones(1, 1, 1, 1)).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("likelihood", ["gaussian", "gaussian-per-pixel"])
def test_the_discretised_elbo_of_a_narrow_level_is_the_density_times_its_width(likelihood: str) -> None:
    """For σ well above a gray level, log mass = log density + log(2/255) to second order in the width over σ."""
    vae = tiny(likelihood)
    if vae.log_var is not None:
        vae.log_var.data.fill_(-1.0)
    x = torch.full((2, 1, 8, 8), 101 / 127.5 - 1)
    noise = torch.randn(2, LATENT, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        density, mass = vae.elbo(x, noise), vae.elbo(x, noise, discretised=True)
    torch.testing.assert_close(mass.reconstruction, density.reconstruction + 64 * math.log(2 / 255), rtol=0, atol=0.05)
    assert bool((mass.reconstruction <= 0).all())
    with torch.no_grad():
        k = vae.importance_weighted_bound(x, noise[None], discretised=True)
        assert bool((k <= 0).all())


def test_sigma_has_a_floor() -> None:
    one, each = tiny("gaussian"), tiny("gaussian-per-pixel")
    assert one.log_var is not None
    one.log_var.data.fill_(-50.0)
    with torch.no_grad():
        for bias in each.decoder[-2].bias.split(1):
            bias.fill_(-1000.0)
        for vae in (one, each):
            p = vae.decode(torch.zeros(1, LATENT))
            assert isinstance(p, Gaussian)
            assert float(p.log_var.min()) == pytest.approx(LOWEST_LOG_VAR, abs=1e-4)


@pytest.mark.parametrize(("channels", "size"), [(1, 4), (3, 8), (1, 12), (1, 28), (3, 32)])
@pytest.mark.parametrize("likelihood", ["gaussian", "gaussian-per-pixel", "bernoulli"])
def test_shapes(channels: int, size: int, likelihood: str) -> None:
    config = VAEConfig(latent=5, likelihood=likelihood, width=8, hidden=8)  # type: ignore[arg-type]
    vae = VAE(config, DataSpec(channels=channels, size=size))
    x = torch.zeros(2, channels, size, size)
    q = vae.encode(x)
    assert q.mean.shape == q.log_var.shape == (2, 5)
    assert vae.decode(q.mean).log_prob(torch.ones_like(x)).shape == (2,)
    assert vae.decode(q.mean).mean.shape == x.shape
    assert vae.elbo(x, torch.zeros(2, 5)).total.shape == (2,)


@pytest.mark.parametrize(
    ("size", "message"), [(7, "expected an even picture side, got 7"), (30, "halves down to 8 or fewer pixels, got 30")]
)
def test_sides_that_cannot_be_halved_are_refused(size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VAE(VAEConfig(width=8, hidden=8), DataSpec(size=size))


@pytest.mark.parametrize(("size", "side"), [(28, 14), (28, 7), (32, 4), (48, 3)])
def test_z_may_be_a_map(size: int, side: int) -> None:
    torch.manual_seed(0)
    config = VAEConfig(latent=2, side=side, likelihood="logistic", width=8, blocks=1)
    vae, x = VAE(config, DataSpec(size=size, channels=3)).eval(), torch.rand(2, 3, size, size) * 2 - 1
    assert vae.encode(x).mean.shape == (2, config.latents) == (2, 2 * side**2)
    elbo = vae.elbo(x, torch.randn(2, config.latents))
    assert elbo.total.shape == (2,)


@pytest.mark.parametrize(("size", "side", "possible"), [(28, 8, "14, 7"), (28, 28, "14, 7"), (33, 4, "none")])
def test_a_side_that_halving_does_not_lead_to_is_refused(size: int, side: int, possible: str) -> None:
    with pytest.raises(ValueError, match=rf"halving {size} leads to \({possible}\), got {side}"):
        VAE(VAEConfig(side=side, width=8), DataSpec(size=size))
