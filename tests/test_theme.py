"""The colours of the page: read on both backgrounds, and told apart by colour-blind eyes."""

from __future__ import annotations

import os
from itertools import combinations

import numpy as np
import pytest

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

from genlab.colours import COLOURS
from genlab.demo import theme

PAGES = {"light": COLOURS, "dark": theme.COLOURS_DARK}
THEME = theme.theme()
BACKGROUNDS = {
    "light": [THEME.block_background_fill, THEME.body_background_fill],
    "dark": [THEME.block_background_fill_dark, THEME.body_background_fill_dark],
}
"""Of a figure's panel, and of the page."""
INK = {
    "light": getattr(THEME, THEME.body_text_color.removeprefix("*")),
    "dark": getattr(THEME, THEME.body_text_color_dark.removeprefix("*")),
}
"""The colour of text, and of what stands for nothing in particular."""
EYES = {
    "normal": np.eye(3),
    "protanopia": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
}
"""Linear RGB → linear RGB as these eyes see it (Machado, Oliveira and Fernandes 2009, severity 1)."""
XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]])
"""Linear sRGB → CIE XYZ (D65)."""
APART = 12.0
"""Least CIE76 distance of two colours; about 2.3 can just be noticed side by side (Mahy et al. 1994)."""


def linear(colour: str) -> np.ndarray:
    """Linear RGB (3) of #RRGGBB, or of white."""
    code = "#FFFFFF" if colour == "white" else colour
    coded = np.array([int(code[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """By WCAG 2, from 1 to 21."""
    low, high = sorted(float(linear(colour) @ [0.2126, 0.7152, 0.0722]) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def lab(colour: str, eyes: str) -> np.ndarray:
    """CIE L*, a*, b* (3) of a colour as these eyes see it."""
    ratio = XYZ @ np.clip(EYES[eyes] @ linear(colour), 0, 1) / (XYZ @ np.ones(3))
    x, y, z = np.where(ratio > 216 / 24389, np.cbrt(ratio), (24389 / 27 * ratio + 16) / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_the_measures_agree_with_published_values() -> None:
    assert contrast("white", "#000000") == pytest.approx(21)
    assert contrast("white", "#767676") == pytest.approx(4.54, abs=0.005)
    np.testing.assert_allclose(lab("#FF0000", "normal"), [53.24, 80.09, 67.20], atol=0.02)
    alike = ("#D55E00", "#B87F00")  # vermilion and a dark amber, which deuteranopes cannot tell apart
    assert np.subtract(*(lab(colour, "deuteranopia") for colour in alike)) == pytest.approx(0, abs=2)


def test_the_theme_fetches_nothing_and_explains_its_colours() -> None:
    assert THEME._stylesheets == []
    assert "http" not in theme.CSS
    assert set(theme.NAME_COLOURS.values()) <= set(COLOURS) == set(theme.COLOURS_DARK)
    for name in COLOURS:
        assert f"\n    {name} " in str(theme.__doc__)
    assert theme.colour_of("VAE, on the sphere") == "p"
    assert theme.colour_of("something") == "x_t"


@pytest.mark.parametrize("page", PAGES)
def test_every_colour_is_seen_on_the_panel_and_on_the_page(page: str) -> None:
    found = {(name, ground): contrast(colour, ground) for name, colour in PAGES[page].items() for ground in BACKGROUNDS[page]}
    assert {key: value for key, value in found.items() if value < 3} == {}


@pytest.mark.parametrize("page", PAGES)
def test_text_on_every_colour_can_be_read(page: str) -> None:
    for name, colour in PAGES[page].items():
        text = theme.text_on(colour)
        assert contrast(text, colour) >= 4.5, name
        assert f"--genlab-{name}: {colour}; --genlab-on-{name}: {text};" in theme.CSS


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("eyes", EYES)
def test_colours_are_told_apart_by_all_eyes(page: str, eyes: str) -> None:
    seen = {name: lab(colour, eyes) for name, colour in {**PAGES[page], "ink": INK[page]}.items()}
    apart = {(one, other): float(np.linalg.norm(seen[one] - seen[other])) for one, other in combinations(seen, 2)}
    assert {pair: value for pair, value in apart.items() if value < APART} == {}
