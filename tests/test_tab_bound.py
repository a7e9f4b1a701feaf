"""The Bound tab: one step of the bound against independent formulas, what was measured, what is refused, the API, the page."""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
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
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from genlab.config import DataSpec, DDPMConfig, UNetConfig, Variance
from genlab.data import to_model
from genlab.ddpm import DDPM
from genlab.demo.limits import LimitError, Offer, Pick
from genlab.demo.served import Models
from genlab.demo.tabs import measurements
from genlab.demo.tabs.bound import build as tab
from genlab.demo.tabs.bound.compute import BoundStep, bound, first_visible_noise
from genlab.demo.tabs.bound.figure import ledger_figure
from genlab.demo.tabs.bound.request import BoundRequest, parse_bound
from genlab.demo.turns import Runner
from genlab.divergence import Gaussian
from genlab.likelihood import level_log_probs
from genlab.measurements import DiffusionBound, read_evaluation
from genlab.oracle import DataSetOracle
from genlab.package import PRETRAINED, write_package
from genlab.process import Denoised
from genlab.schedule import cosine_schedule
from genlab.vlb import step_term, step_terms
from tests import tiny
from training.likelihood import diffusion_bound
from training.partial import Partial, Progress

MODEL = "ddpm-mnist"
T = 60
ROW, COLUMN = 9, 17


def model_of(variance: Variance, data: DataSpec | None = None) -> DDPM:
    """A small network whose answers depend on everything."""
    torch.manual_seed(3)
    unet = UNetConfig(width=8, patch=2, multipliers=(1, 2), blocks=1)
    model = DDPM(DDPMConfig(T=T, variance=variance, prediction="v", unet=unet), data or tiny.dataset("mnist").spec)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


@pytest.fixture(scope="module", params=["posterior", "beta", "learned"])
def models(request: pytest.FixtureRequest) -> Models:
    return tiny.only(model_of(request.param), MODEL)


def ask(models: Models, t: int, number: int = 3, seed: int = 0) -> BoundStep:
    picture = Pick("test picture", number)
    return bound(models, Runner(), parse_bound(models.offers, MODEL, picture, t, seed, ROW, COLUMN))


def betas(model: Any, t: int) -> tuple[Tensor, Tensor, Tensor]:
    """β_t, ᾱ_t and ᾱ_{t−1}, from the table of β alone."""
    bars = torch.cumprod(1 - model.schedule.beta, 0)
    return model.schedule.beta[t], bars[t], bars[t - 1]


def bits(nats: Any) -> float:
    return float(nats) / math.log(2)


# ---- the mathematics


def test_the_addends_of_a_term_are_those_of_one_value_each() -> None:
    schedule, generator = cosine_schedule(40), torch.Generator().manual_seed(0)
    x0 = torch.randint(0, 256, (3, 2, 4, 5), generator=generator) / 127.5 - 1
    x_t, mean, log_var = (torch.randn(x0.shape, generator=generator) for _ in range(3))
    t = torch.tensor([1, 7, 40])
    p = Gaussian(0.1 * mean + x0, log_var - 4)
    each = step_terms(schedule, p, x0, x_t, t)
    assert each.shape == x0.shape
    assert torch.allclose(each.sum(dim=(1, 2, 3)), step_term(schedule, lambda *_: p, x0, x_t, t), rtol=1e-5)
    other = x0.clone()
    other[0, 0, 0, 0] = -1.0 if x0[0, 0, 0, 0] > 0 else 1.0
    touched = step_terms(schedule, p, other, x_t, t) != each
    assert touched.sum() == 1
    assert touched[0, 0, 0, 0]


def test_the_masses_of_the_gray_levels_are_differences_of_the_distribution_function() -> None:
    mean, std = torch.tensor([-1.02, -0.3, 0.99], dtype=torch.float64), torch.tensor([0.01, 0.4, 0.02], dtype=torch.float64)
    found = level_log_probs(Gaussian(mean, 2 * std.log())).exp()
    edges = (torch.arange(257, dtype=torch.float64) - 0.5) / 127.5 - 1
    edges[0], edges[-1] = -math.inf, math.inf
    expected = Normal(mean[:, None], std[:, None]).cdf(edges).diff(dim=1)
    assert torch.allclose(found, expected, atol=1e-12)
    assert torch.allclose(found.sum(dim=1), torch.ones(3, dtype=torch.float64))


