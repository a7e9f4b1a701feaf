"""Every kind of model on the page: drawn as by `genlab.sample`, limited to its own steps, alone on a page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
import torch
from gradio_client import Client
from PIL import Image

import genlab
from genlab.config import ConsistencyConfig, DDPMConfig, Kind, LatentConfig, UNetConfig, VAEConfig
from genlab.consistency import Consistency
from genlab.data import ungrid
from genlab.demo.limits import LimitError
from genlab.demo.served import Models
from genlab.demo.tabs.sample.compute import sample
from genlab.demo.tabs.sample.request import parse_sample
from genlab.demo.turns import Runner
from genlab.latent import LatentDDPM
from genlab.models import KINDS, Model
from genlab.package import write_package
from genlab.vae import VAE
from tests import tiny

DATA = tiny.dataset("mnist")


def made(kind: Kind) -> Model:
    """Return a tiny model of that kind whose pictures depend on everything."""
    torch.manual_seed(0)
    vae = VAEConfig(latent=2, side=7, width=8, blocks=1, likelihood="logistic")
    ddpm = DDPMConfig(T=tiny.T, schedule="cosine", unet=UNetConfig(width=8, multipliers=(1, 1)))
    codes = DDPMConfig(T=tiny.T, schedule="cosine", grids=(), unet=UNetConfig(width=8, patch=1, multipliers=(1,)))
    model: Model
    if kind == "ddpm":
        return tiny.ddpm(DATA.spec)
    if kind == "vae":
        model = VAE(vae, DATA.spec)
    elif kind == "latent-ddpm":
        model = LatentDDPM(LatentConfig(codes, vae), DATA.spec)
    else:
        model = Consistency(ConsistencyConfig(ddpm, "ddpm-mnist", (60, 30, 10, 2)), DATA.spec)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


@pytest.fixture(scope="module", params=get_args(Kind))
def models(request: pytest.FixtureRequest) -> Models:
    return tiny.only(made(request.param), "m")


def test_every_kind_is_known() -> None:
    assert tuple(KINDS) == get_args(Kind)
    assert all(cls.kind == kind for kind, (cls, _) in KINDS.items())


def test_a_seed_draws_the_same_pictures_on_the_page_and_in_python(models: Models) -> None:
    label = "3" if models["m"].model.kind != "vae" else "any"
    request = parse_sample(models.offers, "m", label, 3, 2, "DDIM", 1, 5)
    *_, last = sample(models, Runner(), request)
    expected = genlab.sample(models["m"].model, 3, 5, "DDIM", 2, None if label == "any" else label)
    assert torch.equal(last.pictures, expected)
    assert len(expected.unique()) > 10


def test_more_steps_than_the_model_has_are_refused(models: Models) -> None:
    most = models.offers["m"].steps
    assert most == {"ddpm": tiny.T, "latent-ddpm": tiny.T, "consistency": 4, "vae": 0}[models["m"].model.kind]
    if most:
        with pytest.raises(LimitError, match=f"steps: expected a whole number from 1 to {most}, got {most + 1}"):
            parse_sample(models.offers, "m", "any", 1, most + 1, "DDIM", 1, 0)


@pytest.fixture(scope="module", params=["latent-ddpm", "consistency"])
def address(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A page of one model of a kind that has no tab of its own, and the model's folder."""
    folder = tmp_path_factory.mktemp("models") / "m"
    write_package(folder, made(request.param), {"command": "python training/distil.py ddpm-mnist"}, DATA)
    with tiny.serving(Models.load([str(folder)])) as url:
        yield folder, url


def test_a_page_with_no_other_model_opens_and_draws(address: tuple[Path, str]) -> None:
    folder, url = address
    client = Client(url, token=False, verbose=False)
    (described,) = client.predict(api_name="/models")
    assert described["id"] == "m"
    assert described["classes"] == list(DATA.spec.classes)
    path = client.predict(model="m", label="any", count=4, steps=2, sampler="DDIM", guidance=1, seed=7, api_name="/sample")
    with Image.open(path) as drawn:
        pictures = ungrid(drawn.convert("L"), 4, 28, 2)
    assert torch.equal(pictures, genlab.sample(folder, 4, 7, "DDIM", 2))
