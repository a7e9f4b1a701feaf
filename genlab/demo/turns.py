"""One thread for all that the models compute, and whose turn it is. No gradio in here.

What is asked is computed in the order of asking. Looks of one kind, such as those of several visitors' walks with one model,
wait for their turn together: the first takes along those that stand behind it. A network spends less on each picture of many
than on one alone, so that several visitors have their pictures sooner than one after the other.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch

from genlab.serving.language import UserFacingError, both

G = TypeVar("G")
R = TypeVar("R")

MOST = 64 * 28 * 28
"""Numbers in the pictures that go through a network together, of all who ask; what one alone asks for may be more."""
TEXT = {
    "busy": both(
        "the demo is busy and this request's turn did not come in time; try again in a minute",
        "演示正忙，没有及时轮到这个请求；请一分钟后再试",
    ),
}


class TurnError(UserFacingError, RuntimeError):
    """A computation's turn did not come in time; the message is for people."""


@dataclass(eq=False)
class _Asked:
    """What somebody waits for; of a `kind` other than None, it may be computed with others of that kind."""

    kind: Hashable
    compute: Callable[[list[Any]], list[Any]]
    given: Any
    size: int
    answer: Future[Any] = field(default_factory=Future)


class Turns:
    """Computes on a thread of its own, in inference mode, what other threads ask for and wait for.

    Args:
        most: the size of what is computed together.
    """

    def __init__(self, most: int = MOST) -> None:
        self.most = most
        self._line: deque[_Asked] = deque()
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, "models")

    def __len__(self) -> int:
        """How many wait."""
        return len(self._line)

    def alone(self, compute: Callable[[], R], deadline: float) -> R:
        """What `compute` returns, in its turn.

        Args:
            deadline: monotonic time until which to wait.

        Raises:
            TurnError: the turn did not come by then.
        """
        return self._ask(_Asked(None, lambda _: [compute()], None, 0), deadline)

    def together(self, kind: Hashable, compute: Callable[[list[G]], list[R]], given: G, size: int, deadline: float) -> R:
        """What `compute` returns for `given`, in its turn, which those of the same kind behind it share.

        Args:
            kind: what is the same for all that may be computed together, `compute` included.
            compute: the answers to a list of what was given, in its order.
            size: of `given`, in the unit of `most`.
            deadline: monotonic time until which to wait.

        Raises:
            TurnError: the turn did not come by then.
        """
        return self._ask(_Asked(kind, compute, given, size), deadline)

    def _ask(self, asked: _Asked, deadline: float) -> Any:
        with self._lock:
            self._line.append(asked)
        self._thread.submit(self._turn)
        if not wait([asked.answer], max(0.0, deadline - time.monotonic())).done and asked.answer.cancel():
            raise TurnError(TEXT["busy"])
        return asked.answer.result()

    def _turn(self) -> None:
        """The first in the line, and who goes along with it; nobody, if all have gone with others."""
        going = [asked for asked in self._next() if asked.answer.set_running_or_notify_cancel()]
        if not going:
            return
        try:
            with torch.inference_mode():
                answers = list(zip(going, going[0].compute([asked.given for asked in going]), strict=True))
        except BaseException as error:  # is theirs who asked, whatever it is
            for asked in going:
                asked.answer.set_exception(error)
        else:
            for asked, answer in answers:
                asked.answer.set_result(answer)

    def _next(self) -> list[_Asked]:
        with self._lock:
            if not self._line:
                return []
            first = self._line.popleft()
            going, size = [first], first.size
            for asked in list(self._line) if first.kind is not None else ():
                if asked.kind == first.kind and size + asked.size <= self.most:
                    self._line.remove(asked)
                    going.append(asked)
                    size += asked.size
            return going
