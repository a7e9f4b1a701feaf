"""Small untrained models for the tests of the page, and the page served on loopback."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from genlab import hub
from genlab.config import DataSpec, DDPMConfig, UNetConfig, VAEConfig
from genlab.data import KNOWN, Dataset
from genlab.ddpm import DDPM
from genlab.demo.engine import Engine
from genlab.vae import VAE

T = 60
EXAMPLES = 20


def dataset(name: str) -> Dataset:
    """Twenty smooth random pictures, two of each class."""
    generator = torch.Generator().manual_seed(len(name))
    coarse = torch.rand(EXAMPLES, 1, 4, 4, generator=generator)
    images = (torch.nn.functional.interpolate(coarse, size=28, mode="bilinear") * 255).to(torch.uint8)
    return Dataset(DataSpec(name, 1, 28, KNOWN[name][1]), images, torch.arange(EXAMPLES) % 10, "the tests")


def ddpm(data: DataSpec, seed: int = 0, random: bool = True) -> DDPM:
    """A tiny network. Untouched, it predicts ε̂ = 0; `random` gives it weights that make its answer depend on everything."""
    torch.manual_seed(seed)
    unet = UNetConfig(width=8, patch=2, multipliers=(1, 2), blocks=1)
    model = DDPM(DDPMConfig(T=T, variance="posterior", prediction="eps", unet=unet), data)
    if random:
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def save_models(root: Path) -> list[str]:
    """A DDPM and a VAE for each known data set, under the names of those that ship."""
    folders = []
    for name in KNOWN:
        pictures = dataset(name)
        torch.manual_seed(1)
        vae = VAE(VAEConfig(latent=4, width=8, hidden=16), pictures.spec)
        for model in (ddpm(pictures.spec), vae):
            folder = root / f"{model.kind}-{name}"
            hub.save(folder, model, {"command": f"python training/train_{model.kind}.py"}, pictures)
            folders.append(str(folder))
    return sorted(folders)


@contextmanager
def serving(engine: Engine) -> Iterator[str]:
    """The page of an engine on a free port of loopback; its address."""
    from genlab.demo import server, theme
    from genlab.demo.app import create_app
    from genlab.demo.guard import Limits

    free = Limits(per_second=1e6, burst=10**6, light_per_second=1e6, light_burst=10**6, queued=10**6)
    app = server.build(create_app(engine), ready=lambda: True, limits=free, theme=theme.theme(), css=theme.CSS)
    instance = server.Server(app, "127.0.0.1", 0)
    thread = threading.Thread(target=instance.run)
    thread.start()
    deadline = time.monotonic() + 120
    while not instance.started and time.monotonic() < deadline:
        time.sleep(0.02)
    try:
        yield instance.url
    finally:
        instance.should_exit = True
        thread.join(60)
