"""Backlog: what a claim costs while a million jobs of a tag that nobody here serves are queued, against an empty queue."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from bench import stack
from bench.context import Context, Part
from bench.measure import Row, percentile
from millhand.core.ids import new_id
from millhand.core.tags import DEFAULT_GROUP_TAGS
from millhand.store import queue
from millhand.store.pool import QUEUE_PLANS, Database

TARGET = 2.0
ROUNDS_OF_CLAIMS = 100

# Straight into the tables: pushing a million jobs through the front door is another part's figure.
_FILL = """
with made as (
  insert into job (id, workspace_id, kind, created_by, permissioned_as, email, tag, scheduled_for, args)
  select uuidv7(), 'main', 'noop', 'admin', 'u/admin', 'admin@millhand.local', 'foreign', now(), '{}'
    from generate_series(1, $1::int)
  returning id, tag, scheduled_for)
insert into job_queue (id, workspace_id, tag, scheduled_for, state) select id, 'main', tag, scheduled_for, 'queued' from made
"""
_HOST = """
insert into worker_host (incarnation, worker_group, hostname, ip, version, tags, isolation, vcpus, memory, started_at,
                         lease_expires_at)
values ($1, 'default', 'bench', '', '', '{}', 'none', 0, 0, now(), $2)
"""


def run(context: Context) -> Iterable[Row]:
    """Claim from both queues in turn, in the same round, one job at a time."""
    n = context.size(1_000_000, 50_000)
    empty = stack.fresh_database(context.postgres, "bench_empty")
    full = stack.fresh_database(context.postgres, "bench_full")
    context.say(f"queueing {n:,} jobs of another tag")
    stack.run(_fill(full, n))
    pairs = [stack.run(_claim_in_turn(empty, full)) for _ in context.rounds()]
    ours = "claim of one job by a worker of 19 tags, p50"
    yield Row(metric=f"{ours}, empty queue", unit="ms", values=tuple(pair[0] for pair in pairs), more_is_better=False)
    yield Row(
        metric=f"{ours}, {n:,} foreign jobs", unit="ms", values=tuple(pair[1] for pair in pairs), more_is_better=False
    )
    yield Row(
        metric=f"claim beside {n:,} foreign jobs / on an empty queue, in turn in the same run",
        unit="x",
        values=tuple(pair[1] / pair[0] for pair in pairs),
        target=TARGET,
        more_is_better=False,
    )


async def _fill(url: str, n: int) -> None:
    async with Database(url, application_name="bench", max_size=1) as database, database.acquire() as connection:
        for first in range(0, n, 100_000):
            await connection.execute(_FILL, min(100_000, n - first), timeout=300)
        await connection.execute("vacuum analyze job_queue", timeout=300)
        await connection.execute("checkpoint", timeout=300)


async def _claim_in_turn(*urls: str) -> tuple[float, ...]:
    """Return the p50 of the milliseconds of a claim in each database."""
    times: list[list[float]] = [[] for _ in urls]
    databases = [Database(url, application_name="bench", max_size=1, settings=QUEUE_PLANS) for url in urls]
    incarnation = new_id()
    try:
        for database in databases:
            await database.open()
            await database.execute(_HOST, incarnation, datetime.now(UTC) + timedelta(hours=1))
        for _ in range(ROUNDS_OF_CLAIMS):
            for database, values in zip(databases, times, strict=True):
                await queue.push(database, [stack.noop()])
                values.append(await _claim(database, incarnation))
    finally:
        await asyncio.gather(*(database.close() for database in databases))
    return tuple(percentile(values, 0.5) for values in times)


async def _claim(database: Database, incarnation: object) -> float:
    began = time.perf_counter()
    jobs = await queue.claim(database, ["wk-bench"], [stack.TAG, *DEFAULT_GROUP_TAGS], incarnation)
    took = time.perf_counter() - began
    if len(jobs) != 1 or jobs[0].tag != stack.TAG:
        raise stack.HostFailedError(f"claimed {jobs} instead of the one job of our tag")
    return took * 1000


PART = Part(name="backlog", title="Claim beside a foreign backlog", budget_s=90, run=run)
