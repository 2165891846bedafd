"""Sleepers: many workers on one machine, jobs that wait for something else most of the time, each isolated."""

from __future__ import annotations

from collections.abc import Iterable

from bench import stack
from bench.context import Context, Part
from bench.measure import Row, Samples

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
    samples = Samples()
    for _ in context.rounds():
        stack.against_bare(samples, rate(context, n), n, at_once=WORKERS, sleep_ms=100)
    yield Row(
        metric=f"{n:,} isolated 100 ms sleepers on {WORKERS} workers (ideal: 1,000)",
        unit="jobs/s",
        values=samples["ours"],
        target=TARGET,
    )
    yield from stack.bare_rows(samples, " that sleep 100 ms")


def rate(context: Context, n: int) -> float:
    """Return jobs/s of n queued sleepers."""
    url = stack.fresh_database(context.postgres)
    stack.run(stack.push(url, [stack.python(CODE) for _ in range(n)]))
    with stack.worker_host(context.postgres, workers=WORKERS):
        return stack.drain(context.postgres, n)


PART = Part(name="sleepers", title="Sleepers", budget_s=45, run=run)
