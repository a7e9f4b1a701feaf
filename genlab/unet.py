"""The U-Net that predicts the noise in x_t from x_t and t (Ronneberger et al. 2015; Ho et al. 2020, appendix B).

Blocks of patch × patch pixels first become channels, so a 28×28 gray picture enters as 14×14×4. On the way down each level
halves the side; on the way up the features of the same level on the way down are concatenated.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from genlab.config import UNetConfig
from genlab.nn import Attention, ResBlock, group_norm, sinusoidal_embedding, zero_init


class UNet(nn.Module):
    """Maps x_t (B C H W), t (B, integers 1…T) and an optional label (B) to out_channels maps of the same side.

    A negative label, or None, means "no label", which guidance needs (Ho & Salimans 2022).

    Raises:
        ValueError: the side of the picture is not a multiple of `config.stride`.
    """

    def __init__(self, config: UNetConfig, channels: int, out_channels: int, size: int, classes: int) -> None:
        super().__init__()
        if size % config.stride:
            raise ValueError(
                f"expected a picture side that is a multiple of {config.stride} "
                f"(patch {config.patch} × 2 for each of {len(config.multipliers) - 1} halvings), got {size}"
            )
        self.patch = config.patch
        self.width = config.width
        widths = [config.width * m for m in config.multipliers]
        embed = 4 * config.width
        self.time = nn.Sequential(nn.Linear(config.width, embed), nn.SiLU(), nn.Linear(embed, embed))
        self.label = nn.Embedding(classes + 1, embed) if classes else None

        self.enter = nn.Conv2d(channels * self.patch**2, widths[0], 3, padding=1)
        self.down = nn.ModuleList()
        skips = [widths[0]]
        here = widths[0]
        for level, wide in enumerate(widths):
            for _ in range(config.blocks):
                self.down.append(ResBlock(here, wide, embed, config.dropout))
                here = wide
                skips.append(here)
            if level < len(widths) - 1:
                self.down.append(nn.Conv2d(here, here, 3, stride=2, padding=1))
                skips.append(here)

        self.middle = nn.ModuleList(
            [ResBlock(here, here, embed, config.dropout), Attention(here), ResBlock(here, here, embed, config.dropout)]
        )

        self.up = nn.ModuleList()
        for level, wide in reversed(list(enumerate(widths))):
            for _ in range(config.blocks + 1):
                self.up.append(ResBlock(here + skips.pop(), wide, embed, config.dropout))
                here = wide
            if level > 0:
                self.up.append(nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(here, here, 3, padding=1)))

        self.leave = nn.Sequential(
            group_norm(here), nn.SiLU(), zero_init(nn.Conv2d(here, out_channels * self.patch**2, 3, padding=1))
        )

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        embedding = self.time(sinusoidal_embedding(t, self.width).to(x_t.dtype))
        if self.label is not None:
            label = torch.full(t.shape, -1, device=t.device) if label is None else label
            embedding = embedding + self.label(label.where(label >= 0, self.label.num_embeddings - 1))

        h = self.enter(rearrange(x_t, "b c (h p) (w q) -> b (c p q) h w", p=self.patch, q=self.patch))
        skips = [h]
        for layer in self.down:
            h = layer(h, embedding) if isinstance(layer, ResBlock) else layer(h)
            skips.append(h)
        for layer in self.middle:
            h = layer(h, embedding) if isinstance(layer, ResBlock) else layer(h)
        for layer in self.up:
            h = layer(torch.cat([h, skips.pop()], 1), embedding) if isinstance(layer, ResBlock) else layer(h)
        return rearrange(self.leave(h), "b (c p q) h w -> b c (h p) (w q)", p=self.patch, q=self.patch)
