"""Every kind of model on the page: drawn as by `genlab.sample`, limited to its own steps, alone on a page."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch
from gradio_client import Client
from PIL import Image

import genlab
from genlab import data
from genlab.config import (
    ConsistencyConfig,
    DataSpec,
    DDPMConfig,
    Kind,
    LatentConfig,
    MixtureConfig,
    Sampling,
    UNetConfig,
    VAEConfig,
)
from genlab.consistency import Consistency
from genlab.data import ungrid
from genlab.demo.limits import LimitError
from genlab.demo.served import Models
from genlab.demo.tabs.sample.compute import sample
from genlab.demo.tabs.sample.request import parse_sample
from genlab.demo.turns import Runner
from genlab.latent import LatentDDPM
from genlab.metrics import frechet_distance
from genlab.mixture import MixtureVAE
from genlab.models import KINDS, Model
from genlab.package import write_package
from genlab.vae import VAE
from tests import tiny
from training import choose_times, evaluate, likelihood, sample_quality
from training.choose_times import TimesChoice
from training.evaluate import Evaluation
from training.partial import Partial, Progress

DATA = tiny.dataset("mnist")


def made(kind: Kind, spec: DataSpec = DATA.spec, side: int = 7) -> Model:
    """Return a tiny model of that kind whose pictures depend on everything; a VAE's latents are a map of that side."""
    torch.manual_seed(0)
    vae = VAEConfig(latent=2, side=side, width=8, blocks=1, likelihood="logistic")
    ddpm = DDPMConfig(T=tiny.T, schedule="cosine", unet=UNetConfig(width=8, multipliers=(1, 1)))
    codes = DDPMConfig(T=tiny.T, schedule="cosine", grids=(), unet=UNetConfig(width=8, patch=1, multipliers=(1,)))
    model: Model
    if kind == "ddpm":
        return tiny.ddpm(spec)
    if kind == "vae":
        model = VAE(vae, spec)
    elif kind == "latent-ddpm":
        model = LatentDDPM(LatentConfig(codes, vae), spec)
    elif kind == "mixture-vae":
        model = MixtureVAE(MixtureConfig(vae, 3), spec)
        model.factor.data = 0.5 * torch.eye(vae.latents).repeat(3, 1, 1)
    else:
        model = Consistency(ConsistencyConfig(ddpm, "ddpm-mnist", (60, 30, 10, 2)), spec)
    for parameter in model.parameters():
        if parameter.ndim > 1 and parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


@pytest.fixture(scope="module", params=get_args(Kind))
def models(request: pytest.FixtureRequest) -> Models:
    return tiny.only(made(request.param), "m")


def test_every_kind_is_known() -> None:
    assert tuple(KINDS) == get_args(Kind)
    assert all(cls.kind == kind for kind, (cls, _) in KINDS.items())


def test_a_seed_draws_the_same_pictures_on_the_page_and_in_python(models: Models) -> None:
    label = "3" if models.offers["m"].T else "any"
    request = parse_sample(models.offers, "m", label, 3, 2, "DDIM", 1, 5)
    *_, last = sample(models, Runner(), request)
    expected = genlab.sample(models["m"].model, 3, 5, "DDIM", 2, None if label == "any" else label)
    assert torch.equal(last.pictures, expected)
    assert len(expected.unique()) > 10


def test_more_steps_than_the_model_has_are_refused(models: Models) -> None:
    most = models.offers["m"].steps
    assert most == {"ddpm": tiny.T, "latent-ddpm": tiny.T, "consistency": 4, "vae": 0, "mixture-vae": 0}[models["m"].model.kind]
    if most:
        with pytest.raises(LimitError, match=f"steps: expected a whole number from 1 to {most}, got {most + 1}"):
            parse_sample(models.offers, "m", "any", 1, most + 1, "DDIM", 1, 0)


