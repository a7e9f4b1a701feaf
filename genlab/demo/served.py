"""Which models are served, where they come from, and why others are not. Nothing is computed here."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from genlab import hub
from genlab.card import NOTES
from genlab.config import DataSpec, expanded
from genlab.consistency import Consistency
from genlab.data import fit
from genlab.ddpm import DDPM
from genlab.demo.limits import LimitError, Offer, Pick, label_choices
from genlab.draw import default_steps
from genlab.measurements import read_evaluation
from genlab.models import Model
from genlab.package import ModelError, Package, find_package, shipped_packages, ships
from genlab.serving.language import UserFacingError, both
from genlab.vae import VAE

log = logging.getLogger("genlab.demo")

HUB_SECONDS = 60.0
"""Seconds that all models together may take to come from the Hub."""
TITLES = {"fashion-mnist": "Fashion-MNIST", "mnist": "MNIST"}

TEXT = {
    "test picture": both(
        "test picture: expected a number below {count}, got {number}", "测试图片：应为小于 {count} 的编号，实际为 {number}"
    ),
    "no model": both("no model to serve", "没有可用的模型"),
    "not loaded": both("{source} could not be loaded: {reason}", "无法加载 {source}：{reason}"),
    "shipped instead": both(
        "None of the models that were asked for could be loaded; these are the ones that ship with genlab.",
        "指定的模型都无法加载；下面是 genlab 自带的模型。",
    ),
    "ships": both("ships with genlab", "genlab 自带"),
    "folder": both("folder {name}", "文件夹 {name}"),
}


class LoadError(UserFacingError, RuntimeError):
    """No model can be served."""


@dataclass(frozen=True)
class Served:
    """One model that is served, and where it comes from."""

    id: str
    package: Package
    origin: str

    @property
    def model(self) -> Model:
        """Return the network, in evaluation mode."""
        return self.package.model

    @property
    def data(self) -> DataSpec:
        """Return the description of its pictures."""
        return self.model.data

    @property
    def title(self) -> str:
        """Return its title: the kind and the data set."""
        return f"{NOTES[self.model.kind][0]} · {data_title(self.data.name)}"

    @property
    def offer(self) -> Offer:
        """Return what it can be asked for."""
        model = self.model
        T, latent = (0, model.config.latents) if isinstance(model, VAE) else (model.schedule.T, 0)
        most = len(model.config.times) if isinstance(model, Consistency) else None
        return Offer(self.id, model.kind, self.data, T, len(self.package.examples), latent, most, default_steps(model))

    def describe(self) -> dict[str, Any]:
        """Return the facts that the page and `/models` show."""
        return {
            "id": self.id,
            "kind": self.model.kind,
            "title": self.title,
            "data": self.data.name,
            "size": self.data.size,
            "channels": self.data.channels,
            "classes": list(label_choices(self.offer)),
            "T": self.offer.T,
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "test_pictures": self.offer.examples,
            "origin": self.origin,
            "revision": self.package.revision,
            "metrics": self.package.metrics,
        }


class Models(Mapping[str, Served]):
    """The models that are served, by their short id.

    Attributes:
        problems: for each model that was requested and could not be loaded, one sentence for the page.

    Raises:
        LoadError: there is no model.
    """

    def __init__(self, models: Sequence[Served], problems: Sequence[str] = ()) -> None:
        if not models:
            raise LoadError(TEXT["no model"] + "".join(f"\n  {p}" for p in problems))
        self._models = {served.id: served for served in models}
        self.problems = tuple(problems)

    @classmethod
    def load(cls, sources: Sequence[str] = ()) -> Models:
        """Load models: each a folder (a run's or its own), the name of one that ships, or a Hub id (`user/repo`,
        `user/repo@revision`); none: those that ship with genlab.

        A model that cannot be loaded becomes a problem. If none of `sources` can, those that ship are served.

        Raises:
            LoadError: nothing can be loaded at all.
        """
        shipped = [str(folder) for folder in shipped_packages()]
        models, problems = _load_all(list(sources) or shipped)
        if not models and sources:
            models, more = _load_all(shipped)
            problems = [*problems, *more]
            if models:
                problems.append(TEXT["shipped instead"])
        return cls(models, problems)

    def __getitem__(self, model_id: str) -> Served:
        return self._models[model_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._models)

    def __len__(self) -> int:
        return len(self._models)

    @property
    def offers(self) -> dict[str, Offer]:
        """Return what each model can be asked for."""
        return {model_id: served.offer for model_id, served in self.items()}

    def describe(self) -> list[dict[str, Any]]:
        """Return the facts of every model."""
        return [served.describe() for served in self.values()]

    def ddpm(self, model_id: str) -> DDPM:
        """Return the DDPM of that id."""
        model = self[model_id].model
        assert isinstance(model, DDPM), f"expected the id of a DDPM, got {model_id}"
        return model

    def vae(self, model_id: str) -> VAE:
        """Return the VAE of that id."""
        model = self[model_id].model
        assert isinstance(model, VAE), f"expected the id of a VAE, got {model_id}"
        return model

    def of_data(self, data: str, kind: str) -> Served | None:
        """Return the first model of that kind for that data set."""
        return next((served for served in self._members(data) if served.model.kind == kind), None)

    def examples(self, data: str) -> Package | None:
        """Return the first package of that data set that came with test pictures."""
        return next((served.package for served in self._members(data) if len(served.package.examples)), None)

    def picture(self, data: str, pick: Pick) -> Tensor:
        """Return the test picture or the upload, (C H W) uint8 of the data set's shape.

        Raises:
            LimitError: there is no test picture of that number.
        """
        spec = self._members(data)[0].data
        if pick.source == "upload" and pick.upload is not None:
            values = pick.upload
            return fit(Image.fromarray(values.squeeze(-1) if values.shape[-1] == 1 else values), spec.size, spec.channels)
        package = self.examples(data)
        if package is None or pick.number >= len(package.examples):
            count = len(package.examples) if package else 0
            raise LimitError(TEXT["test picture"].format(count=count, number=pick.number))
        return package.examples[pick.number]

    def _members(self, data: str) -> list[Served]:
        """Return the models of that data set whose pictures have the shape of the first one's."""
        members = [served for served in self.values() if served.data.name == data]
        return [served for served in members if served.data.shape == members[0].data.shape]


