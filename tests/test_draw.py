"""Drawing pictures: from Python, on the page and in an evaluation it is the same pictures for the same seeds."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

import genlab
from genlab.config import DataSpec, SamplerName, Sampling
from genlab.data import grid, to_model, to_pixels
from genlab.ddpm import DDPM
from genlab.demo.tabs.sample.compute import sample
from genlab.demo.tabs.sample.request import parse_sample
from genlab.demo.turns import Runner
from genlab.draw import class_labels, draw, frames
from genlab.oracle import DataSetOracle
from genlab.process import Denoised
from genlab.sampler import SAMPLERS
from genlab.vae import VAE
from tests import tiny

PAIR = DataSpec("mnist", 1, 28, ("a", "b"))
PICTURES = tiny.dataset("mnist").images


def drawn(model: DDPM | VAE, count: int, sampling: Sampling, batch_size: int = 100, seed: int = 0) -> Tensor:
    return torch.cat(list(draw(model, count, seed, sampling, batch_size)))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return tiny.save_models(tmp_path_factory.mktemp("models"))


@pytest.mark.parametrize(
    ("label", "sampler", "guidance"), [("any", "ancestral", 1.0), ("7", "DPM-Solver++ SDE", 1.0), ("any", "UniPC", 2.5)]
)
def test_python_draws_the_pictures_of_the_page(folders: list[str], label: str, sampler: SamplerName, guidance: float) -> None:
    models = tiny.load_models(folders)
    given = None if label == "any" else label
    *_, last = sample(models, Runner(), parse_sample(models.offers, "ddpm-mnist", label, 5, 6, sampler, guidance, 123))
    pictures = genlab.sample(folders[1], 5, 123, sampler, 6, given, guidance)
    assert torch.equal(pictures, last.pictures)
    assert len(pictures.flatten(1).unique(dim=0)) == 5
    if given is not None:
        assert torch.equal(pictures, genlab.sample(genlab.load(folders[1]), 5, 123, sampler, 6, int(given), guidance))


def test_a_vae_draws_the_mean_of_its_decoder(folders: list[str]) -> None:
    models = tiny.load_models(folders)
    (frame,) = sample(models, Runner(), parse_sample(models.offers, "vae-mnist", "any", 3, 1, "DDIM", 1, 7))
    model = genlab.load(folders[3])
    assert isinstance(model, VAE)
    z = torch.stack([torch.randn(4, generator=torch.Generator().manual_seed(7 + i)) for i in range(3)])
    with torch.no_grad():
        expected = to_pixels(model.decode(z).mean)
    assert torch.equal(genlab.sample(model, 3, 7), expected)
    assert torch.equal(frame.pictures, expected)


def test_a_sheet_is_that_of_the_page() -> None:
    sheet = genlab.grid(PICTURES[:10])
    assert sheet.size == (4 * 30 + 2, 3 * 30 + 2)
    assert sheet.tobytes() == grid(PICTURES[:10], columns=4).tobytes()


def test_the_library_is_imported_without_torch() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import genlab, sys; print('torch' in sys.modules, callable(genlab.sample))"],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["False", "True"]


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (1, {"label": "cat"}, "label: expected one of 0, 1, 2, .*, or a number below 10, got 'cat'"),
        (1, {"label": 10}, "a number below 10, got 10"),
        (1, {"label": -1}, "a number below 10, got -1"),
        (3, {"label": "7"}, "label: expected none, for the model takes no class, got '7'"),
        (1, {"sampler": "euler"}, "sampler: expected one of DDIM, "),
        (1, {"steps": tiny.T + 1}, f"expected 1 to {tiny.T} steps, got {tiny.T + 1}"),
    ],
)
def test_what_cannot_be_drawn_is_refused(folders: list[str], model: int, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        genlab.sample(folders[model], 2, **options)


def test_classes_follow_the_seeds() -> None:
    model = tiny.ddpm(PAIR)
    assert class_labels(model, "in turn", [5, 6, 7]).tolist() == [1, 0, 1]  # type: ignore[union-attr]
    assert class_labels(model, 1, [5, 6]).tolist() == [1, 1]  # type: ignore[union-attr]
    assert class_labels(model, "none", [5, 6]) is None
    assert class_labels(tiny.ddpm(DataSpec("plain")), "in turn", [5, 6]) is None


def test_frames_lead_from_the_noise_to_the_picture_and_may_ask_another_network() -> None:
    model, asked = tiny.ddpm(PAIR), []

    def predict(x_t: Tensor, t: Tensor) -> Denoised:
        asked.append(int(t[0]))
        return model.predict(x_t, t, class_labels(model, "in turn", [3, 4]))

    found = list(frames(model, [3, 4], Sampling("ancestral", 4), predict))
    assert [(frame.index, frame.count, frame.t) for frame in found] == [
        (0, 4, 60),
        (1, 4, 45),
        (2, 4, 30),
        (3, 4, 15),
        (4, 4, 0),
    ]
    assert asked == [60, 45, 30, 15]
    assert torch.equal(found[0].x[1], torch.randn(1, 28, 28, generator=torch.Generator().manual_seed(4)))
    assert torch.equal(found[-1].pictures, drawn(model, 2, Sampling("ancestral", 4), seed=3))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_perfect_model_of_a_data_set_draws_its_pictures(sampler: SamplerName, monkeypatch: pytest.MonkeyPatch):
    """The oracle of its pictures has nothing else to draw: every sampler must come out on one of them."""
    model = tiny.ddpm(PAIR)
    oracle = DataSetOracle(model.schedule, to_model(PICTURES))
    monkeypatch.setattr(model, "predict", lambda x_t, t, label, guidance: oracle.predict(x_t, t))
    samples = drawn(model, 12, Sampling(sampler, 30))
    found = torch.cdist(samples.flatten(1).float(), PICTURES.flatten(1).float()).min(dim=1)
    assert float(found.values.max()) < 28  # a gray level a pixel
    assert len(set(found.indices.tolist())) > 6


@pytest.mark.parametrize("sampling", [Sampling("DDIM", 2, eta=1.0), Sampling("ancestral", 2)])
def test_a_picture_does_not_depend_on_the_batch_nor_on_the_count_but_on_its_seed(sampling: Sampling):
    model = tiny.ddpm(PAIR)
    whole = drawn(model, 7, sampling)
    difference = drawn(model, 5, sampling, batch_size=3).int() - whole[:5].int()
    assert int(difference.abs().max()) <= 1
    rest = drawn(model, 3, sampling, seed=4)
    assert int((rest.int() - whole[4:].int()).abs().max()) <= 1
    assert not torch.equal(whole[:5], drawn(model, 5, sampling, seed=1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampler": "euler"}, "sampler: expected one of DDIM, ancestral, .*got 'euler'"),
        ({"steps": 0}, "steps: expected a whole number from 1 to 10000, got 0"),
        ({"eta": 1.5}, "eta: expected a number from 0 to 1, got 1.5"),
        ({"spacing": "even"}, "spacing: expected one of own, uniform, .*got 'even'"),
        ({"variance": "alpha"}, "variance: expected one of own, posterior, .*got 'alpha'"),
        ({"label": -1}, "label: expected a whole number from 0 to 999, got -1"),
        ({"precision": "bf16"}, "precision: expected one of fp32, auto, got 'bf16'"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        Sampling(**options)
