"""The Sample tab: what is refused, and that a seed's pictures depend on nothing but the request."""

from __future__ import annotations

import math
import re

import pytest
import torch
from PIL import Image

from genlab import nn
from genlab.config import DataSpec, Sampling
from genlab.data import to_pixels, ungrid
from genlab.demo import limits
from genlab.demo.limits import LimitError, Offer, Pick
from genlab.demo.served import Models
from genlab.demo.tabs.bound.compute import bound
from genlab.demo.tabs.bound.request import BoundRequest
from genlab.demo.tabs.pictures import png
from genlab.demo.tabs.sample.compute import sample
from genlab.demo.tabs.sample.request import COUNT, SAMPLER, SEED, STEPS, parse_sample
from genlab.demo.turns import Runner
from genlab.serving.language import choose
from tests import tiny

DDPM_ID, VAE_ID = "ddpm-fashion-mnist", "vae-fashion-mnist"
BAD_NUMBERS = [
    -1,
    10**10,
    10**400,
    2.5,
    math.nan,
    math.inf,
    -math.inf,
    1e308,
    True,
    False,
    None,
    "5",
    "",
    [],
    [5],
    {},
    {"value": 5},
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return tiny.load_models(tiny.save_models(tmp_path_factory.mktemp("models")))


def ask(models: Models, **changes):
    raw = {"model": DDPM_ID, "label": "any", "count": 4, "steps": 5, "sampler": "DDIM", "guidance": 1, "seed": 7, **changes}
    return parse_sample(models.offers, **raw)


def finished(models: Models, **changes) -> torch.Tensor:
    *_, last = sample(models, Runner(), ask(models, **changes))
    return last.pictures


@pytest.mark.parametrize("value", BAD_NUMBERS, ids=repr)
@pytest.mark.parametrize(("name", "field"), [("count", COUNT), ("steps", STEPS), ("seed", SEED)])
def test_a_number_that_is_none_of_those_offered_is_refused_by_name(models, name, field, value):
    with pytest.raises(LimitError, match=re.escape(f"{choose(field.name)}: expected a whole number from {field.low:,g} to ")):
        ask(models, **{name: value})


@pytest.mark.parametrize("value", [v for v in BAD_NUMBERS if v != 2.5] + [0.25, 8.5], ids=repr)
def test_guidance_moves_in_its_steps(models, value):
    with pytest.raises(LimitError, match=r"guidance: expected a number from 0 to 8 in steps of 0\.5"):
        ask(models, guidance=value)


@pytest.mark.parametrize("value", ["", "ANY", "any ", "аny", "Shirt\0", None, [], ["any"], {}, 0, True, float("nan")], ids=repr)
@pytest.mark.parametrize("name", ["model", "label", "sampler"])
def test_a_choice_that_is_none_of_those_offered_is_refused_by_name(models, name, value):
    with pytest.raises(LimitError, match=rf"^({name}|class for {DDPM_ID}): expected one of "):
        ask(models, **{name: value})


def test_numbers_come_out_in_their_types(models):
    request = ask(models, count=4.0, steps=5, guidance=2, seed=2**32 - 1)
    assert [type(v) for v in (request.count, request.steps, request.guidance, request.seed)] == [int, int, float, int]
    assert request.seed == 2**32 - 1
    with pytest.raises(LimitError, match="seed: expected"):
        ask(models, seed=2**32)


def test_steps_go_no_further_than_the_chain_is_long(models):
    assert ask(models, steps=tiny.T).steps == tiny.T
    with pytest.raises(LimitError, match=f"from 1 to {tiny.T}, got {tiny.T + 1}"):
        ask(models, steps=tiny.T + 1)


def test_a_class_that_the_model_does_not_have_is_refused(models):
    assert ask(models, label="Shirt").label == 6
    with pytest.raises(LimitError, match=f"class for {VAE_ID}: expected one of any, got 'Shirt'"):
        ask(models, model=VAE_ID, label="Shirt")


def test_what_is_shown_of_a_refused_value_is_short_and_harmless(models):
    with pytest.raises(LimitError) as caught:
        ask(models, model="<script>alert(1)</script>" + "x" * 10_000)
    assert "<script" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("guidance", [1, 3])
def test_too_much_work_is_refused_and_the_advice_is_good(guidance):
    offers = {"m": Offer("m", "ddpm", DataSpec("d", 1, 28, ("a", "b")), 1000, 0)}

    def parse(count: int, steps: int):
        return parse_sample(offers, "m", "a", count, steps, "DDIM", guidance, 0)

    with pytest.raises(
        LimitError, match=r"network evaluations, more than the 5,000 .* lower the number to \d+ or the steps to \d+"
    ) as e:
        parse(64, 250)
    number, steps = (int(x) for x in re.findall(r" to (\d+)", str(e.value)))
    cost = 2 if guidance != 1 else 1
    for count, taken in ((number, 250), (64, steps)):
        parse(count, taken)
        assert count * taken * cost <= limits.EVALUATIONS
    for count, taken in ((number + 1, 250), (64, steps + 1)):
        with pytest.raises(LimitError, match="network evaluations"):
            parse(count, taken)


def test_the_same_seed_gives_the_same_pictures_and_another_seed_others(models):
    assert torch.equal(finished(models), finished(models))
    assert not torch.equal(finished(models), finished(models, seed=8))


@pytest.mark.parametrize("changes", [{}, {"sampler": "ancestral"}, {"model": VAE_ID}], ids=str)
def test_a_picture_is_the_same_alone_and_among_others(models, changes):
    among = finished(models, **changes)
    for i in range(4):
        alone = finished(models, count=1, seed=7 + i, **changes)[0]
        assert (alone.int() - among[i].int()).abs().max() <= 1


def test_frames_lead_from_the_seeds_noise_to_the_pictures(models):
    frames = list(sample(models, Runner(), ask(models, sampler="ancestral")))
    noise = torch.stack([torch.randn(1, 28, 28, generator=torch.Generator().manual_seed(7 + i)) for i in range(4)])
    assert torch.equal(frames[0].pictures, to_pixels(noise))
    assert [f.index for f in frames] == list(range(6))
    assert [f.t for f in frames] == [60, 48, 36, 24, 12, 0]
    assert all(f.count == 5 and f.pictures.shape == (4, 1, 28, 28) for f in frames)


def test_class_and_guidance_reach_the_network(models, monkeypatch):
    model, calls = models[DDPM_ID].model, []
    real = type(model).predict
    monkeypatch.setattr(
        type(model),
        "predict",
        lambda self, x, t, label, w, clip: calls.append((label, w, clip)) or real(self, x, t, label, w, clip),
    )
    finished(models, label="Bag", guidance=2.5)
    assert len(calls) == 5
    assert all(label.tolist() == [8] * 4 and w == 2.5 and clip for label, w, clip in calls)
    assert not torch.equal(finished(models, label="Bag"), finished(models, label="Coat"))


def test_pictures_are_drawn_in_bf16_where_the_cpu_computes_in_it_and_a_likelihood_is_fp32(models, monkeypatch):
    unet, seen = models[DDPM_ID].model.unet, []
    handle = unet.enter.register_forward_hook(lambda module, given, output: seen.append(output.dtype))
    try:
        monkeypatch.setattr(nn, "computes_bf16", lambda: False)
        in_fp32 = finished(models)
        monkeypatch.setattr(nn, "computes_bf16", lambda: True)
        in_bf16 = finished(models)
        assert seen == [torch.float32] * 5 + [torch.bfloat16] * 5
        assert not torch.equal(in_bf16, in_fp32)
        assert (in_bf16.float() - in_fp32.float()).abs().mean() < 2  # gray levels
        seen.clear()
        bound(models, Runner(), BoundRequest(DDPM_ID, Pick("test picture", 0), t=3, seed=7, row=0, column=0))
        assert seen == [torch.float32]
    finally:
        handle.remove()


def test_a_vae_decodes_one_z_for_each_seed(models):
    frames = list(sample(models, Runner(), ask(models, model=VAE_ID)))
    z = torch.stack([torch.randn(4, generator=torch.Generator().manual_seed(7 + i)) for i in range(4)])
    with torch.inference_mode():
        expected = to_pixels(models[VAE_ID].model.decode(z).mean)
    assert len(frames) == 1
    assert frames[0].index == frames[0].count
    assert torch.equal(frames[0].pictures, expected)


def test_png_holds_the_pixels_exactly_and_says_where_they_are_from(models, tmp_path):
    pictures = finished(models)
    (tmp_path / "x.png").write_bytes(png(pictures, facts={"Seed": 7}))
    sheet = Image.open(tmp_path / "x.png")
    assert torch.equal(ungrid(sheet, 4, 28, 2), pictures)
    assert sheet.text["Seed"] == "7"


def test_a_model_is_measured_as_the_page_draws_at_first() -> None:
    how = Sampling()
    assert (how.sampler, how.steps) == (SAMPLER, STEPS.default)
