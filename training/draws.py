"""The random numbers of one step, the same whatever the processes and parts that share its pictures."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor


@dataclass(frozen=True)
class Draws:
    """Draws random numbers for a whole batch and returns those of the pictures `rows`.

    Picture i of the batch gets the same numbers whoever has it, so two processes, or two parts, take the step of one batch.

    Attributes:
        count: pictures of the whole batch.
        rows: those that this process has in this part of the step.
        seed: of generators of its own; None for torch's global ones.
        last: whether this is the last part of the step.
    """

    count: int
    rows: slice = field(default_factory=lambda: slice(None))
    seed: int | None = None
    last: bool = True
    _generators: dict[str, Generator] = field(default_factory=dict)

    def of(self, values: Tensor) -> Tensor:
        """Return the rows of values for the whole batch."""
        return values[self.rows]

    def number(self) -> Tensor:
        """Return one number in [0, 1) for the whole batch, (1), on the CPU."""
        return torch.rand(1, generator=self._generator(torch.device("cpu")))

    def rand(self, *shape: int, device: torch.device) -> Tensor:
        """Return uniform numbers in [0, 1), (rows, *shape)."""
        return self.of(torch.rand(self.count, *shape, device=device, generator=self._generator(device)))

    def randn(self, *shape: int, device: torch.device) -> Tensor:
        """Return standard normal numbers, (rows, *shape)."""
        return self.of(torch.randn(self.count, *shape, device=device, generator=self._generator(device)))

    def randint(self, high: int, device: torch.device) -> Tensor:
        """Return whole numbers from 0 to high − 1, (rows)."""
        return self.of(torch.randint(high, (self.count,), device=device, generator=self._generator(device)))

    def _generator(self, device: torch.device) -> Generator | None:
        if self.seed is None:
            return None
        if str(device) not in self._generators:
            self._generators[str(device)] = Generator(device).manual_seed(self.seed)
        return self._generators[str(device)]


def augmented(pixels: Tensor, kinds: tuple[str, ...], draws: Draws) -> Tensor:
    """Return pictures (B C H W) changed at random.

    Args:
        kinds: flip mirrors half of them; crop moves each by up to an eighth of its side, its border reflected.
    """
    if "flip" in kinds:
        mirrored = draws.rand(device=pixels.device) < 0.5
        pixels = torch.where(mirrored[:, None, None, None], pixels.flip(-1), pixels)
    if "crop" in kinds:
        size, most = pixels.shape[-1], max(1, pixels.shape[-1] // 8)
        index = torch.arange(size, device=pixels.device)
        down, right = (index + draws.randint(2 * most + 1, pixels.device)[:, None] - most for _ in range(2))
        down, right = (size - 1 - (size - 1 - each.abs()).abs() for each in (down, right))
        rows = torch.arange(len(pixels), device=pixels.device)[:, None, None, None]
        channels = torch.arange(pixels.shape[1], device=pixels.device)[:, None, None]
        pixels = pixels[rows, channels, down[:, None, :, None], right[:, None, None, :]]
    return pixels
