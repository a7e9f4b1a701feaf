"""Whose turn it is where several visitors wait: turns go round the visitors, not round what they ask for."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

VISITORS = 10_000
"""Visitors whose last turn is remembered."""


class Turns:
    """Chooses who is next.

    Args:
        each: how much of one visitor may run at the same time.
    """

    def __init__(self, each: int) -> None:
        self.each = each
        self._last: OrderedDict[str, None] = OrderedDict()

    def choose(self, waiting: Sequence[str], running: Sequence[str]) -> int | None:
        """Return which of the visitors in `waiting` is next: of those with the fewest in `running` the one whose last turn was
        longest ago, and of that one the first; None where each has `each` running.
        """
        now = Counter(running)
        ages = {visitor: age for age, visitor in enumerate(self._last, 1)}
        ranks = {v: (now[v], ages.get(v, 0)) for v in dict.fromkeys(waiting) if now[v] < self.each}
        if not ranks:
            return None
        chosen = min(ranks, key=lambda visitor: ranks[visitor])
        self._last[chosen] = None
        self._last.move_to_end(chosen)
        if len(self._last) > VISITORS:
            self._last.popitem(last=False)
        return waiting.index(chosen)


class FairLock:
    """A lock of an event loop, for which turns go round the visitors who wait."""

    def __init__(self) -> None:
        self._turns = Turns(1)
        self._waiting: list[tuple[str, asyncio.Future[None]]] = []
        self._held = False

    @asynccontextmanager
    async def held(self, visitor: str) -> AsyncIterator[None]:
        """Hold the lock while the context is open."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((visitor, turn))
        self._pass_on()
        try:
            await turn
            yield
        finally:
            if not turn.cancelled():
                self._held = False
            self._pass_on()

    def _pass_on(self) -> None:
        """Give the lock to the visitor who is next, where it is free."""
        self._waiting = [(visitor, turn) for visitor, turn in self._waiting if not turn.cancelled()]
        index = None if self._held else self._turns.choose([visitor for visitor, _ in self._waiting], [])
        if index is not None:
            self._held = True
            self._waiting.pop(index)[1].set_result(None)