def data_title(name: str) -> str:
    """Return the title of a data set."""
    return TITLES.get(name, name)


def _load_all(sources: Sequence[str]) -> tuple[list[Served], list[str]]:
    """Load models, those on the Hub at the same time. Return them, and a sentence for each that could not be loaded."""
    models: list[Served] = []
    problems: list[str] = []
    folders = [find_package(source) or expanded(source) for source in sources]
    answers = [None if folder.is_dir() else _request(source) for source, folder in zip(sources, folders, strict=True)]
    deadline = time.monotonic() + HUB_SECONDS
    for source, folder, answer in zip(sources, folders, answers, strict=True):
        name = source if answer is None else source.partition("@")[0]
        try:
            package = hub.read(folder) if answer is None else _from_hub(answer, deadline)
        except Exception as error:  # whatever is wrong with one model must not keep the others from being served
            problems.append(_problem(source, folder, error))
            continue
        for problem in read_evaluation(package.metrics).problems:
            log.warning("%s: metrics.json: %s; it is not shown", source, problem)
        stem = _name(folder) if folder.is_dir() else name.rpartition("/")[2]
        taken = [served.id for served in models]
        short = next(i for i in (stem, *(f"{stem}-{n}" for n in range(2, len(taken) + 3))) if i not in taken)
        models.append(Served(short, package, _origin(folder, name, package)))
    return models, problems


def _problem(source: str, folder: Path, error: Exception) -> str:
    """Return the sentence for a model that could not be loaded, with the reason in English: the operator reads it."""
    expected = isinstance(error, (ModelError, TimeoutError))
    log.warning("could not load %s", source, exc_info=not expected)
    reason = str(error) if expected else f"unexpected error, {type(error).__name__}: {error}"
    shown = _name(folder) if folder.is_dir() or source.startswith((".", "/", "~")) else source
    return TEXT["not loaded"].format(source=shown, reason=reason.replace(str(folder), shown))


def _request(source: str) -> Future[Package]:
    """Read the model of that id on the Hub in a thread of its own, so that a Hub that does not answer delays nothing else."""
    package: Future[Package] = Future()
    name, _, revision = source.partition("@")

    def read() -> None:
        try:
            package.set_result(hub.read(name, revision=revision or None))
        except Exception as error:
            package.set_exception(error)

    threading.Thread(target=read, name=f"read {name}", daemon=True).start()
    return package


def _from_hub(package: Future[Package], deadline: float) -> Package:
    """Wait for a model until the deadline, monotonic.

    Raises:
        TimeoutError: it took longer. ModelError: see `hub.read`.
    """
    if not wait([package], max(0.0, deadline - time.monotonic())).done:
        raise TimeoutError(f"the Hub did not deliver it within {HUB_SECONDS:g} seconds")
    return package.result()


def _origin(folder: Path, name: str, package: Package) -> str:
    """Return where a model comes from."""
    if not folder.is_dir():
        return f"{name} @ {package.revision}" if package.revision else name
    return TEXT["ships"] if ships(folder) else TEXT["folder"].format(name=_name(folder))


def _name(folder: Path) -> str:
    """Return the name of the model in a folder: the folder's, or, in a run, the run's."""
    place = folder.resolve()
    return place.parent.name if place.name == "model" else place.name
