"""The Compare tab: both sides are what they draw alone, on one clock, and their difference is counted."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch

from genlab import draw
from genlab.config import DataSpec
from genlab.demo.limits import LimitError, Offer, evaluations
from genlab.demo.served import Models
from genlab.demo.tabs.compare import compute
from genlab.demo.tabs.compare.request import COUNT, longest, parse_compare
from genlab.demo.turns import Runner
from tests import tiny

MNIST, VAE = "ddpm-mnist", "vae-mnist"
DIGITS = DataSpec("mnist", 1, 28, tuple("0123456789"))


OFFERS = {
    MNIST: Offer(MNIST, "ddpm", DIGITS, 1000, 20),
    "few": Offer("few", "consistency", DIGITS, 1000, 20, most_steps=4),
    "ddpm-large": Offer("ddpm-large", "ddpm", DataSpec("large", 3, 64), 1000, 20),
    "classes-large": Offer("classes-large", "ddpm", DataSpec("large", 3, 64, ("a", "b")), 1000, 20),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return tiny.load_models(tiny.save_models(tmp_path_factory.mktemp("models")))


def side(
    model: str = MNIST, label: Any = "any", steps: int = 4, sampler: str = "DDIM", variance: str = "own", w: float = 1
) -> list[Any]:
    return [model, label, steps, sampler, variance, w]


def compared(models: Models, a: list[Any], b: list[Any], seed: int = 3) -> list[compute.CompareFrame]:
    return list(compute.compare(models, Runner(), parse_compare(models.offers, a, b, seed)))


def test_each_side_shows_what_it_has_reached_by_then(models: Models) -> None:
    a, b = side(steps=4), side(steps=6, w=2)
    request = parse_compare(models.offers, a, b, 3)
    frames = compared(models, a, b)
    assert [round(tiny.T * frame.time) for frame in frames] == [60, 50, 45, 40, 30, 20, 15, 10, 0]
    model = models.ddpm(MNIST)
    for name, options in (("a", request.a.sampling), ("b", request.b.sampling)):
        alone = list(draw.frames(model, range(3, 7), options))
        for frame in frames:
            reached = [each for each in alone if each.t >= round(tiny.T * frame.time)][-1]
            assert torch.equal(getattr(frame, name), reached.pictures)


def test_the_difference_is_that_of_the_pixels(models: Models) -> None:
    frames = compared(models, side(), side(label="7", sampler="ancestral"))
    for frame in (frames[0], frames[-1]):
        a, b = (picture.numpy().astype(float) for picture in (frame.a, frame.b))
        np.testing.assert_array_equal(frame.difference.numpy(), np.abs(a - b))
        np.testing.assert_allclose(frame.rms.numpy(), np.sqrt(((a - b) ** 2).mean(axis=(1, 2, 3))))
    assert float(frames[0].rms.max()) == 0, "the noise is the same"
    assert float(frames[-1].rms.min()) > 0
    assert float(compared(models, side(), side())[-1].rms.max()) == 0


def test_sigma_is_that_of_each_side(models: Models) -> None:
    beta, posterior = side(sampler="ancestral", variance="beta"), side(sampler="ancestral", variance="posterior")
    assert float(compared(models, beta, posterior)[-1].rms.min()) > 0
    assert float(compared(models, posterior, side(sampler="ancestral"))[-1].rms.max()) == 0, "the tiny model's own Σ is β̃"


def test_a_vae_is_there_at_once_and_its_noise_is_another(models: Models) -> None:
    request = parse_compare(models.offers, side(), side(VAE, steps=200), 3)
    assert compute.same_noise(models, request) == (False, (1, 28, 28), (4,))
    frames = compared(models, side(), side(VAE))
    assert len(frames) == 5
    assert all(torch.equal(frame.b, frames[0].b) for frame in frames)
    assert compute.same_noise(models, parse_compare(models.offers, side(), side(steps=9), 3))[0]


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (side(), side("ddpm-large"), "A and B: expected models of pictures of one shape, got ddpm-mnist (1×28×28)"),
        (side(variance="learned"), side(), "Σ of the ancestral step: expected one of own, posterior, beta"),
        (side(steps=250, w=4), side(steps=250, w=4), ""),
        (side(steps=250, w=4, label="10"), side(), "class for ddpm-mnist: expected one of any, 0"),
        (side(steps=251), side(), "steps: expected a whole number from 1 to 250"),
        (side(), side("ddpm-large", steps=120), "steps: expected a whole number from 1 to 119, got 120"),
        (side("few", steps=5), side(), "steps: expected a whole number from 1 to 4, got 5"),
    ],
)
def test_what_cannot_be_compared_is_refused(a: list[Any], b: list[Any], message: str) -> None:
    if not message:
        assert parse_compare(OFFERS, a, b, 0)
        return
    with pytest.raises(LimitError, match=re.escape(message)):
        parse_compare(OFFERS, a, b, 0)


@pytest.mark.parametrize("model", OFFERS)
def test_the_most_steps_on_both_sides_cost_no_more_than_a_request_may(model: str) -> None:
    offer = OFFERS[model]
    both = side(model, steps=longest(offer), w=4)
    request = parse_compare(OFFERS, both, both, 0)
    twice = 2 if offer.data.classes else 1
    cost = sum(COUNT * each.sampling.steps * twice for each in (request.a, request.b))
    assert cost <= evaluations(offer.data)
    assert longest(offer) in (250, offer.most_steps) or cost + 2 * COUNT * twice > evaluations(offer.data)
