"""Loads the models that are asked for, again after a failure, and follows branches on the Hub while the page is served.

What lies on this machine is loaded at once: folders, models that ship, and the last version of a model on the Hub that loaded.
The Hub is asked in the background, for what is missing and for what is newer, in a thread for each model. A new version is
loaded beside the one that serves, has to draw a finite picture, and replaces the other as a whole. A commit that does not load
is left alone until the branch moves on. A pinned commit in the cache is never asked for.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from datetime import datetime, timezone

from genlab import draw, hub
from genlab.config import Sampling, expanded
from genlab.demo.served import Models, Served
from genlab.measurements import read_evaluation
from genlab.models import Decoding, Model
from genlab.package import ModelError, Package, find_package, shipped_packages, ships
from genlab.serving.language import both, choose

log = logging.getLogger("genlab.demo")

FOLLOW_SECONDS = 600.0
"""Time between two questions to the Hub whether a branch has moved."""
RETRY_SECONDS = 5.0
"""Time until the second attempt to load a model; it doubles with every failure, up to `FOLLOW_SECONDS`."""
TOO_MANY_SECONDS = 60.0
"""Least time until the next attempt after the Hub has asked for patience."""
FIRST_SECONDS = 60.0
"""How long the first attempts of all models are waited for before those that have succeeded are shown."""
TEXT = {
    "not loaded": both("{source} could not be loaded: {reason}", "无法加载 {source}：{reason}"),
    "loading": both(
        "{source} is being loaded from the Hub; open this page again in a minute.",
        "正在从 Hub 加载 {source}；请一分钟后重新打开本页。",
    ),
    "stale": both(
        "{source} has a newer version on the Hub, which is not served: {reason}",
        "{source} 在 Hub 上有更新的版本，但没有加载：{reason}",
    ),
    "shipped instead": both(
        "None of the models that were asked for could be loaded; these are the ones that ship with genlab.",
        "指定的模型都无法加载；下面是 genlab 自带的模型。",
    ),
    "shipped meanwhile": both(
        "Until then these models serve, which ship with genlab.",
        "在此之前，这里是 genlab 自带的模型。",
    ),
    "ships": both("part of genlab", "genlab 自带"),
    "folder": both("folder {name}", "文件夹 {name}"),
}


class Source:
    """One model that is asked for.

    Args:
        name: a folder (a run's or its own), the name of a model that ships, `user/repo` or `user/repo@revision`.

    Attributes:
        package: what serves; None before it is loaded.
        since: when it began to serve, UTC.
        problem: why it, or a newer version of it, does not serve: a sentence for the page, or "".
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.package: Package | None = None
        self.since = ""
        self.problem = ""
        self.attempts = self.failures = 0
        self._bad: set[str] = set()
        folder = find_package(name) or expanded(name)
        self.folder = folder if folder.is_dir() or not hub.HUB_ID.fullmatch(name) else None

    @property
    def stem(self) -> str:
        """Return the name under which it is served, unless another has it."""
        return self._shown if self.folder is not None else self.name.partition("@")[0].rpartition("/")[2]

    @property
    def _shown(self) -> str:
        """Return its name for the page: of a folder the last part, in a run the run and which model of it."""
        if self.folder is None or not (self.folder.is_dir() or self.name.startswith((".", "/", "~"))):
            return self.name
        place = self.folder.resolve()
        run = place.parent.name
        return {"model": run, "best": f"{run}-best", "raw": f"{run}-raw"}.get(place.name, place.name)

    @property
    def pinned(self) -> bool:
        """Return whether no newer version can come."""
        return self.folder is not None or hub.COMMIT.fullmatch(self.name.partition("@")[2]) is not None

    @property
    def origin(self) -> str:
        """Return where what serves comes from."""
        if self.folder is not None:
            return TEXT["ships"] if ships(self.folder) else TEXT["folder"].format(name=self._shown)
        repo_id = self.name.partition("@")[0]
        return f"{repo_id} @ {self.package.revision}" if self.package and self.package.revision else repo_id

    def load_at_once(self) -> None:
        """Load what lies on this machine."""
        if self.folder is not None:
            self.attempt()
            return
        try:
            package = hub.last_good(*hub.split_id(self.name))
        except ModelError as error:
            self._fail(error)
            return
        if package is None:
            self.problem = TEXT["loading"].format(source=self._shown)
        else:
            self._serve(package)

    def attempt(self) -> float | None:
        """Load the model, or its newer version; return the seconds until the next attempt, or None for never."""
        try:
            if self.package is None:
                self._load()
            elif not self.pinned:
                self._update(self.package)
        except Exception as error:  # whatever is wrong with one model must not keep the others from being served
            self._fail(error)
            wait = min(RETRY_SECONDS * 2.0 ** min(self.failures, 30), FOLLOW_SECONDS)
            self.failures += 1
            return max(wait, TOO_MANY_SECONDS) if getattr(error, "status", None) == 429 else wait
        finally:
            self.attempts += 1
        self.failures = 0
        return None if self.pinned else FOLLOW_SECONDS

    def _load(self) -> None:
        if self.folder is not None:
            self._serve(hub.read(self.folder))
            return
        package = hub.read(self.name)
        check_sample(package.model)
        self._serve(package)

    def _update(self, package: Package) -> None:
        repo_id, branch = hub.split_id(self.name)
        commit = hub.head(repo_id, branch)
        if commit == package.revision:
            self.problem = ""
        elif commit not in self._bad:
            try:
                newer = hub.read(repo_id, commit)
                check_sample(newer.model)
            except ModelError as error:
                if not isinstance(error, hub.HubError):
                    self._bad.add(commit)
                self.problem = TEXT["stale"].format(source=self._shown, reason=error)
                raise
            hub.remember(newer, branch)
            self._serve(newer)

    def _serve(self, package: Package) -> None:
        for problem in read_evaluation(package.metrics).problems:
            log.warning("%s: metrics.json: %s; it is not shown", self.name, problem)
        self.since = datetime.now(timezone.utc).isoformat(" ", "minutes").removesuffix("+00:00")
        self.package, self.problem = package, ""

    def _fail(self, error: Exception) -> None:
        """Report why the model does not serve, in English: the operator reads it."""
        expected = isinstance(error, ModelError)
        reason = str(error) if expected else f"unexpected error, {type(error).__name__}: {error}"
        reason = reason if self.folder is None else reason.replace(str(self.folder), self._shown)
        if self.package is None:
            problem = TEXT["not loaded"].format(source=self._shown, reason=reason)
            if problem != self.problem:
                log.warning("could not load %s: %s", self.name, reason, exc_info=not expected)
            self.problem = problem
        elif not expected or not self.failures:
            log.warning("%s: %s; %s", self.name, reason, hub.serving_instead(self.package), exc_info=not expected)


def check_sample(model: Model) -> None:
    """Draw a picture from a model.

    Raises:
        ModelError: it is not finite.
    """
    steps = draw.default_steps(model) if isinstance(model, Decoding) else min(draw.default_steps(model), model.schedule.T)
    *_, last = draw.frames(model, [0], Sampling(steps=steps, precision="auto"))
    if not bool(last.x.isfinite().all()):
        raise ModelError("a picture that it draws is not finite")


class Requested:
    """The models that are asked for, and those that ship where none of them is there.

    Args:
        names: see `Source`; empty: those that ship.
    """

    def __init__(self, names: Sequence[str] = ()) -> None:
        self.sources = [Source(name) for name in names or map(str, shipped_packages())]
        self._changed, self._ended = threading.Condition(), threading.Event()
        for source in self.sources:
            source.load_at_once()

    def models(self) -> Models:
        """Return the models that can be served now.

        Raises:
            LoadError: there is none.
        """
        problems = [source.problem for source in self.sources if source.problem]
        models = _served(self.sources)
        if not models:
            shipped = [Source(str(folder)) for folder in shipped_packages()]
            for source in shipped:
                source.load_at_once()
            models = _served(shipped)
            problems += [source.problem for source in shipped if source.problem]
            if models:
                pending = any(not source.attempts for source in self.sources)
                problems.append(TEXT["shipped meanwhile" if pending else "shipped instead"])
        return Models(models, problems)

    def ready(self) -> bool | str:
        """Return True if every model that was asked for serves, else the reason."""
        return "; ".join(choose(source.problem) for source in self.sources if source.package is None) or True

    def follow(self, show: Callable[[Models], None]) -> None:
        """Load what is missing and follow what can move, in threads; after a change, call `show` with the models."""
        moving = [source for source in self.sources if source.package is None or not source.pinned]
        state = self._state()
        for source in moving:
            threading.Thread(target=self._attempt, args=(source,), name=f"follow {source.name}", daemon=True).start()
        if moving:
            threading.Thread(target=self._show, args=(moving, state, show), name="follow", daemon=True).start()

    def end(self) -> None:
        """Ask the Hub nothing more, and show nothing more."""
        self._ended.set()
        with self._changed:
            self._changed.notify_all()

    def _attempt(self, source: Source) -> None:
        wait: float | None = 0.0
        while wait is not None and not self._ended.wait(wait):
            wait = source.attempt()
            with self._changed:
                self._changed.notify_all()

    def _show(self, moving: list[Source], shown: object, show: Callable[[Models], None]) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._ended.is_set() or all(source.attempts for source in moving), FIRST_SECONDS)
        while True:
            with self._changed:
                while self._state() == shown and not self._ended.is_set():
                    self._changed.wait()
                if self._ended.is_set():
                    return
                shown = self._state()
            try:
                show(self.models())
            except Exception:
                log.exception("the models that are there now could not be shown")

    def _state(self) -> object:
        """Return what the page shows of the sources."""
        return [(source.since, source.package and source.package.revision, source.problem) for source in self.sources]


def _served(sources: Sequence[Source]) -> list[Served]:
    """Return those of the sources that are loaded, each under a name of its own, which it keeps while others come and go."""
    names: list[str] = []
    for source in sources:
        names.append(
            next(i for i in (source.stem, *(f"{source.stem}-{n}" for n in range(2, len(names) + 3))) if i not in names)
        )
    loaded = [(name, source, source.package) for name, source in zip(names, sources, strict=True)]
    return [Served(name, package, source.origin, source.since) for name, source, package in loaded if package is not None]
