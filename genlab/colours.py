"""The colour of each letter of the notes, on a light page and in the pictures of model cards; see `genlab/demo/theme.py`."""

from __future__ import annotations

COLOURS: dict[str, str] = {
    "p": "#0072B2",
    "q": "#C24400",
    "x_t": "#5F6673",
    "x0_hat": "#009E73",
    "eps": "#BC6C99",
    "kl": "#C08400",
    "gap": "#573C00",
}
"""What a colour stands for → the colour."""
