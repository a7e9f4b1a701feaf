"""The style of the page: one set of colours, one theme, one style sheet for everything that the demo shows.

A colour stands for a letter of the notes wherever it appears, so that a formula could be printed in these colours:

    p       blue       p and p_θ, and what is drawn from them: x_0, samples of a model
    q       vermilion  the approximation, the encoder, the forward process; also ∇log q, the exact score
    x_t     gray       the noisy picture, and a latent z on its way
    x0_hat  green      x̂_0, the prediction of the clean picture from x_t
    eps     purple     ε and ε̂, the noise; also −ε̂/σ, the learned score
    kl      amber      divergences, bounds and losses
    gap     brown      a divergence beside another one: the gap of a bound, L_T (in the dark pale yellow)

Where a p that is given and a model's stand in one figure they differ in the mark: the given one is a filled area or dashed, the
model's a line. Points that a model learns from are rings in the colour of text, its samples discs.
The hues are those of Okabe and Ito, which colour-blind eyes can tell apart, as light or as dark as each page needs.
In style sheets they are the custom properties --genlab-p, --genlab-q, …; text that stands on one is --genlab-on-p, …
Nothing is fetched from another host: fonts are those of the visitor's system.
"""

from __future__ import annotations

import gradio as gr

from genlab.colours import COLOURS
from genlab.serving.language import both

COLOURS_DARK: dict[str, str] = {
    "p": "#2A9BE0",
    "q": "#E0550A",
    "x_t": "#B6BDC9",
    "x0_hat": "#00A375",
    "eps": "#D0689C",
    "kl": "#F0B000",
    "gap": "#FBE3A6",
}
"""What a colour stands for → the colour on a dark page; `COLOURS` are those on a light one."""

LIGHT_TEXT, DARK_TEXT = "#FFFFFF", "#111827"
"""Text that stands on a colour is one of these."""

NAME_COLOURS: dict[str, str] = {
    "x_0": "p",
    "x_t": "x_t",
    "x̂_0": "x0_hat",
    "ε̂": "eps",
    "VAE": "p",
    "DDPM": "p",
}
"""The name of a pane or a curve → what its colour stands for."""


def colour_of(name: str) -> str:
    """Return what the colour of something called `name` stands for: a key of COLOURS ("x_t", gray, where it has no meaning)."""
    return NAME_COLOURS.get(name) or NAME_COLOURS.get(name.split(",")[0]) or "x_t"


def luminance(colour: str) -> float:
    """Return the relative luminance of #RRGGBB by WCAG 2, from 0 (black) to 1 (white)."""
    coded = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in coded)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours by WCAG 2, from 1 to 21."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def text_on(colour: str) -> str:
    """Return the text that can be read on a colour: LIGHT_TEXT or DARK_TEXT."""
    return max(LIGHT_TEXT, DARK_TEXT, key=lambda text: contrast(text, colour))


def _variables(colours: dict[str, str]) -> str:
    return " ".join(f"--genlab-{name}: {value}; --genlab-on-{name}: {text_on(value)};" for name, value in colours.items())


FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "PingFang SC", "Noto Sans CJK SC", "sans-serif")
FONT_MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace")

BLUE = gr.themes.Color(
    name="genlab",
    c50="#EEF7FD",
    c100="#D7ECFA",
    c200="#B0D9F4",
    c300="#7BBFEA",
    c400="#3D9FDB",
    c500="#1485C8",
    c600="#0072B2",
    c700="#005C91",
    c800="#074B74",
    c900="#0C3F61",
    c950="#082840",
)
"""Shades around the blue of p."""


def theme() -> gr.themes.Base:
    """Return the Gradio theme; pass it to `launch(theme=...)` or `mount_gradio_app(theme=...)` together with CSS."""
    return gr.themes.Base(
        primary_hue=BLUE,
        secondary_hue=BLUE,
        neutral_hue=gr.themes.colors.slate,
        radius_size=gr.themes.sizes.radius_md,
        font=FONT,
        font_mono=FONT_MONO,
    ).set(
        body_background_fill="#F8FAFC",
        body_background_fill_dark="#0B1120",
        block_background_fill="white",
        block_background_fill_dark="#111827",
        body_text_color_subdued="#5B6B82",
        body_text_color_subdued_dark="#94A3B8",
        block_border_color="#E2E8F0",
        block_border_color_dark="#263041",
        block_shadow="none",
        block_label_text_weight="500",
        block_title_text_weight="500",
        button_primary_background_fill="#0072B2",
        button_primary_background_fill_hover="#005C91",
        button_primary_background_fill_dark="#0072B2",
        button_primary_background_fill_hover_dark="#1485C8",
        button_primary_text_color="white",
        button_primary_text_color_dark="white",
        slider_color="#0072B2",
        slider_color_dark="#3D9FDB",
        link_text_color="#0072B2",
        link_text_color_dark="#7BBFEA",
    )


