"""The feature network: a small classifier of the data set, whose next-to-last layer represents a picture.

The measures of `genlab.metrics` compare pictures by features. For photographs these come from Inception, which was trained on
nothing like small gray pictures. Here each data set has its own network: four convolutions, then D features and class scores,

    f(x) = A h(x) + a ∈ ℝ^D,   scores = W max(f(x), 0) + b                                           (1)

trained on the data set's own training pictures by `training/train_classifier.py`. Those of the known data sets ship in
`genlab/classifiers/`, others lie in `runs/`; each is found by the hash of its training pictures, not by a name. A distance
between features is comparable only with distances on the features of the same network, so every such figure is reported with
the network's name, the hash of its weights and its accuracy. No layer normalises a picture by its own mean and variance: a
sample with too little contrast must have other features than one with the right contrast. The features are taken before the
maximum, where they are nearer to a Gaussian, in units of their standard deviation on the training pictures.

Pictures without classes have a network that learned by how many quarter turns a picture is turned (Gidaris et al. 2018).
"""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from genlab import __version__
from genlab.config import DataSpec
from genlab.data import Dataset, identity, to_model
from genlab.durable import put, sync_folder
from genlab.package import ModelError, build, check_keys, read_json, read_network, write_json

CLASSIFIERS = Path(__file__).parent / "classifiers"
"""Folder of the feature networks that ship, each in a folder of its own."""
RUNS = Path("runs")
"""Folder of the feature networks of other pictures, relative to the working directory."""
TURNS = 4
"""Classes of pictures that have none of their own: 0 to 3 quarter turns."""
FILES = ("config.json", "model.safetensors", "metrics.json")
AT_ONCE = 500
"""Batch size of the network."""


class FeatureError(ValueError):
    """No feature network was trained on these pictures, or it is damaged; the message says what to do."""


@dataclass(frozen=True)
class ClassifierConfig:
    """Shape of the feature network."""

    width: int = 32
    """Channels of the convolutions."""
    features: int = 64
    """D, the number of features."""

    def __post_init__(self) -> None:
        for name, value in (("width", self.width), ("features", self.features)):
            if not isinstance(value, int) or isinstance(value, bool) or not 2 <= value <= 512:
                raise ValueError(f"{name}: expected a whole number from 2 to 512, got {value!r}")


