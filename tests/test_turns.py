"""Whose turn it is: in the order of asking, together where that is possible, and nobody waits for ever."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import torch

from genlab.demo.turns import TurnError, Turns

PATIENCE = 30.0


class Held:
    """Turns whose thread is busy until it is let go, so that a line can form."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self._visitors = ThreadPoolExecutor(32)
        held, self._go = threading.Event(), threading.Event()

        def hold() -> None:
            held.set()
            self._go.wait(PATIENCE)

        self._visitors.submit(turns.alone, hold, self.deadline)
        assert held.wait(PATIENCE)

    @property
    def deadline(self) -> float:
        return time.monotonic() + PATIENCE

    def ask(self, ask: Callable[[], object]) -> Future[object]:
        """Let another visitor ask, and come back when this one stands in the line."""
        waiting, asked = len(self.turns), self._visitors.submit(ask)
        while len(self.turns) == waiting and not asked.done():
            time.sleep(0.001)
        return asked

    def let_go(self) -> None:
        self._go.set()


@pytest.fixture
def held() -> Iterator[Held]:
    held = Held(Turns(most=10))
    yield held
    held.let_go()


def test_what_is_asked_is_computed_in_the_order_of_asking(held: Held) -> None:
    order: list[int] = []
    asked = [held.ask(lambda n=n: held.turns.alone(lambda: order.append(n), held.deadline)) for n in range(8)]  # type: ignore[misc]
    held.let_go()
    for each in asked:
        each.result(PATIENCE)
    assert order == list(range(8))


def test_what_is_of_one_kind_is_computed_together_up_to_the_most(held: Held) -> None:
    passes: list[tuple[str, list[int]]] = []

    def ask(kind: str, given: int, size: int) -> Callable[[], int]:
        def compute(all_given: list[int]) -> list[int]:
            passes.append((kind, all_given))
            return [10 * each for each in all_given]

        return lambda: held.turns.together(kind, compute, given, size, held.deadline)

    sizes = {1: ("a", 4), 2: ("b", 1), 3: ("a", 5), 4: ("a", 4), 5: ("a", 1), 6: ("b", 11)}
    asked = [held.ask(ask(kind, given, size)) for given, (kind, size) in sizes.items()]
    held.let_go()
    assert [each.result(PATIENCE) for each in asked] == [10, 20, 30, 40, 50, 60]
    assert passes == [("a", [1, 3, 5]), ("b", [2]), ("a", [4]), ("b", [6])]


def test_what_is_asked_for_alone_stays_alone(held: Held) -> None:
    asked = [held.ask(lambda n=n: held.turns.alone(lambda: n, held.deadline)) for n in range(3)]  # type: ignore[misc]
    held.let_go()
    assert [each.result(PATIENCE) for each in asked] == [0, 1, 2]


def test_an_error_is_theirs_who_shared_the_pass_and_nobody_elses(held: Held) -> None:
    def fail(_: list[int]) -> list[int]:
        raise ValueError("no such thing")

    asked = [held.ask(lambda: held.turns.together("a", fail, 0, 1, held.deadline)) for _ in range(2)]
    other = held.ask(lambda: held.turns.alone(lambda: 7, held.deadline))
    held.let_go()
    for each in asked:
        with pytest.raises(ValueError, match="no such thing"):
            each.result(PATIENCE)
    assert other.result(PATIENCE) == 7


def test_a_turn_that_does_not_come_in_time_is_given_up_and_blocks_nobody(held: Held) -> None:
    computed: list[str] = []
    with pytest.raises(TurnError, match="busy"):
        held.turns.alone(lambda: computed.append("late"), time.monotonic())
    asked = held.ask(lambda: held.turns.alone(lambda: computed.append("next"), held.deadline))
    held.let_go()
    asked.result(PATIENCE)
    assert computed == ["next"]


def test_the_models_thread_needs_no_gradients() -> None:
    assert Turns().alone(torch.is_inference_mode_enabled, time.monotonic() + PATIENCE)
