"""Times of things that are compared: in one process, in turn, so that what slows the machine for a while slows all alike."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch

from genlab.nn import computes_bf16


def alternate(runs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every call, (rounds) for each name: all once to warm up, then all in turn, `rounds` times over.

    The order is turned round from one round to the next: nothing always comes after the same neighbour.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    with torch.inference_mode():
        for run in runs.values():
            run()
        for number in range(rounds):
            for name in list(runs)[:: 1 if number % 2 == 0 else -1]:
                start = time.perf_counter()
                runs[name]()
                seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(seconds: Sequence[float], unit: Sequence[float]) -> float:
    """How many times `unit` as much, by the median over the rounds of what was measured side by side."""
    return statistics.median(a / b for a, b in zip(seconds, unit, strict=True))


def machine() -> str:
    """Processor, threads and versions, for the line under a table."""
    name = torch.cpu.get_capabilities().get("cpu_name") or platform.processor() or platform.machine()
    threads = torch.get_num_threads()
    return (
        f"{name}, {os.cpu_count()} CPUs, {threads} thread{'' if threads == 1 else 's'}, "
        f"{'native' if computes_bf16() else 'no native'} bf16, torch {torch.__version__}"
    )


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in rows)])
