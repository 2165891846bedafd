"""Cancels: of one job with its descendants, of many, of a perpetual script."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from millhand.core.job import LogChunk, error_result
from millhand.store import logs
from millhand.store.pool import Database
from millhand.store.sql_files import load

SQL = load("cancel")


class Canceled(msgspec.Struct, frozen=True, kw_only=True):
    """What a cancel did. Descendants are among the jobs."""

    ended: tuple[UUID, ...]  # ended as canceled, here and now
    told: tuple[UUID, ...]  # run: their workers are to be told, with `Notifier.canceled`
    awaited: tuple[UUID, ...]  # of those ended: somebody waits to hear it, by `Notifier.ended`


async def cancel(
    database: Database,
    job_ids: Sequence[UUID],
    *,
    workspace_id: str | None,
    by: str,
    reason: str | None = None,
    force: bool = False,
    now: datetime | None = None,
) -> Canceled:
    """Cancel jobs and their descendants in one transaction; ids that name no unended job of the workspace do nothing.

    With `force`, jobs that run are recorded as canceled at once; their workers hear of it and end them.
    """
    async with database.transaction() as connection:
        result = _result(by, reason)
        rows = await connection.fetch(SQL.cancel_jobs, job_ids, workspace_id, by, reason, result, force, now)
        ended = [row for row in rows if not row["told"]]
        words = f"canceled by {by}" + (f": {reason}" if reason else "") + "\n"
        await logs.append(connection, [LogChunk(job_id=row["id"], text=words) for row in ended])
    return Canceled(
        ended=tuple(row["id"] for row in ended),
        told=tuple(row["id"] for row in rows if row["told"] or row["was_running"]),
        awaited=tuple(row["id"] for row in ended if row["awaited"]),
    )


async def cancel_persistent(
    database: Database, workspace_id: str, path: str, *, by: str, reason: str | None = None
) -> Canceled:
    """Cancel the unended runs of a perpetual script, so that none starts again."""
    rows = await database.fetch(SQL.list_perpetual, workspace_id, path)
    return await cancel(database, [row["id"] for row in rows], workspace_id=workspace_id, by=by, reason=reason)


async def state(connection: Any, workspace_id: str, job_id: UUID) -> str | None:
    """Return "unended", "ended", or None where the workspace has no such job."""
    return await connection.fetchval(SQL.job_state, job_id, workspace_id)  # type: ignore[no-any-return]


def _result(by: str, reason: str | None) -> bytes:
    words = f"Job canceled: {reason} by {by}" if reason else f"Job canceled by {by}"
    return error_result("Canceled", words, reason=reason, canceler=by)