# ---- one step


@torch.inference_mode()
@pytest.mark.parametrize("t", [2, 3, 20, T])
def test_a_step_is_the_divergence_of_the_two_gaussians(models: Models, t: int) -> None:
    model = models.ddpm(MODEL)
    step = ask(models, t, seed=5)
    beta, bar, before = betas(model, t)
    x0 = to_model(models[MODEL].package.examples[3])
    x_t = bar.sqrt() * x0 + (1 - bar).sqrt() * torch.randn(x0.shape, generator=torch.Generator().manual_seed(5))
    assert torch.equal(step.x0, x0)
    assert torch.allclose(step.x_t, x_t.float(), atol=1e-6)
    predicted = model.predict(step.x_t[None], torch.tensor([t]))
    assert torch.equal(step.x0_hat, predicted.x0_hat[0])

    def posterior(clean: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of the product N(x_t; √α x, β) N(x; √ᾱ_{t−1} x_0, 1 − ᾱ_{t−1}): precisions add."""
        variance = 1 / ((1 - beta) / beta + 1 / (1 - before))
        mean = variance * ((1 - beta).sqrt() / beta * step.x_t.double() + before.sqrt() / (1 - before) * clean.double())
        return mean, variance

    mean, variance = posterior(x0)
    assert step.q is not None
    assert torch.allclose(step.q.mean.double(), mean, atol=1e-6)
    assert torch.allclose(step.q.variance.double(), variance.expand_as(mean), rtol=1e-5)
    assert (step.beta_tilde, step.beta) == pytest.approx((float(variance), float(beta)))
    fraction = {"posterior": 0.0, "beta": 1.0, "learned": None}[model.config.variance]
    w = predicted.fraction[0].double() if fraction is None else torch.full_like(mean, fraction)  # type: ignore[index]
    sigma = beta**w * variance ** (1 - w)
    assert torch.allclose(step.fraction.double(), w)
    assert torch.allclose(step.p.mean.double(), posterior(predicted.x0_hat[0])[0], atol=1e-6)
    assert torch.allclose(step.p.variance.double(), sigma, rtol=1e-5)

    def terms(var: Tensor) -> Tensor:
        q, p = Normal(mean, variance.sqrt()), Normal(posterior(predicted.x0_hat[0])[0], var.sqrt())
        return kl_divergence(q, p)

    assert torch.allclose(step.terms.double(), terms(sigma), rtol=1e-3, atol=2e-5)  # means are float32, σ some 1e-3
    assert torch.allclose(step.per_pixel, step.terms[0])
    assert step.per_pixel[step.largest] == step.per_pixel.max()
    expected = {"posterior": terms(variance), "beta": terms(beta)}
    expected |= {"learned": terms(sigma)} if model.config.variance == "learned" else {}
    assert step.by_variance == pytest.approx({name: float(each.sum()) for name, each in expected.items()}, rel=1e-3)
    assert (step.T, step.alpha_bar) == (T, pytest.approx(float(bar)))
    last = betas(model, T)[1]
    prior = kl_divergence(Normal(last.sqrt() * x0.double(), (1 - last).sqrt()), Normal(0.0, 1.0)).sum()
    assert step.prior == pytest.approx(float(prior), rel=1e-3, abs=1e-4)

    x = torch.linspace(-1.5, 1.5, 11)
    q, p = step.densities(ROW, COLUMN, x)
    place = (0, ROW, COLUMN)
    for found, gaussian in ((q, step.q), (p, step.p)):
        peer = Normal(gaussian.mean[place], gaussian.std[place]).log_prob(x).exp()
        assert torch.allclose(found, peer, rtol=1e-3, atol=1e-30)


@torch.inference_mode()
def test_the_last_step_is_the_mass_on_the_gray_level(models: Models) -> None:
    model = models.ddpm(MODEL)
    step = ask(models, 1)
    assert step.q is None
    assert step.beta_tilde == pytest.approx(float(model.schedule.beta[2] * model.schedule.beta[1] / (1 - betas(model, 2)[1])))
    level = int(models[MODEL].package.examples[3][0, ROW, COLUMN])
    mass = step.levels(ROW, COLUMN)
    assert float(step.terms[0, ROW, COLUMN]) == pytest.approx(-math.log(float(mass[level])), rel=1e-4, abs=1e-5)
    p = Normal(step.p.mean[0, ROW, COLUMN].double(), step.p.std[0, ROW, COLUMN].double())
    inside = p.cdf((level + 0.5) / 127.5 - torch.ones(())) - p.cdf((level - 0.5) / 127.5 - torch.ones(()))
    assert 0 < level < 255
    assert float(mass[level]) == pytest.approx(float(inside), rel=1e-3, abs=1e-12)
    assert len(step.densities(ROW, COLUMN, torch.zeros(3))) == 1


def test_only_where_x_t_does_not_tell_x_0_the_best_model_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exact model of twenty pictures: 0 at a small t, where x_t tells which one it is; not at a large one (notes' slip)."""
    model = model_of("posterior")
    models = tiny.only(model, MODEL)
    oracle = DataSetOracle(model.schedule, to_model(models[MODEL].package.examples))

    def predict(x_t: Tensor, t: Tensor, *_: Any, **__: Any) -> Denoised:
        x0_hat = (oracle.weights(x_t, t) @ oracle.pictures.flatten(1)).reshape(x_t.shape)
        return Denoised(x_t, x0_hat, None)

    monkeypatch.setattr(model, "predict", predict)
    assert abs(ask(models, 2).by_variance["posterior"]) < 1e-3
    _, bar, before = betas(model, 2)
    ratio = (1 - before) / (1 - bar)  # β̃/β
    assert ask(models, 2).by_variance["beta"] == pytest.approx(784 * 0.5 * float(ratio - 1 - ratio.log()), rel=1e-3)
    assert all(ask(models, T, seed=seed).by_variance["posterior"] > 1e-4 for seed in range(3))


def test_noise_begins_to_show_at_the_first_t() -> None:
    model = model_of("posterior")
    t = first_visible_noise(model.schedule)
    snr = [float(bar / (1 - bar)) for bar in torch.cumprod(1 - model.schedule.beta, 0)]
    assert t == next(i for i in range(2, T + 1) if snr[i] <= 100)


# ---- what was measured


@pytest.fixture(scope="module")
def section() -> dict[str, Any]:
    """The ledger as evaluation writes it, through JSON."""
    progress = Progress(1, "evaluation")
    pictures = tiny.dataset("mnist").images[:6]
    found = diffusion_bound(model_of("learned"), pictures, 12, 0, 6, Partial(None, {}), progress)
    progress.close()
    return json.loads(json.dumps(found))


def test_the_ledger_of_an_evaluation_is_read(section: dict[str, Any]) -> None:
    ledger = likelihood_of({"evaluation": {"likelihood": section}}, T)
    assert ledger is not None
    assert (ledger.images, ledger.T, ledger.variance) == (6, T, "learned")
    for name, sums in ledger.by_variance.items():
        own = section["by_variance"][name]
        assert sums.bound_bits_per_dim == own["bound_bits_per_dim"]
        parts = sums.transition_terms_sum_bits_per_dim + sums.decoder_term_L_0_bits_per_dim
        assert ledger.prior_term_L_T_bits_per_dim + parts == pytest.approx(sums.bound_bits_per_dim)
    for k, (first, last) in enumerate(zip(section["ledger"]["first_t"], section["ledger"]["last_t"], strict=True)):
        assert ledger.stratum(first) == ledger.stratum(last) == k
    assert likelihood_of({"evaluation": {"likelihood": section}}, T + 1) is None


def likelihood_of(metrics: dict[str, Any], chain: int) -> DiffusionBound | None:
    return read_evaluation(metrics).bound_of_chain(chain)


def with_terms(section: dict[str, Any], value: float) -> dict[str, Any]:
    """The ledger's strata with that number in the place of every mean term."""
    terms = section["ledger"]["mean_term_bits_per_dim"]
    return {**section["ledger"], "mean_term_bits_per_dim": {name: [value] * len(each) for name, each in terms.items()}}


def damage(section: dict[str, Any]) -> Iterator[Any]:
    """The ledger with one thing wrong."""
    for path in (("images",), ("by_variance",), ("ledger", "last_t"), ("by_variance", "beta", "bound_bits_per_dim")):
        broken = copy.deepcopy(section)
        inner = broken
        for key in path[:-1]:
            inner = inner[key]
        for value in (None, "<b>", [], math.nan, 1e308, {"more": 1}):
            inner[path[-1]] = value
            yield copy.deepcopy(broken)
        del inner[path[-1]]
        yield broken
    for change in (
        {"variance": "posterior", "by_variance": {"beta": section["by_variance"]["beta"]}},
        {"ledger": {**section["ledger"], "last_t": sorted(section["ledger"]["last_t"], reverse=True)}},
        {"ledger": {**section["ledger"], "first_t": section["ledger"]["first_t"][1:]}},
        {"ledger": {**section["ledger"], "mean_term_bits_per_dim": {"learned": [1.0]}}},
        {"ledger": with_terms(section, 1.7e308)},
    ):
        yield {**section, **change}
    yield from ({}, [], "x", None, 5)


def test_what_is_no_ledger_counts_as_not_measured(section: dict[str, Any]) -> None:
    for damaged in damage(section):
        assert likelihood_of({"evaluation": {"likelihood": damaged}}, T) is None, damaged
    for metrics in ({}, {"evaluation": None}, {"evaluation": []}, {"evaluation": {"samples": {"images": 3}}}):
        assert likelihood_of(metrics, T) is None
        assert read_evaluation(metrics).samples is None


@pytest.mark.parametrize("term", [5e-324, 0.0, -1e6, 1e6])
def test_every_ledger_that_is_read_is_drawn(section: dict[str, Any], term: float) -> None:
    ledger = likelihood_of({"evaluation": {"likelihood": {**section, "ledger": with_terms(section, term)}}}, T)
    axis = ledger_figure(ledger, ask(tiny.only(model_of("learned"), MODEL), 5)).panels[0].y
    assert 0 < axis.low < axis.high < math.inf
    assert ledger is not None


def test_the_tab_shows_what_was_measured(section: dict[str, Any]) -> None:
    left, right = measurements.tables(tiny.measured({"likelihood": section}, T), "m")
    for name in ("learned", "posterior", "beta"):
        own = section["by_variance"][name]
        assert f"{own['bound_bits_per_dim']:.3f} ± {own['bound_standard_error_bits_per_dim']:.3f}" in left
    assert right == ""


def test_a_term_below_the_digits_of_the_table_keeps_its_own(section: dict[str, Any]) -> None:
    small = {"decoder_term_L_0_bits_per_dim": 4.22e-4, "decoder_term_L_0_standard_error_bits_per_dim": 1.7e-5}
    sums = {name: column | small for name, column in section["by_variance"].items()}
    left, _ = measurements.tables(tiny.measured({"likelihood": {**section, "by_variance": sums}}, T), "m")
    assert "0.00042 ± 0.00002" in left
    assert "0.000 " not in left


def test_what_the_shipped_models_bring_is_read() -> None:
    for folder in PRETRAINED.glob("ddpm-*"):
        metrics = json.loads((folder / "metrics.json").read_text())
        chain = json.loads((folder / "config.json").read_text())["model"]["T"]
        evaluation = metrics.get("evaluation", {})
        assert (likelihood_of(metrics, chain) is None) == ("likelihood" not in evaluation)
        assert (read_evaluation(metrics).samples is None) == ("samples" not in evaluation)


# ---- what is refused

OFFERS = {
    "vae": Offer("vae", "vae", DataSpec("d", 1, 28), 0, 3, latent=2),
    "ddpm": Offer("ddpm", "ddpm", DataSpec("d", 1, 28), 1000, 3),
    "short": Offer("short", "ddpm", DataSpec("e", 3, 64), 10, 3),
    "huge": Offer("huge", "ddpm", DataSpec("f", 3, 256), 1000, 3),
}
PICK = Pick("test picture", 0)
GOOD = {"model": "ddpm", "picture": PICK, "t": 1, "seed": 0, "row": 27, "column": 0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *(
            ({"t": t}, "step t: expected a whole number from 1 to 1,000")
            for t in (0, -1, 1001, 1.5, None, "5", True, math.nan, [])
        ),
        *(({"model": m}, "model: expected one of ddpm, short") for m in ("vae", "huge", None, ["ddpm"], "<b>")),
        ({"model": "short", "t": 11}, "step t: expected a whole number from 1 to 10, got 11"),
        ({"row": 28}, "row of the pixel: expected a whole number from 0 to 27"),
        ({"row": -1}, "row of the pixel"),
        ({"column": None}, "column of the pixel: expected a whole number from 0 to 27"),
        ({"column": 0.5}, "column of the pixel"),
        ({"seed": -1}, "seed: expected"),
        ({"seed": 2**32}, "seed: expected"),
    ],
)
def test_a_step_that_is_not_there_is_refused(changes: dict[str, Any], message: str) -> None:
    assert parse_bound(OFFERS, **GOOD) == BoundRequest("ddpm", PICK, 1, 0, 27, 0)
    with pytest.raises(LimitError, match=f"^{re.escape(message)}"):
        parse_bound(OFFERS, **{**GOOD, **changes})


