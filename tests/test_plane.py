"""Points in the plane: their shapes, models that learn them, and the way back from noise."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from torch import Tensor

from genlab.divergence import Gaussian
from genlab.oracle import GaussianData
from genlab.plane import (
    DATA_NAMES,
    WALKS,
    CloudNoise,
    DataName,
    PointDDPM,
    PointVAE,
    Walk,
    around,
    denoising,
    empirical,
    field,
    lattice,
    mixture,
    noising,
    particles,
    points,
    train,
)
from genlab.process import eps_from_x0
from genlab.schedule import cosine_schedule, linear_schedule

SCHEDULE = linear_schedule(100)


# ---- data


@pytest.mark.parametrize("name", DATA_NAMES)
def test_data_sets_fill_the_square_and_follow_their_seed(name: DataName) -> None:
    x = points(name, 3000, 0)
    assert x.shape == (3000, 2)
    assert x.dtype == torch.float32
    assert float((x.abs() > 1).any(dim=1).float().mean()) < 0.05
    assert float((x.max(dim=0).values - x.min(dim=0).values).max()) > 1.5
    assert float(x.mean(dim=0).abs().max()) < 0.2
    assert torch.equal(points(name, 3000, 0), x)
    assert not torch.equal(points(name, 3000, 1), x)


def test_moons_lie_on_two_half_circles() -> None:
    x = points("moons", 2000, 0)
    near = torch.stack([((x - torch.tensor(c)).norm(dim=1) - 0.6).abs() for c in ([-0.3, -0.15], [0.3, 0.15])])
    assert float(near.min(dim=0).values.max()) < 5 * 0.03
    assert 800 < int((near[0] < near[1]).sum()) < 1200


def test_rings_are_evenly_thick() -> None:
    radius = points("rings", 4000, 0).norm(dim=1)
    inner = (radius - 0.4).abs() < 0.15
    assert bool((inner | ((radius - 0.85).abs() < 0.15)).all())
    assert float(inner.float().mean()) == pytest.approx(0.4 / (0.4 + 0.85), abs=4 * 0.5 / 4000**0.5)


def test_a_spiral_winds_twice() -> None:
    x = points("spiral", 2000, 0)
    turns = x.norm(dim=1) / 0.9 * 2  # θ / 2π along the arm
    off = torch.atan2(x[:, 1], x[:, 0]) / (2 * math.pi) - turns
    outer = turns > 0.5
    assert float((off - off.round())[outer].abs().max()) < 0.25
    assert float(turns.max()) > 1.9


def test_pinwheel_looks_alike_after_a_fifth_of_a_turn() -> None:
    x = points("pinwheel", 50_000, 0)
    angle = torch.atan2(x[:, 1], x[:, 0])
    for k in (1, 2, 3, 4, 6):
        assert float(torch.polar(torch.ones(()), k * angle).mean().abs()) < 5 / 50_000**0.5
    assert float(torch.polar(torch.ones(()), 5 * angle).mean().abs()) > 0.2


def test_checkerboard_leaves_every_other_field_free() -> None:
    x = points("checkerboard", 4000, 0)
    field_of = ((x + 1) * 2).floor().long()
    assert bool(((field_of.sum(dim=1)) % 2 == 0).all())
    assert len(field_of.unique(dim=0)) == 8


def test_letters_are_a_k_and_an_l() -> None:
    """A row at half height meets strokes on the left alone; the lowest row is the foot of the L, and K's two."""
    x = points("letters", 20_000, 0)
    foot = x[x[:, 1] < x[:, 1].min() + 0.05]
    middle = x[(x[:, 1] > 0.1) & (x[:, 1] < 0.15)]
    assert float(foot[:, 0].max()) > 0.8  # the foot reaches to the right end
    assert float(middle[:, 0].max()) < 0.5  # where above it there is only the L's stem
    gaps = middle[:, 0].sort().values.diff()
    assert int((gaps > 0.08).sum()) == 2  # K's stem, K's arm, L's stem


