"""The tables of what was measured of a model: every figure is that of metrics.json, and nothing that is not whole is shown."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from genlab.demo.tabs import measurements
from genlab.measurements import read_evaluation, to_json
from genlab.package import refresh_card, shipped_packages
from genlab.serving.language import choose
from tests import tiny

SUMS = {
    "bound_bits_per_dim": 1.5, "bound_standard_error_bits_per_dim": 0.01,
    "bound_standard_error_from_draw_of_t_bits_per_dim": 0.001, "transition_terms_sum_bits_per_dim": 1.25,
    "transition_terms_sum_standard_error_bits_per_dim": 0.01, "decoder_term_L_0_bits_per_dim": 0.25,
    "decoder_term_L_0_standard_error_bits_per_dim": 0.01,
}  # fmt: skip
LEDGER = {
    "bound_bits_per_dim": 1.5, "bound_standard_error_bits_per_dim": 0.01, "mode": "every t", "images": 9, "T": 2,
    "looks_per_image": 2, "variance": "beta", "prior_term_L_T_bits_per_dim": 0.0, "by_variance": {"beta": SUMS},
    "prior_term_L_T_standard_error_bits_per_dim": 0.0,
    "ledger": {
        "first_t": [1, 2], "last_t": [1, 2], "mean_term_bits_per_dim": {"beta": [0.25, 1.25]},
        "standard_error_bits_per_dim": {"beta": [0.01, 0.01]},
        "eps_hat_mean_squared_error": [0.5, 0.25], "x0_hat_mean_squared_error": [0.25, 0.5],
    },
}  # fmt: skip
ODE = {
    "images": 256, "steps": 100, "bound_bits_per_dim": 1.1501, "bound_standard_error_bits_per_dim": 0.018,
    "half_the_steps_change_bits_per_dim": -0.0086, "probes": 1, "decoder_term_L_0_bits_per_dim": 0.0004,
    "flow_term_bits_per_dim": 1.1497,
}  # fmt: skip
EVIDENCE = {
    "bound_bits_per_dim": 2.6983, "bound_standard_error_bits_per_dim": 0.0077, "images": 10000,
    "likelihood": "discretised gaussian", "elbo_nats": -1466.31, "elbo_standard_error_nats": 4.2, "draws_of_z_per_image": 50,
    "kl_per_latent_nats": [4.0] * 16, "posterior_mean_variance_per_latent": [1.5] * 16,
    "reconstruction_nats": -1406.64, "reconstruction_standard_error_nats": 4.17, "kl_nats": 59.671,
    "kl_standard_error_nats": 0.051, "latents": 16, "active_latents": 15,
    "importance_weighted": [
        {"k": 1, "images": 10000, "bound_nats": -1466.31, "bound_standard_error_nats": 4.2,
         "bound_bits_per_dim": 2.6983, "bound_standard_error_bits_per_dim": 0.0077},
        {"k": 5000, "images": 100, "bound_nats": -1388.1, "bound_standard_error_nats": 40.8},
    ],
}  # fmt: skip


def tables(evaluation: dict[str, Any], T: int = 0) -> tuple[str, str]:
    """As they are seen in English."""
    left, right = measurements.tables(tiny.measured(evaluation, T), "m")
    return choose(left), choose(right)


def test_the_quality_of_samples_is_shown() -> None:
    left, right = tables({"samples": tiny.SAMPLES})
    assert left == ""
    for number in (
        "2,000",
        "0.65 (0.52–0.81) | 0.19",
        "20.8 ± 6.2 | −0.7",
        "0.75 | 0.85",
        "0.84 | 0.88",
        "0.8% | 4.9%",
        "99.6 %",
        "0123456789ab…",
        "DDIM, 25 steps",
    ):
        assert number in right
    assert "<i>" not in right
    assert tables({}) == ("", "")


def test_the_ode_and_the_chain_stand_below_the_ledger() -> None:
    chain = {"beta": tiny.SAMPLES, "posterior": {**tiny.SAMPLES, "frechet_distance": 0.7}}
    left, _ = tables({"likelihood": LEDGER, "ode": ODE, "chain": chain}, 2)
    assert left.index("| **1.500 ± 0.010** |") < left.index("**1.150 ± 0.018 bits/dim**") < left.index("| Σ = β | 0.65")
    assert "changes by −0.009" in left
    assert "| Σ = β̃ | 0.70 (0.52–0.81) | 0.75 | 0.84 | 0.8% |" in left
    assert "| real pictures | 0.19 | 0.85 | 0.88 | 4.9% |" in left
    assert tables({"ode": ODE, "chain": chain}, 2) == ("", "")


def test_a_vaes_bounds_are_shown() -> None:
    left, _ = tables({"likelihood": EVIDENCE})
    assert "| −ELBO | 10,000 | 1,466.3 ± 4.2 | **2.698 ± 0.008** |" in left
    assert "| 5,000 samples of z | 100 | 1,388.1 ± 40.8 | – |" in left
    assert "reconstruction 1,406.6 ± 4.2 + KL 59.67 ± 0.05 nats; 15 of 16" in left


CURVE = {
    "images": 100, "sampler": "UniPC", "spacing": "Karras", "features": tiny.SAMPLES["features"], "steps": [4, 10],
    "frechet_distance": [2.0, 1.0], "frechet_floor": 0.5,
}  # fmt: skip
WHOLE: list[tuple[str, dict[str, Any]]] = [
    ("likelihood", LEDGER), ("likelihood", EVIDENCE), ("ode", ODE), ("samples", tiny.SAMPLES), ("steps", CURVE),
    ("chain", {"beta": tiny.SAMPLES}),
]  # fmt: skip


@pytest.mark.parametrize(("part", "whole"), WHOLE)
def test_what_is_written_is_what_was_read(part: str, whole: dict[str, Any]) -> None:
    found = read_evaluation({"evaluation": {part: whole}})
    assert found.problems == ()
    value = getattr(found, part)
    assert whole == ({name: to_json(each) for name, each in value.items()} if part == "chain" else to_json(value))


@pytest.mark.parametrize(("part", "whole"), WHOLE)
def test_what_is_not_whole_is_a_problem_of_its_part_alone(part: str, whole: dict[str, Any]) -> None:
    for name in whole:
        for value in (None, "<b>", [], float("nan"), 1e300, {"more": 1}):
            broken = {**whole, name: value}
            if (value == "<b>" and name in ("sampler", "spacing", "reference", "likelihood")) or name.endswith("sha256"):
                continue  # any text will do there
            found = read_evaluation({"evaluation": {part: broken, "command": "it", "data": 3}})
            assert getattr(found, part) is None, (name, value)
            assert found.command == "it"
            assert len(found.problems) == 2
            assert found.problems[1].startswith(f"evaluation.{part}"), found.problems
    for other in ({}, [], "x", 5, {"gamma": tiny.SAMPLES}):
        assert getattr(read_evaluation({"evaluation": {part: other}}), part) is None
    lacking = read_evaluation({"evaluation": {part: {k: v for k, v in whole.items() if k != "images"}}})
    assert (lacking.problems == ()) == (part == "chain")


@pytest.mark.parametrize(
    ("evaluation", "problem"),
    [
        ({"samples": {**tiny.SAMPLES, "recall": "0.9"}}, "evaluation.samples.recall: expected a number, got '0.9'"),
        ({"chain": {"gamma": tiny.SAMPLES}}, "evaluation.chain: expected one of posterior, beta, learned, got 'gamma'"),
        ({"ode": {"images": 4}}, "evaluation.ode: expected the key 'bound_bits_per_dim', which is missing"),
        ({"steps": {**CURVE, "steps": [10, 4]}}, "evaluation.steps: expected 1 to 100 rising steps and a distance for each"),
        ({"likelihood": {**LEDGER, "T": 3}}, "evaluation.likelihood: expected strata of 1…3 and a column for each Σ"),
        (5, "evaluation: expected an object, got 5"),
    ],
)  # fmt: skip
def test_a_problem_says_where_and_what_was_expected(evaluation: Any, problem: str) -> None:
    (found,) = read_evaluation({"evaluation": evaluation}).problems
    assert found.startswith(problem)


@pytest.mark.parametrize("folder", shipped_packages(), ids=lambda folder: folder.name)
def test_all_that_was_measured_of_the_shipped_models_is_shown(folder: Path) -> None:
    metrics = json.loads((folder / "metrics.json").read_text())
    evaluation = metrics["evaluation"]
    T = json.loads((folder / "config.json").read_text())["model"].get("T", 0)
    left, right = tables(evaluation, T)
    bound = evaluation.get("likelihood", {})
    for each in (bound, evaluation.get("ode"), evaluation.get("continuous"), *bound.get("importance_weighted", ())):
        if not each:
            continue
        assert f"{each['bound_bits_per_dim']:.3f} ± {each['bound_standard_error_bits_per_dim']:.3f}" in left
    found = read_evaluation(metrics)
    assert found.problems == ()
    assert len(found.chain or ()) in ((0, 3) if T else (0,))
    for samples in (found.samples, *(found.few or {}).values()):
        assert f"{samples.frechet_distance:.2f} (" in right  # type: ignore[union-attr]
    if found.reconstructions is not None:
        assert f"{found.reconstructions.frechet_distance:.2f} (" in right


@pytest.mark.parametrize("folder", shipped_packages(), ids=lambda folder: folder.name)
def test_the_card_of_a_shipped_model_is_that_of_its_measurements(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / folder.name)
    refresh_card(tmp_path / folder.name)
    assert (tmp_path / folder.name / "README.md").read_text() == (folder / "README.md").read_text()


def test_the_tables_of_the_chosen_vae_are_seen(browser: Any, tmp_path: Path) -> None:
    folders = tiny.save_models(tmp_path)
    images = {"vae-mnist": 7, "vae-fashion-mnist": 8}
    for name, count in images.items():
        path = tmp_path / name / "metrics.json"
        row = {**EVIDENCE["importance_weighted"][0], "images": count}  # type: ignore[index]
        evaluation = {"likelihood": {**EVIDENCE, "importance_weighted": [row]}}
        path.write_text(json.dumps({**json.loads(path.read_text()), "evaluation": evaluation}))
    with tiny.serving(tiny.load_models(folders)) as url:
        page = tiny.watched(browser.new_page(viewport={"width": 1280, "height": 1000}))
        page.goto(f"{url}/?tab=vae")
        for name in images:
            page.locator("#vae-model input").click()
            page.get_by_role("option", name=name, exact=True).click()
            page.get_by_role("row", name=f"−ELBO {images[name]} 1,466.3 ± 4.2 2.698 ± 0.008").wait_for()
        page.close()
        assert page.problems == []
