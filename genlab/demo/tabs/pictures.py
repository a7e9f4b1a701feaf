"""Pictures as a VAE, the player and a file take them."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
import torch
from einops import rearrange
from PIL import Image, PngImagePlugin
from torch import Tensor

from genlab.data import grid
from genlab.vae import VAE


def png(
    pictures: Tensor, columns: int | None = None, gap: int = 2, scale: int = 1, facts: Mapping[str, object] | None = None
) -> bytes:
    """Return pictures (N C H W) uint8 as one lossless PNG, in rows of `columns`, with `facts` inside the file as text.

    Args:
        gap: white pixels around each picture; scale: side of the square that every pixel becomes.
    """
    info = PngImagePlugin.PngInfo()
    info.add_text("Software", "genlab")
    for name, fact in (facts or {}).items():
        info.add_text(name, str(fact))
    sheet = grid(pictures, columns, gap)
    buffer = io.BytesIO()
    sheet.resize((sheet.width * scale, sheet.height * scale), Image.Resampling.NEAREST).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def pane(picture: Tensor) -> np.ndarray:
    """Return a picture (C H W) as (H W C), for the player."""
    return rearrange(picture, "c h w -> h w c").numpy()


def vae_input(model: VAE, x: Tensor) -> Tensor:
    """Return pictures in [−1, 1] as input of the model: rounded to −1 and 1 if it models binarised pictures."""
    return torch.where(x > 0, 1.0, -1.0) if model.binary else x
