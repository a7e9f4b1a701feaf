"""The tables of what was measured of a model: every figure is that of metrics.json, and nothing that is not whole is shown."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from genlab.demo.engine import Engine
from genlab.demo.measured import chain_of, evidence_of, ode_of, samples_of
from genlab.demo.tabs import measurements
from genlab.package import refresh_card, shipped_packages
from genlab.serving.language import choose
from tests import tiny

SUMS = {
    "bound_bits_per_dim": 1.5, "bound_standard_error_bits_per_dim": 0.01, "transition_terms_sum_bits_per_dim": 1.25,
    "transition_terms_sum_standard_error_bits_per_dim": 0.01, "decoder_term_L_0_bits_per_dim": 0.25,
    "decoder_term_L_0_standard_error_bits_per_dim": 0.01,
}  # fmt: skip
LEDGER = {
    "images": 9, "T": 2, "variance": "beta", "prior_term_L_T_bits_per_dim": 0.0, "by_variance": {"beta": SUMS},
    "prior_term_L_T_standard_error_bits_per_dim": 0.0,
    "ledger": {
        "first_t": [1, 2], "last_t": [1, 2], "mean_term_bits_per_dim": {"beta": [0.25, 1.25]},
        "standard_error_bits_per_dim": {"beta": [0.01, 0.01]},
    },
}  # fmt: skip
ODE = {
    "images": 256, "steps": 100, "bound_bits_per_dim": 1.1501, "bound_standard_error_bits_per_dim": 0.018,
    "half_the_steps_change_bits_per_dim": -0.0086,
}  # fmt: skip
EVIDENCE = {
    "images": 10000, "reconstruction_nats": -1406.64, "reconstruction_standard_error_nats": 4.17, "kl_nats": 59.671,
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


@pytest.mark.parametrize(
    ("read", "part", "whole"),
    [(ode_of, "ode", ODE), (evidence_of, "likelihood", EVIDENCE), (chain_of, "chain", {"beta": tiny.SAMPLES})],
)
def test_what_is_not_whole_counts_as_not_measured(read: Any, part: str, whole: dict[str, Any]) -> None:
    assert read({"evaluation": {part: whole}})
    for name in whole:
        for value in (None, "<b>", [], float("nan"), {"more": 1}):
            assert not read({"evaluation": {part: {**whole, name: value}}}), (name, value)
    for other in ({}, [], "x", None, 5, {"gamma": tiny.SAMPLES}):
        assert not read({"evaluation": {part: other}})


@pytest.mark.parametrize("folder", shipped_packages(), ids=lambda folder: folder.name)
def test_all_that_was_measured_of_the_shipped_models_is_shown(folder: Path) -> None:
    metrics = json.loads((folder / "metrics.json").read_text())
    evaluation = metrics["evaluation"]
    T = json.loads((folder / "config.json").read_text())["model"].get("T", 0)
    left, right = tables(evaluation, T)
    bounds = [evaluation["likelihood"], *([evaluation["ode"]] if T else evaluation["likelihood"]["importance_weighted"])]
    for each in bounds:
        assert f"{each['bound_bits_per_dim']:.3f} ± {each['bound_standard_error_bits_per_dim']:.3f}" in left
    assert len(chain_of(metrics)) == (3 if T else 0)
    assert f"{samples_of(metrics).frechet_distance:.2f} (" in right  # type: ignore[union-attr]


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
    with tiny.serving(Engine.load(folders)) as url:
        page = tiny.watched(browser.new_page(viewport={"width": 1280, "height": 1000}))
        page.goto(f"{url}/?tab=vae")
        for name in images:
            page.locator("#vae-model input").click()
            page.get_by_role("option", name=name, exact=True).click()
            page.get_by_role("row", name=f"−ELBO {images[name]} 1,466.3 ± 4.2 2.698 ± 0.008").wait_for()
        page.close()
        assert page.problems == []
