"""What a part of the benchmarks is, and what it is handed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

import msgspec

from bench.measure import Budget, Row
from bench.postgres import Postgres


class Context:
    """One run of one part: the database server, how long and how often, and a place to say what is going on."""

    def __init__(
        self, *, postgres: Postgres, quick: bool, repetitions: int, budget_s: float, say: Callable[[str], None]
    ) -> None:
        self.postgres = postgres
        self.quick = quick
        self.say = say
        self._repetitions = repetitions
        self._budget_s = budget_s
        self._ends = time.perf_counter() + budget_s
        self.notes: list[str] = []

    def rounds(self, *, share: float = 1.0) -> Iterator[int]:
        """Yield round numbers while repetitions and this share of the part's time last."""
        seconds = min(self._budget_s * share, self._ends - time.perf_counter())
        for number in Budget(seconds, self._repetitions).rounds():
            self.say(f"round {number + 1} of {self._repetitions}")
            yield number

    def size(self, full: int, quick: int) -> int:
        """Return how much work to do: less where only a quick look is wanted."""
        return quick if self.quick else full

    def note(self, text: str) -> None:
        """Keep a remark beside the figures."""
        if text not in self.notes:
            self.notes.append(text)


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One workload."""

    name: str
    title: str
    budget_s: float
    run: Callable[[Context], Iterable[Row]]
