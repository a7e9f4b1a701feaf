"""Runs the models: one thread computes for all requests, and evaluations of one network share its passes. No gradio in here.

Whose visitor has taken the least time of the thread is next, and of one visitor what was asked first: who asks for little waits
for little, whatever others ask for. Computations of one kind, such as the steps of several visitors' walks with one model, run
together: the first takes along those that are no larger. A network spends less on each picture of many than on one alone, so
that several visitors have their pictures sooner than one after the other.

Computations of the tabs are generators that yield after each step of the network and stop when they are closed, so that a
visitor who leaves costs one step at most.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import torch
from prometheus_client import Histogram
from torch import Tensor

from genlab.demo import zero
from genlab.demo.served import Served
from genlab.nn import drawing_precision
from genlab.process import Denoised, Predict
from genlab.serving.language import UserFacingError, both
from genlab.serving.visitor import current

G = TypeVar("G")
R = TypeVar("R")

MOST = 64 * 28 * 28
"""Values in the pictures of several requests that go through a network together; one request alone may have more."""
SMALL = 4 * 28 * 28
"""Values in the pictures of a request that may share a pass with any other."""
PAUSE = 0.01
"""Seconds to wait for the next step of the visitor who has had less than those who wait: a longer step would delay it."""
VISITORS = 1000
"""Visitors whose time of the thread is remembered."""
DEADLINE = 60.0
"""Seconds of wall clock after which a request is ended."""
EVALUATIONS = Histogram("genlab_evaluation_seconds", "Seconds of a pass of a network.", ["model"])
MEMORY = 0.8
"""Weight of the earlier evaluations in the running mean of their seconds."""
TEXT = {
    "busy": both(
        "the demo is busy and this request's turn did not come in time; try again in a minute",
        "演示正忙，没有及时轮到这个请求；请一分钟后再试",
    ),
    "too long": both(
        "stopped after {seconds} seconds; ask for fewer pictures or steps", "已运行 {seconds} 秒，被中止；请减少图片数量或步数"
    ),
}


class TurnError(UserFacingError, RuntimeError):
    """A computation's turn did not come in time."""


class DeadlineError(UserFacingError, RuntimeError):
    """A request took too long and was ended."""


@dataclass(eq=False)
class _Call:
    """A computation that a thread waits for; with a `kind` other than None, it may run together with others of that kind."""

    kind: Hashable
    compute: Callable[[list[Any]], list[Any]]
    given: Any
    size: int
    visitor: str = field(default_factory=current.get)
    answer: Future[Any] = field(default_factory=Future)


class Scheduler:
    """Computes on a thread of its own, in inference mode, while the threads that call it wait.

    The time of each visitor is counted as in start-time fair queueing (Goyal, Vin, Cheng 1996): who comes anew begins with the
    count of the one whose turn it is.

    Args:
        most: largest size of calls that run together.
        small: size of a call that may run together with a smaller one.
    """

    def __init__(self, most: int = MOST, small: int = SMALL) -> None:
        self.most, self.small = most, small
        self._queue: list[_Call] = []
        self._arrived = threading.Condition()
        self._seconds: dict[str, float] = {}
        self._last = ""
        self._began: float | None = None
        self._thread = ThreadPoolExecutor(1, "models")

    def __len__(self) -> int:
        """Return how many calls wait."""
        return len(self._queue)

    def stuck(self) -> float:
        """Return for how many seconds the call that runs now has run beyond `DEADLINE`, 0 where none has."""
        return max(0.0, time.monotonic() - (self._began or math.inf) - DEADLINE)

    def alone(self, compute: Callable[[], R], deadline: float) -> R:
        """Return what `compute` returns, in its turn.

        Args:
            deadline: monotonic time until which to wait.

        Raises:
            TurnError: the turn did not come by then.
        """
        return self._call(_Call(None, lambda _: [compute()], None, 0), deadline)

    def together(self, kind: Hashable, compute: Callable[[list[G]], list[R]], given: G, size: int, deadline: float) -> R:
        """Return what `compute` returns for `given`, in its turn, which calls of the same kind behind it share.

        Args:
            kind: equal for all calls that may run together; they have the same `compute`.
            compute: returns the answers to a list of `given`, in its order.
            size: of `given`, in the unit of `most`.
            deadline: monotonic time until which to wait.

        Raises:
            TurnError: the turn did not come by then.
        """
        return self._call(_Call(kind, compute, given, size), deadline)

    def _call(self, call: _Call, deadline: float) -> Any:
        with self._arrived:
            if len(self._seconds) > VISITORS:
                waiting = {each.visitor for each in self._queue} | {self._last}
                self._seconds = {visitor: self._seconds[visitor] for visitor in waiting if visitor in self._seconds}
            begun = self._seconds.get(self._last, 0.0)
            self._seconds[call.visitor] = max(self._seconds.get(call.visitor, 0.0), begun)
            self._queue.append(call)
            self._arrived.notify()
        self._thread.submit(self._turn)
        if not wait([call.answer], max(0.0, deadline - time.monotonic())).done and call.answer.cancel():
            raise TurnError(TEXT["busy"])
        return call.answer.result()

    def _turn(self) -> None:
        """Run the first call in the queue and those that share its turn; none if all have run with others."""
        batch = [call for call in self._next() if call.answer.set_running_or_notify_cancel()]
        if not batch:
            return
        started = time.perf_counter()
        self._began = time.monotonic()
        try:
            with torch.inference_mode():
                answers = list(zip(batch, batch[0].compute([call.given for call in batch]), strict=True))
        except BaseException as error:  # whatever it is, it belongs to the threads that wait
            self._count(batch, time.perf_counter() - started)
            for call in batch:
                call.answer.set_exception(error)
        else:
            self._count(batch, time.perf_counter() - started)
            for call, answer in answers:
                call.answer.set_result(answer)

    def _count(self, batch: list[_Call], seconds: float) -> None:
        """Count the time of a turn for the visitors who shared it, by the sizes of their calls."""
        self._began = None
        total = sum(call.size for call in batch) or 1
        with self._arrived:
            for call in batch:
                share = call.size / total if call.size else 1.0
                self._seconds[call.visitor] = self._seconds.get(call.visitor, 0.0) + seconds * share

    def _next(self) -> list[_Call]:
        """Take the first call, and those that share its turn, out of the queue."""
        with self._arrived:
            if not self._queue:
                return []
            had = self._seconds.get(self._last, 0.0)
            self._arrived.wait_for(lambda: self._seconds[self._first().visitor] <= had, PAUSE)
            first = self._first()
            self._last = first.visitor
            self._queue.remove(first)
            batch, size = [first], first.size
            for call in list(self._queue) if first.kind is not None else ():
                fits = call.size <= max(first.size, self.small) and size + call.size <= self.most
                if call.kind == first.kind and fits:
                    self._queue.remove(call)
                    batch.append(call)
                    size += call.size
            return batch

    def _first(self) -> _Call:
        """Return the call in the queue that is next."""
        return min(self._queue, key=lambda call: self._seconds[call.visitor])


