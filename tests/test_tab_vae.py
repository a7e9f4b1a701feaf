"""The VAE tab: its numbers against direct computation, what is refused, the API, and the page in a real browser."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import numpy as np
import pytest
import torch
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image
from pydantic import ValidationError
from torch.distributions import Bernoulli, Categorical, MixtureSameFamily, Normal, kl_divergence

from genlab.config import DataSpec, VAEConfig
from genlab.data import to_model, to_pixels
from genlab.demo.components.canvas import Canvas, CanvasData, canvas_data
from genlab.demo.limits import LimitError, Offer, Pick, parse_drawing
from genlab.demo.served import Models, Served
from genlab.demo.tabs.sample.compute import sample
from genlab.demo.tabs.sample.request import parse_sample
from genlab.demo.tabs.vae import build as tab
from genlab.demo.tabs.vae import figure
from genlab.demo.tabs.vae.compute import (
    ELBO_SEED,
    SIGMA_WHITE,
    Encoded,
    PixelDensities,
    PixelDensity,
    activity,
    elbo,
    encode,
    most_varied_pixel,
)
from genlab.demo.tabs.vae.request import PixelDensityRequest, VAERequest, parse_pixel_density, parse_vae
from genlab.demo.turns import DeadlineError, Runner
from genlab.package import write_package
from genlab.serving.language import choose
from genlab.vae import VAE
from tests import tiny

MODEL = "vae-mnist"
LATENT = 6
BLACK = np.zeros((28, 28, 1), dtype=np.uint8)


def model_of(likelihood: str, seed: int = 1) -> VAE:
    """A small VAE whose answers depend on everything."""
    torch.manual_seed(seed)
    model = VAE(VAEConfig(latent=LATENT, width=8, hidden=16, likelihood=likelihood), tiny.dataset("mnist").spec)  # type: ignore[arg-type]
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.25 if name.startswith("decoder") else 0.15)
    with torch.no_grad():
        model.decoder[-2].weight.mul_(0.3)  # type: ignore[union-attr,operator]
        if model.log_var is not None:
            model.log_var.fill_(-2.0)
    return model.eval()


@pytest.fixture(scope="module", params=["gaussian", "gaussian-per-pixel", "logistic-per-pixel", "bernoulli"])
def models(request: pytest.FixtureRequest) -> Models:
    return tiny.only(model_of(request.param), MODEL)


def ask(models: Models, number: int = 3, z: Any = None, samples: Any = 70, seed: Any = 0) -> VAERequest:
    return parse_vae(models.offers, MODEL, Pick("test picture", number), z, samples, seed)


def seen(models: Models, number: int = 3) -> tuple[VAE, torch.Tensor]:
    """The model, and the picture that it sees, (1 C H W)."""
    served = models[MODEL]
    x = to_model(served.package.examples[number])[None]
    return served.model, (x > 0) * 2.0 - 1 if served.model.binary else x  # type: ignore[return-value,union-attr]


def encoded_of(models: Models, request: VAERequest) -> Encoded:
    return encode(models, Runner(), request)


def density_of(models: Models, request: PixelDensityRequest) -> PixelDensity:
    return PixelDensities(models, Runner()).density(request)


def log_mass(model: VAE, z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """log p(x|z), (k), of the 8-bit picture x, from the distribution function."""
    p = model.decode(z)
    if model.binary:
        return Bernoulli(logits=p.logits.double()).log_prob((x + 1) / 2).sum((1, 2, 3))
    mean, std, values = p.mean.double(), p.std.double(), x.double()
    up = values > mean  # by symmetry, for above the mean 1 − Φ would lose its digits
    mean, values = torch.where(up, -mean, mean), torch.where(up, -values, values)
    if model.config.likelihood.startswith("logistic"):
        scale = std * math.sqrt(3) / math.pi
        high, low = (torch.sigmoid((values + half - mean) / scale) for half in (1 / 255, -1 / 255))
    else:
        high, low = (torch.erfc((mean - values - half) / std / math.sqrt(2)) / 2 for half in (1 / 255, -1 / 255))
    high, low = torch.where(values >= 1 - 1e-6, 1.0, high), torch.where(values <= -1 + 1e-6, 0.0, low)
    return (high - low).log().sum((1, 2, 3))


# ---- the numbers


@torch.inference_mode()
def test_a_picture_goes_through_every_stage(models: Models) -> None:
    model, x = seen(models)
    encoded = encoded_of(models, ask(models, seed=5))
    q = model.encode(x)
    noise = torch.randn(1, LATENT, generator=torch.Generator().manual_seed(5))
    assert torch.equal(encoded.x, to_pixels(x[0]))
    assert torch.equal(encoded.q.mean, q.mean[0])
    assert torch.equal(encoded.q.log_var, q.log_var[0])
    assert torch.allclose(encoded.z, (q.mean + q.std * noise)[0])
    assert torch.allclose(encoded.kl, kl_divergence(Normal(encoded.q.mean, encoded.q.std), Normal(0.0, 1.0)), atol=1e-5)
    p = model.decode(encoded.z[None])
    assert torch.equal(encoded.mean, to_pixels(p.mean[0]))
    sigma = 2 * Bernoulli(logits=p.logits[0]).stddev if model.binary else p.std[0]
    assert torch.allclose(encoded.sigma, sigma, atol=1e-6)
    white = 1.0 if model.binary else SIGMA_WHITE
    assert (encoded.std.float() - (255 * sigma / white).clamp(0, 255)).abs().max() <= 0.51
    assert encoded.log_likelihood == pytest.approx(float(log_mass(model, encoded.z[None], x)), rel=1e-5)
    again, other = encoded_of(models, ask(models, seed=5)), encoded_of(models, ask(models, seed=6))
    assert torch.equal(again.sample, encoded.sample)
    assert not torch.equal(other.sample, encoded.sample)
    if model.binary:
        assert set(encoded.sample.unique().tolist()) <= {0, 255}


def test_x_hat_is_drawn_from_the_decoder() -> None:
    """Its noise is standard normal, and not the one that drew z."""
    model = model_of("gaussian")
    with torch.no_grad():
        model.log_var.fill_(-4.0)  # type: ignore[union-attr]
        for parameter in model.decoder[-2].parameters():  # type: ignore[union-attr]
            parameter.zero_()
    models = tiny.only(model, MODEL)
    encoded = encoded_of(models, ask(models))
    noise = (encoded.sample.double() / 127.5 - 1) / math.exp(-2)
    assert abs(float(noise.mean())) < 4 / 28
    assert float(noise.std()) == pytest.approx(1, abs=0.1)
    first = torch.randn(LATENT, generator=torch.Generator().manual_seed(0))
    assert not torch.allclose(noise.flatten()[:LATENT].float(), first, atol=0.1)


def test_the_caption_says_how_sigma_is_drawn_and_x_hat_made(models: Models) -> None:
    request = ask(models)
    encoded = encoded_of(models, request)
    caption = choose(figure.pictures(encoded, "a", None).caption)
    white = 1.0 if models[MODEL].model.config.likelihood == "bernoulli" else SIGMA_WHITE
    shown = encoded.std.double() / 255 * white
    assert (shown - encoded.sigma.clamp(max=white)).abs().max() <= white / 255
    assert f"white is {white:g}" in caption
    words = {
        "gaussian": "drawn from N(μ′, σ′²)",
        "logistic": "drawn from a logistic distribution",
        "bernoulli": "pixel by pixel",
    }
    assert words[encoded.family] in caption


def test_a_latent_is_where_it_is_set_and_the_others_are_drawn(models: Models) -> None:
    drawn = encoded_of(models, ask(models, seed=2))
    moved = encoded_of(models, ask(models, seed=2, z=[None, 1.5, None, -2, None, None]))
    expected = drawn.z.clone()
    expected[1], expected[3] = 1.5, -2.0
    assert torch.equal(moved.z, expected)
    assert torch.equal(moved.q.mean, drawn.q.mean)
    assert not torch.equal(moved.mean, drawn.mean)


@torch.inference_mode()
def test_the_terms_of_the_bound_are_those_of_the_samples(models: Models) -> None:
    model, x = seen(models)
    *first, last = elbo(models, Runner(), ask(models, samples=150))
    assert [b.samples for b in (*first, last)] == [64, 128, 150]
    noise = torch.randn(150, 1, LATENT, generator=torch.Generator().manual_seed(ELBO_SEED))
    q = model.encode(x)
    z = q.sample(noise)[:, 0]
    mass = log_mass(model, z, x)
    weights = mass + Normal(0.0, 1.0).log_prob(z).sum(1) - Normal(q.mean, q.std).log_prob(z).sum(1)
    kl = float(kl_divergence(Normal(q.mean, q.std), Normal(0.0, 1.0)).sum())
    assert last.reconstruction == pytest.approx(float(mass.mean()), rel=1e-5)
    assert last.kl == pytest.approx(kl, rel=1e-5)
    assert last.elbo == pytest.approx(float(mass.mean()) - kl, rel=1e-5)
    assert last.log_px == pytest.approx(float(weights.logsumexp(0)) - math.log(150), rel=1e-5)
    assert last.log_px == pytest.approx(float(model.importance_weighted_bound(x, noise, discretised=True)), rel=1e-6)
    assert last.gap == last.log_px - last.elbo
    curve = dict(last.curve)
    assert list(curve) == [1, 2, 4, 8, 16, 32, 64, 128, 150]
    assert curve[1] == pytest.approx(float(weights.mean()), rel=1e-5)
    pairs = torch.logsumexp(weights.reshape(75, 2), dim=1) - math.log(2)
    assert curve[2] == pytest.approx(float(pairs.mean()), rel=1e-5)


def test_more_samples_never_lower_the_curve(models: Models) -> None:
    *_, last = elbo(models, Runner(), ask(models, samples=128))
    values = [value for _, value in last.curve]
    assert all(b >= a - 1e-3 for a, b in pairwise(values))


def test_the_gap_is_the_divergence_of_q_from_the_true_posterior() -> None:
    """A decoder that looks at no z: the posterior is the prior, log p(x) = log p(x|z), and the gap is the whole KL."""
    model = model_of("gaussian")
    with torch.no_grad():
        for parameter in model.decoder[-2].parameters():  # type: ignore[union-attr]
            parameter.zero_()
        model.encoder[-1].weight.mul_(0.02)  # type: ignore[union-attr,operator]
        model.encoder[-1].bias.copy_(torch.tensor([0.3, -0.2, 0.0, 0.1, 0.2, -0.1] + [-0.3] * LATENT))  # type: ignore[union-attr]
    models = tiny.only(model, MODEL)
    *_, last = elbo(models, Runner(), ask(models, samples=2000))
    assert last.kl > 0.15
    assert last.gap == pytest.approx(last.kl, abs=0.03)
    assert last.log_px == pytest.approx(encoded_of(models, ask(models)).log_likelihood, abs=0.03)


def test_a_request_that_takes_too_long_ends(models: Models) -> None:
    with pytest.raises(DeadlineError, match="stopped after 0 seconds"):
        next(elbo(models, Runner(deadline=0.0), ask(models)))


@torch.inference_mode()
def test_activity_is_the_variance_of_the_means(models: Models) -> None:
    model: VAE = models[MODEL].model  # type: ignore[assignment]
    means = torch.cat([model.encode(seen(models, i)[1]).mean for i in range(tiny.EXAMPLES)]).double().numpy()
    assert np.allclose(activity(models, Runner(), MODEL).numpy(), means.var(axis=0), rtol=1e-3)


def test_a_pixel_is_the_mixture_of_the_pictures_that_the_seeds_draw(models: Models) -> None:
    found = density_of(models, PixelDensityRequest(MODEL, 20, 7, 70))
    sampled = next(sample(models, Runner(), parse_sample(models.offers, MODEL, "any", 64, 1, "DDIM", 1, 0))).pictures
    assert len(found.mean) == 70
    assert torch.equal(to_pixels(found.mean[:64]), sampled[:, 0, 20, 7])
    assert torch.equal(to_pixels(found.data), models[MODEL].package.examples[:, 0, 20, 7])
    fewer = density_of(models, PixelDensityRequest(MODEL, 20, 7, 3))
    assert torch.equal(fewer.mean, found.mean[:3])
    x = torch.linspace(-2, 2, 41)
    if found.family == "gaussian":
        expected = Normal(found.mean[:, None], found.std[:, None]).log_prob(x).exp()
        assert torch.allclose(found.components(x), expected, rtol=1e-4)
    elif found.family == "logistic":
        y = (x - found.mean[:, None]) / found.std[:, None] * math.pi / math.sqrt(3)
        expected = math.pi / math.sqrt(3) / found.std[:, None] / (4 * torch.cosh(y / 2) ** 2)
        assert torch.allclose(found.components(x), expected, rtol=1e-3, atol=1e-6)
    else:
        assert torch.allclose(found.std, (1 - found.mean**2).sqrt())


def test_components_are_densities() -> None:
    found = PixelDensity(torch.tensor([0.0, -0.5]), torch.tensor([0.1, 0.3]), torch.empty(0), "gaussian")
    x = torch.linspace(-4, 4, 8001)
    assert torch.allclose(torch.trapezoid(found.components(x), x), torch.ones(2), atol=1e-4)
    own = torch.tensor([[-1.0, 0.0, 0.1], [-0.5, 0.2, 1.0]])
    expected = Normal(found.mean[:, None], found.std[:, None]).log_prob(own).exp()
    assert torch.allclose(found.components(own), expected, rtol=1e-4)


def test_a_mixture_is_the_mean_of_the_first_components() -> None:
    found = PixelDensity(torch.tensor([0.0, -0.5, 0.3]), torch.tensor([0.1, 0.3, 0.2]), torch.empty(0), "gaussian")
    x = torch.linspace(-1, 1, 21)
    for count, density in enumerate(found.mixtures(x), start=1):
        each = Normal(found.mean[:count], found.std[:count])
        expected = MixtureSameFamily(Categorical(torch.ones(count)), each).log_prob(x).exp()
        assert torch.allclose(density, expected, rtol=1e-4)


def test_the_first_components_are_drawn_one_by_one() -> None:
    count = figure.SINGLES + 20
    found = PixelDensity(torch.linspace(-1, 1, count + 20), torch.linspace(0.1, 0.3, count + 20), torch.empty(0), "gaussian")
    drawn = {name: values.reshape(figure.SINGLES, -1)[:, :-1] for name, values in figure.singles(found, count).items()}
    each = Normal(found.mean[: figure.SINGLES, None], found.std[: figure.SINGLES, None])
    assert torch.allclose(drawn["y"], each.log_prob(drawn["x"]).exp() / count, rtol=1e-4)
    assert torch.allclose(drawn["x"].mean(dim=1), found.mean[: figure.SINGLES], atol=1e-6)


def test_the_most_varied_pixel_and_models_without_test_pictures() -> None:
    pictures = torch.zeros(4, 1, 28, 28, dtype=torch.uint8)
    pictures[::2, 0, 9, 21] = 200
    pictures[0, 0, 3, 3] = 100
    package = tiny.only(model_of("gaussian"), MODEL)[MODEL].package
    with_pictures = Models([Served(MODEL, replace(package, examples=pictures, labels=None), "")])
    assert most_varied_pixel(with_pictures, MODEL) == (9, 21)
    without = Models([Served(MODEL, replace(package, examples=pictures[:0], labels=None), "")])
    assert most_varied_pixel(without, MODEL) == (14, 14)
    assert torch.equal(activity(without, Runner(), MODEL), torch.zeros(LATENT))
    assert len(density_of(without, PixelDensityRequest(MODEL, 1, 1, 5)).data) == 0


# ---- what is refused

OFFERS = {
    "vae": Offer("vae", "vae", DataSpec("d", 1, 28), 0, 3, latent=2),
    "large": Offer("large", "vae", DataSpec("e", 3, 64), 0, 3, latent=2),
    "huge": Offer("huge", "vae", DataSpec("f", 3, 256), 0, 3, latent=2),
    "ddpm": Offer("ddpm", "ddpm", DataSpec("d", 1, 28), 1000, 3),
}
PICK = Pick("test picture", 0)
BAD_Z = [
    [], [1.0], [1.0, 2.0, 3.0], [1.0, "2"], [1.0, True], [1.0, math.nan], [1.0, math.inf], [1.0, 10.5], [10**400, 1.0],
    "12", {"0": 1, "1": 2}, 5, False, [[1.0, 2.0]], "<b>" * 1000,
]  # fmt: skip


@pytest.mark.parametrize("z", BAD_Z, ids=lambda z: repr(z)[:30])
def test_a_z_that_is_no_list_of_numbers_in_reach_is_refused(z: Any) -> None:
    with pytest.raises(LimitError, match=r"^z: expected nothing or 2 numbers from −10 to 10") as caught:
        parse_vae(OFFERS, "vae", PICK, z, 512, 0)
    assert len(str(caught.value)) < 200
    assert "<b>" not in str(caught.value)


@pytest.mark.parametrize("model", ["ddpm", "huge", "", None, ["vae"]])
def test_only_vaes_whose_pictures_fit_are_offered(model: Any) -> None:
    with pytest.raises(LimitError, match=r"^model: expected one of vae, large"):
        parse_vae(OFFERS, model, PICK, None, 512, 0)


@pytest.mark.parametrize("samples", [0, -1, 2001, 1.5, None, "512", True, math.nan])
def test_a_number_of_samples_is_bounded(samples: Any) -> None:
    with pytest.raises(LimitError, match=r"^samples of z: expected a whole number from 1 to 2,000"):
        parse_vae(OFFERS, "vae", PICK, None, samples, 0)
    assert parse_vae(OFFERS, "vae", PICK, [None, 10], 2000, 0) == VAERequest("vae", PICK, (None, 10.0), 2000, 0)


def test_larger_pictures_get_fewer_samples() -> None:
    most = 5000 * 28**2 // 64**2
    assert parse_vae(OFFERS, "large", PICK, None, most, 0).samples == most
    with pytest.raises(LimitError, match=rf"from 1 to {most}, got {most + 1}"):
        parse_vae(OFFERS, "large", PICK, None, most + 1, 0)


@pytest.mark.parametrize(
    ("row", "column", "count", "message"),
    [
        (28, 0, 5, "row of the pixel: expected a whole number from 0 to 27"),
        (-1, 0, 5, "row of the pixel"),
        (0, 28, 5, "column of the pixel: expected a whole number from 0 to 27"),
        (0, None, 5, "column of the pixel"),
        (0, 0, 0, "samples of z: expected a whole number from 1 to 500"),
        (0, 0, 501, "samples of z"),
        (0, 0.5, 5, "column of the pixel"),
    ],
)
def test_a_pixel_outside_the_picture_is_refused(row: Any, column: Any, count: Any, message: str) -> None:
    with pytest.raises(LimitError, match=message):
        parse_pixel_density(OFFERS, "vae", row, column, count)
    assert parse_pixel_density(OFFERS, "vae", 27, 27, 500) == PixelDensityRequest("vae", 27, 27, 500)


@pytest.mark.parametrize(
    "value",
    [
        None, "", 5, [0] * 784, {"x": 1}, "AAAA", base64.b64encode(bytes(783)).decode(), base64.b64encode(bytes(785)).decode(),
        base64.b64encode(bytes(784)).decode()[:-4] + "====", base64.b64encode(bytes(784)).decode().replace("A", "\u0391"),
        base64.b64encode(bytes(784)).decode().replace("A", "!"), " " + base64.b64encode(bytes(784)).decode()[1:],
        "/etc/passwd", b"\0" * 784,
    ],
    ids=lambda v: repr(v)[:20],
)  # fmt: skip
def test_a_drawing_is_exactly_its_bytes(value: Any) -> None:
    with pytest.raises(LimitError, match="drawing: expected a picture of 28×28 pixels from the page's canvas"):
        parse_drawing(OFFERS["vae"].data, value)


def test_a_drawing_reaches_the_model_untouched(models: Models) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28, 1), dtype=np.uint8)
    pick = parse_drawing(models.offers[MODEL].data, base64.b64encode(pixels.tobytes()).decode())
    assert torch.equal(models.picture("mnist", pick), torch.from_numpy(pixels).permute(2, 0, 1))


def test_a_canvas_takes_pictures_of_one_shape_only() -> None:
    with pytest.raises(ValueError, match="of uint8 and one shape"):
        canvas_data("a", [BLACK, BLACK[:14]], ["x", "y"], ["p", "p"])
    with pytest.raises(ValueError, match="of uint8 and one shape"):
        canvas_data("a", [BLACK.astype(np.float32)], ["x"], ["p"])
    with pytest.raises(ValueError, match="expected 2 names and colours"):
        canvas_data("a", [BLACK, BLACK], ["x"], ["p"])
    with pytest.raises(ValueError, match="expected 1 names and colours among"):
        canvas_data("a", [BLACK], ["x"], ["red"])
    with pytest.raises(ValueError, match="expected labels among"):
        Canvas(labels={"nothing": ""})
    data = canvas_data("a", [BLACK, BLACK + 7], ["x", "y"], ["p", "q"])
    assert base64.b64decode(data.pictures[0]) == bytes([7] * 784)
    for bad in ({"token": "t" * 33}, {"x": "A" * 10**5}, {"chosen": [1]}, {"chosen": ["a", "b"]}, {"more": 1}):
        with pytest.raises(ValidationError):
            CanvasData.model_validate(bad)


# ---- the API and the page


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    folder = tmp_path_factory.mktemp("vae")
    pictures = tiny.dataset("mnist")
    write_package(folder / MODEL, model_of("gaussian"), {}, pictures)
    write_package(folder / "ddpm-mnist", tiny.ddpm(pictures.spec), {}, pictures)
    models = tiny.load_models([str(folder / MODEL), str(folder / "ddpm-mnist")])
    with tiny.serving(models) as url:
        yield SimpleNamespace(models=models, url=url, folder=folder)


@pytest.fixture(scope="module")
def client(site: SimpleNamespace) -> Client:
    return Client(site.url, token=False, verbose=False, download_files=str(site.folder / "results"))


def test_every_number_of_the_page_can_be_asked_for(site: SimpleNamespace, client: Client) -> None:
    z = [None, 0.5, *[None] * (LATENT - 2)]
    path, numbers = client.predict(MODEL, "test picture", 2, 70, 4, z, api_name="/vae")
    request = ask(site.models, 2, z, 70, 4)
    encoded = encoded_of(site.models, request)
    *_, bound = elbo(site.models, Runner(), request)
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert np.array_equal(np.array(picture), encoded.mean[0].numpy())
    assert json.loads(json.dumps(numbers)) == numbers
    assert numbers["k"] == 70
    for name in ("reconstruction", "kl", "elbo", "log_px", "gap"):
        assert numbers["nats"][name] == pytest.approx(getattr(bound, name))
        assert numbers["bits_per_dim"][name] == pytest.approx(getattr(bound, name) / math.log(2) / 784, rel=1e-5)
    assert numbers["nats"]["log_px_given_z"] == pytest.approx(encoded.log_likelihood)
    assert numbers["latents"]["z"] == pytest.approx(encoded.z.tolist())
    assert numbers["latents"]["kl"] == pytest.approx(encoded.kl.tolist())
    assert numbers["latents"]["log_var"] == pytest.approx(encoded.q.log_var.tolist())
    assert numbers["latents"]["activity"] == pytest.approx(activity(site.models, Runner(), MODEL).tolist())
    assert numbers["curve"] == [list(point) for point in bound.curve]
    assert numbers["sigma"]["mean"] == pytest.approx(float(encoded.sigma.mean()))


def test_an_upload_goes_through_the_vae_too(site: SimpleNamespace, client: Client, tmp_path: Path) -> None:
    Image.new("L", (40, 40), 255).save(tmp_path / "white.png")
    _, numbers = client.predict(MODEL, "upload", samples=1, upload=handle_file(tmp_path / "white.png"), api_name="/vae")
    white = Pick("upload", 0, BLACK + 255)
    encoded = encoded_of(site.models, replace(ask(site.models), picture=white))
    assert numbers["latents"]["mean"] == pytest.approx(encoded.q.mean.tolist())


def test_a_pixels_density_can_be_asked_for(site: SimpleNamespace, client: Client) -> None:
    found = client.predict(MODEL, 5, 6, 9, api_name="/pixel_density")
    expected = density_of(site.models, PixelDensityRequest(MODEL, 5, 6, 9))
    assert found["mean"] == pytest.approx(expected.mean.tolist())
    assert found["std"] == pytest.approx(expected.std.tolist())
    assert found["test_pictures"] == pytest.approx(expected.data.tolist())


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("/vae", {"samples": 2001}, "samples of z: expected"),
        ("/vae", {"z": [1, 2]}, f"z: expected nothing or {LATENT} numbers"),
        ("/vae", {"number": 20}, "Picture, test picture: expected"),
        ("/vae", {"picture_from": "seed"}, "Picture comes from: expected one of"),
        ("/vae", {"picture_from": "upload"}, "Picture: expected an uploaded picture"),
        ("/vae", {"model": "ddpm-mnist"}, "model: expected one of"),
        ("/pixel_density", {"row": 28}, "row of the pixel: expected"),
    ],
)
def test_the_api_says_what_is_wrong(client: Client, name: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(AppError, match=f"^{re.escape(message)}"):
        client.predict(**values, api_name=name)


PICTURES = tiny.PICTURES % "vae"


@pytest.fixture(scope="module")
def page(site: SimpleNamespace, browser: Any) -> Any:
    page = tiny.watched(browser.new_page(viewport={"width": 1280, "height": 1000}))
    page.goto(site.url)
    page.get_by_role("tab", name="VAE").click()
    page.wait_for_selector("#vae-canvas canvas")
    page.wait_for_function(f"() => ({PICTURES})().every(sum => sum)")
    return page


def changed(page: Any, before: list[int], picture: int) -> list[int]:
    """Waits until a picture is another than before; what all show then."""
    page.wait_for_function(f"([before, i]) => ({PICTURES})()[i] !== before[i]", arg=[before, picture])
    return page.evaluate(PICTURES)


def text(page: Any, figure: str) -> str:
    return page.locator(f"#{figure} .caption").inner_text()


def test_what_is_drawn_is_encoded_and_decoded_and_its_bound_comes(page: Any) -> None:
    assert page.locator("#vae-canvas .cover").is_hidden(), "nothing can be painted over here"
    top = page.locator("#vae-terms").bounding_box()["y"]
    before, terms = page.evaluate(PICTURES), text(page, "vae-terms")
    page.locator("#vae-canvas .wipe").click()
    before = changed(page, before, 1)
    box = page.locator("#vae-canvas canvas").first.bounding_box()
    page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 0.2 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.8 * box["height"], steps=8)
    page.mouse.up()
    for picture in (0, 1, 3):
        changed(page, before, picture)
    page.wait_for_function("was => document.querySelector('#vae-terms .caption').innerText !== was", arg=terms)
    page.wait_for_function("() => document.querySelector('#vae-terms .caption').innerText.includes('k = 512')")
    assert page.locator("#vae-terms rect").count() >= 8
    assert page.locator("#vae-terms").bounding_box()["y"] == pytest.approx(top, abs=1)
    drawn = page.evaluate("""() => { const c = document.querySelector('#vae-canvas canvas'), k = c.width / 28;
        const at = (x, y) => c.getContext('2d').getImageData((x + 0.5) * k, (y + 0.5) * k, 1, 1).data[0];
        return [at(11, 14), at(2, 25)]; }""")
    assert drawn[0] > 200
    assert drawn[1] == 0


def test_a_second_finger_draws_nothing(page: Any) -> None:
    before = page.evaluate(PICTURES)
    page.locator("#vae-canvas canvas").first.evaluate("""canvas => {
        const box = canvas.getBoundingClientRect();
        for (const [kind, x] of [['pointerdown', 0.1], ['pointermove', 0.9], ['pointerup', 0.9]])
          canvas.dispatchEvent(new PointerEvent(kind, {
            pointerId: 7, pointerType: 'touch', isPrimary: false, button: 0,
            clientX: box.x + x * box.width, clientY: box.y + 0.95 * box.height,
          }));
    }""")
    assert page.evaluate(PICTURES)[0] == before[0]


def test_shift_alone_asks_for_nothing(page: Any) -> None:
    page.locator("#vae-canvas canvas").first.focus()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.keyboard.press("Shift")
    page.wait_for_timeout(300)
    assert asked == []


@pytest.mark.parametrize("name", ["show_test", "show_drawing"])
def test_a_number_that_is_being_filled_in_is_waited_for(site: SimpleNamespace, name: str) -> None:
    with gr.Blocks() as page:
        tab.build(site.models, Runner(), page)
    (fn, *_) = (each for each in page.fns.values() if each.name == name)
    assert all(answer == gr.skip() for answer in fn.fn(*[None] * len(fn.inputs)))


def test_the_keyboard_draws(page: Any) -> None:
    before = page.evaluate(PICTURES)
    page.locator("#vae-canvas .erase").focus()
    page.locator("#vae-canvas canvas").first.focus()
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Space")
    changed(page, before, 1)


def test_a_latent_moves_by_the_keyboard_and_the_decoder_follows(page: Any) -> None:
    handle = page.locator("#vae-latents .hand").first
    handle.focus()
    for _ in range(3):
        before, place = page.evaluate(PICTURES), float(handle.get_attribute("aria-valuenow"))
        page.keyboard.press("Shift+ArrowRight")
        after = changed(page, before, 1)
        assert after[0] == before[0]
        assert float(handle.get_attribute("aria-valuenow")) > place


def test_z_can_be_drawn_again_and_a_pixel_chosen(page: Any) -> None:
    before = page.evaluate(PICTURES)
    page.click("#vae-again")
    before = changed(page, before, 3)
    title = page.locator("#vae-density .title")
    was = title.inner_text()
    box = page.locator("#vae-canvas canvas").nth(1).bounding_box()
    page.mouse.click(box["x"] + box["width"] * 3.5 / 28, box["y"] + box["height"] * 5.5 / 28)
    page.get_by_text("Pixel in row 5, column 3", exact=True).first.wait_for()
    assert was != title.inner_text()
    scrubber = page.locator("#vae-density input[type=range]")
    scrubber.press("Home")
    assert "N = 1:" in text(page, "vae-density")
    scrubber.press("End")
    assert "N = 500:" in text(page, "vae-density")
    page.locator("#vae-canvas canvas").nth(1).press("ArrowRight")
    page.get_by_text("Pixel in row 5, column 4", exact=True).first.wait_for()


def test_another_picture_replaces_the_drawing_and_nothing_went_wrong(page: Any) -> None:
    before = page.evaluate(PICTURES)
    page.click("#vae-another")
    changed(page, before, 0)
    changed(page, before, 1)
    assert page.problems == []
