"""A small gated PixelCNN of 8-bit gray pictures (van den Oord et al. 2016): an exact likelihood to compare the bounds with.

    p(x) = Π_i p(x_i | x_1 … x_{i−1}),  pixels in raster order, each one of 256 gray levels                (1)

Two stacks of gated convolutions cover the pixels before a pixel: the vertical one all rows above, the horizontal one the pixels
on its left and, through the vertical one, the rows above. No output depends on its own pixel or a later one
(`tests/test_references.py` checks the gradient), so (1) is a probability and its logarithm exact.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Gated(nn.Module):
    """A layer of both stacks (B C H W): tanh(a)·σ(b) of two halves, with a residual on the horizontal stack."""

    def __init__(self, width: int, first: bool, reach: int = 1) -> None:
        super().__init__()
        self.reach, self.first = reach, first
        self.above = nn.Conv2d(width, 2 * width, (reach + 1, 2 * reach + 1))
        self.left = nn.Conv2d(width, 2 * width, (1, reach + (0 if first else 1)))
        self.down = nn.Conv2d(2 * width, 2 * width, 1)
        self.out = nn.Conv2d(width, width, 1)

    def forward(self, vertical: Tensor, horizontal: Tensor) -> tuple[Tensor, Tensor]:
        r = self.reach
        # The vertical feature at row i depends on rows up to i; the horizontal stack uses that of the row above, i − 1.
        vertical_features = self.above(F.pad(vertical, (r, r, r, 0)))
        shifted = F.pad(vertical_features, (0, 0, 1, 0))[:, :, :-1]
        # The first layer must not depend on the pixel itself: its window ends one to the left.
        window = F.pad(horizontal, (r, -1 if self.first else 0, 0, 0))
        mixed = self.left(window) + self.down(shifted)
        gated = self.out(_gate(mixed))
        return _gate(vertical_features), gated if self.first else horizontal + gated


def _gate(x: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=1)
    return a.tanh() * b.sigmoid()


class PixelCNN(nn.Module):
    """A PixelCNN of pictures (B 1 H W) uint8."""

    def __init__(self, width: int = 32, layers: int = 7) -> None:
        super().__init__()
        self.enter = nn.Conv2d(1, width, 1)
        self.layers = nn.ModuleList(Gated(width, first=i == 0, reach=2 if i == 0 else 1) for i in range(layers))
        self.leave = nn.Sequential(nn.ELU(), nn.Conv2d(width, 2 * width, 1), nn.ELU(), nn.Conv2d(2 * width, 256, 1))

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits of the 256 gray levels of every pixel, (B 256 H W), for x (B 1 H W) in [−1, 1]."""
        vertical = horizontal = self.enter(x)
        for layer in self.layers:
            vertical, horizontal = layer(vertical, horizontal)
        return self.leave(horizontal)

    def nats(self, pixels: Tensor) -> Tensor:
        """Return −log p(x) of pixels (B 1 H W) uint8, nats per picture (B)."""
        logits = self.logits(pixels.float() / 127.5 - 1)
        return F.cross_entropy(logits, pixels[:, 0].long(), reduction="none").sum(dim=(1, 2))
