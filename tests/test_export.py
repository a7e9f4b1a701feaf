"""Models outside genlab: ONNX in onnxruntime, the chain in diffusers."""

from __future__ import annotations

import json
import re
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from genlab.config import DDPMConfig, UNetConfig, VAEConfig
from genlab.ddpm import DDPM
from genlab.draw import Sampling, draw
from genlab.package import ModelError
from genlab.vae import VAE
from tests import tiny
from tests.conftest import needed
from training.conversion import export_onnx, to_diffusers

ROOT = Path(__file__).parents[1]
SPEC = tiny.dataset("mnist").spec


def random(model: Any) -> Any:
    """The model with weights that make its answer depend on everything."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


@pytest.fixture
def onnxruntime() -> Any:
    for name in ("onnx", "onnxscript"):
        needed(name)
    return needed("onnxruntime")


def evaluated(onnxruntime: Any, file: Path, *arguments: torch.Tensor) -> list[torch.Tensor]:
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    given = {each.name: value.numpy() for each, value in zip(session.get_inputs(), arguments, strict=True)}
    return [torch.from_numpy(found) for found in session.run(None, given)]


@pytest.mark.parametrize("prediction", ["v", "eps"])
def test_an_evaluation_in_onnxruntime_is_that_of_torch(onnxruntime, tmp_path, prediction):
    unet = UNetConfig(width=8, patch=2, multipliers=(1, 2), blocks=1)
    model = random(DDPM(DDPMConfig(T=60, variance="learned", prediction=prediction, unet=unet), SPEC))
    export_onnx(model, tmp_path / "m.onnx")
    x = torch.randn(5, *SPEC.shape, generator=torch.Generator().manual_seed(1))
    t, label = torch.tensor([1, 2, 17, 59, 60]), torch.tensor([-1, 0, 3, 9, -1])
    with torch.no_grad():
        expected = model.predict(x, t, label)
    eps_hat, x0_hat = evaluated(onnxruntime, tmp_path / "m.onnx", x, t, label)
    scale = float(expected.eps_hat.abs().max())
    torch.testing.assert_close(eps_hat, expected.eps_hat, rtol=0, atol=1e-4 * max(scale, 1))
    torch.testing.assert_close(x0_hat, expected.x0_hat, rtol=0, atol=1e-4)


def test_the_decoder_in_onnxruntime_is_that_of_torch(onnxruntime, tmp_path):
    model = random(VAE(VAEConfig(latent=4, width=8, hidden=16), SPEC))
    export_onnx(model, tmp_path / "m.onnx")
    z = torch.randn(3, 4)
    with torch.no_grad():
        torch.testing.assert_close(evaluated(onnxruntime, tmp_path / "m.onnx", z)[0], model.decode(z).mean, rtol=0, atol=1e-4)


def test_the_loop_of_the_document_draws_what_genlab_draws(onnxruntime, tmp_path, monkeypatch):
    """Its block of Python as it stands there, from the noise of genlab's own picture."""
    model = random(tiny.ddpm(SPEC))
    export_onnx(model, tmp_path / "digits.onnx")
    (code,) = re.findall(r"```python\n(import json\n.*?)```", (ROOT / "docs" / "serving.md").read_text(), re.DOTALL)
    from genlab.sampler import Noise

    noise = Noise.from_seeds([7], SPEC.shape).draw().numpy()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(np.random, "default_rng", lambda seed: type("G", (), {"standard_normal": lambda *_, **__: noise})())
    exec(code.replace("16, ", "1, "), {})
    (expected,) = draw(model, 1, 7, Sampling("DDIM", 10, label=3, precision="fp32"))
    with Image.open(tmp_path / "digit.png") as picture:
        difference = np.abs(np.asarray(picture).astype(int) - expected[0, 0].numpy().astype(int))
    assert difference.max() <= 1


def test_what_is_not_exported_is_said(tmp_path, monkeypatch, capsys):
    with pytest.raises(ModelError, match="expected a DDPM or a VAE, got a banana"):
        export_onnx(type("Banana", (), {"kind": "banana", "data": SPEC})(), tmp_path / "m.onnx")  # type: ignore[arg-type]
    from training import export

    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", ["export.py", str(tmp_path / "none"), "--onnx", str(tmp_path / "m.onnx")])
    assert export.main() == 1
    assert "no model" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ModelError, match="onnxscript is missing: pip install onnx onnxscript"):
        export_onnx(random(tiny.ddpm(SPEC)), tmp_path / "m.onnx")


@pytest.mark.parametrize("schedule", ["mixed", "linear", "cosine"])
@pytest.mark.parametrize("prediction", ["v", "eps"])
def test_the_scheduler_of_diffusers_takes_the_same_steps(diffusers, schedule, prediction):
    """From ours to theirs with the network's own output, to rounding; and a saved one is not exact, as is said."""
    unet = UNetConfig(width=8, patch=2, multipliers=(1,), blocks=1)
    model = random(DDPM(DDPMConfig(T=60, schedule=schedule, variance="beta", prediction=prediction, unet=unet), SPEC)).double()
    peer = to_diffusers(model)
    peer.set_timesteps(6)
    x = ours = torch.randn(2, *SPEC.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    times = [*(int(t) + 1 for t in peer.timesteps), 0]
    for t, s in pairwise(times):
        with torch.no_grad():
            output = model.network(x, torch.full((2,), t))
            found = model.predict(ours, torch.full((2,), t))
        x = peer.step(output, t - 1, x, use_clipped_model_output=True).prev_sample
        a = model.schedule.alpha_bar[s]
        ours = a.sqrt() * found.x0_hat + (1 - a).sqrt() * found.eps_hat
        torch.testing.assert_close(x, ours, rtol=1e-6, atol=1e-6)
    saved = diffusers.DDIMScheduler.from_config(json.loads(peer.to_json_string()))
    assert not torch.equal(saved.alphas_cumprod.double(), model.schedule.alpha_bar[1:])