@pytest.mark.parametrize(("name", "components"), [("gaussians", 8), ("blobs", 3)])
def test_mixtures_are_the_data_whose_density_they_give(name: Literal["gaussians", "blobs"], components: int) -> None:
    oracle, x = mixture(name, SCHEDULE), points(name, 20_000, 0).double()
    nearest = torch.cdist(x, oracle.mean).argmin(dim=1)
    share = torch.bincount(nearest, minlength=components) / len(x)
    torch.testing.assert_close(share.double(), oracle.weight, rtol=0, atol=0.02)
    for k in range(components):
        torch.testing.assert_close(x[nearest == k].mean(0), oracle.mean[k], rtol=0, atol=0.02)
        torch.testing.assert_close(x[nearest == k].var(0), oracle.variance[k], rtol=0.1, atol=0)


def test_drawn_points_are_taken_with_a_little_jitter() -> None:
    marks = [[-0.5, 0.5], (0.5, 0), [0, -1]]
    x = around(marks, 3000, 0)
    near = torch.cdist(x, torch.tensor([[-0.5, 0.5], [0.5, 0.0], [0.0, -1.0]])).min(dim=1)
    assert x.shape == (3000, 2)
    assert x.dtype == torch.float32
    assert float(near.values.max()) < 6 * 0.02
    assert int(torch.bincount(near.indices).min()) > 850
    assert torch.equal(around(marks, 3000, 0), x)


@pytest.mark.parametrize(
    "mark", [[0.1], [0.1, 0.2, 0.3], [math.nan, 0], [0, math.inf], [1.01, 0], ["a", 0], [None, 0], 0.5, {"x": 1, "y": 2}]
)
def test_drawn_points_that_are_none_are_refused(mark: object) -> None:
    with pytest.raises(ValueError, match="expected drawn points as pairs"):
        around([[0.0, 0.0], mark], 10, 0)  # type: ignore[list-item]


