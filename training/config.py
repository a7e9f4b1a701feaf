"""The options of the training scripts: each field is a flag, its sentence the flag's help.

This module does not import torch, so that `--help` is fast.
"""

from __future__ import annotations

import io
import json
import os
import shlex
import sys
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import tyro

from genlab.config import MAX_SIZE, DDPMConfig, Reading, VAEConfig, dataset_name, expanded, published_dataset

T = TypeVar("T")
Options = TypeVar("Options", bound="Training")


@dataclass(frozen=True)
class Training(Reading):
    """Options that all kinds of model share."""

    dataset: str = "fashion-mnist"
    """fashion-mnist, mnist, emoji, a folder or zip archive of pictures, a folder of tables, a font, or user/name on the Hub."""
    data_dir: str | None = None
    """Folder with the IDX files of fashion-mnist or mnist; else GENLAB_DATA_DIR, Debian's package, the Hub, in this order."""
    size: int | None = None
    """Side of the pictures in pixels; by default the data set's own (32 for a folder, or large ones on the Hub)."""
    channels: int | None = None
    """1 for gray, 3 for RGB; by default the data set's own."""
    run: Path | None = None
    """Run folder for checkpoints, log, pictures and the finished model; by default runs/KIND-DATASET."""
    from_model: Annotated[str | None, tyro.conf.arg(name="from")] = None
    """Model to start from: a run, a folder, a shipped name, or user/name on the Hub; by default random weights."""
    resume: bool = False
    """Continue from the newest checkpoint of the run folder; the other options must be those of the run."""
    seed: int = 0
    """Seed of the initial weights, the order of the pictures and all noise."""
    steps: int = 10_000
    """Steps of the optimiser; the first lines of a training state the epochs, its passes over all pictures."""
    batch_size: int = 64
    """Pictures a step, over all processes."""
    accumulate: int = 1
    """Parts that the pictures of a step are taken in, one after the other, to need less memory; the step is the same."""
    augment: tuple[Literal["flip", "crop"], ...] = ()
    """Mirror (flip) or move (crop) pictures at random, until the learning rate falls: then as they are, as samples shall be."""
    lr: float = 6e-4
    """Highest learning rate."""
    warmup: int = 300
    """Steps over which the learning rate rises to its highest; a tenth of all steps if these are fewer than the default."""
    decay: float = 0.3
    """Share of the steps, at the end, over which the learning rate falls to zero."""
    weight_decay: float = 0.0
    """Decoupled weight decay of AdamW."""
    clip: float = 1.0
    """Largest norm of the gradient; a larger one is scaled down to it."""
    ema: float = 0.999
    """Decay of the moving average of the weights, which are those of the finished model."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Precision of the network; auto: bf16 if the hardware supports it or `accelerate launch` asks for it."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Compile the networks (torch.compile), one to two minutes at the start; auto: on a GPU only, a CPU gains little."""
    store: Literal["fp16", "fp32"] = "fp16"
    """Type in which the finished model's weights are stored; fp16 halves the file. They are read as fp32."""
    log_every: int = 50
    """Steps between two lines of the log."""
    sample_every: int = 1000
    """Steps between two sheets of sample pictures and measurements on held-out pictures."""
    sample_minutes: float = 15.0
    """Minutes after which there is a sheet, however few the steps; the first within two minutes; 0 for by steps alone."""
    replay: int = 0
    """Moments, ever further apart, to draw and measure, for a film of the training; each takes as long as 50 steps."""
    save_every: int = 500
    """Steps between two checkpoints."""
    save_minutes: float = 10.0
    """Minutes after which there is a checkpoint, however few the steps; 0 for by steps alone."""
    track: tuple[Literal["tensorboard", "trackio", "wandb"], ...] = ()
    """Also log to these, if they are installed; log.jsonl and log.csv are always written."""
    push: bool = False
    """Push the finished model to the Hub; token and permission are checked before training."""
    repo_id: str | None = None
    """Repository to push to; by default YOU/genlab-KIND-DATASET."""
    private: bool = False
    """Make the repository private when it is created."""
    examples: bool = True
    """Up to 256 held-out pictures go into the finished model, for its page; with --push they become public."""
    license: str | None = None
    """Licence of the pushed model, as the Hub names it (mit, …); by default that of the card there, else apache-2.0."""

    kind = "model"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check(
            size=(4, MAX_SIZE), seed=(0, 2**32 - 1), steps=(1, 10**9), batch_size=(1, 10**6), warmup=(0, 10**9),
            accumulate=(1, 10**6), log_every=(1, 10**9), sample_every=(1, 10**9), save_every=(1, 10**9), replay=(0, 40),
            lr=(1e-9, 1.0), decay=(0.0, 1.0), weight_decay=(0.0, 1.0), clip=(1e-9, 1e9), ema=(0.0, 0.99999),
            sample_minutes=(0.0, 1e6), save_minutes=(0.0, 1e6),
        )  # fmt: skip
        if self.warmup > self.steps:
            if self.warmup != type(self).warmup:
                raise ValueError(f"--warmup: expected at most the {self.steps} steps of --steps, got {self.warmup}")
            object.__setattr__(self, "warmup", self.steps // 10)
        if self.channels not in (None, 1, 3):
            raise ValueError(f"--channels: expected 1 or 3, got {self.channels}")
        if self.batch_size % self.accumulate:
            raise ValueError(f"--accumulate: expected a divisor of --batch-size {self.batch_size}, got {self.accumulate}")
        if self.augment and not self.decay:
            raise ValueError("--augment: expected --decay above 0, the share of the steps without it; got 0")
        for name in ("repo_id", "private", "license"):
            if getattr(self, name) and not self.push:
                raise ValueError(f"{flag(name)}: expected --push with it, got {flag(name)} without; add --push")

    def _check(self, **ranges: tuple[float, float]) -> None:
        """Raise ValueError for an option outside its range, (lowest, highest): whole numbers for one that is whole."""
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:  # NaN is in no range
                whole = isinstance(low, int)
                expected = f"a whole number from {low} to {high}" if whole else f"a number from {low:g} to {high:g}"
                raise ValueError(f"{flag(name)}: expected {expected}, got {value}")

    @property
    def dataset_name(self) -> str:
        """Return the short name of the data set."""
        return dataset_name(self.dataset)

    @property
    def run_folder(self) -> Path:
        """Return the run folder."""
        return self.run or Path("runs") / f"{self.kind}-{self.dataset_name}"

    def at(self: Options, size: int) -> Options:
        """Return these options with what depends on the side of the pictures, which is known once they are read."""
        return self

    def decisions(self, size: int) -> list[str]:
        """Return what `at` decides, as lines of text, each with the option that decides otherwise."""
        return []

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of step 0…steps−1: a linear rise, a plateau, a linear fall to zero."""
        rise = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        falling = self.decay * self.steps
        return self.lr * rise * (min(1.0, (self.steps - step) / falling) if falling else 1.0)

    @property
    def moments(self) -> set[int]:
        """Return the steps of `replay`, from 1 to `steps`, evenly spaced by their logarithms; nearer ones coincide."""
        return {round(self.steps ** (i / max(1, self.replay - 1))) for i in range(self.replay)}

    def augments(self, step: int) -> bool:
        """Return True if the pictures of step 0…steps−1 are augmented: until the learning rate falls."""
        return bool(self.augment) and step < (1 - self.decay) * self.steps

    def fixed(self) -> dict[str, Any]:
        """Return the options that must be the same when a run is resumed; `steps` may be raised.

        Of the options that choose the pictures, the pictures must be the same in their place."""
        free = {
            "data_dir", "run", "resume", "compile", "log_every", "sample_every", "save_every", "store", "push", "repo_id",
            "private", "cache", "examples", "replay",
            "sample_minutes", "save_minutes", "track", "license",
        }  # fmt: skip
        return json.loads(json.dumps({k: v for k, v in asdict(self).items() if k not in free}))

    def published(self) -> dict[str, Any]:
        """Return the options that determine the finished model; for data sets and models in local folders only their names."""
        source = {name: model_name(value) for name in ("from_model", "vae") if (value := getattr(self, name, None))}
        return self.fixed() | {"store": self.store, "dataset": published_dataset(self.dataset)} | source

    def command(self) -> str:
        """Return the command that trains this model, with the published options that are not at their defaults."""
        default = leaves(type(self)().published())
        positional = {"dataset", "teacher"} if isinstance(self, Distillation) else set()
        changed = {k: v for k, v in leaves(self.published()).items() if v != default[k] and k not in positional}
        words = [[flag(k), *([] if v is True else map(str, v if isinstance(v, list) else [v]))] for k, v in changed.items()]
        return shlex.join(["python", *self._script(), *(word for group in words for word in group)])

    def _script(self) -> list[str]:
        """Return the script and its positional arguments."""
        return [f"training/train_{self.kind}.py"]


def leaves(options: dict[str, Any]) -> dict[str, Any]:
    """Return nested options as one dictionary by their own names, which are unique: each is a flag."""
    flat: dict[str, Any] = {}
    for name, value in options.items():
        flat |= leaves(value) if isinstance(value, dict) else {name: value}
    return flat


def parse(cls: type[T]) -> T:
    """Return the options of the command line; a terminal that is not UTF-8 shows other characters as escapes from then on."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    registry = tyro.constructors.ConstructorRegistry()

    @registry.primitive_rule
    def optional(info: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec[Any] | None:
        """Show `int | None` as INT: that the option may be left out is no value of it."""
        kinds = [kind for kind in get_args(info.type) if kind is not type(None)]
        if len(kinds) != 1 or kinds == [*get_args(info.type)] or kinds[0] not in (int, float, str, Path):
            return None
        (kind,) = kinds
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs=1,
            metavar=kind.__name__.upper(),
            instance_from_str=lambda words: kind(words[0]),
            is_instance=lambda value: value is None or isinstance(value, kind),
            str_from_instance=lambda value: [str(value)],
        )

    try:
        with registry:
            return tyro.cli(cls, config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff))
    except BrokenPipeError:  # `--help | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def out_of_memory(error: BaseException) -> bool:
    """Return True if an error says that there is no memory left, on the CPU or a GPU."""
    words = ("not enough memory", "can't allocate memory", "cannot allocate memory", "out of memory")
    return isinstance(error, MemoryError) or any(each in str(error).lower() for each in words)