# ---- the API and the page


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, section: dict[str, Any]) -> Iterator[SimpleNamespace]:
    """A model that was measured, and one that was not."""
    folder = tmp_path_factory.mktemp("bound")
    pictures, fashion = tiny.dataset("mnist"), tiny.dataset("fashion-mnist")
    evaluation = {"likelihood": section, "samples": tiny.SAMPLES}
    write_package(folder / MODEL, model_of("learned"), {"evaluation": evaluation}, pictures)
    write_package(folder / "ddpm-plain", model_of("beta", fashion.spec), {}, fashion)
    models = tiny.load_models([str(folder / MODEL), str(folder / "ddpm-plain")])
    with tiny.serving(models) as url:
        yield SimpleNamespace(models=models, url=url, folder=folder)


@pytest.fixture(scope="module")
def client(site: SimpleNamespace) -> Client:
    return Client(site.url, token=False, verbose=False, download_files=str(site.folder / "results"))


@pytest.mark.parametrize("t", [1, 9])
def test_every_number_of_the_page_can_be_asked_for(
    site: SimpleNamespace, client: Client, section: dict[str, Any], t: int
) -> None:
    numbers = client.predict(MODEL, "test picture", 3, t, 4, ROW, COLUMN, api_name="/bound")
    step, place = ask(site.models, t, seed=4), (0, ROW, COLUMN)
    assert json.loads(json.dumps(numbers)) == numbers
    assert (numbers["t"], numbers["T"], numbers["variance"]) == (t, T, "learned")
    for name in ("alpha_bar", "beta_tilde", "beta"):
        assert numbers[name] == pytest.approx(getattr(step, name))
    of_picture = numbers["bits_per_dim"]
    assert of_picture["term"] == pytest.approx(bits(step.terms.double().sum()) / 784)
    assert of_picture["prior"] == pytest.approx(bits(step.prior) / 784)
    assert of_picture["by_variance"] == pytest.approx({name: bits(nats) / 784 for name, nats in step.by_variance.items()})
    assert np.allclose(numbers["bits"], step.per_pixel / math.log(2))
    assert np.allclose(numbers["fractions"], step.fraction)
    pixel = numbers["pixel"]
    assert (pixel["x_0"], pixel["x_t"], pixel["x0_hat"]) == pytest.approx(
        tuple(float(x[place]) for x in (step.x0, step.x_t, step.x0_hat))
    )
    assert pixel["p"] == pytest.approx({"mean": float(step.p.mean[place]), "variance": float(step.p.variance[place])})
    assert pixel["bits"] == pytest.approx(bits(step.terms[place]))
    if step.q is None:
        assert pixel["q"] is None
        assert sum(pixel["levels"]) == pytest.approx(1, abs=1e-5)
    else:
        assert pixel["levels"] is None
        assert pixel["q"] == pytest.approx({"mean": float(step.q.mean[place]), "variance": float(step.q.variance[place])})
    likelihood, samples = numbers["measured"]["likelihood"], numbers["measured"]["samples"]
    assert likelihood["by_variance"]["beta"].items() <= section["by_variance"]["beta"].items()
    assert likelihood["ledger"]["mean_term_bits_per_dim"] == section["ledger"]["mean_term_bits_per_dim"]
    assert samples["frechet_distance"] == tiny.SAMPLES["frechet_distance"]
    assert samples["features"] == tiny.SAMPLES["features"]


