"""Train the feature network of a data set: `python training/train_classifier.py --help`."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if not __package__:  # run as a script: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from genlab.config import EMOJI, KNOWN, MAX_SIZE, Reading, expanded, published_dataset
from training.config import flag, parse

if TYPE_CHECKING:
    from torch import Tensor, nn, optim

    from genlab.config import DataSpec
    from genlab.data import Dataset
    from genlab.features import FeatureNet


PACKAGE = Path(__file__).resolve().parents[1] / "genlab"
"""Folder of the package, with the networks that ship."""


@dataclass(frozen=True)
class ClassifierTraining(Reading):
    """Train the small classifier whose features measure samples, and write it to runs/classifier-DATASET-HASH.

    Pictures without classes are turned at random by quarter turns, and the network learns to tell by how many.

    training/evaluate.py, run in the same folder, finds it there by its training pictures, whatever their name.

    On a CPU this takes minutes. Figures measured with other weights are not comparable, which is why the hash of the weights is
    reported with each of them.
    """

    dataset: str = "fashion-mnist"
    """fashion-mnist, mnist, a folder or zip archive of pictures with classes, a folder of tables, or user/name on the Hub."""
    data_dir: str | None = None
    """Folder with the IDX files of fashion-mnist or mnist; else GENLAB_DATA_DIR, Debian's package, the Hub, in this order."""
    size: int | None = None
    """Side of the pictures in pixels; by default the data set's own (32 for a folder, or large ones on the Hub)."""
    channels: int | None = None
    """1 for gray, 3 for RGB; by default the data set's own."""
    folder: Path | None = None
    """Folder to write to, outside of genlab; training/evaluate.py finds only runs/classifier-…, the default."""
    shipped: bool = False
    """Train the classifier of fashion-mnist, mnist or emoji that ships: write to genlab/classifiers, as nothing else does."""
    epochs: int = 8
    """Passes over the training pictures."""
    batch_size: int = 128
    """Pictures a step."""
    lr: float = 5e-3
    """Highest learning rate; it rises over the first tenth of the steps and falls to zero over the rest."""
    weight_decay: float = 0.01
    """Decoupled weight decay of AdamW."""
    shift: int = 1
    """Largest random shift of a training picture in each direction, pixels."""
    seed: int = 0
    """Seed of the initial weights, the order of the pictures and their shifts."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value, low, high in (
            ("size", self.size, 4, MAX_SIZE),
            ("epochs", self.epochs, 1, 10_000),
            ("batch-size", self.batch_size, 1, 10**6),
            ("shift", self.shift, 0, 16),
            ("seed", self.seed, 0, 2**32 - 1),
        ):
            if value is not None and not low <= value <= high:
                raise ValueError(f"--{name}: expected a whole number from {low} to {high}, got {value}")
        for name, number, most in (("lr", self.lr, 1.0), ("weight-decay", self.weight_decay, 1.0)):
            if not 0 <= number <= most:
                raise ValueError(f"--{name}: expected a number from 0 to {most:g}, got {number}")
        if self.channels not in (None, 1, 3):
            raise ValueError(f"--channels: expected 1 or 3, got {self.channels}")
        names = (*KNOWN, EMOJI)
        if self.shipped and (self.dataset not in names or (self.folder, self.size, self.channels) != (None, None, None)):
            raise ValueError(f"--shipped: expected --dataset {' or '.join(names)} without --folder, --size and --channels")
        if self.folder is not None and expanded(self.folder).resolve().is_relative_to(PACKAGE):
            raise ValueError(f"--folder: expected a folder outside of {PACKAGE.name}, got {self.folder}; or give --shipped")

    def options(self) -> dict[str, object]:
        """Return the options that determine the network; for a data set in a local folder only its short name."""
        free = {"data_dir", "folder", "shipped", "cache"}
        options = {k: v for k, v in asdict(self).items() if k not in free and v is not None and v is not False}
        return options | {"dataset": published_dataset(self.dataset)}

    def command(self) -> str:
        """Return the command that trains this network, with the options that are not at their defaults."""
        default = ClassifierTraining().options()
        changed = {k: v for k, v in self.options().items() if v != default.get(k)}
        words = [[flag(k), *([] if v is True else [str(v)])] for k, v in changed.items()]
        return shlex.join(["python", "training/train_classifier.py", *(word for group in words for word in group)])


def moved(x: Tensor, shift: int, generator: object) -> Tensor:
    """Return pictures x (B C H W), each shifted at random by −shift…shift pixels down and right, padded with −1."""
    import torch
    import torch.nn.functional as F

    assert isinstance(generator, torch.Generator)
    size = x.shape[-1]
    windows = F.pad(x, (shift,) * 4, value=-1.0).unfold(2, size, 1).unfold(3, size, 1)
    down, right = torch.randint(2 * shift + 1, (2, len(x)), generator=generator)
    return windows[torch.arange(len(x)), :, down, right]


def turned(x: Tensor, turns: Tensor) -> Tensor:
    """Return pictures x (B C H W), each turned by its number of quarter turns, turns (B)."""
    import torch

    every = torch.stack([torch.rot90(x, k, (2, 3)) for k in range(4)])
    return every[turns, torch.arange(len(x))]


def with_norms(body: nn.Sequential) -> nn.Sequential:
    """Return the layers with batch normalisation after each convolution (Ioffe & Szegedy 2015), which trains faster."""
    from torch import nn

    layers: list[nn.Module] = []
    for layer in body:
        layers += [layer, nn.BatchNorm2d(layer.out_channels)] if isinstance(layer, nn.Conv2d) else [layer]
    return nn.Sequential(*layers)


def without_norms(body: nn.Sequential) -> nn.Sequential:
    """Return the trained layers with each batch normalisation, linear after training, fused into its convolution."""
    from torch import nn
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    layers: list[nn.Module] = []
    for layer in body.eval():
        before = layers[-1] if layers else None
        if isinstance(layer, nn.BatchNorm2d) and isinstance(before, nn.Conv2d):
            layers[-1] = fuse_conv_bn_eval(before, layer)
        else:
            layers.append(layer)
    return nn.Sequential(*layers)


def in_own_units(network: FeatureNet, pixels: Tensor) -> None:
    """Divide each feature by its standard deviation on training pictures; rescale the head to leave the scores unchanged."""
    import torch
    from torch import nn

    from genlab.data import to_model
    from genlab.features import AT_ONCE

    to_features, to_scores = network.body[-1], network.head[-1]
    assert isinstance(to_features, nn.Linear)
    assert isinstance(to_scores, nn.Linear)
    with torch.inference_mode():
        scale = torch.cat([network(to_model(part)) for part in pixels.split(AT_ONCE)]).std(dim=0)
    with torch.no_grad():
        to_features.weight.div_(scale[:, None])
        to_features.bias.div_(scale)
        to_scores.weight.mul_(scale)


def one_cycle(optimiser: optim.Optimizer, lr: float, steps: int) -> optim.lr_scheduler.LRScheduler:
    """Return the schedule of the learning rate: a rise over the first tenth of the steps, a fall to zero over the rest."""
    from torch.optim.lr_scheduler import OneCycleLR

    # A tenth of ten steps is a rise of length 0, by which OneCycleLR would divide.
    rise = 0.11 if steps == 10 else 0.1
    return OneCycleLR(optimiser, lr, total_steps=steps, pct_start=rise, anneal_strategy="linear", cycle_momentum=False)


def train(config: ClassifierTraining, data: Dataset) -> FeatureNet:
    """Train the network with the cross entropy of its class scores, and return it."""
    import torch
    import torch.nn.functional as F
    from tqdm import tqdm

    from genlab.data import to_model
    from genlab.features import TURNS, ClassifierConfig, FeatureNet

    torch.manual_seed(config.seed)
    generator = torch.Generator().manual_seed(config.seed)
    network = FeatureNet(ClassifierConfig(), data.spec)
    network.body = with_norms(network.body)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(network.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    steps = config.epochs * -(-len(data) // config.batch_size)
    schedule = one_cycle(optimiser, config.lr, steps)
    bar = tqdm(total=steps, unit="step", mininterval=1.0, dynamic_ncols=True, disable=None)
    for _ in range(config.epochs):
        for rows in torch.randperm(len(data), generator=generator).split(config.batch_size):
            pixels, label = data.images[rows], None if data.labels is None else data.labels[rows]
            if label is None:
                label = torch.randint(TURNS, (len(rows),), generator=generator)
                pixels = turned(pixels, label)
            x = moved(to_model(pixels), config.shift, generator)
            loss = F.cross_entropy(network.head(network(x)), label)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            bar.update()
        bar.set_postfix_str(f"loss {loss.item():.3f}")
    bar.close()
    network.body = without_norms(network.body)
    in_own_units(network.eval(), data.images)
    return network


def accuracy(network: FeatureNet, data: Dataset) -> float:
    """Return the share of pictures whose class, or number of quarter turns, the network predicts."""
    import torch

    from genlab.features import TURNS, Classifier

    classifier, pixels, labels = Classifier(network, data.spec.name, "", 0.0), data.images, data.labels
    if labels is None:
        labels = torch.arange(len(pixels)) % TURNS
        pixels = turned(pixels, labels)
    return float(classifier.classes(classifier.features(pixels)).eq(labels).double().mean())


def check(spec: DataSpec) -> None:
    """Raise an error for pictures without a possible feature network, before all of them are read.

    Raises:
        FeatureError: the pictures have a single class, or their side is odd.
    """
    from genlab.features import ClassifierConfig, FeatureError, FeatureNet

    try:
        FeatureNet(ClassifierConfig(), spec)
    except ValueError as error:
        raise FeatureError(f"{spec.name}: {error}") from error


def with_classes(data: Dataset) -> Dataset:
    """Return the pictures with a known class, all if they have no classes: rows of a table without one have the label −1.

    Raises:
        DataError: no picture has a class.
    """
    from genlab.listing import DataError

    if data.labels is None:
        return data
    if not bool((known := data.labels >= 0).any()):
        raise DataError(f"{data.spec.name}: expected pictures with classes, got none")
    return data if bool(known.all()) else replace(data, images=data.images[known], labels=data.labels[known])


def run(config: ClassifierTraining) -> int:
    """Train, measure and write; return the exit status."""
    import time

    import torch

    from genlab import data, features
    from genlab.listing import DataError
    from genlab.package import ModelError

    try:
        pictures, held_out = data.load_both(
            config.dataset, config.data_dir, config.size, config.channels, check, config.reading
        )
        train_set, test_set = with_classes(pictures), with_classes(held_out)
        started = time.monotonic()
        network = train(config, train_set).half().float()  # as it is stored
        seconds = round(time.monotonic() - started)
        metrics = {
            "command": config.command(),
            "seed": config.seed,
            "test_accuracy": accuracy(network, test_set),
            "test_images": len(test_set),
            "test_data_sha256": test_set.sha256,
            "training": {
                "options": config.options(),
                "images": len(train_set),
                "accuracy": accuracy(network, train_set),
                "seconds": seconds,
                "data_sha256": pictures.sha256,
                "torch": torch.__version__,
            },
        }
        folder = expanded(config.folder) if config.folder else features.folder_for(pictures)
        folder = features.CLASSIFIERS / config.dataset if config.shipped else folder
        features.save(folder, network, metrics)
    except (DataError, ModelError, features.FeatureError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(json.dumps({k: metrics[k] for k in ("command", "test_accuracy")} | {"folder": str(folder)}, indent=2))
    return 0


def main() -> int:
    """Run the command line."""
    return run(parse(ClassifierTraining))


if __name__ == "__main__":
    sys.exit(main())
