"""Training while visitors watch: how many train at a time, on which thread, and how long models are stored. No gradio in here.

Trainings do not use the scheduler of `turns`, so the models that are served answer meanwhile. All trainings share one
thread, which takes one core of the machine: a few optimiser's steps of one, then of the other. `RUNNING` visitors train at the
same time, one of each visitor, `WAITING` more may wait, and turns go round the visitors; further ones get an error, and so does
who has half of all places. A training is a generator; it ends when
it is closed, between two steps, and in any case after `SECONDS`.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import cache
from typing import Generic, TypeVar

import torch
from torch import Tensor

from genlab.plane import PointDDPM, PointVAE, Progress, train
from genlab.serving.fairness import Turns
from genlab.serving.language import UserFacingError, both
from genlab.serving.visitor import current

R = TypeVar("R")

SECONDS = 20.0
"""Largest duration of the steps of one training."""
DEADLINE = 60.0
"""Seconds of wall clock from the first step to the last, at most."""
RUNNING, WAITING = 2, 8
POLL = 0.25
"""Seconds between two checks of a waiting visitor's place."""
EVERY = 10
"""Steps of one training before the next one's."""
STORED, STORED_SECONDS = 24, 1800.0
"""Trained models that are stored, and for how long."""
TEXT = {
    "yours": both(
        "{count} of your trainings run or wait here already: wait for one of them to end",
        "您已有 {count} 个训练在运行或等待，请等其中一个结束",
    ),
    "busy": both(
        "{count} others are training here already; try again in a minute", "已有 {count} 人在这里训练，请一分钟后再试"
    ),
    "gone": both(
        "this model is no longer stored (they go after {minutes} minutes, or when many others train): train it again",
        "这个模型已不再保留（{minutes} 分钟后，或有许多人训练时会被清除）：请重新训练",
    ),
}


class LiveError(UserFacingError, RuntimeError):
    """Too many visitors train now, or a model is no longer stored."""


class Line:
    """A queue: `running` of those in it may run, one of each visitor, and `waiting` more may wait."""

    def __init__(self, running: int = RUNNING, waiting: int = WAITING) -> None:
        self.running, self.places = running, running + waiting
        self._waiting: list[tuple[str, object]] = []
        self._running: list[tuple[str, object]] = []
        self._turns = Turns(1)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Return how many run and wait."""
        return len(self._waiting) + len(self._running)

    def enter(self, visitor: str) -> Generator[int, None, None]:
        """Take a place: yield how many wait or run before it, and at last 0. Closing it gives the place up.

        Raises:
            LiveError: the queue is full, or half of it is this visitor's.
        """
        ticket = (visitor, object())
        with self._lock:
            taken = self._running + self._waiting
            if len(taken) >= self.places:
                raise LiveError(TEXT["busy"].format(count=len(taken)))
            if (mine := [whose for whose, _ in taken].count(visitor)) >= max(1, self.places // 2):
                raise LiveError(TEXT["yours"].format(count=mine))
            self._waiting.append(ticket)
        try:
            while (before := self._before(ticket)) > 0:
                yield before
                time.sleep(POLL)
            yield 0
        finally:
            with self._lock:
                (self._running if ticket in self._running else self._waiting).remove(ticket)

    def _before(self, ticket: tuple[str, object]) -> int:
        """Let those run whose turn it is; return how many stand before this one, 0 if it runs."""
        with self._lock:
            while self._waiting and len(self._running) < self.running:
                index = self._turns.choose([v for v, _ in self._waiting], [v for v, _ in self._running])
                if index is None:
                    break
                self._running.append(self._waiting.pop(index))
            return 0 if ticket in self._running else self._waiting.index(ticket) + 1


class Worker:
    """One thread whose torch operations take one core."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(1, "live")
        cores = torch.get_num_threads()
        self.do(_take_one_core)
        torch.set_num_threads(cores)  # it also applies to threads that are created later: restore it

    def do(self, compute: Callable[[], R]) -> R:
        """Return what `compute` returns, in its turn."""
        return self._threads.submit(compute).result()


def _take_one_core() -> None:
    torch.get_num_threads()  # from here on, set_num_threads in other threads does not change this one
    torch.set_num_threads(1)


LINE = Line()


@cache
def _worker() -> Worker:
    return Worker()


def on_worker(compute: Callable[[], R]) -> R:
    """Return what `compute` returns, on the one thread of all trainings."""
    return _worker().do(compute)


def learn(model: PointDDPM | PointVAE, data: Tensor, steps: int, seed: int) -> Iterator[int | Progress]:
    """Learn from points (N, 2): yield how many others are waited for, while there are any, then a `Progress` every few steps.

    Raises:
        LiveError: too many others train.
    """
    with closing(LINE.enter(current.get())) as place:
        for before in place:
            if before == 0:
                break
            yield before
        deadline = time.monotonic() + DEADLINE
        records = train(model, data, steps=steps, seconds=SECONDS, seed=seed, every=EVERY)
        while time.monotonic() < deadline and (record := on_worker(lambda: next(records, None))) is not None:
            yield record


class Store(Generic[R]):
    """The last few things, each under a name that nobody can guess, for a while.

    Args:
        most, seconds: how many, and how long.
        clock: seconds, monotonic.
    """

    def __init__(
        self, most: int = STORED, seconds: float = STORED_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.most, self.seconds, self.clock = most, seconds, clock
        self._things: OrderedDict[str, tuple[float, R]] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, thing: R) -> str:
        """Store a thing and return its name."""
        name = secrets.token_hex(16)
        with self._lock:
            self._things[name] = (self.clock(), thing)
            while len(self._things) > self.most:
                self._things.popitem(last=False)
        return name

    def get(self, name: object) -> R:
        """Return the thing of this name.

        Raises:
            LiveError: there is none.
        """
        with self._lock:
            since, thing = self._things.get(name, (0.0, None)) if isinstance(name, str) else (0.0, None)
            if thing is None or self.clock() - since > self.seconds:
                raise LiveError(TEXT["gone"].format(minutes=f"{self.seconds / 60:g}"))
            self._things.move_to_end(str(name))
            return thing