def test_an_upload_and_a_model_that_was_not_measured(site: SimpleNamespace, client: Client, tmp_path: Path) -> None:
    Image.new("L", (40, 40), 255).save(tmp_path / "white.png")
    numbers = client.predict(
        "ddpm-plain", "upload", t=5, upload=handle_file(tmp_path / "white.png"), row=1, column=2, api_name="/bound"
    )
    white = Pick("upload", 0, np.full((28, 28, 1), 255, np.uint8))
    request = parse_bound(site.models.offers, "ddpm-plain", white, 5, 0, 1, 2)
    step = bound(site.models, Runner(), request)
    assert numbers["bits_per_dim"]["term"] == pytest.approx(bits(step.by_variance["beta"]) / 784)
    assert numbers["measured"] == {"likelihood": None, "samples": None}
    other = bound(site.models, Runner(), replace(request, seed=1))
    assert not torch.equal(other.x_t, step.x_t)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"t": 0}, "step t: expected a whole number from 1 to 60, got 0"),
        ({"row": 28}, "row of the pixel: expected"),
        ({"number": 20}, "Picture, test picture: expected"),
        ({"picture_from": "seed"}, "Picture comes from: expected one of"),
        ({"model": "vae-mnist"}, "model: expected one of"),
    ],
)
def test_the_api_says_what_is_wrong(client: Client, values: dict[str, Any], message: str) -> None:
    with pytest.raises(AppError, match=f"^{re.escape(message)}"):
        client.predict(**values, api_name="/bound")


