"""Small untrained models for the tests of the page, and the page served on loopback."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import httpx
import torch

from genlab.config import KNOWN, DataSpec, DDPMConfig, UNetConfig, VAEConfig
from genlab.data import Dataset
from genlab.ddpm import DDPM
from genlab.demo import theme
from genlab.demo.app import create_app
from genlab.demo.components import HEAD
from genlab.demo.documents import DOCUMENTS
from genlab.demo.requested import Requested
from genlab.demo.served import Models, Served
from genlab.demo.turns import Runner
from genlab.package import Package, write_package
from genlab.serving import server
from genlab.serving.gradio_patches import import_gradio
from genlab.serving.limits import Limits
from genlab.vae import VAE

import_gradio()  # before any page is made

T = 60
EXAMPLES = 20
SAMPLES = {
    "images": 2000, "seed": 0, "reference": "test", "reference_images": 9, "sampler": "DDIM", "steps": 25,
    "network_evaluations": 25, "neighbours": 3, "reference_data_sha256": "ab", "training_data_sha256": "cd",
    "features": {"name": "<i>", "sha256": "0123456789abcdef", "accuracy": 0.9961, "dims": 64},
    "frechet_distance": 0.653, "frechet_interval_95": [0.519, 0.811], "frechet_floor": 0.194, "kernel_distance_x1000": 20.8,
    "kernel_distance_standard_error_x1000": 6.2, "kernel_distance_floor_x1000": -0.71, "precision": 0.754, "recall": 0.84,
    "precision_of_real": 0.8455, "recall_of_real": 0.8845, "memorised_share": 0.0075, "memorised_share_of_held_out": 0.049,
}  # fmt: skip
"""What an evaluation says of samples."""


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


def measured(evaluation: dict[str, Any], T: int = 0) -> Any:
    """Return one model, "m", with a chain of T steps, as far as its measurements are read."""
    package = SimpleNamespace(metrics={"evaluation": evaluation})
    return {"m": SimpleNamespace(package=package, offer=SimpleNamespace(T=T))}


def only(model: DDPM | VAE, name: str) -> Models:
    """Return one model of that id, with the pictures of its data set."""
    pictures = dataset(model.data.name)
    return Models([Served(name, Package(model, {}, pictures.images, pictures.labels, "", None, Path()), "a test")])


def save_models(root: Path) -> list[str]:
    """A DDPM and a VAE for each known data set, under the names of those that ship."""
    folders = []
    for name in KNOWN:
        pictures = dataset(name)
        torch.manual_seed(1)
        vae = VAE(VAEConfig(latent=4, width=8, hidden=16), pictures.spec)
        for model in (ddpm(pictures.spec), vae):
            folder = root / f"{model.kind}-{name}"
            write_package(folder, model, {"command": f"python training/train_{model.kind}.py"}, pictures)
            folders.append(str(folder))
    return sorted(folders)


def load_models(folders: Sequence[str] = ()) -> Models:
    """The models in these folders."""
    return Requested(folders).models()


@contextmanager
def serving(models: Models, runner: Runner | None = None) -> Iterator[str]:
    """Serve the page of these models on a free port of loopback; yield its address."""
    with served(create_app(models, runner or Runner())) as url:
        yield url


@contextmanager
def served(blocks: gr.Blocks, answering: Callable[[], None] | None = None) -> Iterator[str]:
    """Any page on a free port of loopback, as `app.py` serves it but for the limits of a visitor; its address."""
    free = Limits(
        calls_per_second=1e6, calls_burst=10**6, uploads_per_second=1e6, uploads_burst=10**6, light_calls_per_second=1e6,
        light_calls_burst=10**6, jobs=10**6, running=10**6,
    )  # fmt: skip
    style: dict[str, Any] = {"theme": theme.theme(), "css": theme.CSS, "head": HEAD}
    app = server.build(blocks, ready=lambda: True, limits=free, documents=DOCUMENTS, **style)
    with running(app, answering) as instance:
        yield instance.url


@contextmanager
def running(app: Any, answering: Callable[[], None] | None = None) -> Iterator[server.Server]:
    """An application on a free port of loopback; its server."""
    instance = server.Server(app, "127.0.0.1", 0, answering)
    thread = threading.Thread(target=instance.run)
    thread.start()
    deadline = time.monotonic() + 120
    while not instance.started and time.monotonic() < deadline:
        time.sleep(0.02)
    try:
        yield instance
    finally:
        instance.should_exit = True
        thread.join(60)


def called(http: httpx.Client, name: str, body: dict[str, Any]) -> tuple[str, Any]:
    """Last event of a call of an endpoint by the names of its parameters: the event and its content, or status and text."""
    begun = http.post(f"/gradio_api/call/v2/{name}", json=body)
    if begun.status_code != 200:
        return str(begun.status_code), begun.text
    return last_event(http, f"/gradio_api/call/v2/{name}/{begun.json()['event_id']}")


def last_event(http: httpx.Client, path: str) -> tuple[str, Any]:
    """The last event of a stream of results that is no heartbeat: its name and content."""
    last: tuple[str, Any] = ("", None)
    with http.stream("GET", path) as reply:
        event = ""
        for line in reply.iter_lines():
            if line.startswith("event: "):
                event = line.removeprefix("event: ")
            elif line.startswith("data: ") and event != "heartbeat":
                last = event, json.loads(line.removeprefix("data: "))
    return last


PICTURES = """() => [...document.querySelectorAll('#%s-canvas canvas')].map(c => {
    const data = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
    let sum = 0;
    for (let i = 0; i < data.length; i += 4) sum = (sum * 31 + data[i]) %% 2147483647;
    return sum;
})"""
"""A number for what each picture shows on the canvas of a tab."""


def watched(page: Any) -> Any:
    """A page of a browser that keeps what it says of errors in `problems` and its requests in `asked`."""
    page.set_default_timeout(60_000)
    page.problems, page.asked = [], []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("console", lambda line: page.problems.append(line.text) if line.type == "error" else None)
    page.on("request", lambda request: page.asked.append(request))
    return page


def take(page: Any, handle: Any) -> tuple[float, float]:
    """Press the mouse on a figure's handle, wherever the page puts it while it settles; where its grip's centre is."""
    grip = handle.locator(".grip")
    for _ in range(100):
        grip.scroll_into_view_if_needed()
        box = grip.bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        page.mouse.move(x, y)
        page.mouse.down()
        if "dragged" in (handle.get_attribute("class") or ""):
            return x, y
        page.mouse.up()
        page.wait_for_timeout(100)
    raise AssertionError(f"the handle at {x}, {y} cannot be taken")
