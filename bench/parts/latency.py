"""Latency with an idle worker: from pushing a job to the first line of its script, and a whole call over HTTP."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

import msgspec

from bench import stack
from bench.api_client import Connection
from bench.context import Context, Part
from bench.measure import Row, Samples, percentile
from bench.parts.push import deploy
from millhand.store import queue
from millhand.store.notify import Notifier
from millhand.store.pool import Database

PATH = "u/admin/now"
CODE = """\
import time

def main():
    return time.time_ns()
"""
PAUSE_S = 0.02  # between two jobs, as for the peers: the worker is idle again
WARM_UP = 10
PERCENTS = (50, 95, 99)

_ENDED = "select result, extract(epoch from started_at)::float8 as started_at from job_completed where id = $1"


def run(context: Context) -> Iterable[Row]:
    """Measure jobs pushed straight into the queue, then calls over HTTP."""
    samples = Samples()
    n = context.size(200, 30)
    for _ in context.rounds(share=0.5):
        _add(samples, "start", idle_latency(context, n=n))
    for _ in context.rounds(share=0.5):
        stack.fresh_database(context.postgres)
        with stack.whole_stack(context.postgres, workers=2) as api:
            _add(samples, "http", _percentiles(stack.run(calls(api, n))))
    start = "push → first line of an isolated Python script"
    call = "HTTP run_wait_result of a trivial isolated Python script"
    yield Row(metric=f"{start}, p50", unit="ms", values=samples["start p50"], target=4, more_is_better=False)
    yield Row(metric=f"{start}, p95", unit="ms", values=samples["start p95"], more_is_better=False)
    yield Row(metric=f"{start}, p99", unit="ms", values=samples["start p99"], target=15, more_is_better=False)
    yield Row(metric=f"{call}, p50", unit="ms", values=samples["http p50"], target=8, more_is_better=False)
    yield Row(metric=f"{call}, p95", unit="ms", values=samples["http p95"], more_is_better=False)
    yield Row(metric=f"{call}, p99", unit="ms", values=samples["http p99"], more_is_better=False)


async def starts(url: str, n: int) -> list[float]:
    """Return the milliseconds from just before a push until the script's first line runs, for n jobs one after the other."""
    waits = []
    async with Database(url, application_name="bench", max_size=2) as database, Notifier(database) as notifier:
        for _ in range(WARM_UP + n):
            job = stack.python(CODE)
            sent = time.time_ns()
            notifier.work(await queue.push(database, [job]))
            row = await _ended(database, job.id)
            waits.append((msgspec.json.decode(row["result"]) - sent) / 1e6)
            await asyncio.sleep(PAUSE_S)
    return waits[WARM_UP:]


async def _ended(database: Database, job_id: object) -> dict[str, object]:
    async with asyncio.timeout(30):
        while (row := await database.fetchrow(_ENDED, job_id)) is None:
            await asyncio.sleep(0.002)
    return row


async def calls(api: stack.Api, n: int) -> list[float]:
    """Return the milliseconds of n calls that wait for their result, one after the other."""
    await deploy(api, PATH, CODE)
    times = []
    async with Connection(api) as connection:
        for _ in range(WARM_UP + n):
            began = time.perf_counter()
            await connection.post(f"w/main/jobs/run_wait_result/p/{PATH}", {})
            times.append((time.perf_counter() - began) * 1000)
            await asyncio.sleep(PAUSE_S)
    return times[WARM_UP:]


def idle_latency(context: Context, *, n: int) -> tuple[float, ...]:
    """Return p50, p95 and p99 of the milliseconds from a push to the script's first line, with an idle worker."""
    url = stack.fresh_database(context.postgres)
    with stack.worker_host(context.postgres, workers=2):
        return _percentiles(stack.run(starts(url, n)))


def _percentiles(values: list[float]) -> tuple[float, ...]:
    return tuple(percentile(values, percent / 100) for percent in PERCENTS)


def _add(samples: Samples, name: str, values: tuple[float, ...]) -> None:
    for percent, value in zip(PERCENTS, values, strict=True):
        samples.add(f"{name} p{percent}", value)


PART = Part(name="latency", title="Latency, idle worker", budget_s=60, run=run)
