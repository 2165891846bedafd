"""Logs, streams and progress on their way to the source."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from millhand.core.clock import SystemClock
from millhand.core.ids import new_id
from millhand.worker.logs import JobLog, LogShipper
from tests.worker.fakes import FakeSource


@asynccontextmanager
async def shipping(source: FakeSource, *, max_log_bytes: int = 1000) -> AsyncIterator[LogShipper]:
    shipper = LogShipper(source=source, clock=SystemClock(), max_log_bytes=max_log_bytes)
    lane = asyncio.create_task(shipper.run())
    yield shipper
    lane.cancel()


def _log(*, prompt: bool = False, max_bytes: int = 1000) -> JobLog:
    return JobLog(new_id(), prompt=prompt, max_bytes=max_bytes, now=100.0, due=lambda _: None, done=lambda _: None)


async def test_an_ended_log_is_shipped_whole_and_in_order():
    """When `end` returns, every piece has arrived, in order."""
    source = FakeSource()
    async with shipping(source) as shipper:
        log = shipper.open(new_id(), awaited=False)
        for i in range(100):
            log.log(f"{i}\n")
            if i == 50:
                await asyncio.sleep(0)
        await log.end()
    assert source.logs[log.job_id] == "".join(f"{i}\n" for i in range(100))


async def test_a_log_that_said_nothing_ends_at_once():
    """No statement for silence."""
    source = FakeSource()
    async with shipping(source) as shipper:
        log = shipper.open(new_id(), awaited=True)
        await log.end()
    assert source.events == []


async def test_many_ended_logs_share_a_statement():
    """What gathers while a shipment is on its way goes in one."""
    source = FakeSource()
    calls: list[int] = []
    append = source.append_logs

    async def counting(chunks):
        calls.append(len(chunks))
        await append(chunks)

    source.append_logs = counting  # type: ignore[method-assign]
    async with shipping(source) as shipper:
        logs = [shipper.open(new_id(), awaited=False) for _ in range(50)]
        for log in logs:
            log.log("x\n")
        await asyncio.gather(*(log.end() for log in logs))
    assert calls == [50]


def test_when_a_log_is_due():
    """First within 100 ms, then every 500 ms, and 2.5 s once the job is old; 64 KiB do not wait."""
    log = _log(max_bytes=10**6)
    log.log("a")
    assert log.due(100.02) == pytest.approx(100.1)
    log.take(100.1)
    log.arrived()
    log.log("b")
    assert log.due(100.2) == pytest.approx(100.6)
    assert log.due(111.0) == pytest.approx(102.6)
    log.log("x" * 70_000)
    assert log.due(100.2) == 100.2


def test_a_heading_waits_for_the_job_to_say_something():
    """It goes within half a second alone, and with the job's first words at the latest; awaited ones don't wait."""
    log, awaited = _log(), _log(prompt=True)
    for each in (log, awaited):
        each.head("a job\n")
    assert log.due(100.0) == pytest.approx(100.5)
    assert awaited.due(100.0) == pytest.approx(100.05)
    log.log("a\n")
    assert log.due(100.02) == pytest.approx(100.1)
    assert log.take(100.1)[0] == "a job\na\n"


async def test_a_log_that_went_with_its_report_is_forgotten():
    """The shipper goes through it no more, and ships nothing for it."""
    source = FakeSource()
    async with shipping(source) as shipper:
        logs = [shipper.open(new_id(), awaited=True) for _ in range(3)]
        for log in logs:
            log.head("a job\n")
        assert [log.rest() for log in logs] == ["a job\n"] * 3
        assert not shipper._waiting
        spoke = shipper.open(new_id(), awaited=True)
        spoke.log("a\n")
        await spoke.end()
    assert source.logs == {spoke.job_id: "a\n"}


def test_an_awaited_log_is_due_within_50_ms():
    """At first, and then at most every 50 ms: a job that is quicker has its log in its report."""
    log = _log(prompt=True)
    log.log("a")
    assert log.due(100.0) == pytest.approx(100.05)
    log.take(100.05)
    log.log("b")
    assert log.due(100.06) == pytest.approx(100.1)


def test_a_large_log_is_cut_into_rows():
    """A row holds half a million characters; the rest waits its turn."""
    log = JobLog(new_id(), prompt=False, max_bytes=10**9, now=0.0, due=lambda _: None, done=lambda _: None)
    log.log("x" * 600_000)
    assert len(log.take(0.0)[0]) == 524_288
    assert log.waiting
    assert len(log.take(0.0)[0]) == 75_712
    assert not log.waiting


@pytest.mark.parametrize(
    ("text", "kept"), [("x" * 3000, "x" * 1000), ("é" * 3000, "é" * 500), ("x" + "é" * 3000, "x" + "é" * 499)]
)
async def test_a_flood_is_cut_with_one_note(text: str, kept: str):
    """A log holds so many bytes; a note says that the rest is missing, once."""
    source = FakeSource()
    async with shipping(source) as shipper:
        log = shipper.open(new_id(), awaited=False)
        log.log(text)
        log.log("more")
        await log.end()
    assert source.logs[log.job_id] == f"{kept}\n--- the log is over 1000 bytes: the rest is left out ---\n"


async def test_words_wait_while_the_source_is_away():
    """Nothing is lost or reordered when the source comes back."""
    source = FakeSource()
    async with shipping(source) as shipper:
        source.away = True
        log = shipper.open(new_id(), awaited=True)
        log.log("a\n")
        ending = asyncio.create_task(log.end())
        await asyncio.wait([ending], timeout=0.05)
        assert not ending.done()
        source.away = False
        await ending
    assert source.logs[log.job_id] == "a\n"


async def test_words_the_source_refuses_do_not_hold_up_the_job():
    """`end` returns though the log can't be stored."""
    source = FakeSource()

    async def refuse(chunks):
        raise ValueError("bad text")

    source.append_logs = refuse  # type: ignore[method-assign]
    async with shipping(source) as shipper:
        log = shipper.open(new_id(), awaited=True)
        log.log("a")
        await log.end()


