"""Which models are served, where they come from, and why others are not. Nothing is computed or loaded here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image
from torch import Tensor

from genlab.card import NOTES
from genlab.config import DataSpec
from genlab.consistency import Consistency
from genlab.data import fit
from genlab.ddpm import DDPM
from genlab.demo.limits import LimitError, Offer, Pick, label_choices
from genlab.draw import default_steps
from genlab.models import Decoding, Model
from genlab.package import Package
from genlab.serving.language import UserFacingError, both
from genlab.vae import VAE

TITLES = {"fashion-mnist": "Fashion-MNIST", "mnist": "MNIST"}

TEXT = {
    "test picture": both(
        "test picture: expected a number below {count}, got {number}", "测试图片：应为小于 {count} 的编号，实际为 {number}"
    ),
    "no model": both("no model to serve", "没有可用的模型"),
}


class LoadError(UserFacingError, RuntimeError):
    """No model can be served."""


@dataclass(frozen=True)
class Served:
    """One model that is served, where it comes from, and since when, UTC."""

    id: str
    package: Package
    origin: str
    since: str = ""

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
        T = 0 if isinstance(model, Decoding) else model.schedule.T
        latent = model.config.latents if isinstance(model, VAE) else 0
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
            "since": self.since,
            "metrics": self.package.metrics,
        }


class Models(Mapping[str, Served]):
    """The models that are served, by their short id.

    Attributes:
        problems: for each model that was asked for and does not serve, or not in its newest version, one sentence for the page.

    Raises:
        LoadError: there is no model.
    """

    def __init__(self, models: Sequence[Served], problems: Sequence[str] = ()) -> None:
        if not models:
            raise LoadError(TEXT["no model"] + "".join(f"\n  {p}" for p in problems))
        names: dict[str, str] = {}
        for served in models:  # data sets of one name are other data sets if their pictures are others
            key, name = served.package.data_identity, served.data.name
            free = next(n for n in (name, *(f"{name}-{i}" for i in range(2, len(models) + 2))) if n not in names.values())
            served.model.data = replace(served.data, name=names.setdefault(key, free))
        self._models = {served.id: served for served in models}
        self.problems = tuple(problems)

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
        """Return the models of that data set, whose pictures have one shape."""
        return [served for served in self.values() if served.data.name == data]


def data_title(name: str) -> str:
    """Return the title of a data set."""
    return TITLES.get(name, name)
