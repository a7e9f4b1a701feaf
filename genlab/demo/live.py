"""Learning while visitors watch: who may learn now, where it is computed, and what is kept of it. No gradio in here.

A live training never takes a turn of the engine's, so the models that are served answer meanwhile. All trainings share one
thread, which takes one core of the machine: a few optimiser's steps of one, a few of the other. `RUNNING` visitors learn at the
same time, `WAITING` may wait for them, in the order of coming; the next one is told to come back. A training is a generator; it
ends when it is closed, between two steps, and in any case after `SECONDS`.
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
from genlab.serving.language import UserFacingError, both

R = TypeVar("R")

SECONDS = 20.0
"""Of learning, at most."""
DEADLINE = 60.0
"""Seconds of wall clock, at most, from the first step to the last."""
RUNNING, WAITING = 2, 8
LOOK = 0.25
"""Seconds between two looks at the line."""
EVERY = 10
"""Steps that are computed in one go."""
KEPT, KEPT_SECONDS = 24, 1800.0
"""How many trained models are kept, and how long."""
TEXT = {
    "busy": both(
        "{count} others are training here already; try again in a minute", "已有 {count} 人在这里训练，请一分钟后再试"
    ),
    "gone": both(
        "this model is no longer kept (they go after {minutes} minutes, or when many others train): train it again",
        "这个模型已不再保留（{minutes} 分钟后，或有许多人训练时会被清除）：请重新训练",
    ),
}


class LiveError(UserFacingError, RuntimeError):
    """Something live cannot be had now; the message is for people."""


class Line:
    """Some may be busy at a time and some may wait, in the order of coming.

    Args:
        running, waiting: how many.
    """

    def __init__(self, running: int = RUNNING, waiting: int = WAITING) -> None:
        self.running, self.waiting = running, waiting
        self._tickets: list[object] = []
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._tickets)

    def enter(self) -> Generator[int, None, None]:
        """How many have to leave before it is one's turn, again and again, and at last 0; the place is held until it is closed.

        Raises:
            LiveError: too many are there.
        """
        ticket = object()
        with self._lock:
            if len(self._tickets) >= self.running + self.waiting:
                raise LiveError(TEXT["busy"].format(count=len(self._tickets)))
            self._tickets.append(ticket)
        try:
            while (before := self._tickets.index(ticket) - self.running + 1) > 0:
                yield before
                time.sleep(LOOK)
            yield 0
        finally:
            with self._lock:
                self._tickets.remove(ticket)


class Worker:
    """One thread whose torch operations take one core."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(1, "live")
        cores = torch.get_num_threads()
        self.do(_take_one_core)
        torch.set_num_threads(cores)  # for threads to come, which go by what was said last, wherever it was

    def do(self, compute: Callable[[], R]) -> R:
        """What `compute` returns, in its turn."""
        return self._threads.submit(compute).result()


def _take_one_core() -> None:
    torch.get_num_threads()  # a thread that has not looked yet would still go by what is said last elsewhere
    torch.set_num_threads(1)


LINE = Line()


@cache
def _worker() -> Worker:
    return Worker()


def on_worker(compute: Callable[[], R]) -> R:
    """What `compute` returns, on the one thread of all trainings."""
    return _worker().do(compute)


def learn(model: PointDDPM | PointVAE, data: Tensor, steps: int, seed: int) -> Iterator[int | Progress]:
    """Learn from points (N, 2): how many others are waited for, while there are any, then a `Progress` every few steps.

    Raises:
        LiveError: too many others are there.
    """
    with closing(LINE.enter()) as place:
        for before in place:
            if before == 0:
                break
            yield before
        deadline = time.monotonic() + DEADLINE
        records = train(model, data, steps=steps, seconds=SECONDS, seed=seed, every=EVERY)
        while time.monotonic() < deadline and (record := on_worker(lambda: next(records, None))) is not None:
            yield record


class Kept(Generic[R]):
    """The last few things, each under a name that nobody can guess, for a while.

    Args:
        most, seconds: how many, and how long.
        clock: seconds, monotonic.
    """

    def __init__(self, most: int = KEPT, seconds: float = KEPT_SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self.most, self.seconds, self.clock = most, seconds, clock
        self._things: OrderedDict[str, tuple[float, R]] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, thing: R) -> str:
        """Keep it; its name."""
        name = secrets.token_hex(16)
        with self._lock:
            self._things[name] = (self.clock(), thing)
            while len(self._things) > self.most:
                self._things.popitem(last=False)
        return name

    def get(self, name: object) -> R:
        """What is kept under this name.

        Raises:
            LiveError: nothing is.
        """
        with self._lock:
            since, thing = self._things.get(name, (0.0, None)) if isinstance(name, str) else (0.0, None)
            if thing is None or self.clock() - since > self.seconds:
                raise LiveError(TEXT["gone"].format(minutes=f"{self.seconds / 60:g}"))
            self._things.move_to_end(str(name))
            return thing
