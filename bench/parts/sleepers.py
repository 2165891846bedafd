"""Sleepers: many workers on one machine, jobs that wait for something else most of the time, each isolated."""

from __future__ import annotations

from collections.abc import Iterable

from bench import stack
from bench.context import Context, Part
from bench.measure import Row

WORKERS = 100
TARGET = 850
CODE = """\
import time

def main():
    time.sleep(0.1)
"""


def run(context: Context) -> Iterable[Row]:
    """Run jobs that sleep 100 ms on 100 workers: at best 1,000 jobs/s."""
    n = context.size(3000, 500)
    rates = [rate(context, n) for _ in context.rounds()]
    yield Row(
        metric=f"{n:,} isolated 100 ms sleepers on {WORKERS} workers (ideal: 1,000)",
        unit="jobs/s",
        values=tuple(rates),
        target=TARGET,
    )


def rate(context: Context, n: int) -> float:
    """Return jobs/s of n queued sleepers."""
    url = stack.fresh_database(context.postgres)
    stack.run(stack.push(url, [stack.python(CODE) for _ in range(n)]))
    with stack.worker_host(context.postgres, workers=WORKERS):
        return stack.drain(context.postgres, n)


PART = Part(name="sleepers", title="Sleepers", budget_s=45, run=run)
