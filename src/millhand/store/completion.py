"""How attempts end: reports in batches become records; some keep a result, start again, or leave no trace."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import structlog

from millhand.core.ids import new_id
from millhand.core.job import MAX_JSON_BYTES, JobStatus, Report, error_result
from millhand.store.logs import doom, storable, utf16_length
from millhand.store.pool import Database
from millhand.store.queue import DATA_ERRORS, MAX_STATEMENT_BYTES, column
from millhand.store.sql_files import load

log = structlog.get_logger(__name__)
SQL = load("completion")

_TOLD_AT_ONCE = 4  # a host that has no more reports than this at a time commits rarely, and somebody may be waiting


class Completed(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a batch of reports."""

    held: frozenset[UUID] = frozenset()  # the others were not ours any more
    awaited: tuple[UUID, ...] = ()  # somebody waits to hear that these ended, and was not told yet
    tags: tuple[str, ...] = ()  # that have new work, from jobs that start again

    def __add__(self, other: Completed) -> Completed:
        return Completed(held=self.held | other.held, awaited=self.awaited + other.awaited, tags=self.tags + other.tags)


async def complete(
    database: Database, reports: Sequence[Report], incarnation: UUID, *, now: datetime | None = None
) -> Completed:
    """Record ended attempts durably. Reporting twice is harmless: an attempt that is recorded counts as held.

    A report that the database can't store is recorded as a failure that says why; the others are not touched by it.
    """
    done = Completed()
    for batch in _slices([_bounded(report) for report in reports]):
        try:
            done += await _complete(database, batch, incarnation, now)
        except DATA_ERRORS:
            for report in batch:
                done += await _complete_one(database, report, incarnation, now)
    return done


async def rehearse(connection: Any, incarnation: UUID) -> None:
    """Record nothing: for the first time a connection needs several times as long."""
    await _move(connection, [], incarnation, None)


def _bounded(report: Report) -> Report:
    size = len(report.result)
    if size <= MAX_JSON_BYTES:
        return report
    return _as_failure(
        report, "ResultTooLarge", f"the result is {size:,} bytes long; at most {MAX_JSON_BYTES:,} are kept"
    )


def _as_failure(report: Report, name: str, message: str) -> Report:
    return msgspec.structs.replace(
        report, status=JobStatus.FAILURE, result=error_result(name, message), labels=(), cache_key=None
    )


def _slices(reports: Sequence[Report]) -> Iterator[Sequence[Report]]:
    """Cut a batch so that no statement grows past MAX_STATEMENT_BYTES."""
    if sum(len(report.result) for report in reports) <= MAX_STATEMENT_BYTES:
        if reports:
            yield reports
        return
    for report in reports:
        yield [report]


async def _complete_one(database: Database, report: Report, incarnation: UUID, now: datetime | None) -> Completed:
    try:
        return await _complete(database, [report], incarnation, now)
    except DATA_ERRORS as error:
        log.warning("job.result_refused", job_id=str(report.job_id), error=str(error))
        refused = _as_failure(report, "InvalidResult", f"the result can't be stored: {error}")
        plain = msgspec.structs.replace(
            refused, canceled_by=_plain(report.canceled_by), canceled_reason=_plain(report.canceled_reason)
        )
        return await _complete(database, [plain], incarnation, now)


def _plain(text: str | None) -> str | None:
    """Return text that the database holds for sure."""
    return text and text.replace("\0", "").encode("utf-8", "replace").decode()


async def _complete(
    database: Database, reports: Sequence[Report], incarnation: UUID, now: datetime | None
) -> Completed:
    """Record a batch; once more, where somebody else wrote to one of its logs at the same moment."""
    while True:
        try:
            return await _try_to_complete(database, reports, incarnation, now)
        except asyncpg.UniqueViolationError as error:
            log.info("completion.clashed", n_reports=len(reports), error=str(error))


async def _try_to_complete(
    database: Database, reports: Sequence[Report], incarnation: UUID, now: datetime | None
) -> Completed:
    async with database.acquire() as connection:
        if not any(report.cache_key or report.rerun or report.delete_after_use for report in reports):
            return await _record(connection, reports, incarnation, now)
        async with connection.transaction():
            return await _record_with_consequences(connection, reports, incarnation, now)


async def _record(connection: Any, reports: Sequence[Report], incarnation: UUID, now: datetime | None) -> Completed:
    rows = await _move(connection, reports, incarnation, now)
    held = frozenset([row[0] for row in rows])
    if len(held) < len(reports):
        held |= await _recorded(connection, [report for report in reports if report.job_id not in held])
    return Completed(held=held, awaited=_untold(rows, reports))


