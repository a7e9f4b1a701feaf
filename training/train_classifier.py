"""Train the feature network of a data set: `python training/train_classifier.py --help`."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if not __package__:  # run as a script: look for modules beside this folder, not in it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import tyro

if TYPE_CHECKING:
    from torch import Tensor, nn

    from genlab.data import Dataset
    from genlab.features import FeatureNet


@dataclass(frozen=True)
class ClassifierTraining:
    """Train the small classifier whose features measure samples, and write it to genlab/classifiers/DATASET.

    On a processor this takes minutes. A network with other weights is another unit: figures taken with the old one no longer
    compare, which is why its hash stands beside each of them.
    """

    dataset: str = "fashion-mnist"
    """fashion-mnist, mnist, a folder of pictures with a sub-folder for each class, or user/name on the Hub."""
    data_dir: str | None = None
    """Folder with the IDX files of fashion-mnist or mnist; GENLAB_DATA_DIR, Debian's package and the Hub come after it."""
    folder: Path | None = None
    """Where to write it; genlab/classifiers/DATASET where none is given."""
    epochs: int = 8
    """How often each training picture is seen."""
    batch_size: int = 128
    """Pictures a step."""
    lr: float = 5e-3
    """Highest learning rate; it rises over the first tenth of the steps and falls to zero over the rest."""
    weight_decay: float = 0.01
    """Decoupled weight decay of AdamW."""
    shift: int = 1
    """Most pixels by which a training picture is moved at random, each way."""
    seed: int = 0
    """Fixes the weights at the start, the order of the pictures and their shifts."""

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("epochs", self.epochs, 1, 10_000),
            ("batch-size", self.batch_size, 1, 10**6),
            ("shift", self.shift, 0, 16),
            ("seed", self.seed, 0, 2**32 - 1),
        ):
            if not low <= value <= high:
                raise ValueError(f"--{name}: expected a whole number from {low} to {high}, got {value}")
        for name, number, most in (("lr", self.lr, 1.0), ("weight-decay", self.weight_decay, 1.0)):
            if not 0 <= number <= most:
                raise ValueError(f"--{name}: expected a number from 0 to {most:g}, got {number}")

    def options(self) -> dict[str, object]:
        """The options that make the network; of a data set in a folder of this machine, the folder's name alone."""
        options = {k: v for k, v in asdict(self).items() if k not in {"data_dir", "folder"}}
        return options | {"dataset": Path(self.dataset).name if Path(self.dataset).expanduser().is_dir() else self.dataset}

    def command(self) -> str:
        """The command that trains this network: the options that are not at their defaults."""
        default = ClassifierTraining().options()
        changed = {k: v for k, v in self.options().items() if v != default[k]}
        flags = [f(k, v) for k, v in changed.items() for f in (lambda k, _: "--" + k.replace("_", "-"), lambda _, v: str(v))]
        return shlex.join(["python", "training/train_classifier.py", *flags])


def moved(x: Tensor, shift: int, generator: object) -> Tensor:
    """Pictures x (B C H W) moved by −shift…shift pixels down and right, each its own way; what comes in is the border's −1."""
    import torch
    import torch.nn.functional as F

    assert isinstance(generator, torch.Generator)
    size = x.shape[-1]
    windows = F.pad(x, (shift,) * 4, value=-1.0).unfold(2, size, 1).unfold(3, size, 1)
    down, right = torch.randint(2 * shift + 1, (2, len(x)), generator=generator)
    return windows[torch.arange(len(x)), :, down, right]


def with_norms(body: nn.Sequential) -> nn.Sequential:
    """The same layers, each convolution followed by batch normalisation (Ioffe & Szegedy 2015), which trains faster."""
    from torch import nn

    layers: list[nn.Module] = []
    for layer in body:
        layers += [layer, nn.BatchNorm2d(layer.out_channels)] if isinstance(layer, nn.Conv2d) else [layer]
    return nn.Sequential(*layers)


def without_norms(body: nn.Sequential) -> nn.Sequential:
    """Undoes `with_norms` after training: each convolution takes in its normalisation, which is linear by then."""
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
    """Divide each feature by its standard deviation on training pictures, and undo it behind: the class scores stay."""
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


def train(config: ClassifierTraining, data: Dataset) -> FeatureNet:
    """The network after all epochs, with the cross entropy of its class scores as the loss."""
    import torch
    import torch.nn.functional as F
    from tqdm import tqdm

    from genlab.data import to_model
    from genlab.features import ClassifierConfig, FeatureNet

    torch.manual_seed(config.seed)
    generator = torch.Generator().manual_seed(config.seed)
    network = FeatureNet(ClassifierConfig(), data.spec)
    network.body = with_norms(network.body)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(network.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    steps = config.epochs * -(-len(data) // config.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, config.lr, total_steps=steps, pct_start=0.1, anneal_strategy="linear", cycle_momentum=False
    )
    assert data.labels is not None
    bar = tqdm(total=steps, unit="step", mininterval=1.0, dynamic_ncols=True, disable=None)
    for _ in range(config.epochs):
        for rows in torch.randperm(len(data), generator=generator).split(config.batch_size):
            x = moved(to_model(data.images[rows]), config.shift, generator)
            loss = F.cross_entropy(network.head(network(x)), data.labels[rows])
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
    """The share of pictures whose class the network sees."""
    from genlab.features import Classifier

    eye = Classifier(network, data.spec.name, "", 0.0)
    assert data.labels is not None
    return float(eye.classes(eye.features(data.images)).eq(data.labels).double().mean())


def run(config: ClassifierTraining) -> int:
    """Train, measure and write; returns the exit status."""
    import time

    import torch

    from genlab import data, features, hub

    try:
        train_set = data.load(config.dataset, "train", config.data_dir)
        test_set = data.load(config.dataset, "test", config.data_dir, train_set.spec.size, train_set.spec.channels)
        if train_set.labels is None or test_set.labels is None:
            raise data.DataError(f"{train_set.spec.name}: expected pictures with classes, got none")
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
                "data_sha256": train_set.sha256,
                "torch": torch.__version__,
            },
        }
        features.save(config.folder or features.CLASSIFIERS / train_set.spec.name, network, metrics)
    except (data.DataError, hub.HubError, features.FeatureError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(json.dumps({k: metrics[k] for k in ("command", "test_accuracy")}, indent=2))
    return 0


def main() -> int:
    """The command line."""
    return run(tyro.cli(ClassifierTraining, config=(tyro.conf.FlagCreatePairsOff,)))


if __name__ == "__main__":
    sys.exit(main())