def test_another_model_keeps_the_noise_and_a_number_is_looked_at_once() -> None:
    with gr.Blocks() as demo:
        tab.build(tiny.only(model_of("learned"), MODEL), Runner(), demo)
    events = {fn.name: fn for fn in demo.fns.values()}
    assert len(events["show_model"].inputs) == 2
    shown = [events["show_model"].fn(MODEL, seed)[1] for seed in (0, 0, 7)]
    assert shown[0].pictures == shown[1].pictures
    assert shown[0].pictures != shown[2].pictures
    assert shown[0].x == shown[2].x
    shown_tests = [[event for _, event in fn.targets] for fn in demo.fns.values() if fn.name == "show_test"]
    assert shown_tests == [["input"], ["success"], ["success"]], "not for a number that a link or another model sets"


PICTURES = tiny.PICTURES % "bound"


@pytest.fixture(scope="module")
def page(site: SimpleNamespace, browser: Any) -> Any:
    page = tiny.watched(browser.new_page(viewport={"width": 1280, "height": 1000}))
    page.goto(f"{site.url}/?tab=bound")
    page.wait_for_function(f"() => {{ const all = ({PICTURES})(); return all.length === 4 && all.every(sum => sum); }}")
    page.locator("#bound-ledger .chosen").wait_for(state="attached")
    return page


