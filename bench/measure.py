"""Figures: repeated measurements, their spread, percentiles, and how busy others kept the machine meanwhile."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from statistics import median

import msgspec
import psutil

NOISY = 0.10  # share of the machine used by others from which on figures mean little


class Row(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One figure, measured one or more times."""

    metric: str
    unit: str
    values: tuple[float, ...]
    target: float | None = None
    more_is_better: bool = True
    who: str = "millhand"
    note: str = ""

    @property
    def median(self) -> float:
        """Return the figure that stands for all repetitions."""
        return median(self.values)

    @property
    def meets(self) -> bool | None:
        """Return whether the median reaches its target; None where there is none."""
        if self.target is None:
            return None
        return self.median >= self.target if self.more_is_better else self.median <= self.target


class Outcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one part of the benchmarks found."""

    part: str
    title: str
    rows: tuple[Row, ...]
    seconds: float
    started_at: str
    commit: str
    quick: bool = False
    foreign: float = 0.0  # share of the machine that other programs used while the part was about to start
    notes: tuple[str, ...] = ()


class Samples:
    """Collects the values of several metrics over repetitions, in order of first appearance."""

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = {}

    def add(self, name: str, value: float) -> None:
        """Add one measurement of one metric."""
        self._values.setdefault(name, []).append(value)

    def __getitem__(self, name: str) -> tuple[float, ...]:
        return tuple(self._values[name])

    def __contains__(self, name: str) -> bool:
        return name in self._values


class Budget:
    """Repetitions within a bound of time: at least one, no more than asked for, none begun that would probably overrun."""

    def __init__(self, seconds: float, repetitions: int) -> None:
        self._ends = time.perf_counter() + seconds
        self._repetitions = repetitions

    def rounds(self) -> Iterator[int]:
        """Yield the numbers of the rounds to run."""
        longest = 0.0
        for number in range(self._repetitions):
            began = time.perf_counter()
            if number and began + longest > self._ends:
                return
            yield number
            longest = max(longest, time.perf_counter() - began)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which a share (0..1) of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def foreign_share(seconds: float = 0.5) -> float:
    """Return the share of the machine, 0..1, that is busy now, before we start: other people's work."""
    return psutil.cpu_percent(interval=seconds) / 100