async def _record_with_consequences(
    connection: Any, reports: Sequence[Report], incarnation: UUID, now: datetime | None
) -> Completed:
    rows = await _move(connection, reports, incarnation, now)
    ended = {row["id"]: row for row in rows}
    ours = [report for report in reports if report.job_id in ended]
    await _cache(connection, ours, now)
    again = [report.job_id for report in ours if report.rerun and not ended[report.job_id]["canceled"]]
    tags = await _rerun(connection, again, now)
    await _erase(connection, rows, {report.job_id for report in ours if report.delete_after_use})
    held = frozenset(ended) | await _recorded(connection, [report for report in reports if report.job_id not in ended])
    return Completed(held=held, awaited=_untold(rows, reports), tags=tuple(tags))


def _told_at_once(reports: Sequence[Report]) -> bool:
    """Tell whether a batch announces itself in its own commit: that makes commits wait for each other, so few do."""
    return len(reports) <= _TOLD_AT_ONCE


def _untold(rows: Sequence[Any], reports: Sequence[Report]) -> tuple[UUID, ...]:
    return () if _told_at_once(reports) else tuple([row["id"] for row in rows if row["awaited"]])


async def _move(connection: Any, reports: Sequence[Report], incarnation: UUID, now: datetime | None) -> list[Any]:
    rests = [storable(report.log) or None for report in reports]
    return await connection.fetch(  # type: ignore[no-any-return]
        SQL.complete_jobs,
        [report.job_id for report in reports],
        [report.attempt for report in reports],
        [report.status for report in reports],
        [report.result for report in reports],
        [report.duration_ms for report in reports],
        [report.memory_peak_kb for report in reports],
        column([msgspec.json.encode(report.labels).decode() if report.labels else None for report in reports]),
        column([report.canceled_by for report in reports]),
        column([report.canceled_reason for report in reports]),
        incarnation,
        now,
        column(rests),
        column([rest and utf16_length(rest) for rest in rests]),
        _told_at_once(reports),
    )


async def _recorded(connection: Any, reports: Sequence[Report]) -> frozenset[UUID]:
    if not reports:
        return frozenset()
    ids, attempts = [report.job_id for report in reports], [report.attempt for report in reports]
    return frozenset([row[0] for row in await connection.fetch(SQL.recorded_attempts, ids, attempts)])


async def _cache(connection: Any, reports: Sequence[Report], now: datetime | None) -> None:
    kept = [report for report in reports if report.cache_key and report.status is JobStatus.SUCCESS]
    if kept:
        keys, results = [report.cache_key for report in kept], [report.result for report in kept]
        await connection.execute(SQL.cache_results, keys, results, [report.cache_ttl_s or 0 for report in kept], now)


async def _rerun(connection: Any, ended: Sequence[UUID], now: datetime | None) -> list[str]:
    if not ended:
        return []
    rows = await connection.fetch(SQL.rerun_jobs, ended, [new_id() for _ in ended], now)
    return [row["tag"] for row in rows]


async def _erase(connection: Any, ended: Sequence[Any], used: set[UUID]) -> None:
    """Leave no trace of these jobs; where somebody waits for the result it goes when it was delivered."""
    if not used:
        return
    awaited = [row["id"] for row in ended if row["awaited"] and row["id"] in used]
    await connection.execute(SQL.erase_args, awaited)
    await erase(connection, list(used.difference(awaited)))


async def erase(connection: Any, job_ids: Sequence[UUID]) -> None:
    """Erase arguments, results, logs and streams of jobs with `delete_after_use`, in the caller's transaction."""
    await connection.execute(SQL.erase_jobs, job_ids)
    await doom(connection, job_ids)


async def erase_undelivered(
    database: Database, *, older_than_s: float, limit: int = 1000, now: datetime | None = None
) -> int:
    """Erase what was to be erased after use and that nobody came for; returns how many jobs."""
    rows = await database.fetch(SQL.list_undelivered, older_than_s, limit, now)
    async with database.transaction() as connection:
        await erase(connection, [row["id"] for row in rows])
    return len(rows)


async def cached_result(connection: Any, key: str, *, now: datetime | None = None) -> bytes | None:
    """Return a result kept by an earlier run with the same input, unless it has expired."""
    return await connection.fetchval(SQL.cached_result, key, now)  # type: ignore[no-any-return]


async def delete_expired_results(connection: Any, *, limit: int = 1000, now: datetime | None = None) -> int:
    """Delete cached results past their time; returns how many."""
    return _affected(await connection.execute(SQL.delete_expired_results, limit, now))


def _affected(command_tag: str) -> int:
    return int(command_tag.rsplit(" ", 1)[-1])