def text(page: Any, part: str) -> str:
    return page.locator(f"#{part} .caption").inner_text()


def wait_for(page: Any, part: str, words: str) -> None:
    page.wait_for_function(
        "([part, words]) => document.querySelector(`#${part} .caption`).innerText.includes(words)", arg=[part, words]
    )


def test_a_click_on_the_curve_chooses_a_step_and_the_keys_go_on(page: Any, site: SimpleNamespace) -> None:
    assert "6 test pictures" in text(page, "bound-ledger")
    before = page.evaluate(PICTURES)
    surface = page.locator("#bound-ledger .surface.selects")
    box = surface.bounding_box()
    surface.click(position={"x": 0.75 * box["width"], "y": 0.4 * box["height"]})
    page.wait_for_function("() => +document.querySelector('#bound-t input').value > 10")
    t = int(page.locator("#bound-t input").input_value())
    wait_for(page, "bound-canvas", f"t = {t} of {T}")
    assert page.evaluate(PICTURES)[1] != before[1]
    surface.press("ArrowLeft")
    wait_for(page, "bound-canvas", f"t = {t - 1} of {T}")
    assert int(page.locator("#bound-t input").input_value()) == t - 1
    term = ask(site.models, t - 1, number=0)
    assert f"{bits(term.terms.double().sum()) / 784:#.3g} bits/dim for this picture" in text(page, "bound-canvas")


