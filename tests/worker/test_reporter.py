"""Reports on their way to the source."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import msgspec

from millhand.core.ids import new_id
from millhand.core.job import JobStatus, Report
from millhand.worker import reporter as reporter_module
from millhand.worker.reporter import MAX_BATCH, Reporter
from tests.worker.fakes import FakeSource


@asynccontextmanager
async def reporting(source: FakeSource, recorded: list[UUID] | None = None) -> AsyncIterator[Reporter]:
    settled = [] if recorded is None else recorded
    reporter = Reporter(source=source, recorded=settled.extend)
    lane = asyncio.create_task(reporter.run())
    yield reporter
    lane.cancel()


def _report(source: FakeSource) -> Report:
    job_id = new_id()
    source.running[job_id] = None  # type: ignore[assignment]
    return Report(job_id=job_id, attempt=1, worker="w", status=JobStatus.SUCCESS, result=b"{}", duration_ms=0)


async def test_a_lone_report_goes_at_once_and_the_rest_together():
    """The first of a burst goes alone, all that gathered meanwhile in one statement, at most 500."""
    source, recorded = FakeSource(), []
    async with reporting(source, recorded) as reporter:
        source.gate.clear()
        reports = [_report(source) for _ in range(1 + MAX_BATCH + 7)]
        reporter.put(reports[:1])
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        reporter.put(reports[1:])
        assert reporter.n_unsettled == len(reports)
        source.gate.set()
        await reporter.settled()
    assert source.batches == [1, MAX_BATCH, 7]
    assert recorded == [report.job_id for report in reports]
    assert reporter.n_unsettled == 0


async def test_after_several_the_next_wait_for_company_unless_somebody_waits_for_them(monkeypatch):
    """A report gathers others under load; one that is awaited takes all of them along at once."""
    monkeypatch.setattr(reporter_module, "_GATHER_S", 100.0)
    source, recorded = FakeSource(), []
    async with reporting(source, recorded) as reporter, asyncio.timeout(20):
        reporter.put([_report(source) for _ in range(2)])
        await source.until(lambda: len(recorded) == 2)
        reporter.put([_report(source)])
        for _ in range(20):
            await asyncio.sleep(0)
        assert source.batches == [2]
        reporter.put([_report(source)], awaited=True)
        await reporter.settled()
    assert source.batches == [2, 2]


async def test_reports_wait_while_the_source_is_away():
    """A result is kept until the source answers."""
    source = FakeSource()
    async with reporting(source) as reporter:
        source.away = True
        report = _report(source)
        reporter.put([report])
        settling = asyncio.create_task(reporter.settled())
        await asyncio.wait([settling], timeout=0.05)
        assert not settling.done()
        source.away = False
        await settling
    assert source.reports[report.job_id] == report


async def test_a_report_for_a_job_not_held_is_a_normal_answer():
    """It is settled, and nothing else happens."""
    source, recorded = FakeSource(), []
    async with reporting(source, recorded) as reporter:
        report = msgspec.structs.replace(_report(source), job_id=new_id())
        reporter.put([report])
        await reporter.settled()
    assert (recorded, source.reports) == ([report.job_id], {})


async def test_one_refused_report_does_not_hold_up_the_others():
    """It is recorded as a failure that says so; the others as they are."""
    source = FakeSource()
    async with reporting(source) as reporter:
        reports = [_report(source) for _ in range(3)]
        bad = msgspec.structs.replace(reports[1], result=b'"bad"')
        source.refuse = lambda batch: any(report.result == b'"bad"' for report in batch)
        reporter.put([reports[0], bad, reports[2]])
        await reporter.settled()
    statuses = [source.reports[report.job_id].status for report in reports]
    assert statuses == [JobStatus.SUCCESS, JobStatus.FAILURE, JobStatus.SUCCESS]
    assert b"refused" in source.reports[bad.job_id].result


async def test_what_can_never_be_recorded_is_let_go():
    """The reporter goes on with the next."""
    source = FakeSource()
    async with reporting(source) as reporter:
        report, other = _report(source), _report(source)
        source.refuse = lambda batch: any(r.job_id == report.job_id for r in batch)
        reporter.put([report, other])
        await reporter.settled()
    assert set(source.reports) == {other.job_id}


async def test_jobs_are_given_back_together():
    """One statement for all jobs that go back for the same reason."""
    source, recorded = FakeSource(), []
    async with reporting(source, recorded) as reporter:
        ids = [new_id() for _ in range(3)]
        for job_id in ids:
            reporter.give_back(job_id, 1, why="shutdown")
        await reporter.settled()
    assert source.released == [(job_id, "shutdown") for job_id in ids]
    assert recorded == ids
