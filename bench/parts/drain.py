"""Drain: no-op jobs that wait already, through the real worker host, each with a durable completion and a kept record."""

from __future__ import annotations

from collections.abc import Iterable

from bench import stack
from bench.context import Context, Part
from bench.measure import Row, Samples

HOSTS, WORKERS = 1, 500
TARGET = 15_000


def run(context: Context) -> Iterable[Row]:
    """Drain 10,000 and 50,000 jobs in turn."""
    samples = Samples()
    sizes = [context.size(10_000, 2_000), context.size(50_000, 10_000)]
    for _ in context.rounds():
        for n in sizes:
            samples.add(str(n), drain_once(context, n))
    note = f"{HOSTS} host x {WORKERS} workers"
    for n in sizes:
        yield Row(metric=f"drain of {n:,} no-op jobs", unit="jobs/s", values=samples[str(n)], target=TARGET, note=note)


def drain_once(context: Context, n: int, *, hosts: int = HOSTS, workers: int = WORKERS) -> float:
    """Queue n no-op jobs on an empty database, start worker hosts, and return jobs/s."""
    url = stack.fresh_database(context.postgres)
    stack.run(stack.push(url, [stack.noop() for _ in range(n)]))
    with stack.worker_hosts(context.postgres, hosts=hosts, workers=workers):
        return stack.drain(context.postgres, n, look_s=0.01)


PART = Part(name="drain", title="Drain of queued no-op jobs", budget_s=60, run=run)
