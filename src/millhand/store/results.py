"""Results of jobs that have ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec

from millhand.core.job import JobStatus
from millhand.store.sql_files import load

SQL = load("results")


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """How a job ended, and with what."""

    status: JobStatus
    value: bytes  # JSON


class MaybeResult(msgspec.Struct, frozen=True, kw_only=True):
    """How far a job is, with its result where it has ended."""

    started: bool
    result: Result | None


async def results_of(connection: Any, job_ids: Sequence[UUID]) -> dict[UUID, Result]:
    """Return the results of those jobs that have ended, in one statement for everybody who waits."""
    rows = await connection.fetch(SQL.results_of, job_ids)
    return {row["id"]: Result(status=JobStatus(row["status"]), value=row["result"] or b"null") for row in rows}


async def result_of(connection: Any, workspace_id: str, job_id: UUID) -> Result | None:
    """Return the result of a job, or None while it has not ended."""
    row = await connection.fetchrow(SQL.result_of, workspace_id, job_id)
    return row and Result(status=JobStatus(row["status"]), value=row["result"])


async def result_maybe(connection: Any, workspace_id: str, job_id: UUID) -> MaybeResult | None:
    """Return how far a job is, or None where there is no such job."""
    row = await connection.fetchrow(SQL.result_maybe, workspace_id, job_id)
    if row is None:
        return None
    status = row["status"]
    result = None if status is None else Result(status=JobStatus(status), value=row["result"])
    return MaybeResult(started=bool(row["started"]), result=result)