def model_name(model: str) -> str:
    """Return the name of a model as it may be published: for a local folder its last part, for RUN/model that of the run."""
    folder = expanded(model)
    return (folder.parent if folder.name == "model" else folder).resolve().name if folder.is_dir() else model


def flag(name: str) -> str:
    """Return the flag of an option; `from` is a keyword of Python and cannot be a field."""
    return "--from" if name == "from_model" else "--" + name.replace("_", "-")


PICTURES = {"dataset", "data_dir", "size", "channels", *(each.name for each in fields(Reading))}
"""Options that choose the pictures; what matters is which pictures they choose."""


@dataclass(frozen=True)
class DDPMTraining(Training):
    """Train a denoising diffusion model (docs/notes.md#n1-5) and write it to a run folder; --push sends it to the Hub."""

    model: DDPMConfig = field(default_factory=DDPMConfig)
    """The model."""
    vae: str | None = None
    """VAE on whose codes to train instead of pictures; without grids, and by default with --patch 1 --multipliers 1."""
    objective: Literal["hybrid", "bound"] = "hybrid"
    """hybrid: the prediction error, for the best pictures; bound: the variational bound itself, for fewer bits."""
    label_dropout: float = 0.1
    """Share of the pictures trained on without their class, for classifier-free guidance (Ho & Salimans 2022)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.vae is not None:  # codes have no gray levels and are small: neither grids nor downsampling
            unet = self.model.unet
            patch = 1 if unet.patch == type(unet).patch else unet.patch
            unet = replace(unet, patch=patch, multipliers=unet.multipliers or (1,))
            object.__setattr__(self, "model", replace(self.model, grids=(), unet=unet))
        self._check(label_dropout=(0.0, 1.0))

    @property
    def kind(self) -> str:  # type: ignore[override]
        """Return the kind of the model: a DDPM of pictures, or of a VAE's codes."""
        return "ddpm" if self.vae is None else "latent-ddpm"

    def at(self, size: int) -> DDPMTraining:
        """Return these options with the channels of the network for pictures of this side."""
        return replace(self, model=replace(self.model, unet=self.model.unet.at(size)))

    def decisions(self, size: int) -> list[str]:
        """Return the channels, if they are chosen by size."""
        unet = self.model.unet.at(size)
        channels = " → ".join(str(unet.width * each) for each in unet.multipliers)
        return [] if self.model.unet.multipliers else [f"the network has {channels} channels (--multipliers decides)"]

    def _script(self) -> list[str]:
        return ["training/train_ddpm.py"]


