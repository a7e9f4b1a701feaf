"""Whose turn it is: in the order of asking, together where that is possible, and nobody waits for ever."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import Context
from typing import Any

import pytest
import torch

from genlab.demo.served import Models
from genlab.demo.tabs.sample.compute import sample
from genlab.demo.tabs.sample.request import SampleRequest
from genlab.demo.turns import DeadlineError, Runner, Scheduler, TurnError
from genlab.serving.visitor import current
from tests import tiny

PATIENCE = 30.0


class Held:
    """A scheduler whose thread is busy until it is let go, so that a line can form."""

    def __init__(self, turns: Scheduler) -> None:
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
    held = Held(Scheduler(most=10, small=5))
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


def test_turns_go_to_the_visitor_who_has_had_the_least_and_a_large_call_waits_for_a_turn_of_its_own(held: Held) -> None:
    """One visitor asks for ten long passes, then another for five short ones: those wait for one of the long ones at most."""
    passes: list[list[str]] = []

    def compute(given: list[str]) -> list[str]:
        passes.append(given)
        time.sleep(0.05 if "long" in given else 0)
        return given

    def ask(visitor: str, size: int) -> Future[object]:
        def call() -> object:
            current.set(visitor)
            return held.turns.together("a", compute, visitor, size, held.deadline)

        return held.ask(lambda: Context().run(call))

    asked = [ask("long", 8) for _ in range(10)] + [ask("short", 2) for _ in range(5)]
    held.let_go()
    for each in asked:
        each.result(PATIENCE)
    assert passes == [["long", "short"]] + [["short"] * 4] + [["long"]] * 9


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


def test_a_page_and_the_one_before_share_no_pass() -> None:
    """Both may serve a model of one name, each with weights of its own."""
    kinds: list[Hashable] = []

    class Noting(Scheduler):
        def together(self, kind: Hashable, *rest: Any) -> Any:
            kinds.append(kind)
            return super().together(kind, *rest)

    scheduler, spec = Noting(), tiny.dataset("mnist").spec
    for seed in (0, 1):
        runner, served = Runner(scheduler=scheduler), tiny.only(tiny.ddpm(spec, seed), "m")["m"]
        for _ in range(2):
            runner.begin().predictor(served, None)(torch.zeros(1, *spec.shape), torch.tensor([9]))
    assert kinds[0] == kinds[1] != kinds[2] == kinds[3]


def test_a_turn_that_does_not_come_in_time_is_given_up_and_blocks_nobody(held: Held) -> None:
    computed: list[str] = []
    with pytest.raises(TurnError, match="busy"):
        held.turns.alone(lambda: computed.append("late"), time.monotonic())
    asked = held.ask(lambda: held.turns.alone(lambda: computed.append("next"), held.deadline))
    held.let_go()
    asked.result(PATIENCE)
    assert computed == ["next"]


def test_the_models_thread_needs_no_gradients() -> None:
    assert Scheduler().alone(torch.is_inference_mode_enabled, time.monotonic() + PATIENCE)


# ---- what visitors run

DDPM_ID = "ddpm-fashion-mnist"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return tiny.load_models(tiny.save_models(tmp_path_factory.mktemp("models")))


def ask(steps: int, count: int, seed: int = 7) -> SampleRequest:
    return SampleRequest(DDPM_ID, None, count, steps, "DDIM", 1, seed)


def finished(models: Models, runner: Runner, request: SampleRequest) -> torch.Tensor:
    *_, last = sample(models, runner, request)
    return last.pictures


def test_walks_of_several_visitors_share_passes_and_each_ends_on_its_own_pictures(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner, model, batches = Runner(), models.ddpm(DDPM_ID), []
    requests = [ask(steps=4, count=3), ask(steps=4, count=2, seed=9)]
    alone = [finished(models, runner, request) for request in requests]
    real = type(model).predict
    monkeypatch.setattr(type(model), "predict", lambda self, x, *a: batches.append(len(x)) or real(self, x, *a))
    both_began, go, waiting = threading.Barrier(2), threading.Event(), threading.Event()
    holder = threading.Thread(target=runner.scheduler.alone, args=(lambda: waiting.set() or go.wait(30), time.monotonic() + 30))
    holder.start()
    assert waiting.wait(30)

    def draw(request):
        run = sample(models, runner, request)
        next(run)
        both_began.wait(30)
        return list(run)[-1].pictures

    with ThreadPoolExecutor(2) as visitors:
        drawn = [visitors.submit(draw, each) for each in requests]
        end = time.monotonic() + 30
        while len(runner.scheduler) < 2 and time.monotonic() < end:
            time.sleep(0.001)
        go.set()
        company = [each.result() for each in drawn]
    holder.join()
    assert batches[0] == 5
    for ours, theirs in zip(company, alone, strict=True):
        assert (ours.int() - theirs.int()).abs().max() <= 1  # rounding, where a pass is of another size
        assert (ours != theirs).float().mean() < 0.01


def test_a_run_past_its_deadline_ends_with_advice(models: Models) -> None:
    with pytest.raises(DeadlineError, match="ask for fewer pictures or steps"):
        list(sample(models, Runner(deadline=-1), ask(steps=4, count=1)))


def test_a_closed_run_computes_nothing_more(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    runner, model, calls = Runner(), models.ddpm(DDPM_ID), []
    real = type(model).predict
    monkeypatch.setattr(type(model), "predict", lambda *a: calls.append(1) or real(*a))
    run = sample(models, runner, ask(steps=30, count=4))
    next(run), next(run)
    run.close()
    assert len(calls) == 1
    assert torch.equal(*(finished(models, runner, ask(steps=2, count=1)) for _ in range(2)))
