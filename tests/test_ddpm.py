"""The diffusion model: its network, guidance, the relations between what it predicts, and the training loss."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from genlab.config import DataSpec, DDPMConfig, UNetConfig
from genlab.ddpm import DDPM, HYBRID_WEIGHT, DDPMLoss, TimeSampler, training_times
from genlab.divergence import Gaussian, bits_per_dim
from genlab.nn import Attention, sinusoidal_embedding
from genlab.process import grid_eps, p_reverse, q_marginal, v_from_eps, x0_from_eps
from genlab.unet import UNet
from genlab.vlb import bound as exact_bound
from genlab.vlb import prior_term, step_term

CLASSES = ("one", "two", "three")


def tiny(prediction: str = "v", variance: str = "learned", classes: tuple[str, ...] = CLASSES, channels: int = 1) -> DDPM:
    """A model of 8×8 pictures in which no branch is held at zero, so that t and the label matter."""
    torch.manual_seed(0)
    unet = UNetConfig(width=8, patch=2, multipliers=(1, 2))
    config = DDPMConfig(T=30, prediction=prediction, variance=variance, unet=unet)  # type: ignore[arg-type]
    model = DDPM(config, DataSpec(channels=channels, size=8, classes=classes)).eval()
    for parameter in model.unet.parameters():
        if parameter.ndim > 1 and not bool(parameter.any()):
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def batch(channels: int = 1) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x_t, t, ε and labels of four pictures."""
    generator = torch.Generator().manual_seed(1)
    x, eps = (torch.randn(4, channels, 8, 8, generator=generator) for _ in range(2))
    return x, torch.tensor([1, 2, 15, 30]), eps, torch.tensor([0, 1, 2, 0])


# ---- the network


@pytest.mark.parametrize("patch", [1, 2, 4])
@pytest.mark.parametrize("multipliers", [(1,), (1, 2), (2, 1, 3)])
@pytest.mark.parametrize(("channels", "blocks", "classes"), [(1, 1, 0), (3, 2, 10)])
def test_the_network_keeps_the_side_and_starts_at_zero(
    patch: int, multipliers: tuple[int, ...], channels: int, blocks: int, classes: int
) -> None:
    config = UNetConfig(width=8, patch=patch, multipliers=multipliers, blocks=blocks)
    side = config.stride * 2
    network = UNet(config, channels, 2 * channels, side, classes)
    output = network(torch.randn(2, channels, side, side), torch.tensor([1, 7]))
    assert output.shape == (2, 2 * channels, side, side)
    assert bool((output == 0).all())


def test_every_weight_of_the_network_is_used() -> None:
    model = tiny()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    x_t, t, _, label = batch()
    model.network(x_t, t, label).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().sum()) > 0, name


def test_the_network_looks_at_t_and_label_and_at_every_picture_alone() -> None:
    model, (x_t, t, _, label) = tiny(), batch()
    with torch.no_grad():
        output = model.network(x_t, t, label)
        for other in (model.network(x_t, t.flip(0), label), model.network(x_t, t, (label + 1) % 3)):
            assert bool(((output - other).abs().amax(dim=(1, 2, 3)) > 1e-3).all())
        torch.testing.assert_close(output[2:3], model.network(x_t[2:3], t[2:3], label[2:3]), rtol=1e-4, atol=1e-4)


def test_times_and_labels_that_do_not_exist_are_refused() -> None:
    model, (x_t, t, _, label) = tiny(), batch()
    with pytest.raises(ValueError, match=rf"expected whole t from 1 to {model.schedule.T}, got \[0, "):
        model.predict(x_t, torch.zeros_like(t), label)
    with pytest.raises(ValueError, match=r"expected labels below 3, or negative for none, got \[3, "):
        model.predict(x_t, t, torch.full_like(label, 3))


@pytest.mark.parametrize(("size", "stride"), [(30, 4), (6, 4), (28, 8)])
def test_a_side_that_does_not_fit_is_refused(size: int, stride: int) -> None:
    config = UNetConfig(width=8, patch=2, multipliers=(1,) * (2 if stride == 4 else 3))
    assert config.stride == stride
    message = f"multiple of {stride} \\(patch 2 × 2 for each of {len(config.multipliers) - 1} halvings\\), got {size}"
    with pytest.raises(ValueError, match=message):
        DDPM(DDPMConfig(unet=config), DataSpec(size=size))