@pytest.fixture(scope="module", params=["latent-ddpm", "mixture-vae", "consistency"])
def address(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A page of one model of a kind that has no tab of its own, and the model's folder."""
    folder = tmp_path_factory.mktemp("models") / "m"
    write_package(folder, made(request.param), {"command": "python training/distil.py ddpm-mnist"}, DATA)
    with tiny.serving(tiny.load_models([str(folder)])) as url:
        yield folder, url


def test_a_page_with_no_other_model_opens_and_draws(address: tuple[Path, str]) -> None:
    folder, url = address
    client = Client(url, token=False, verbose=False)
    (described,) = client.predict(api_name="/models")
    assert described["id"] == "m"
    assert described["classes"] == ([] if described["kind"] == "mixture-vae" else list(DATA.spec.classes))
    path = client.predict(model="m", label="any", count=4, steps=2, sampler="DDIM", guidance=1, seed=7, api_name="/sample")
    with Image.open(path) as drawn:
        pictures = ungrid(drawn.convert("L"), 4, 28, 2)
    assert torch.equal(pictures, genlab.sample(folder, 4, 7, "DDIM", 2))


@pytest.mark.parametrize("kind", ["latent-ddpm", "mixture-vae", "consistency"])
def test_what_is_measured_of_the_other_kinds(
    kind: Kind, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The ELBO with the fitted prior for two; samples in 1, 2 and 4 evaluations for the third, which has no likelihood."""
    test = data.load("mnist", "test", str(data_dir))
    model = made(kind, test.spec, side=4)
    write_package(tmp_path / "m", model, {"command": "python training/distil.py ddpm-mnist"}, test)
    asked = []

    def measure(model: Model, reference: object, count: int, seed: int, sampling: Sampling, *rest: object, **more: object):
        asked.append(sampling.steps)
        return {"steps": sampling.steps}, None

    monkeypatch.setattr(sample_quality, "check", lambda *given: None)
    monkeypatch.setattr(sample_quality, "measure", measure)
    monkeypatch.setattr(sample_quality, "reconstructions", lambda model, *given: {"of": model.kind})
    monkeypatch.setattr(likelihood, "plot_ledger", lambda section, path: None)
    given = Evaluation(
        str(tmp_path / "m"), data_dir=str(data_dir), images=6, strata=4, samples=4, curve_samples=0, device="cpu"
    )
    assert evaluate.run(given) == 0
    evaluation = json.loads((tmp_path / "m" / "metrics.json").read_text())["evaluation"]
    if kind == "consistency":
        assert "likelihood" not in evaluation
        assert evaluation["samples"] == {"steps": 1}
        assert evaluation["few"] == {"2": {"steps": 2}, "4": {"steps": 4}}
        return
    assert asked == [10 if kind == "latent-ddpm" else 1]
    assert evaluation["reconstructions"] == {"of": kind}
    bound = evaluation["likelihood"]
    assert bound["images"] == 6
    nats = bound["reconstruction_nats"] + bound["entropy_of_q_nats"] - bound["prior_nats"]
    assert bound["bound_bits_per_dim"] == pytest.approx(-nats / math.log(2) / 64)
    assert ("codes" in bound and bound["codes"]["T"] == tiny.T) == (kind == "latent-ddpm")
    assert "with N(0, I) for the prior" in capsys.readouterr().out


class Corner:
    """Features of pictures that need no training: four of their pixels."""

    dims = 4

    def features(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)[:, :4].float()


def test_times_are_chosen_by_the_distance_from_the_training_pictures(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second time is that whose samples, drawn here again, are nearest; the old evaluation goes."""
    test, train = (data.load("mnist", split, str(data_dir)) for split in ("test", "train"))
    model = made("consistency", test.spec)
    assert isinstance(model, Consistency)
    folder = tmp_path / "m"
    write_package(folder, model, {"command": "python training/distil.py ddpm-mnist", "evaluation": {"seed": 0}}, test)
    weights = (folder / "model.safetensors").read_bytes()
    monkeypatch.setattr(sample_quality.features, "classifier_for", lambda train: Corner())
    monkeypatch.setattr(
        "sys.argv", ["choose_times.py", str(folder), "--evaluations", "3", "--samples", "8", "--data-dir", str(data_dir)]
    )
    assert choose_times.main() == 0
    found: dict[int, float] = {}
    for time in (30, 10, 2):
        model.config = replace(model.config, times=(60, time))
        pictures = genlab.sample(model, 8, seed=1_000_000, steps=2)
        found[time] = frechet_distance(Corner().features(pictures), Corner().features(train.images))
    metrics, chosen = json.loads((folder / "metrics.json").read_text()), genlab.load(folder)
    assert isinstance(chosen, Consistency)
    assert len({round(value, 6) for value in found.values()}) == 3
    assert chosen.config.times[:2] == (60, min(found, key=found.__getitem__))
    assert sorted(chosen.config.times) == [2, 10, 30, 60]
    assert metrics["times"]["frechet_distance"]["2"] == pytest.approx(min(found.values()))
    assert "evaluation" not in metrics
    assert (folder / "model.safetensors").read_bytes() == weights
    command = "python training/choose_times.py m --evaluations 3 --samples 8"
    assert metrics["times"]["command"] == command
    assert command in (folder / "README.md").read_text()
    assert f"2 evaluations, at 60, {chosen.config.times[1]}: {min(found.values()):.3f}" in capsys.readouterr().out


def test_times_that_cannot_be_chosen_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for kind, message in (
        ("ddpm", "expected a consistency function, got a model of kind ddpm"),
        ("consistency", "--evaluations: expected at most 4, the times it was trained at, got 5"),
    ):
        write_package(tmp_path / kind, made(kind), {}, DATA)
        assert choose_times.run(TimesChoice(str(tmp_path / kind), evaluations=5)) == 1
        assert message in capsys.readouterr().err
    for changes in ({"evaluations": 1}, {"samples": 1}, {"seed": -1}):
        with pytest.raises(ValueError, match=f"--{next(iter(changes))}: expected a whole number from"):
            TimesChoice("m", **changes)


def test_the_bound_of_a_latent_ddpm_is_its_elbo() -> None:
    """With every t, `latent_bound` and `LatentDDPM.elbo` are the same up to their noise, here over 60 pictures."""
    model = made("latent-ddpm")
    assert isinstance(model, LatentDDPM)
    pictures = DATA.images.repeat(3, 1, 1, 1)
    progress = Progress(1, "step")
    found = likelihood.latent_bound(model, pictures, tiny.T, 0, 20, Partial(None, {}), progress)
    progress.close()
    x = data.to_model(pictures)
    with torch.inference_mode():
        noise = torch.randn(len(x), model.config.vae.latents, generator=torch.Generator().manual_seed(1))
        elbo = model.elbo(x, noise, torch.Generator().manual_seed(2), discretised=True)
    bits = -elbo.total.double() / math.log(2) / DATA.spec.dims
    error = math.hypot(float(bits.std()) / len(x) ** 0.5, found["bound_standard_error_bits_per_dim"])
    assert abs(found["bound_bits_per_dim"] - float(bits.mean())) < 4 * error
