"""Time functions to compare in one process and in alternation, so that other load on the machine slows all alike."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch

from genlab.nn import computes_bf16


def alternate(
    runs: Mapping[str, Callable[[], object]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Return the seconds of every call by name, (rounds) each, after one call of each to warm up.

    The order is reversed from round to round, so that no function always follows the same one. `time.process_time` as the clock
    counts what this process computes, on all its threads, and not the time in which others have the processor.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    with torch.inference_mode():
        for run in runs.values():
            run()
        for number in range(rounds):
            for name in list(runs)[:: 1 if number % 2 == 0 else -1]:
                start = clock()
                runs[name]()
                seconds[name].append(clock() - start)
    return seconds


def ratio(seconds: Sequence[float], unit: Sequence[float]) -> float:
    """Return the median over the rounds of the ratio of `seconds` to `unit` in the same round."""
    return statistics.median(a / b for a, b in zip(seconds, unit, strict=True))


def machine() -> str:
    """Return a description of processor, threads and versions, for the line above a table."""
    name = torch.cpu.get_capabilities().get("cpu_name") or platform.processor() or platform.machine()
    threads = torch.get_num_threads()
    return (
        f"{name}, {os.cpu_count()} CPUs, {threads} thread{'' if threads == 1 else 's'}, "
        f"{'native' if computes_bf16() else 'no native'} bf16, torch {torch.__version__}"
    )


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in rows)])
