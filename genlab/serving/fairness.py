"""Whose turn it is where several visitors wait: turns go round the visitors, not round what they ask for."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Sequence

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