async def test_streams_and_progress_arrive():
    """All of the stream, the latest progress, bounded to 0..100."""
    source = FakeSource()
    async with shipping(source) as shipper:
        log = shipper.open(new_id(), awaited=False)
        log.stream("a")
        log.stream("b")
        for percent in (10, 70, 300):
            log.progress(percent)
        await log.end()
    assert (source.streams[log.job_id], source.progress[log.job_id]) == ("ab", 100)
    assert log.streamed == ["a", "b"]


async def test_a_discarded_log_says_nothing():
    """A job that is another worker's now gets no words from us."""
    source = FakeSource()
    async with shipping(source) as shipper:
        log = shipper.open(new_id(), awaited=False)
        log.log("a")
        log.discard()
        log.log("b")
        log.stream("c")
        await log.end()
    assert source.events == []


async def test_the_rest_of_a_log_goes_with_the_report():
    """What is left at the end of a job is handed over once, and shipped by nobody else."""
    source = FakeSource()
    async with shipping(source) as shipper:
        log = shipper.open(new_id(), awaited=False)
        log.log("a\n")
        log.log("b\n")
        assert (log.rest(), log.rest()) == ("a\nb\n", "")
        other = shipper.open(new_id(), awaited=False)
        other.log("c\n")
        await other.end()
    assert source.logs == {other.job_id: "c\n"}


async def test_what_a_report_cannot_carry_is_shipped_before():
    """A stream, a progress or very much text has its own way to the source."""
    for say in (lambda log: log.stream("x"), lambda log: log.progress(5), lambda log: log.log("x" * 600_000)):
        log = _log(max_bytes=1_000_000)
        say(log)
        assert log.rest() is None
