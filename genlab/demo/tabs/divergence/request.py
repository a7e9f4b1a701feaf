"""What may be asked of the KL tab and its endpoint `/divergence`."""

from __future__ import annotations

from dataclasses import dataclass

from genlab.demo.limits import LimitError, shown
from genlab.serving.language import both

TEXT = {
    "between": both(
        "{name}: expected a number from {low} to {high}, got {value}", "{name}：应为 {low} 到 {high} 之间的数，实际为 {value}"
    ),
    "weight": both("weight of the left mode", "左峰的权重"),
    "mean of a mode": both("mean of a mode", "峰的均值"),
    "std of a mode": both("width of a mode", "峰的宽度"),
    "mean of the start": both("mean of the start", "起点的均值"),
    "std of the start": both("width of the start", "起点的宽度"),
}


@dataclass(frozen=True)
class Interval:
    """Any number from `low` to `high`."""

    name: str
    low: float
    high: float

    def parse(self, value: object) -> float:
        """Return the number.

        Raises:
            LimitError: not a number, not finite, or outside.
        """
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not self.low <= value <= self.high:
            low, high = f"{self.low:g}", f"{self.high:g}"
            raise LimitError(TEXT["between"].format(name=self.name, low=low, high=high, value=shown(value)))
        return float(value)

    def nearest(self, value: float) -> float:
        """Return the number of the interval that is nearest to a finite one."""
        return min(max(value, self.low), self.high)


WEIGHT = Interval(TEXT["weight"], 0.05, 0.95)
MEAN = Interval(TEXT["mean of a mode"], -6, 6)
STD = Interval(TEXT["std of a mode"], 0.3, 2.5)
START_MEAN = Interval(TEXT["mean of the start"], -7, 7)
START_STD = Interval(TEXT["std of the start"], 0.3, 3)


@dataclass(frozen=True)
class DivergenceRequest:
    """p = weight N(left_mean, left_std²) + (1 − weight) N(right_mean, right_std²); q begins at N(start_mean, start_std²)."""

    weight: float
    left_mean: float
    left_std: float
    right_mean: float
    right_std: float
    start_mean: float
    start_std: float


LIMITS = (WEIGHT, MEAN, STD, MEAN, STD, START_MEAN, START_STD)
"""Of the values of a request, in its order."""


def parse_divergence(*values: object) -> DivergenceRequest:
    """Return the request of `/divergence`, from its seven values.

    Raises:
        LimitError: see `Interval.parse`.
    """
    return DivergenceRequest(*(limit.parse(value) for limit, value in zip(LIMITS, values, strict=True)))