@pytest.mark.parametrize(
    ("size", "given", "multipliers"),
    [(28, (), (1, 2)), (44, (), (1, 2)), (48, (), (1, 1)), (64, (1, 2), (1, 2)), (28, (1,), (1,))],
)
def test_the_channels_are_those_of_the_side_unless_given(
    size: int, given: tuple[int, ...], multipliers: tuple[int, ...]
) -> None:
    model = DDPM(DDPMConfig(unet=UNetConfig(width=8, multipliers=given)), DataSpec(size=size))
    assert model.config.unet.multipliers == multipliers
    assert model.unet.leave[0].num_channels == 8 * multipliers[0]


def test_a_chain_too_short_for_the_linear_schedule_is_refused() -> None:
    with pytest.raises(ValueError, match="expected T > 20 for the linear schedule, got 10"):
        DDPM(DDPMConfig(T=10, schedule="linear"), DataSpec())


def test_the_embedding_of_time() -> None:
    embedding = sinusoidal_embedding(torch.tensor([0, 3, 1000]), 8)
    for i, t in enumerate((0, 3, 1000)):
        for j in range(4):
            angle = t * 10_000 ** (-j / 4)
            assert float(embedding[i, j]) == pytest.approx(math.cos(angle), abs=1e-4)
            assert float(embedding[i, j + 4]) == pytest.approx(math.sin(angle), abs=1e-4)