def test_counts_and_names_are_checked() -> None:
    for marks in ([], [[0.0, 0.0]] * 2001):
        with pytest.raises(ValueError, match=f"expected 1 to 2000 drawn points, got {len(marks)}"):
            around(marks, 10, 0)
    with pytest.raises(ValueError, match="expected 1 to 100000 points, got 0"):
        points("moons", 0, 0)
    with pytest.raises(ValueError, match="expected 1 to 100000 points, got 100001"):
        around([[0.0, 0.0]], 100_001, 0)
    with pytest.raises(ValueError, match=r"expected a data set of moons, rings, .*got 'stars'"):
        points("stars", 10, 0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected gaussians or blobs, got 'moons'"):
        mixture("moons", SCHEDULE)  # type: ignore[arg-type]


# ---- learning


def floor(data: GaussianData, prediction: str) -> float:
    """The lowest L_simple for x_0 ~ N(m, diag V): the mean over t and dimensions of Var(target|x_t)."""
    alpha_bar = data.schedule.alpha_bar[1:, None]
    noisy = alpha_bar * data.covariance + 1 - alpha_bar
    weight = {"eps": alpha_bar, "v": 1, "velocity": (alpha_bar.sqrt() + (1 - alpha_bar).sqrt()) ** 2}
    left = data.covariance / noisy * weight[prediction]
    return float(left.mean())


def gaussian_data() -> GaussianData:
    mean, variance = torch.tensor([0.3, -0.2], dtype=torch.float64), torch.tensor([0.3, 0.05], dtype=torch.float64)
    return GaussianData(SCHEDULE, mean, variance)


@pytest.mark.parametrize("prediction", ["v", "eps", "velocity"])
def test_the_loss_of_the_perfect_network_is_the_floor(prediction: Literal["v", "eps", "velocity"]) -> None:
    data = gaussian_data()
    model = PointDDPM(SCHEDULE, prediction)

    class Perfect(torch.nn.Module):
        def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
            predicted, alpha_bar = data.predict(x_t, t), SCHEDULE.alpha_bar[t][:, None].float()
            v = alpha_bar.sqrt() * predicted.eps_hat - (1 - alpha_bar).sqrt() * predicted.x0_hat
            return {"eps": predicted.eps_hat, "v": v, "velocity": predicted.eps_hat - predicted.x0_hat}[prediction]

    model.net = Perfect()  # type: ignore[assignment]
    x_t, t = torch.linspace(-1, 1, 18).reshape(9, 2), torch.arange(1, 100, 11)
    torch.testing.assert_close(model.predict(x_t, t).x0_hat, data.predict(x_t, t).x0_hat, rtol=1e-4, atol=1e-4)
    x0 = data.sample(200_000, torch.Generator().manual_seed(0)).float()
    loss = model.loss(x0, torch.Generator().manual_seed(1))
    assert float(loss.mean()) == pytest.approx(floor(data, prediction), abs=4 * float(loss.std()) / 200_000**0.5)


def test_a_ddpm_learns_gaussian_data_to_its_floor() -> None:
    data = gaussian_data()
    x0 = data.sample(5000, torch.Generator().manual_seed(0)).float()
    model = PointDDPM(SCHEDULE, width=32, blocks=1)
    records = list(train(model, x0, steps=300, seconds=1000, every=100, batch=256))
    assert [record.step for record in records] == [100, 200, 300]
    assert records[0].loss > records[-1].loss
    best, learned = floor(data, "v"), records[-1].model
    assert isinstance(learned, PointDDPM)
    test = data.sample(100_000, torch.Generator().manual_seed(2)).float()
    with torch.no_grad():
        loss = float(learned.loss(test, torch.Generator().manual_seed(3)).mean())
    assert best * 0.98 < loss < best * 1.06
    # And what it sees is what there is to see, where most points are.
    t = torch.randint(1, 101, (2000,), generator=torch.Generator().manual_seed(4))
    alpha_bar = SCHEDULE.alpha_bar[t][:, None].float()
    x_t = alpha_bar.sqrt() * test[:2000] + (1 - alpha_bar).sqrt() * torch.randn(
        2000, 2, generator=torch.Generator().manual_seed(5)
    )
    with torch.no_grad():
        error = learned.predict(x_t, t).eps_hat - data.predict(x_t, t).eps_hat
    assert float(error.pow(2).mean()) < 0.02
    torch.testing.assert_close(eps_from_x0(SCHEDULE, x_t, learned.predict(x_t, t).x0_hat, t), learned.predict(x_t, t).eps_hat)


@pytest.mark.parametrize("latent", [1, 2])
def test_a_vae_cannot_beat_the_entropy_and_comes_near_it(latent: int) -> None:
    """Points along a line with a little noise: one latent variable is enough for all there is to know."""
    data = Gaussian(torch.zeros(1, 2), torch.tensor([[0.5**2, 0.2**2]]).log())
    x = data.sample(torch.randn(5000, 2, generator=torch.Generator().manual_seed(0)))
    entropy = float(0.5 * (math.log(2 * math.pi * math.e) * 2 + data.log_var.sum()))
    *_, last = train(PointVAE(latent, width=32), x, steps=500, seconds=1000, batch=256, every=100)
    assert isinstance(last.model, PointVAE)
    assert entropy - 0.05 < last.loss < entropy + 0.15
    z, mean, sample = last.model.sample(4000, 0)
    assert z.shape == (4000, latent)
    assert float((sample - mean).std()) == pytest.approx(float((0.5 * last.model.log_var).exp()), rel=0.05)
    torch.testing.assert_close(sample.std(dim=0), torch.tensor([0.5, 0.2]), rtol=0.25, atol=0)


def weights(model: torch.nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.parametrize("make", [PointDDPM, PointVAE])
def test_the_same_seed_and_steps_come_to_the_same_weights(make: type[PointDDPM] | type[PointVAE]) -> None:
    data, ends = points("moons", 500, 0), []
    for seed, every in ((0, 5), (0, 12), (1, 5)):
        torch.manual_seed(len(ends))  # the global generator has no say
        model = make(width=16, seed=0)
        *_, last = train(model, data, steps=12, seed=seed, every=every, batch=32)
        ends.append(torch.cat([weights(model), weights(last.model)]))
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])
    assert not torch.equal(weights(make(width=16, seed=0)), weights(make(width=16, seed=1)))


