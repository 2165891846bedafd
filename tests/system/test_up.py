"""The whole stack, killed with jobs in flight, and picked up again."""

from __future__ import annotations

import asyncio
from pathlib import Path
from uuid import UUID

import pytest

from tests.support.postgres import oldest, running
from tests.support.runs import cache_dir
from tests.support.stack import Stack
from tests.system.stage import until
from tests.system.witness import SCRIPT, Witness

pytestmark = [pytest.mark.system, pytest.mark.xdist_group("up")]


async def test_power_loss(tmp_path: Path, witness: Witness):
    """Kill -9 of all: the next `up` finds what ran and what waited, and runs it to its end."""

    def start() -> Stack:
        quick = {"PING_INTERVAL": "0.5", "ZOMBIE_JOB_TIMEOUT": "3", "MILLHAND_CACHE_DIR": str(cache_dir())}
        return Stack(tmp_path / "data", **quick)

    def push(stack: Stack, *, wait: bool) -> UUID:
        body = {"content": SCRIPT, "language": "python3", "args": {"port": witness.port, "wait": wait}}
        return UUID(stack.api().post("jobs/run/preview", body))

    first = await asyncio.to_thread(start)
    running = [await asyncio.to_thread(push, first, wait=True) for _ in range(2)]
    for job_id in running:
        await witness.run(job_id)
    waiting = [await asyncio.to_thread(push, first, wait=False) for _ in range(3)]
    await asyncio.to_thread(first.kill_all)
    for job_id in running:
        await (await witness.run(job_id)).gone()
    second = await asyncio.to_thread(start)
    try:
        for job_id in running:
            (await witness.run(job_id, 2)).go()
        await until(lambda: all(not run.alive for run in witness.runs) and len(witness.runs) == 7)
        for job_id in (*running, *waiting):
            job = await until(lambda job_id=job_id: completed(second, job_id))
            assert job["success"]
            assert job["result"] == witness.of(job_id)[-1].number
    finally:
        assert await asyncio.to_thread(second.end) == 0


async def test_over_the_oldest_postgresql(tmp_path: Path):
    """`up` with a database of the oldest version that is supported: it is set up, and a job runs."""
    with running(oldest()) as server:
        variables = {"DATABASE_URL": server.url(), "MILLHAND_CACHE_DIR": str(cache_dir())}
        stack = await asyncio.to_thread(Stack, tmp_path / "data", **variables)
        try:
            body = {"content": "def main(x): return x + 1", "language": "python3", "args": {"x": 1}}
            job_id = stack.api().post("jobs/run/preview", body)
            job = await until(lambda: completed(stack, UUID(job_id)))
            assert job["result"] == 2
        finally:
            assert await asyncio.to_thread(stack.end) == 0


def completed(stack: Stack, job_id: UUID) -> dict | None:
    job = stack.api().get(f"jobs_u/get/{job_id}")
    return job if job["type"] == "CompletedJob" else None