class FeatureNet(nn.Module):
    """Maps pictures (B C H W) in [−1, 1] to features (B, D); `head` maps these to class scores (B, classes).

    Raises:
        ValueError: the side of the pictures is odd, or they have a single class.
    """

    kind = "classifier"

    def __init__(self, config: ClassifierConfig, data: DataSpec) -> None:
        super().__init__()
        if data.size % 2 or len(data.classes) == 1:
            raise ValueError(f"expected an even side and 2 or more classes, or none, got {data.size} and {len(data.classes)}")
        self.config = config
        self.data = data
        width, dims = config.width, config.features
        self.body = nn.Sequential(
            nn.PixelUnshuffle(2),
            *_convolution(4 * data.channels, width),
            *_convolution(width, width),
            *_convolution(width, width, stride=2),
            *_convolution(width, width),
            nn.Flatten(),
            nn.Linear(width * ((data.size // 2 + 1) // 2) ** 2, dims),
        )
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(dims, len(data.classes) or TURNS))

    def forward(self, x: Tensor) -> Tensor:
        """Return features (B, D), eq. 1."""
        return self.body(x)


def _convolution(inside: int, outside: int, stride: int = 1) -> tuple[nn.Module, ...]:
    """Return a convolution and its nonlinearity."""
    return nn.Conv2d(inside, outside, 3, stride=stride, padding=1), nn.ReLU()


@dataclass(frozen=True)
class Classifier:
    """A feature network and the facts reported with every figure measured on its features.

    Attributes:
        network: in evaluation mode.
        name: the network's name, its data set's.
        sha256: hash of its weights file.
        accuracy: share of the data set's test pictures, or of turned ones, that it classifies correctly.
    """

    network: FeatureNet
    name: str
    sha256: str
    accuracy: float

    @classmethod
    def load(cls, folder: Path) -> Classifier:
        """Read the network in a folder, every part checked as strictly as a model's (`package`).

        Raises:
            FeatureError: a file is missing or invalid.
        """
        try:
            for name in FILES:
                if not (folder / name).is_file():
                    raise ModelError(f"expected {', '.join(FILES)}, got no {name}")
            config = read_json(folder / "config.json")
            check_keys("config.json", config, {"genlab", "kind", "model", "data"})
            if config["kind"] != FeatureNet.kind:
                raise ModelError(f"config.json: kind: expected {FeatureNet.kind}, got {config['kind']!r:.100}")
            shape = build(ClassifierConfig, config["model"], "model")
            data = build(DataSpec, config["data"], "data")
            network = read_network(FeatureNet, shape, data, folder / "model.safetensors")
            accuracy = read_json(folder / "metrics.json").get("test_accuracy")
            if not isinstance(accuracy, float) or not 0 <= accuracy <= 1:
                raise ModelError(f"metrics.json: test_accuracy: expected a number from 0 to 1, got {accuracy!r:.100}")
        except ModelError as error:
            raise FeatureError(f"feature network {folder.name}: {error}") from error
        weights = (folder / "model.safetensors").read_bytes()
        name = data.name if data.classes else f"{data.name}, quarter turns"
        return cls(network, name, hashlib.sha256(weights).hexdigest(), accuracy)

    @property
    def dims(self) -> int:
        """Return D, the number of features."""
        return self.network.config.features

    @torch.inference_mode()
    def features(self, pixels: Tensor) -> Tensor:
        """Return features (N, D) float32 of pictures (N C H W) uint8, on the CPU.

        Raises:
            ValueError: pictures of another shape or type.
        """
        shape = self.network.data.shape
        if pixels.dtype != torch.uint8 or pixels.ndim != 4 or tuple(pixels.shape[1:]) != shape:
            raise ValueError(
                f"expected pictures (N, {', '.join(map(str, shape))}) uint8, got {tuple(pixels.shape)} {pixels.dtype}"
            )
        features = torch.empty(len(pixels), self.dims)
        for first in range(0, len(pixels), AT_ONCE):
            features[first : first + AT_ONCE] = self.network(to_model(pixels[first : first + AT_ONCE]))
        return features

    @torch.inference_mode()
    def classes(self, features: Tensor) -> Tensor:
        """Return the predicted class of each row of features (N, D), (N)."""
        return self.network.head(features).argmax(dim=1)

    def log_probs(self, x: Tensor) -> Tensor:
        """Return log p(class|x), (B, classes), of pictures (B C H W) in [−1, 1]; differentiable."""
        return self.network.head(self.network(x)).log_softmax(dim=1)

    def facts(self) -> dict[str, Any]:
        """Return the facts to report with a figure measured on these features."""
        return {"name": self.name, "sha256": self.sha256, "accuracy": self.accuracy, "dims": self.dims}


def classifier_for(train: Dataset) -> Classifier:
    """Return the feature network trained on exactly these pictures, one that ships or one in the folder RUNS.

    Raises:
        FeatureError: there is none, or the folder of a feature network is damaged.
    """
    wanted, data = train.identity, train.spec
    for folder in (*sorted(CLASSIFIERS.iterdir()), *sorted(RUNS.glob("classifier-*"))):
        if (folder / "metrics.json").is_file() and _trained_on(folder) == wanted:
            return Classifier.load(folder)
    raise FeatureError(
        f"no feature network was trained on these {len(train):,} pictures of {data.name} ({data.size}×{data.size}, "
        f"{'gray' if data.channels == 1 else 'RGB'}), neither one that ships nor one in {RUNS}/classifier-*; "
        f"training/train_classifier.py --dataset … --size {data.size} --channels {data.channels} trains one"
    )


def classifier_like(data: DataSpec) -> Classifier | None:
    """Return a feature network, one that ships or one in the folder RUNS, that tells the classes of such pictures apart.

    It may have learned from other pictures of the same shape and classes; None if there is none.
    """
    for folder in (*sorted(CLASSIFIERS.iterdir()), *sorted(RUNS.glob("classifier-*"))):
        if (folder / "metrics.json").is_file():
            found = Classifier.load(folder)
            if (found.network.data.shape, found.network.data.classes) == (data.shape, data.classes) != (data.shape, ()):
                return found
    return None


def folder_for(train: Dataset) -> Path:
    """Return the folder to write the feature network of these pictures to; other pictures of the same name have another one."""
    return RUNS / f"classifier-{train.spec.name}-{train.identity[:8]}"


def _trained_on(folder: Path) -> str:
    """Return the identity of the pictures that the network in a folder was trained on."""
    try:
        data = build(DataSpec, read_json(folder / "config.json")["data"], "data")
        return identity(data, read_json(folder / "metrics.json")["training"]["data_sha256"])
    except (ModelError, OSError, KeyError, TypeError) as error:
        raise FeatureError(f"{folder}: expected a feature network, got other content ({error}); remove the folder") from error


def save(folder: Path, network: FeatureNet, metrics: dict[str, Any]) -> None:
    """Write a feature network to a folder, its weights as float16; files are moved in only when all are complete."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"genlab": __version__, "kind": network.kind, "model": asdict(network.config), "data": asdict(network.data)}
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=folder) as new:
        fresh = Path(new)
        write_json(fresh / "config.json", config)
        weights = {name: value.half().contiguous() for name, value in network.state_dict().items()}
        save_file(weights, fresh / "model.safetensors")
        write_json(fresh / "metrics.json", metrics)
        for name in FILES:
            (fresh / name).chmod(0o644)
            put(fresh / name, folder / name)
    sync_folder(folder)
