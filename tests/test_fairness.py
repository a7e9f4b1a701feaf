"""A lock for which turns go round the visitors."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from genlab.serving.fairness import FairLock


def test_the_lock_goes_round_the_visitors_and_past_those_who_have_left() -> None:
    async def order() -> list[str]:
        lock, held = FairLock(), list[str]()

        async def hold(visitor: str, name: str) -> None:
            async with lock.held(visitor):
                held.append(name)
                await asyncio.sleep(0)
                assert held[-1] == name

        tasks = [asyncio.create_task(hold(name[0], name)) for name in ("a1", "a2", "a3", "b1", "b2", "c1")]
        await asyncio.sleep(0)
        tasks[3].cancel()  # waits
        tasks[0].cancel()  # holds it
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task
        return held

    assert asyncio.run(order()) == ["a1", "b2", "c1", "a2", "a3"]
