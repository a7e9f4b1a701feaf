"""Samples drawn and measured: models whose answers are known go the way of a real one."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from genlab.config import DataSpec, Sampling, VAEConfig
from genlab.data import Dataset, to_model
from genlab.divergence import Gaussian
from genlab.draw import draw
from genlab.features import Classifier, ClassifierConfig, FeatureError, FeatureNet
from genlab.metrics import frechet_distance
from genlab.process import Denoised
from genlab.vae import VAE
from tests import tiny
from training.sample_quality import SHOWN, Reference, check, curve, measure, reconstructions

DIMS = 6
SPEC = DataSpec("mnist", 1, 28, ("a", "b"))


def pictures(count: int, seed: int) -> Dataset:
    """Smooth random pictures; the labels play no part."""
    coarse = torch.rand(count, 1, 5, 5, generator=torch.Generator().manual_seed(seed))
    images = (torch.nn.functional.interpolate(coarse, size=28, mode="bilinear") * 255).to(torch.uint8)
    return Dataset(SPEC, images, torch.arange(count) % 2, "the tests")


TRAIN, TEST = pictures(300, 0), pictures(120, 1)


@pytest.fixture(autouse=True)
def eye(monkeypatch: pytest.MonkeyPatch) -> Classifier:
    """An untrained feature network whose two classes share the held-out pictures evenly."""
    torch.manual_seed(0)
    network = FeatureNet(ClassifierConfig(8, DIMS), SPEC).eval()
    found = Classifier(network, "mnist", "0" * 64, 0.5)
    with torch.no_grad():
        scores = network.head(found.features(TEST.images))
        network.head[1].bias[1] += (scores[:, 0] - scores[:, 1]).median()
    monkeypatch.setattr("genlab.features.classifier_for", lambda data: found)
    return found


def vae() -> VAE:
    torch.manual_seed(1)
    return VAE(VAEConfig(latent=4, width=8, hidden=16), SPEC).eval()


class Fixed(VAE):
    """A VAE whose decoder deals out given pictures, one after the other."""

    def __init__(self, given: Tensor) -> None:
        super().__init__(VAEConfig(latent=4, width=8, hidden=16), SPEC)
        self.given = given

    def decode(self, z: Tensor) -> Any:
        dealt, self.given = self.given[: len(z)], self.given[len(z) :]
        return type("Dealt", (), {"mean": to_model(dealt)})


def test_copies_of_training_pictures_are_called_copies():
    section, samples = measure(Fixed(TRAIN.images), Reference(TEST, TRAIN), count=200)
    assert torch.equal(samples, TRAIN.images[:200])
    assert section["memorised_share"] == 1.0
    assert section["memorised_share_of_held_out"] == pytest.approx(0.05, abs=2 / 120)
    # Training pictures in the place of the samples are the floor itself, but for which of them.
    assert 0.3 * section["frechet_floor"] < section["frechet_distance"] < 3 * section["frechet_floor"]
    assert abs(section["precision"] - section["precision_of_real"]) < 0.1


def test_held_out_pictures_as_samples_score_the_base_rate_and_no_distance():
    section, _ = measure(Fixed(TEST.images), Reference(TEST, TRAIN), count=120)
    assert section["memorised_share"] == section["memorised_share_of_held_out"] > 0
    assert section["frechet_distance"] < 1e-9 < section["frechet_floor"]
    assert section["precision"] == section["recall"] == 1.0
    low, high = section["frechet_interval_95"]
    assert low <= section["frechet_distance"] <= high


def test_noise_is_further_than_the_floor():
    noise = torch.randint(256, (150, 1, 28, 28), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    section, _ = measure(Fixed(noise), Reference(TEST, TRAIN), count=150)
    low, high = section["frechet_interval_95"]
    assert section["frechet_floor"] < low < section["frechet_distance"] < high
    assert section["kernel_distance_x1000"] > section["kernel_distance_floor_x1000"]
    assert section["precision"] < section["precision_of_real"]
    assert section["memorised_share"] == 0


class Identity(VAE):
    """A VAE whose z are the pictures, with no noise but that of rounding."""

    def __init__(self, scale: float) -> None:
        super().__init__(VAEConfig(latent=784, width=8, hidden=16), SPEC)
        self.scale = scale

    def encode(self, x: Tensor) -> Gaussian:
        return Gaussian(x.flatten(1), torch.full_like(x.flatten(1), -20.0))

    def decode(self, z: Tensor) -> Gaussian:
        return Gaussian(self.scale * z.reshape(-1, *SPEC.shape), torch.zeros(()))


def test_reconstructions_are_as_far_as_what_was_reconstructed_if_nothing_is_lost():
    exact, worse = (reconstructions(Identity(scale), Reference(TEST, TRAIN), 200, 0, 64) for scale in (1.0, 0.5))
    assert exact["images"] == 200
    assert exact["frechet_distance"] == pytest.approx(exact["frechet_floor"], rel=0.02)
    assert worse["frechet_floor"] == exact["frechet_floor"]
    assert worse["frechet_interval_95"][0] > exact["frechet_distance"]


def test_a_ddpm_is_measured_with_all_that_was_chosen(tmp_path: Path, eye: Classifier):
    sampling = Sampling(sampler="DDIM", steps=3, spacing="uniform", eta=0.5, guidance=2.0)
    section, samples = measure(tiny.ddpm(SPEC), Reference(TEST, TRAIN), 40, seed=3, sampling=sampling, folder=tmp_path / "new")
    assert samples.shape == (40, 1, 28, 28)
    assert samples.dtype == torch.uint8
    expected = {
        "images": 40, "seed": 3, "first_seed": 3_000_000,
        "sampler": "DDIM", "steps": 3, "network_evaluations": 6, "eta": 0.5, "guidance": 2.0,
        "labels": "in turn", "spacing": "uniform", "reference": "test", "reference_images": 120,
        "reference_data_sha256": TEST.sha256, "training_data_sha256": TRAIN.sha256, "features": eye.facts(), "neighbours": 3,
    }  # fmt: skip
    assert {k: section[k] for k in expected} == expected
    measured = section.keys() - expected.keys()
    assert measured == {
        "frechet_distance", "frechet_interval_95", "frechet_floor", "frechet_extrapolated", "frechet_extrapolated_floor",
        "kernel_distance_x1000", "kernel_distance_standard_error_x1000", "kernel_distance_floor_x1000",
        "precision", "recall", "precision_of_real", "recall_of_real", "memorised_share", "memorised_share_of_held_out",
    }  # fmt: skip
    json.dumps(section, allow_nan=False)
    with Image.open(tmp_path / "new" / "nearest.png") as page:
        assert page.mode == "L"
        assert page.width > 2 * 6 * 28 * 2
        assert page.height > SHOWN / 2 * 28 * 2


def test_the_reference_is_computed_once(monkeypatch: pytest.MonkeyPatch):
    batches: list[int] = []
    features = Classifier.features
    monkeypatch.setattr(
        Classifier, "features", lambda network, given: (batches.append(len(given)), features(network, given))[1]
    )
    reference, model = Reference(TEST, TRAIN), vae()
    shared = [measure(model, reference, 40, seed)[0] for seed in (5, 5, 6)]
    curve(reference, {4: TEST.images[:40]}, 0, Sampling())
    assert sorted(batches) == [40, 40, 40, 40, 120, 300]
    assert shared == [measure(model, Reference(TEST, TRAIN), 40, seed)[0] for seed in (5, 5, 6)]


def test_the_same_seed_measures_the_same_and_another_one_does_not():
    first, again, other = (measure(vae(), Reference(TEST, TRAIN), 40, seed=s) for s in (5, 5, 6))
    assert first[0] == again[0]
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[1], other[1])


@pytest.mark.parametrize(
    ("sampling", "labels", "evaluations"),
    [
        (Sampling(steps=4), [0, 1, 0, 1, 0], 4),
        (Sampling(steps=4, label="none"), None, 4),
        (Sampling(sampler="UniPC", steps=5, guidance=3.0), [0, 1, 0, 1, 0], 10),
        (Sampling(steps=4, label="none", guidance=3.0), None, 4),
    ],
)
def test_classes_go_in_turn_and_evaluations_are_those_of_the_network(
    sampling: Sampling, labels: list[int] | None, evaluations: int, monkeypatch: pytest.MonkeyPatch
):
    model = tiny.ddpm(SPEC)
    asked: list[list[int] | None] = []
    evaluated: list[int] = []
    predict = model.predict
    model.unet.register_forward_pre_hook(lambda _, inputs: evaluated.append(len(inputs[0])))

    def watched(x_t: Tensor, t: Tensor, label: Tensor | None, guidance: float) -> Denoised:
        asked.append(None if label is None else label.tolist())
        return predict(x_t, t, label, guidance)

    monkeypatch.setattr(model, "predict", watched)
    steps: list[int] = []
    list(draw(model, 5, 0, sampling, batch_size=5, on_step=steps.append))
    assert asked == [labels] * sampling.steps
    assert sum(evaluated) == 5 * evaluations
    assert steps == [5] * sampling.steps
    section, _ = measure(model, Reference(TEST, TRAIN), 40, sampling=sampling)
    assert section["network_evaluations"] == evaluations


def test_the_variance_of_the_ancestral_step_can_be_chosen():
    model = tiny.ddpm(SPEC)
    own, posterior, beta = (
        torch.cat(list(draw(model, 4, 0, Sampling("ancestral", 5, variance=v)))) for v in ("own", "posterior", "beta")
    )
    assert torch.equal(own, posterior)
    assert not torch.equal(own, beta)
    section, _ = measure(model, Reference(TEST, TRAIN), 40, sampling=Sampling("ancestral", 2, variance="beta"))
    assert section["variance"] == "beta"
    assert "eta" not in section


def test_an_evaluation_draws_the_pictures_of_the_seeds_that_it_names():
    model = vae()
    section, samples = measure(model, Reference(TEST, TRAIN), 40, seed=7)
    assert section["first_seed"] == 7_000_000
    assert torch.equal(samples[-1:], *draw(model, 1, 7_000_039, Sampling()))
    assert (section["sampler"], section["steps"], section["network_evaluations"]) == ("decoder mean", 1, 1)


def other(data: Dataset, **changes: Any) -> Dataset:
    return dataclasses.replace(data, spec=dataclasses.replace(data.spec, **changes))


@pytest.mark.parametrize(
    ("test", "train", "count", "sampling", "message"),
    [
        (TEST, TRAIN, DIMS, Sampling(), "expected more than 6 samples for the covariance of 6 features, got 6"),
        (dataclasses.replace(TEST, images=TEST.images[:6]), TRAIN, 40, Sampling(), "more than 6 held-out pictures"),
        (TEST, TRAIN, 301, Sampling(), "at most as many samples as the 300 training pictures, got 301"),
        (TEST, other(TRAIN, name="cats"), 40, Sampling(), "of one data set"),
        (other(TEST, size=32), other(TRAIN, size=32), 40, Sampling(), r"\(1, 28, 28\) for this model, got \(1, 32, 32\)"),
        (TEST, TRAIN, 40, Sampling(steps=tiny.T + 1), f"steps: expected 1 to {tiny.T} steps, got {tiny.T + 1}"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_a_sample_is_drawn(
    test: Dataset, train: Dataset, count: int, sampling: Sampling, message: str, monkeypatch: pytest.MonkeyPatch
):
    model = tiny.ddpm(SPEC)
    monkeypatch.setattr(model, "predict", None)
    for refuse in (check, lambda m, r, n, s: measure(m, r, n, sampling=s)):
        with pytest.raises(ValueError, match=message):
            refuse(model, Reference(test, train), count, sampling)


def test_a_data_set_without_a_feature_network_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.undo()
    with pytest.raises(FeatureError, match="no feature network was trained on these 300 pictures of cats"):
        measure(vae(), Reference(other(TEST, name="cats"), other(TRAIN, name="cats")), 100)


def test_the_curve_has_a_distance_for_every_number_of_steps_and_its_floor(eye: Classifier):
    noise = torch.randint(256, TEST.images.shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    section = curve(Reference(TEST, TRAIN), {4: noise, 10: TEST.images}, 0, Sampling("UniPC"))
    assert (section["images"], section["steps"], section["sampler"]) == (120, [4, 10], "UniPC")
    far, near = section["frechet_distance"]
    assert near < 1e-9 < section["frechet_floor"] < far
    assert far == frechet_distance(eye.features(noise), eye.features(TEST.images))