def test_learning_stops_at_its_budget_or_when_closed() -> None:
    data, model = points("moons", 500, 0), PointDDPM(width=16)
    run = train(model, data, steps=10_000, seconds=1000, every=3, batch=16)
    assert next(run).step == 3
    after = weights(model)
    run.close()
    assert torch.equal(weights(model), after)
    assert list(run) == []
    (only,) = train(model, data, steps=10_000, seconds=1e-9, batch=16)
    assert (only.step, only.steps) == (1, 10_000)
    assert only.seconds > 0
    assert [record.step for record in train(model, data, steps=8, seconds=1000, every=5, batch=16)] == [5, 8]


def test_the_average_of_the_weights_is_one_of_its_own() -> None:
    model = PointDDPM(width=16)
    *_, last = train(model, points("moons", 500, 0), steps=30, seconds=1000, batch=32)
    assert last.model is not model
    assert not torch.equal(weights(last.model), weights(model))
    assert not any(parameter.requires_grad for parameter in last.model.parameters())


def test_learning_takes_points_and_positive_numbers_alone() -> None:
    with pytest.raises(ValueError, match=r"expected points of shape \(N, 2\), got \(5, 3\)"):
        next(train(PointDDPM(width=16), torch.zeros(5, 3)))
    for name in ("steps", "seconds", "every", "batch", "rate"):
        with pytest.raises(ValueError, match=f"expected {name} > 0, got 0"):
            next(train(PointDDPM(width=16), torch.zeros(5, 2), **{name: 0}))  # type: ignore[arg-type]


# ---- walking


def test_the_forward_process_has_the_marginals_of_the_chain() -> None:
    x0 = torch.tensor([[0.8, -0.4]]).expand(20_000, 2)
    clouds = list(noising(SCHEDULE, x0, [0, 1, 30, 100], seed=0))
    assert [cloud.t for cloud in clouds] == [0, 1, 30, 100]
    assert torch.equal(clouds[0].x_t, x0)
    for cloud in clouds[1:]:
        alpha_bar = float(SCHEDULE.alpha_bar[cloud.t])
        std = (1 - alpha_bar) ** 0.5
        torch.testing.assert_close(cloud.x_t.mean(0), alpha_bar**0.5 * x0[0], rtol=0, atol=4 * std / 20_000**0.5)
        torch.testing.assert_close(cloud.x_t.std(0), torch.full((2,), std), rtol=4 / 40_000**0.5, atol=0)
    # It is a path: where a point was at t = 30 says where it is a little later.
    near = list(noising(SCHEDULE, x0, [30, 31], seed=0))
    assert float((near[1].x_t - near[0].x_t).std()) < 2 * float(SCHEDULE.beta[31]) ** 0.5
    for times in ([], [3, 3], [5, 4], [-1, 2], [0, 101]):
        with pytest.raises(ValueError, match="expected rising times from 0 to 100"):
            next(noising(SCHEDULE, x0, times, seed=0))


@pytest.mark.parametrize("way", WALKS)
def test_every_way_back_makes_the_blobs(way: Walk) -> None:
    oracle, n = mixture("blobs", cosine_schedule(100)), 1500
    frames = list(denoising(oracle.predict, oracle.schedule, n, 0, way))
    assert frames[0].t == 100
    assert frames[-1].s == 0
    assert len(frames) == 100
    assert torch.equal(frames[0].x_t, CloudNoise.from_seed(0, n).draw())
    x = frames[-1].x_s.double()
    nearest = torch.cdist(x, oracle.mean).argmin(dim=1)
    share = torch.bincount(nearest, minlength=3) / n
    torch.testing.assert_close(share.double(), oracle.weight, rtol=0, atol=0.08)
    for k in range(3):
        torch.testing.assert_close(x[nearest == k].mean(0), oracle.mean[k], rtol=0, atol=0.05)
        torch.testing.assert_close(x[nearest == k].std(0), oracle.variance[k].sqrt(), rtol=0.2, atol=0)