@pytest.mark.parametrize(("channels", "heads"), [(64, 2), (32, 1), (48, 1), (8, 1)])
def test_attention_is_softmax_attention(channels: int, heads: int) -> None:
    torch.manual_seed(0)
    layer = Attention(channels).double()
    assert layer.heads == heads
    torch.nn.init.normal_(layer.out.weight, std=0.2)
    x = torch.randn(2, channels, 3, 3, dtype=torch.float64)
    with torch.no_grad():
        q, k, v = layer.qkv(layer.norm(x)).reshape(2, 3, heads, channels // heads, 9).unbind(1)
        weight = torch.einsum("bncq,bnck->bnqk", q, k).div((channels // heads) ** 0.5).softmax(dim=-1)
        mixed = torch.einsum("bnqk,bnck->bncq", weight, v).reshape(2, channels, 3, 3)
        torch.testing.assert_close(layer(x), x + layer.out(mixed), rtol=1e-9, atol=1e-9)


# ---- what the model sees


@pytest.mark.parametrize("prediction", ["eps", "v"])
@pytest.mark.parametrize("clip", [False, True])
def test_eps_and_x0_belong_to_the_same_x_t(prediction: str, clip: bool) -> None:
    model, (x_t, t, _, label) = tiny(prediction), batch()
    with torch.no_grad():
        predicted = model.predict(x_t, t, label, clip=clip)
        again = q_marginal(model.schedule, predicted.x0_hat, t).sample(predicted.eps_hat)
        free = model.predict(x_t, t, label, clip=False)
    torch.testing.assert_close(again, x_t, rtol=1e-4, atol=1e-4)
    assert float(free.x0_hat.abs().max()) > 1.5
    expected = free.x0_hat.clamp(-1, 1) if clip else free.x0_hat
    torch.testing.assert_close(predicted.x0_hat, expected, rtol=0, atol=0)


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_the_output_of_the_network_is_eps_or_v(prediction: str) -> None:
    model, (x_t, t, _, label) = tiny(prediction), batch()
    with torch.no_grad():
        output, place = model.network(x_t, t, label).chunk(2, dim=1)
        predicted = model.predict(x_t, t, label, clip=False)
    got = v_from_eps(model.schedule, predicted.x0_hat, predicted.eps_hat, t) if prediction == "v" else predicted.eps_hat
    torch.testing.assert_close(got, output, rtol=1e-4, atol=1e-5)
    assert predicted.fraction is not None
    torch.testing.assert_close(predicted.fraction, (place + 1) / 2)


@pytest.mark.parametrize("variance", ["posterior", "beta", "learned"])
def test_the_reverse_step_is_the_models_own_or_the_one_named(variance: str) -> None:
    model, (x_t, t, _, label) = tiny(variance=variance), batch()
    with torch.no_grad():
        predicted = model.predict(x_t, t, label)
        own = model.reverse(x_t, t, label=label)
        named = model.reverse(x_t, t, label=label, variance="beta")
    expected = p_reverse(model.schedule, x_t, predicted.x0_hat, t, None, variance, predicted.fraction)  # type: ignore[arg-type]
    torch.testing.assert_close(own.mean, expected.mean)
    torch.testing.assert_close(own.log_var, expected.log_var)
    torch.testing.assert_close(named.log_var[:, 0, 0, 0].double(), model.schedule.beta[t].log(), rtol=1e-6, atol=1e-6)
    if variance != "learned":
        assert predicted.fraction is None
        with pytest.raises(ValueError, match="expected the network's fraction for the learned variance, got none"):
            model.reverse(x_t, t, variance="learned")


# ---- guidance


def test_no_label_is_a_negative_label() -> None:
    model, (x_t, t, _, label) = tiny(), batch()
    with torch.no_grad():
        none, negative = (model.predict(x_t, t, one, clip=False) for one in (None, torch.full_like(label, -1)))
        mixed = model.predict(x_t, t, torch.tensor([0, -1, 2, -7]), clip=False)
        given = model.predict(x_t, t, label, clip=False)
    assert torch.equal(none.eps_hat, negative.eps_hat)
    torch.testing.assert_close(mixed.eps_hat[[1, 3]], none.eps_hat[[1, 3]])
    torch.testing.assert_close(mixed.eps_hat[[0, 2]], given.eps_hat[[0, 2]])
    assert bool(((given.eps_hat - none.eps_hat).abs().amax(dim=(1, 2, 3)) > 1e-3).all())


def test_a_model_without_classes_takes_no_notice_of_labels() -> None:
    model, (x_t, t, _, label) = tiny(classes=()), batch()
    with torch.no_grad():
        assert torch.equal(model.predict(x_t, t, label).eps_hat, model.predict(x_t, t).eps_hat)


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_guidance(prediction: str) -> None:
    """ε̂(∅) + w (ε̂(label) − ε̂(∅)), whatever the network outputs: v is linear in ε where x_t is given."""
    model, (x_t, t, _, label) = tiny(prediction), batch()
    with torch.no_grad():
        with_label, without = (model.predict(x_t, t, one, clip=False) for one in (label, None))
        for w in (0.0, 0.5, 1.0, 3.0, -1.0):
            predicted = model.predict(x_t, t, label, guidance=w, clip=False)
            expected = without.eps_hat + w * (with_label.eps_hat - without.eps_hat)
            torch.testing.assert_close(predicted.eps_hat, expected, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(predicted.x0_hat, x0_from_eps(model.schedule, x_t, expected, t), rtol=1e-3, atol=2e-3)
        plain, one = model.predict(x_t, t, label), model.predict(x_t, t, label, guidance=1.0)
        assert torch.equal(plain.eps_hat, one.eps_hat)
        torch.testing.assert_close(model.predict(x_t, t, None, guidance=3.0).eps_hat, model.predict(x_t, t).eps_hat)


def test_guidance_does_not_push_the_variance_out_of_its_range() -> None:
    model, (x_t, t, _, label) = tiny(), batch()
    with torch.no_grad():
        with_label, without = (model.predict(x_t, t, one).fraction for one in (label, None))
        for w, expected in ((0.0, without), (1.0, with_label), (4.0, with_label), (-2.0, without)):
            torch.testing.assert_close(model.predict(x_t, t, label, guidance=w).fraction, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(with_label, without)


# ---- the loss


@pytest.mark.parametrize("prediction", ["eps", "v"])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_simple_loss_is_the_mean_squared_error_of_the_prediction(prediction: str, channels: int) -> None:
    model = tiny(prediction, channels=channels)
    x0, t, eps, label = batch(channels)
    x0 = x0.clamp(-1, 1)
    with torch.no_grad():
        loss = model(x0, t, eps, label)
        alpha_bar = model.schedule.alpha_bar[t].float().reshape(-1, 1, 1, 1)
        x_t = alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * eps
        target = eps if prediction == "eps" else alpha_bar.sqrt() * eps - (1 - alpha_bar).sqrt() * x0
        error = (target - model.network(x_t, t, label)[:, :channels]).square().mean(dim=(1, 2, 3))
    assert isinstance(loss, DDPMLoss)
    torch.testing.assert_close(loss.simple, error, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(loss.total, loss.simple + HYBRID_WEIGHT * loss.bound)


def test_the_bound_part_is_T_times_a_term_of_the_bound_in_bits() -> None:
    model = tiny()
    x0, t, eps, label = batch()
    x0 = (x0.clamp(-1, 1) * 127.5).round() / 127.5
    with torch.no_grad():
        x_t = q_marginal(model.schedule, x0, t).sample(eps)
        predicted = model.predict(x_t, t, label, clip=False)
        reverse = p_reverse(model.schedule, x_t, predicted.x0_hat, t, None, "learned", predicted.fraction)
        term = step_term(model.schedule, lambda *_: reverse, x0, x_t, t)
        torch.testing.assert_close(model.loss(x0, t, eps, label).bound, 30 * bits_per_dim(term, 64))


@pytest.mark.parametrize("channels", [1, 3])
def test_the_bound_part_teaches_the_variance_alone(channels: int) -> None:
    """Nichol & Dhariwal 2021, section 3.1: a stop-gradient on μ_θ in L_VLB, so that L_simple alone moves the mean."""
    model = tiny(channels=channels)
    x0, t, eps, label = batch(channels)
    last = model.unet.leave[-1]
    outputs = last.weight.shape[0] // 2  # the maps of v̂ come first, patch × patch each
    loss = model.loss(x0.clamp(-1, 1), t, eps, label)
    bound, simple = (torch.autograd.grad(part.sum(), last.weight, retain_graph=True)[0] for part in (loss.bound, loss.simple))
    assert bool((bound[:outputs] == 0).all())
    assert float(bound[outputs:].abs().min(dim=0).values.max()) > 0
    assert bool((simple[outputs:] == 0).all())
    assert float(simple[:outputs].abs().max()) > 0


@pytest.mark.parametrize("variance", ["posterior", "beta"])
def test_a_fixed_variance_has_no_bound_part(variance: str) -> None:
    x0, t, eps, label = batch()
    model = tiny(variance=variance)
    loss = model.loss(x0, t, eps, label)
    assert bool((loss.bound == 0).all())
    torch.testing.assert_close(loss.total, loss.simple)
    assert model.network(x0, t, label).shape == x0.shape


def test_the_loss_is_one_value_a_picture() -> None:
    model = tiny()
    x0, t, eps, label = batch()
    with torch.no_grad():
        together = model.loss(x0, t, eps, label).total
        for i in range(4):
            alone = model.loss(x0[i : i + 1], t[i : i + 1], eps[i : i + 1], label[i : i + 1]).total
            torch.testing.assert_close(alone, together[i : i + 1], rtol=1e-3, atol=1e-3)


def test_every_time_is_drawn_equally_often() -> None:
    T, draws = 30, 3000
    t = torch.cat([training_times(T, 4, (i + torch.tensor(0.5)) / draws) for i in range(draws)])
    assert t.bincount(minlength=T + 1).tolist() == [0] + [4 * draws // T] * T


def test_every_batch_of_times_is_spread_over_the_chain() -> None:
    for u in (0.0, 0.5, 0.999999):
        t = training_times(1000, 64, torch.tensor([u]))
        middles = (torch.arange(64) + 0.5) * 1000 / 64
        assert bool(((t - 0.5 - middles).abs() <= 1000 / 128 + 0.5).all())


@pytest.mark.parametrize("variance", ["learned", "beta"])
def test_the_whole_bound_is_the_sum_of_its_terms_and_teaches_the_mean_too(variance: str) -> None:
    """Σ_t ℓ_t with the noise of `vlb.bound`, for the model without clipping, and a gradient through the maps of v̂."""
    model = tiny(variance=variance)
    x0 = (torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(2)) * 255).round() / 127.5 - 1

    def reverse(x_t: Tensor, t: Tensor) -> Gaussian:
        denoised = model.predict(x_t, t, clip=False)
        return p_reverse(model.schedule, x_t, denoised.x0_hat, t, None, model.config.variance, denoised.fraction)

    with torch.no_grad():
        ledger = exact_bound(model.schedule, reverse, x0, torch.Generator().manual_seed(3))
    again, total = torch.Generator().manual_seed(3), torch.zeros(2)
    for step in range(30, 0, -1):
        t, eps = torch.full((2,), step), torch.randn(x0.shape, generator=again)
        total = total + model.loss(x0, t, eps, whole_bound=True).bound / 30
    wanted = bits_per_dim(ledger.total - prior_term(model.schedule, x0), 64)
    torch.testing.assert_close(total.detach(), wanted, rtol=1e-4, atol=1e-4)
    (gradient,) = torch.autograd.grad(total.sum(), model.unet.leave[-1].weight)
    assert bool((gradient.flatten(1).abs().max(dim=1).values > 0).all())


def uneven_terms(t: Tensor) -> Tensor:
    return 3.0 / t + 0.01


def trained_sampler(T: int) -> TimeSampler:
    times = TimeSampler(T)
    for _ in range(3):
        every = torch.arange(1, T + 1)
        times.update(every, uneven_terms(every))
    return times


def test_importance_sampled_times_leave_the_sum_of_the_terms_as_it_is() -> None:
    for times in (TimeSampler(1000), trained_sampler(1000)):
        t, weight = times.draw(1_000_000, torch.tensor(0.5))
        assert int(t.min()) == 1
        assert int(t.max()) == 1000
        exact = float(uneven_terms(torch.arange(1, 1001).double()).sum())
        assert float((weight * uneven_terms(t.double())).mean()) == pytest.approx(exact, rel=1e-4)
        # Each time comes as often as its probability says.
        shares = t.bincount(minlength=1001)[1:].double() / len(t)
        per_time = times.probabilities().repeat_interleave(times.length)
        torch.testing.assert_close(shares, per_time, atol=2e-6, rtol=0)


def test_importance_sampled_times_have_less_variance_than_even_ones() -> None:
    """E[(ℓ_t/p_t)²] is least at p_t ∝ √E[ℓ_t²], (Σ √E[ℓ_t²])²; a tenth of even draws costs at most 1/0.9 of it."""
    times, every = trained_sampler(1000), torch.arange(1, 1001).double()
    p = times.probabilities().repeat_interleave(times.length)
    assert float(p.sum()) == pytest.approx(1)
    terms = uneven_terms(every)
    least = float(terms.sum()) ** 2
    assert least < float((terms**2 / p).sum()) < least / 0.9
    assert float((terms**2 * 1000).sum()) > 3 * least


def test_the_time_sampler_starts_even_and_forgets_old_terms() -> None:
    times = TimeSampler(100)
    times.update(torch.tensor([1, 1, 100]), torch.tensor([5.0, 5.0, 1.0]))
    torch.testing.assert_close(times.probabilities(), torch.full((50,), 0.01, dtype=torch.float64))
    for _ in range(30):
        times.update(torch.arange(1, 101), torch.full((100,), 4.0))
    for _ in range(2000):
        times.update(torch.arange(1, 101), torch.full((100,), 0.5))
    torch.testing.assert_close(times.state[1].sqrt(), torch.full((50,), 0.5, dtype=torch.float64), rtol=1e-3, atol=0)


@pytest.mark.parametrize(("grids", "maps"), [((), 3), ((1, 51), 9)])
def test_the_network_sees_the_picture_and_the_noise_of_each_grid(grids: tuple[int, ...], maps: int) -> None:
    config = DDPMConfig(T=30, grids=grids, unet=UNetConfig(width=8, patch=1, multipliers=(1, 1)))
    model, seen = DDPM(config, DataSpec(channels=3, size=8)), []
    model.unet.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    x_t, t = torch.randn(2, 3, 8, 8), torch.tensor([1, 30])
    model.predict(x_t, t)
    expected = [x_t, *grid_eps(model.schedule, x_t, t, grids).unbind(1)]
    torch.testing.assert_close(seen[0], torch.cat(expected, dim=1), rtol=0, atol=0)
    assert seen[0].shape[1] == maps