def test_a_click_on_a_picture_chooses_a_pixel_and_its_gaussians_follow(page: Any, site: SimpleNamespace) -> None:
    box = page.locator("#bound-canvas canvas").nth(3).bounding_box()
    page.mouse.click(box["x"] + box["width"] * (COLUMN + 0.5) / 28, box["y"] + box["height"] * (ROW + 0.5) / 28)
    page.get_by_text(f"The pixel in row {ROW}, column {COLUMN}", exact=True).first.wait_for()
    t = int(page.locator("#bound-t input").input_value())
    nats = ask(site.models, t, number=0).terms[0, ROW, COLUMN]
    assert f"= {bits(nats):#.3g} bits" in text(page, "bound-pixel")
    page.locator("#bound-canvas canvas").nth(1).press("ArrowDown")
    page.get_by_text(f"The pixel in row {ROW + 1}, column {COLUMN}", exact=True).first.wait_for()


def test_at_the_last_step_the_gray_levels_are_shown_and_nothing_moves(page: Any) -> None:
    top = page.locator("#bound-pixel").bounding_box()["y"]
    page.locator("#bound-t input").fill("1")
    wait_for(page, "bound-pixel", "−log₂ p(x₀|x₁)")
    assert page.locator("#bound-pixel").bounding_box()["y"] == pytest.approx(top, abs=1)
    page.locator("#bound-t input").fill("5")
    wait_for(page, "bound-pixel", "KL[q ‖ p]")


def test_what_is_drawn_costs_bits_and_another_picture_comes(page: Any) -> None:
    before = page.evaluate(PICTURES)
    page.locator("#bound-canvas .wipe").click()
    page.wait_for_function(
        f"before => {{ const now = ({PICTURES})(); return [0, 1, 3].every(i => now[i] !== before[i]); }}", arg=before
    )
    before = page.evaluate(PICTURES)
    page.click("#bound-another")
    page.wait_for_function(
        f"before => {{ const now = ({PICTURES})(); return [0, 1, 3].every(i => now[i] !== before[i]); }}", arg=before
    )


def test_a_model_that_was_not_measured_still_shows_its_steps(page: Any) -> None:
    page.locator("#bound-model input").click()
    page.get_by_role("option", name="ddpm-plain").click()
    wait_for(page, "bound-ledger", "has not been measured")
    assert page.locator("#bound-ledger .panel").count() == 1
    wait_for(page, "bound-canvas", "Σ = β: ")
    assert page.problems == []