def test_fewer_steps_and_wrong_ways() -> None:
    oracle = mixture("blobs", SCHEDULE)
    assert len(list(denoising(oracle.predict, SCHEDULE, 3, 0, "ancestral", steps=10))) == 10
    assert len(list(denoising(oracle.predict, SCHEDULE, 3, 0, "Langevin", steps=10))) == 10
    for steps in (4, SCHEDULE.T + 1):
        with pytest.raises(ValueError, match=f"expected 5 to {SCHEDULE.T} steps of Langevin dynamics, got {steps}"):
            denoising(oracle.predict, SCHEDULE, 3, 0, "Langevin", steps=steps)
    with pytest.raises(ValueError, match="expected one of ancestral, flow, reverse SDE, Langevin; got 'up'"):
        denoising(oracle.predict, SCHEDULE, 3, 0, "up")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected 1 to 100000 points, got 0"):
        denoising(oracle.predict, SCHEDULE, 0, 0)
    with pytest.raises(ValueError, match="expected 1 to 100 steps, got 101"):
        denoising(oracle.predict, SCHEDULE, 3, 0, steps=101)


def test_particles_come_to_the_level_they_are_put_at() -> None:
    """From one corner, at a level with much noise, to the mean and covariance of q(x_t)."""
    oracle, t = mixture("blobs", SCHEDULE), 60
    *_, last = particles(oracle.predict, SCHEDULE, torch.full((1500, 2), 2.0), t, steps=150, seed=0)
    x0 = oracle.sample(100_000, torch.Generator().manual_seed(0))
    alpha_bar = SCHEDULE.alpha_bar[t]
    covariance = alpha_bar * x0.T.cov() + (1 - alpha_bar) * torch.eye(2, dtype=torch.float64)
    torch.testing.assert_close(last.x_s.mean(0).double(), alpha_bar.sqrt() * x0.mean(0), rtol=0, atol=0.1)
    torch.testing.assert_close(last.x_s.T.cov().double(), covariance, rtol=0, atol=0.12)
    with pytest.raises(ValueError, match="expected whole t from 1 to 100, got"):
        particles(oracle.predict, SCHEDULE, torch.zeros(1, 2), 0, steps=1, seed=0)


def test_a_field_is_the_score_over_the_lattice() -> None:
    place = lattice(5, 2.0)
    assert place.shape == (5, 5, 2)
    assert place[0, 0].tolist() == [-2, -2]
    assert place[0, 4].tolist() == [2, -2]
    oracle, t = mixture("blobs", SCHEDULE), 20
    x = place.flatten(0, 1).double().requires_grad_()
    (gradient,) = torch.autograd.grad(oracle.log_prob(x, torch.full((25,), t)).sum(), x)
    got = field(oracle.predict, SCHEDULE, t, 5, 2.0)
    torch.testing.assert_close(got, gradient.reshape(5, 5, 2).float(), rtol=1e-4, atol=1e-4)
    model = PointDDPM(SCHEDULE, width=16)
    assert field(model.predict, SCHEDULE, t, 5).shape == (5, 5, 2)
    with pytest.raises(ValueError, match="expected whole t from 1 to 100, got"):
        field(oracle.predict, SCHEDULE, 101, 5)


def test_points_as_a_mixture_have_the_score_of_points_with_noise() -> None:
    """With σ around each point as with a little more noise: the density of x_0 + σ z, by brute force."""
    x0 = points("moons", 50, 0).double()
    oracle, x_t, t = empirical(x0, SCHEDULE, 0.1), torch.randn(4, 2, dtype=torch.float64), torch.full((4,), 10)
    alpha_bar = SCHEDULE.alpha_bar[10]
    variance = alpha_bar * 0.01 + 1 - alpha_bar
    density = torch.exp(-(torch.cdist(x_t, alpha_bar.sqrt() * x0) ** 2) / (2 * variance)) / (2 * math.pi * variance)
    torch.testing.assert_close(oracle.log_prob(x_t, t), density.mean(dim=1).log(), rtol=1e-8, atol=1e-8)
