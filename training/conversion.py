"""Take models out of genlab: networks as ONNX with the numbers of the loop around them, and a chain as diffusers' scheduler.

The ONNX file of a diffusion model has one evaluation, (x_t, t, label) → (ε̂, x̂_0) with x̂_0 clamped to [−1, 1]. The loop is a
few lines of any language (docs/serving.md#out-of-genlab): DDIM goes from t to s by x_s = √ᾱ_s x̂_0 + √(1−ᾱ_s) ε̂. Of a VAE the
decoder is written, z → the mean of p(x|z).
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from genlab.config import Sampling
from genlab.ddpm import DDPM
from genlab.draw import sampling_times
from genlab.models import Model
from genlab.package import ModelError, write_json
from genlab.vae import VAE

if TYPE_CHECKING:
    from diffusers import DDIMScheduler

LABELS = "-1 for no class"


class _Evaluation(nn.Module):
    """One evaluation of a DDPM, without the checks of its arguments, which cannot be exported."""

    def __init__(self, model: DDPM) -> None:
        super().__init__()
        self.model = model

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        output = self.model.network(x_t, t, label)
        if self.model.config.variance == "learned":
            output = output.chunk(2, dim=1)[0]
        denoised = self.model.denoised(output, x_t, t, clip=True)
        return denoised.eps_hat, denoised.x0_hat


class _Decoder(nn.Module):
    """The decoder of a VAE."""

    def __init__(self, model: VAE) -> None:
        super().__init__()
        self.model = model

    def forward(self, z: Tensor) -> Tensor:
        return self.model.decode(z).mean


def export_onnx(model: Model, file: Path) -> list[Path]:
    """Write a DDPM, or the decoder of a VAE, as ONNX, and beside it the numbers of its loop as JSON; return both files.

    Raises:
        ModelError: the model is of another kind, or a package is missing.
    """
    data = {"shape": [*model.data.shape], "range": [-1, 1], "classes": [*model.data.classes]}
    loop: dict[str, Any]
    module: nn.Module
    if isinstance(model, DDPM):
        x, t = torch.zeros(2, *model.data.shape), torch.tensor([1, model.schedule.T])
        given = {"x_t": x, "t": t, **({"label": torch.tensor([0, -1])} if model.data.classes else {})}
        module, names = _Evaluation(model), ["eps_hat", "x0_hat"]
        times = sampling_times(model, Sampling(steps=min(Sampling.steps, model.schedule.T)))
        loop = {"label": LABELS, "times": times, "alpha_bar": model.schedule.alpha_bar.tolist()}
    elif isinstance(model, VAE):
        given, module, names = {"z": torch.zeros(2, model.config.latents)}, _Decoder(model), ["x"]
        loop = {"z": "N(0, 1)", "latents": model.config.latents}
    else:
        raise ModelError(f"expected a DDPM or a VAE, got a {model.kind}: no other kind is exported to ONNX")
    try:
        _write(module.requires_grad_(False).eval(), given, names, file)
    except ImportError as error:
        raise ModelError(f"{error.name} is missing: pip install onnx onnxscript") from error
    write_json(file.with_suffix(".json"), {"kind": model.kind, "data": data, **loop})
    return [file, file.with_suffix(".json")]


def _write(module: nn.Module, given: dict[str, Tensor], names: list[str], file: Path) -> None:
    import onnxscript  # noqa: F401 (torch's own message about it names no package)

    pictures = torch.export.Dim("pictures", min=1, max=2**16)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's, about its own insides
        module(*given.values())  # fills caches, such as a schedule's tables, which must not be traced
        program = torch.onnx.export(
            module,
            tuple(given.values()),
            input_names=[*given],
            output_names=names,
            dynamic_shapes=tuple({0: pictures} for _ in given),
            dynamo=True,
            verbose=False,
        )
    assert program is not None, "the dynamo exporter returns its program"
    file.parent.mkdir(parents=True, exist_ok=True)
    program.save(str(file))


def to_diffusers(model: DDPM) -> DDIMScheduler:
    """Return diffusers' DDIM scheduler with the chain of a model: its t is ours less one, its output that of the network.

    The tables of the returned object are ours, float64, and its steps exact. Saved and loaded by diffusers they are not: it
    stores β and multiplies in float32, where 1 − ᾱ_t of the first steps has few digits left. A learned Σ has no place in it.

    Raises:
        ModelError: diffusers is missing.
    """
    try:
        from diffusers import DDIMScheduler
    except ImportError as error:
        raise ModelError("diffusers is missing: pip install diffusers") from error
    schedule = model.schedule
    peer = DDIMScheduler(
        schedule.T,
        trained_betas=schedule.beta[1:].numpy(),
        prediction_type="v_prediction" if model.config.prediction == "v" else "epsilon",
        clip_sample=True,
        timestep_spacing="trailing",
        set_alpha_to_one=True,
    )
    peer.alphas_cumprod = schedule.alpha_bar[1:]
    peer.final_alpha_cumprod = torch.tensor(1.0, dtype=torch.float64)
    return peer
