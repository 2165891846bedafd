"""When the host claims, and for whom."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from millhand.core.clock import SystemClock
from millhand.core.job import ClaimedJob
from millhand.worker import loop as loop_module
from millhand.worker.loop import ClaimLoop
from millhand.worker.metrics import WorkerMetrics
from millhand.worker.roster import Roster
from tests.worker.fakes import FakeSource, claimed


class Looped:
    def __init__(self, source: FakeSource, *, n_workers: int, poll_s: float) -> None:
        self.roster = Roster([f"w{i}" for i in range(n_workers)], clock=SystemClock())
        self.accepted: list[ClaimedJob] = []
        self.room = True
        self.loop = ClaimLoop(
            source=source,
            tags=("python3",),
            roster=self.roster,
            has_room=lambda: self.room,
            accept=self._accept,
            poll_s=poll_s,
            clock=SystemClock(),
            metrics=WorkerMetrics(),
        )

    def _accept(self, jobs: Sequence[ClaimedJob]) -> None:
        for job in jobs:
            self.roster.begin(job)
        self.accepted.extend(jobs)

    def end(self, job: ClaimedJob) -> None:
        self.roster.end(job)
        self.loop.freed()


@asynccontextmanager
async def looping(source: FakeSource, *, n_workers: int = 2, poll_s: float = 60.0) -> AsyncIterator[Looped]:
    looped = Looped(source, n_workers=n_workers, poll_s=poll_s)
    source.on_nudge(looped.loop.nudge)
    running = asyncio.create_task(looped.loop.run())
    yield looped
    looped.loop.stop()
    await running


async def test_one_claim_serves_all_free_workers():
    """Three jobs, three workers: all start from the first claim, each with a worker of its own."""
    source = FakeSource()
    source.push(*(claimed() for _ in range(3)))
    async with looping(source, n_workers=3) as looped:
        await source.until(lambda: len(looped.accepted) == 3)
    assert {job.worker for job in looped.accepted} == {"w0", "w1", "w2"}
    assert source.n_claims == 1


async def test_a_nudge_wakes_an_idle_loop():
    """Though the next poll is a minute away."""
    source = FakeSource()
    async with looping(source) as looped:
        await source.until(lambda: source.n_claims >= 1)
        source.push(claimed())
        await source.until(lambda: looped.accepted)


async def test_work_nobody_announced_is_found():
    """Polling is the truth."""
    source = FakeSource()
    async with looping(source, poll_s=0.02) as looped:
        await source.until(lambda: source.n_claims >= 1)
        source.queue.append(claimed())
        await source.until(lambda: looped.accepted)


async def test_a_freed_worker_takes_the_next_of_a_backlog():
    """No waiting for a poll while work is known to wait; no more jobs than workers at a time."""
    source = FakeSource()
    jobs = [claimed() for _ in range(5)]
    source.push(*jobs)
    async with looping(source, n_workers=2) as looped:
        for n_ended in range(5):
            await source.until(lambda n_ended=n_ended: len(looped.accepted) > n_ended)
            assert len(looped.accepted) <= n_ended + 2
            looped.end(looped.accepted[n_ended])
    assert [job.id for job in looped.accepted] == [job.id for job in jobs]


async def test_with_a_backlog_claims_gather_a_quarter_of_the_workers(monkeypatch):
    """One of eight that comes free waits for a second one; both are served by one claim."""
    monkeypatch.setattr(loop_module, "_GATHER_S", 100.0)
    source = FakeSource()
    source.push(*(claimed() for _ in range(12)))
    async with looping(source, n_workers=8) as looped, asyncio.timeout(20):
        await source.until(lambda: len(looped.accepted) == 8)
        n_claims = source.n_claims
        looped.end(looped.accepted[0])
        for _ in range(20):
            await asyncio.sleep(0)
        assert source.n_claims == n_claims
        looped.end(looped.accepted[1])
        await source.until(lambda: len(looped.accepted) == 10)
    assert source.n_claims == n_claims + 1


async def test_a_due_time_is_kept_exactly():
    """The loop sleeps until the next job falls due, not until the next poll."""
    source = FakeSource()
    source.due = [0.03, None]
    async with looping(source) as looped:
        await source.until(lambda: source.n_claims == 1)
        source.queue.append(claimed())  # as if it had been promoted meanwhile
        await source.until(lambda: looped.accepted)
    assert source.due == []


async def test_nothing_is_claimed_while_reports_pile_up():
    """Back-pressure: a host that can't record takes no more."""
    source = FakeSource()
    source.push(claimed())
    async with looping(source, poll_s=0.01) as looped:
        looped.room = False
        await asyncio.sleep(0)
        assert looped.accepted == []
        looped.room = True
        looped.loop.freed()
        await source.until(lambda: looped.accepted)


async def test_a_source_that_comes_back_is_asked_again():
    """Errors are ridden out with growing pauses."""
    source = FakeSource()
    source.away = True
    source.queue.append(claimed())
    async with looping(source) as looped:
        await source.until(lambda: looped.loop._metrics.source_errors._value.get() >= 2)
        source.away = False
        await source.until(lambda: looped.accepted)


async def test_what_a_last_claim_took_is_handed_on():
    """Stopping lets a claim on its way finish, so that no job is claimed and forgotten."""
    source = FakeSource()
    source.push(claimed())
    async with looping(source) as looped:
        await asyncio.sleep(0)
    assert len(looped.accepted) + len(source.queue) == 1
