"""The layers that the networks share."""

from __future__ import annotations

import math
import os
from functools import cache
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


@cache
def computes_bf16() -> bool:
    """Return True if this CPU has bfloat16 instructions, by /proc/cpuinfo; without them bf16 is slow.

    GENLAB_BF16=0 makes it return False: a seed then draws the same pictures on every machine.
    """
    if os.environ.get("GENLAB_BF16") == "0":
        return False
    try:
        words = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return False
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(words)


def drawing_precision() -> torch.autocast:
    """Return the autocast for drawing pictures: bf16 if the CPU has the instructions, else fp32. Likelihoods are fp32."""
    return torch.autocast("cpu", torch.bfloat16, enabled=computes_bf16())


def group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(channels, 16), channels)


def zero_init(layer: nn.Conv2d) -> nn.Conv2d:
    """Set a layer's weights to zero, so that its residual branch is initially zero; return it."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def sinusoidal_embedding(t: Tensor, width: int, max_period: float = 10_000.0) -> Tensor:
    """Return sines and cosines of t (B) at geometrically spaced frequencies, (B, width) (Vaswani et al. 2017)."""
    half = width // 2
    frequency = torch.exp(-math.log(max_period) * torch.arange(half, device=t.device) / half)
    angle = t[:, None].float() * frequency
    return torch.cat([angle.cos(), angle.sin()], dim=1)


class ResBlock(nn.Module):
    """A residual block of two 3×3 convolutions; the embedding scales and shifts the second normalisation."""

    def __init__(self, inside: int, outside: int, embed: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = group_norm(inside)
        self.conv1 = nn.Conv2d(inside, outside, 3, padding=1)
        self.modulation = nn.Linear(embed, 2 * outside)
        self.norm2 = group_norm(outside)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = zero_init(nn.Conv2d(outside, outside, 3, padding=1))
        self.shortcut = nn.Identity() if inside == outside else nn.Conv2d(inside, outside, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        scale, shift = self.modulation(F.silu(embedding))[:, :, None, None].chunk(2, dim=1)
        h = F.silu(self.norm2(h) * (1 + scale) + shift)
        return self.shortcut(x) + self.conv2(self.dropout(h))


class Attention(nn.Module):
    """Self-attention over the positions of a feature map, in heads of 32 channels; one head if 32 does not divide them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = max(1, channels // 32) if channels % 32 == 0 else 1
        self.norm = group_norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = zero_init(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        side = x.shape[-1]
        q, k, v = rearrange(self.qkv(self.norm(x)), "b (three n c) h w -> three b n (h w) c", three=3, n=self.heads)
        h = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(rearrange(h, "b n (h w) c -> b (n c) h w", w=side))


def halvings(size: int) -> int:
    """Return how often a side of `size` pixels must be halved to reach 8 or fewer.

    Raises:
        ValueError: a side to halve is odd.
    """
    count, side = 0, size
    while side > 8:
        if side % 2:
            raise ValueError(f"expected a picture side that halves down to 8 or fewer pixels, got {size}")
        side //= 2
        count += 1
    return count


class PictureBlock(nn.Sequential):
    """A convolution that changes channels (and side, by its stride), and one that preserves both."""

    def __init__(self, inside: int, outside: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inside, outside, 3, stride=stride, padding=1),
            group_norm(outside),
            nn.SiLU(),
            nn.Conv2d(outside, outside, 3, padding=1),
            group_norm(outside),
            nn.SiLU(),
        )


class PictureEncoder(nn.Sequential):
    """Maps pictures (B C H W) to vectors (B, outputs).

    Blocks of 2×2 pixels enter as channels, so that the finest convolutions run at half the side.
    """

    def __init__(self, channels: int, size: int, width: int, hidden: int, outputs: int) -> None:
        widths = _widths(size, width)
        blocks = [PictureBlock(a, b, stride=2) for a, b in pairwise(widths)]
        super().__init__(
            nn.PixelUnshuffle(2),
            PictureBlock(4 * channels, width),
            *blocks,
            nn.Flatten(),
            nn.Linear(widths[-1] * (size >> len(widths)) ** 2, hidden),
            nn.SiLU(),
            nn.Linear(hidden, outputs),
        )


class PictureDecoder(nn.Sequential):
    """Maps vectors (B, inputs) to pictures (B channels H W), by the encoder's layers in reverse order."""

    def __init__(self, inputs: int, hidden: int, width: int, size: int, channels: int) -> None:
        widths = _widths(size, width)[::-1]
        side = size >> len(widths)
        blocks = [layer for a, b in pairwise(widths) for layer in (nn.Upsample(scale_factor=2), PictureBlock(a, b))]
        super().__init__(
            nn.Linear(inputs, hidden),
            nn.SiLU(),
            nn.Linear(hidden, widths[0] * side**2),
            nn.SiLU(),
            nn.Unflatten(1, (widths[0], side, side)),
            *blocks,
            PictureBlock(width, width),
            nn.Conv2d(width, 4 * channels, 3, padding=1),
            nn.PixelShuffle(2),
        )


class MapBlock(nn.Module):
    """A residual block of two 3×3 convolutions, normalised before each (He et al. 2016); channels and side stay the same."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            group_norm(channels),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            group_norm(channels),
            nn.SiLU(),
            nn.Dropout(dropout),
            zero_init(nn.Conv2d(channels, channels, 3, padding=1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class MapEncoder(nn.Sequential):
    """Maps pictures (B C H W) to flat maps (B, outputs·side²): residual blocks at H/2 and at each halving down to `side`."""

    def __init__(self, channels: int, size: int, width: int, side: int, blocks: int, dropout: float, outputs: int) -> None:
        layers: list[nn.Module] = [nn.PixelUnshuffle(2), nn.Conv2d(4 * channels, width, 3, padding=1)]
        for level in range(map_levels(size, side)):
            if level:
                layers.append(nn.Conv2d(width, width, 3, stride=2, padding=1))
            layers += [MapBlock(width, dropout) for _ in range(blocks)]
        super().__init__(
            *layers, group_norm(width), nn.SiLU(), nn.Conv2d(width, outputs, 3, padding=1), nn.Flatten(start_dim=1)
        )


class MapDecoder(nn.Sequential):
    """Maps flat maps (B, inputs·side²) to pictures (B channels H W), by the encoder's layers in reverse order."""

    def __init__(self, inputs: int, width: int, side: int, blocks: int, dropout: float, size: int, channels: int) -> None:
        layers: list[nn.Module] = [nn.Unflatten(1, (inputs, side, side)), nn.Conv2d(inputs, width, 3, padding=1)]
        for level in range(map_levels(size, side)):
            if level:
                layers += [nn.Upsample(scale_factor=2), nn.Conv2d(width, width, 3, padding=1)]
            layers += [MapBlock(width, dropout) for _ in range(blocks)]
        super().__init__(
            *layers, group_norm(width), nn.SiLU(), nn.Conv2d(width, 4 * channels, 3, padding=1), nn.PixelShuffle(2)
        )


def map_levels(size: int, side: int) -> int:
    """Return the number of sides from size/2 down to `side`, each half of the one before.

    Raises:
        ValueError: halving `size` does not lead to `side`.
    """
    sides = []
    here = size
    while here % 2 == 0:
        here //= 2
        sides.append(here)
    if side not in sides:
        possible = ", ".join(str(each) for each in sides if each > 1) or "none"
        raise ValueError(f"expected a side of the latent map that halving {size} leads to ({possible}), got {side}")
    return sides.index(side) + 1


def _widths(size: int, width: int) -> list[int]:
    """Return the channels at each side, from size/2 down, doubling with each halving.

    Raises:
        ValueError: the side is odd; see also `halvings`.
    """
    if size % 2:
        raise ValueError(f"expected an even picture side, got {size}")
    return [width * 2**i for i in range(max(1, halvings(size)))]
