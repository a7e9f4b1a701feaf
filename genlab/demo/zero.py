"""The GPUs that a ZeroGPU Space of the Hub lends: a model is evaluated there if it is large enough to gain by it.

The package `spaces` is on the image of such a Space. A function that it decorates runs in a forked process that has a GPU for
some seconds; arguments and results are copied between the processes. Each call asks the Hub for a GPU first, so a small model
should be quicker on the Space's own CPU. A Space on ZeroGPU does not start without such a function, nor before `spaces` has
reported it: it does so in `Blocks.launch`, which is not called here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genlab.demo.served import Served
from genlab.models import Diffusion
from genlab.package import read_package
from genlab.process import Denoised

PARAMETERS = 30_000_000
"""Parameters from which on a model is evaluated on the GPU."""
SECONDS = 20
"""How long a GPU is asked for: one evaluation, and the copy of the weights."""
DEVICE = "cuda"

_models: dict[str, Diffusion] = {}
"""Folder → model, for the forked process."""


def available() -> bool:
    """Return whether this is a Space on ZeroGPU."""
    return os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")


def start(models: Sequence[Served], report: Callable[[str], object]) -> None:
    """On ZeroGPU, report the function that needs a GPU to the Hub, and where each model runs."""
    if not available():
        return
    import spaces.zero

    _on_gpu()
    spaces.zero.startup()
    for served in models:
        count = sum(p.numel() for p in served.model.parameters())
        where = "a GPU of ZeroGPU" if _gains(served) else f"this CPU: a model below {PARAMETERS:,} does not wait for a GPU"
        report(f"genlab: {served.id} ({count:,} parameters) runs on {where}")


def predict(served: Served, x_t: Tensor, t: Tensor, labels: Tensor | None, guidance: float, clip: bool) -> Denoised:
    """Return a diffusion model's prediction for x_t (B C H W) at t (B), from a GPU of ZeroGPU where it gains by that."""
    model: Diffusion = served.model  # type: ignore[assignment]
    if not (available() and _gains(served)):
        return model.predict(x_t, t, labels, guidance, clip)
    folder = str(served.package.folder)
    _models.setdefault(folder, model)
    given = [None if each is None else each.numpy() for each in (x_t, t, labels)]
    found = _on_gpu()(folder, *given, guidance, clip)
    return Denoised(*(None if each is None else torch.from_numpy(each) for each in found))  # type: ignore[arg-type]


def _gains(served: Served) -> bool:
    return sum(p.numel() for p in served.model.parameters()) >= PARAMETERS


def _on_gpu() -> Callable[..., tuple[np.ndarray | None, ...]]:
    from spaces import GPU

    return GPU(duration=SECONDS)(_evaluate)


def _evaluate(
    folder: str, x_t: np.ndarray, t: np.ndarray, labels: np.ndarray | None, guidance: float, clip: bool
) -> tuple[np.ndarray | None, ...]:
    """Evaluate a model in the process that has the GPU; one that was loaded after that was forked is read from its folder."""
    model: Any = _models.get(folder) or read_package(Path(folder)).model
    _models[folder] = model = model.to(DEVICE)
    given = [None if each is None else torch.from_numpy(each).to(DEVICE) for each in (x_t, t, labels)]
    with torch.inference_mode():
        found = model.predict(*given, guidance, clip)
    return tuple(None if each is None else each.cpu().numpy() for each in (found.eps_hat, found.x0_hat, found.fraction))
