"""How a model travels: to a folder and back, to the Hub and back."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from genlab import __version__
from genlab.config import DataSpec, DDPMConfig, UNetConfig, VAEConfig
from genlab.data import Dataset, grid, ungrid
from genlab.ddpm import DDPM
from genlab.vae import VAE

EXAMPLES = 256


class HubError(RuntimeError):
    """The Hub, or a model folder, cannot be used; the message says what to do."""


@dataclass(frozen=True)
class Package:
    """A model and what travels with it.

    Attributes:
        model: in evaluation mode, on the CPU.
        metrics: content of metrics.json.
        examples: (N C H W) uint8 held-out pictures; labels: (N) their classes, or None.
        source: the folder or Hub id it came from; revision: its commit on the Hub, or None for a folder.
    """

    model: DDPM | VAE
    metrics: dict[str, Any]
    examples: Tensor
    labels: Tensor | None
    source: str
    revision: str | None


def save(folder: Path, model: DDPM | VAE, metrics: dict[str, Any], examples: Dataset) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    config = {"genlab": __version__, "kind": model.kind, "model": asdict(model.config), "data": asdict(model.data)}
    (folder / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n")
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "model.safetensors")
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    grid(examples.images[:EXAMPLES], columns=16).save(folder / "examples.png", optimize=True)
    labels = None if examples.labels is None else examples.labels[:EXAMPLES].tolist()
    (folder / "examples.json").write_text(json.dumps({"count": len(examples.images[:EXAMPLES]), "columns": 16, "labels": labels}) + "\n")


def read(source: str | Path, revision: str | None = None, token: str | None = None) -> Package:
    folder = Path(source)
    config = json.loads((folder / "config.json").read_text())
    data = DataSpec(**config["data"])
    model: DDPM | VAE
    if config["kind"] == "ddpm":
        model = DDPM(DDPMConfig(**{**config["model"], "unet": UNetConfig(**config["model"]["unet"])}), data)
    else:
        model = VAE(VAEConfig(**config["model"]), data)
    model.load_state_dict(load_file(folder / "model.safetensors"))
    notes = json.loads((folder / "examples.json").read_text())
    examples = ungrid(Image.open(folder / "examples.png"), notes["count"], data.size, notes["columns"])
    labels = None if notes["labels"] is None else torch.tensor(notes["labels"])
    return Package(model.eval(), json.loads((folder / "metrics.json").read_text()), examples, labels, str(folder), None)


def authorise(kind: str, dataset: str, repo_id: str | None) -> str:
    raise HubError("")


def push(folder: Path, repo_id: str, private: bool = False) -> str:
    raise HubError("")