TEXT = {"error": both("That does not work", "无法执行")}
"""What stands above every message that refuses something: gradio 6.31 has one English title for all of them."""
CSS = f"""
:root {{ {_variables(COLOURS)} }}
.dark {{ {_variables(COLOURS_DARK)} }}
.gradio-container {{ width: 100% !important; max-width: 1120px !important; margin-inline: auto !important; }}
.gradio-container :focus-visible {{ outline: 2px solid #0072B2; outline-offset: 2px; }}
.dark .gradio-container :focus-visible, .gradio-container.dark :focus-visible {{ outline-color: #7BBFEA; }}
@media (pointer: coarse) {{ button {{ min-height: 40px; }} }}
@media (pointer: coarse) {{ .label-wrap {{ align-items: center; }} }}
@media (pointer: coarse) {{ .reset-button {{ min-height: 0; }} }}
.toast-title.error {{ font-size: 0 !important; }}
.toast-title.error::before {{ content: "{TEXT["error"]}"; font-size: var(--text-lg); }}
footer .record + .divider {{ display: none; }}
.genlab-switch {{ height: 0; min-height: 0 !important; overflow: visible !important; z-index: 2; }}
.genlab-switch .html-container {{ padding: 0 !important; }}
.genlab-language {{ display: flex; justify-content: flex-end; padding-top: 12px; }}
.genlab-language a {{ padding: 6px 10px; border-radius: 8px; color: var(--body-text-color-subdued); text-decoration: none; }}
.genlab-language a:hover {{ text-decoration: underline; }}
.genlab-language a[aria-current] {{ color: var(--body-text-color); background: var(--background-fill-secondary); }}
.genlab-language a[aria-current] {{ font-weight: 600; }}
.genlab-guide a {{ margin: 0; }}
.genlab-guide {{ border-inline-start: 4px solid var(--genlab-kl); padding: 4px 16px; max-width: 52rem; }}
.genlab-guide p {{ margin-block: 6px; }}
.genlab-guide .place {{ color: var(--body-text-color-subdued); }}
.genlab-guide .place a {{ padding-inline: 0; }}
.genlab-guide summary {{ cursor: pointer; padding-block: 8px; }}
.genlab-guide button {{ padding: 2px 12px; border: 1px solid var(--genlab-kl); border-radius: 8px; }}
.genlab-guide button {{ font: inherit; font-weight: 600; white-space: nowrap; }}
.genlab-guide nav {{ display: flex; flex-wrap: wrap; gap: 4px 24px; justify-content: space-between; align-items: start; }}
.genlab-guide nav {{ margin-top: 12px; }}
.genlab-guide nav > a {{ padding-block: 8px; }}
.genlab-guide.bar {{ position: fixed; inset: auto 0 0; z-index: 100; max-width: 1120px; margin-inline: auto; font-size: 14px; }}
.genlab-guide.bar {{ padding-bottom: calc(8px + env(safe-area-inset-bottom)); background: var(--background-fill-primary); }}
.genlab-guide.bar {{ box-shadow: 0 -2px 12px #0003; }}
.genlab-guide.bar:not([hidden]) {{ display: grid; grid-template-columns: 1fr auto; column-gap: 24px; align-items: center; }}
.genlab-guide.bar button {{ grid-area: 1 / 2 / span 2; }}
.genlab-strip .image-container {{ padding-top: 30px; }}
.dark input[type="range"] {{ --neutral-200: #334155; }}
.gradio-container .prose :is(td, th) {{ word-break: normal; overflow-wrap: normal; }}
.gradio-container .prose p {{ text-wrap: pretty; }}
.gradio-container .katex-display {{ overflow: auto hidden; padding-block: 4px; }}
.genlab-models :is(td, th):nth-child(-n + 4) {{ white-space: nowrap; }}
.genlab-models td:nth-child(n + 5) {{ min-width: 14em; }}
.gradio-container .prose table {{ display: block; width: fit-content; max-width: 100%; overflow-x: auto; }}
.gradio-container .prose table {{ border: none; padding: 0; }}
.gradio-container .prose :is(td, th) {{ border-color: var(--border-color-primary); }}
.genlab-measured table {{ font-size: 13px; }}
.genlab-measured :is(td, th) {{ padding: 4px 7px !important; }}
.genlab-measured td:not(:first-child) {{ white-space: nowrap; }}
@media (max-width: 480px) {{ .genlab-measured td:not(:first-child) {{ white-space: normal !important; }} }}
@media (max-width: 480px) {{ .genlab-measured table {{ font-size: 12px; }} }}
@media (max-width: 480px) {{ .genlab-measured :is(td, th) {{ padding: 4px 3px !important; }} }}
.html-container:has(> div > .player) {{ padding: 0 !important; }}
.gradio-container .main {{ padding-inline: clamp(12px, 3vw, 32px) !important; }}
"""
"""The page's style sheet: the colours as custom properties, width, focus ring, room for fingers.

Gradio puts `.gradio-container… .contain` before every selector inside @media: such rules reach only the page's content.
"""
