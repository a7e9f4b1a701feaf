"""The Interpolate tab: both ends of every path are what they should be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from genlab.data import to_model, to_pixels
from genlab.demo.limits import Pick
from genlab.demo.served import Models
from genlab.demo.tabs.interpolate import compute
from genlab.demo.tabs.interpolate.request import parse_interpolate
from genlab.demo.tabs.interpolate.text import DDPM_SPHERICAL, VAE_LINEAR, VAE_SPHERICAL
from genlab.demo.turns import Runner
from tests import tiny

DATA = "fashion-mnist"
DDPM_ID, VAE_ID = "ddpm-fashion-mnist", "vae-fashion-mnist"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return tiny.load_models(tiny.save_models(tmp_path_factory.mktemp("models")))


def interpolate(models: Models, a: Pick, b: Pick, points: int = 5, steps: int = 10):
    return list(compute.interpolate(models, Runner(), parse_interpolate(models.offers, DATA, a, b, points, steps)))


@pytest.fixture
def silent(models) -> Models:
    """The models with a DDPM whose ε̂ is 0: DDIM then scales by √ᾱ, and runs backwards exactly."""
    still = tiny.ddpm(tiny.dataset(DATA).spec, random=False)
    changed = replace(models[DDPM_ID], package=replace(models[DDPM_ID].package, model=still))
    return Models([changed if served.id == DDPM_ID else served for served in models.values()])


def test_ends_of_the_ddpm_path_are_the_pictures(silent):
    *_, last = interpolate(silent, Pick("test picture", 3), Pick("test picture", 4))
    pictures = silent.examples(DATA).examples
    row = last.rows[DDPM_SPHERICAL]
    assert last.stage == "done"
    assert (row[0].int() - pictures[3].int()).abs().max() <= 1
    assert (row[-1].int() - pictures[4].int()).abs().max() <= 1
    assert torch.equal(last.a, pictures[3])


def test_ends_of_the_vae_paths_are_its_reconstructions(models):
    *_, last = interpolate(models, Pick("test picture", 3), Pick("test picture", 4))
    model = models[VAE_ID].model
    with torch.inference_mode():
        expected = to_pixels(model.decode(model.encode(to_model(models.examples(DATA).examples[3:5])).mean).mean)
    for name in (VAE_LINEAR, VAE_SPHERICAL):
        assert last.rows[name].shape == (5, 1, 28, 28)
        assert (last.rows[name][[0, -1]].int() - expected.int()).abs().max() <= 1
    assert not torch.equal(last.rows[VAE_LINEAR][2], last.rows[VAE_SPHERICAL][2])


def test_a_seed_is_the_picture_that_its_noise_leads_to(silent):
    frames = interpolate(silent, Pick("seed", 5), Pick("test picture", 4))
    last = frames[-1]
    scale = silent.ddpm(DDPM_ID).schedule.alpha_bar[tiny.T].rsqrt().float()
    drawn = to_pixels(scale * torch.randn(1, 28, 28, generator=torch.Generator().manual_seed(5)))
    assert (last.a.int() - drawn.int()).abs().max() <= 1
    assert (last.rows[DDPM_SPHERICAL][0].int() - drawn.int()).abs().max() <= 1
    assert [f.stage for f in frames] == ["ends"] * 10 + ["path"] * 9 + ["done"]
    assert [f.index for f in frames] == list(range(1, 21))


def test_an_upload_is_brought_to_the_models_shape(silent):
    upload = np.zeros((50, 90, 3), np.uint8)
    upload[:, 20:70] = (255, 255, 255)
    *_, last = interpolate(silent, Pick("upload", 0, upload), Pick("upload", 0, upload))
    assert last.a.shape == (1, 28, 28)
    assert (last.a[:, :, 3:-3] == 255).all()


def test_without_one_of_the_models_its_path_is_missing(models):
    ends = Pick("test picture", 0), Pick("seed", 1)
    *_, only_vae = interpolate(Models([models[VAE_ID]]), *ends)
    assert set(only_vae.rows) == {VAE_LINEAR, VAE_SPHERICAL}
    *_, only_ddpm = interpolate(Models([models[DDPM_ID]]), *ends)
    assert set(only_ddpm.rows) == {DDPM_SPHERICAL}