class Runner:
    """Runs models for all requests of a page: one scheduler, and how long evaluations take here.

    Args:
        deadline: seconds of wall clock after which a request is ended.
        scheduler: that of the page before, so that one thread computes for both.
    """

    def __init__(self, deadline: float = DEADLINE, scheduler: Scheduler | None = None) -> None:
        self.deadline = deadline
        self.scheduler = Scheduler() if scheduler is None else scheduler  # one without calls is empty, so false
        self._seconds: dict[tuple[str, int], float | None] = {}
        self._after_start: list[Callable[[], None]] = []

    def begin(self) -> Run:
        """Begin a request: its deadline counts from now."""
        return Run(self, time.monotonic() + self.deadline)

    def seconds(self, model_id: str, count: int, evaluations: int) -> float | None:
        """Estimate the seconds of so many evaluations of a model at `count` pictures while nobody else waits, by the latest
        ones; None before any.
        """
        each = self._seconds.get((model_id, count))
        return None if each is None else each * evaluations

    def after_start(self, begin: Callable[[], None]) -> None:
        """Leave to `started` what is computed for visitors but need not be ready before the page is served."""
        self._after_start.append(begin)

    def started(self) -> None:
        """Begin what `after_start` was given; called when the page is served."""
        for begin in self._after_start:
            begin()

    def evaluate(
        self, served: Served, guidance: float, clip: bool, batches: list[tuple[Tensor, Tensor, Tensor | None]]
    ) -> list[Denoised]:
        """Return a model's prediction for each batch x_t (B C H W) at t (B), with labels (B) for all of them or for none, by
        one pass of its network, in the arithmetic in which pictures are drawn.
        """
        x_t, t = (torch.cat([batch[i] for batch in batches]) for i in (0, 1))  # type: ignore[misc]
        labels = [batch[2] for batch in batches if batch[2] is not None]
        started = time.perf_counter()
        with drawing_precision():
            predicted = zero.predict(served, x_t, t, torch.cat(labels) if labels else None, guidance, clip)
        seconds = time.perf_counter() - started
        EVALUATIONS.labels(served.id).observe(seconds)
        if guidance == 1:
            self._note((served.id, len(x_t)), seconds)
        counts = [len(batch[0]) for batch in batches]
        eps_hats, x0_hats = predicted.eps_hat.split(counts), predicted.x0_hat.split(counts)
        fractions = [None] * len(batches) if predicted.fraction is None else predicted.fraction.split(counts)
        return [Denoised(*each) for each in zip(eps_hats, x0_hats, fractions, strict=True)]

    def _note(self, key: tuple[str, int], seconds: float) -> None:
        """Update the running mean of seconds per network evaluation; the first call (cold) is discarded."""
        before = self._seconds.get(key)
        mean = seconds if before is None else MEMORY * before + (1 - MEMORY) * seconds
        self._seconds[key] = mean if key in self._seconds else None


@dataclass(frozen=True)
class Run:
    """What one request runs models with; all of it ends at `deadline`, monotonic."""

    runner: Runner
    deadline: float

    def check(self) -> None:
        """Raise DeadlineError after the deadline."""
        if time.monotonic() > self.deadline:
            raise DeadlineError(TEXT["too long"].format(seconds=f"{self.runner.deadline:g}"))

    def once(self, compute: Callable[[], R]) -> R:
        """Return what `compute` returns, in its turn.

        Raises:
            DeadlineError: the request took too long. TurnError: the turn did not come in time.
        """
        self.check()
        return self.runner.scheduler.alone(compute, self.deadline)

    def predictor(self, served: Served, labels: Tensor | None, guidance: float = 1.0, clip: bool = True) -> Predict:
        """Return the prediction of a diffusion model as a function for `sampler.walk`; walks of the same model, guidance and
        clipping share passes of its network.
        """
        kind = (id(self.runner), served.id, labels is None, guidance, clip)
        compute = partial(self.runner.evaluate, served, guidance, clip)

        def predict(x_t: Tensor, t: Tensor) -> Denoised:
            self.check()
            size = x_t.numel() * (1 if guidance == 1 else 2)
            return self.runner.scheduler.together(kind, compute, (x_t, t, labels), size, self.deadline)

        return predict