@dataclass(frozen=True)
class VAETraining(Training):
    """Train a variational autoencoder (docs/notes.md#n1-4) and write it to a run folder; --push sends it to the Hub."""

    batch_size: int = 128
    """Pictures a step, over all processes."""
    lr: float = 1e-3
    """Highest learning rate."""
    augment: tyro.conf.Suppress[tuple[Literal["flip", "crop"], ...]] = ()  # a VAE keeps mirrored pictures (docs/log.md)
    model: VAEConfig = field(default_factory=VAEConfig)
    """The model."""

    kind = "vae"


@dataclass(frozen=True)
class Distillation(Training):
    """Distil a DDPM into a consistency function, which draws a picture in 1, 2 or 4 evaluations instead of 10."""

    teacher: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")] = "ddpm-mnist"
    """DDPM to distil: a run, a folder, a shipped name, or user/name on the Hub."""
    dataset: tyro.conf.Suppress[str] = ""  # that of the teacher, set when the teacher has been read
    data_dir: tyro.conf.Suppress[str | None] = None
    size: tyro.conf.Suppress[int | None] = None
    channels: tyro.conf.Suppress[int | None] = None
    classes: tyro.conf.Suppress[str | None] = None
    held_out: tyro.conf.Suppress[str | None] = None
    image_column: tyro.conf.Suppress[str | None] = None
    config_name: tyro.conf.Suppress[str | None] = None
    white: tyro.conf.Suppress[float | None] = None
    skip_broken: tyro.conf.Suppress[bool] = False
    cache: tyro.conf.Suppress[str | None] = None
    augment: tyro.conf.Suppress[tuple[Literal["flip", "crop"], ...]] = ()
    from_model: Annotated[str | None, tyro.conf.arg(name="from")] = None
    """Student to start from: a run, a folder, a shipped name, or user/name on the Hub; by default the teacher's weights."""
    objective: Literal["trajectories", "distribution"] = "trajectories"
    """trajectories: predict the ends of the teacher's trajectories; distribution: then, with --from, match its distribution."""
    steps: int = 10_000
    """Steps of the optimiser."""
    lr: float = 5e-4
    """Highest learning rate."""
    ema: float = 0.998
    """Decay of the moving average of the weights, which are those of the finished model."""
    decay: float = 0.7
    """Share of the steps, at the end, over which the learning rate falls to zero."""
    trajectories: int = 50_000
    """Number of trajectories of the teacher to train on; of their first points, pure noise, for --objective distribution."""
    points: int = 8
    """Steps of the teacher's solver (UniPC), whose points the student is trained on."""
    from_noise: float = 0.5
    """Share of the examples that start from pure noise; the others start from any point."""
    no_label: float = 0.1
    """Share of the trajectories without a class."""

    kind = "consistency"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check(trajectories=(1, 10**7), points=(1, 1000), from_noise=(0.0, 1.0), no_label=(0.0, 1.0))
        if self.objective == "distribution" and self.from_model is None:
            raise ValueError(
                "--objective distribution: expected --from with the student to go on with, got none; distil one first with "
                "--objective trajectories"
            )

    def published(self) -> dict[str, Any]:
        """Return the options that determine the finished model; for a teacher in a local folder only its name."""
        return super().published() | {"teacher": self.teacher_name}

    @property
    def teacher_name(self) -> str:
        """Return the name of the teacher as it may be published."""
        return model_name(self.teacher)

    def _script(self) -> list[str]:
        return ["training/distil.py", self.teacher_name]
