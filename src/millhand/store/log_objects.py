"""Stretches of logs on their way to object storage, and the objects' end.

Reserved, uploaded, kept: the reservation is a row that has the object deleted later. Keeping it takes that back and
deletes the log's rows, in one transaction. So whatever dies in between, the log is in the rows or in the object, and no
object is without a row that names it.
"""

from __future__ import annotations

import contextlib
from datetime import datetime
from typing import Any
from uuid import UUID

import structlog

from millhand.core.ids import id_floor
from millhand.core.objects import Objects
from millhand.core.spill import KEPT_UNITS, Border, Piece
from millhand.store.pool import Database
from millhand.store.sql_files import load

log = structlog.get_logger(__name__)
SQL = load("log_objects")

RESERVED_S = 3600.0  # far longer than an upload takes, its tries again included


class _Refused(Exception):  # noqa: N818 - no error
    """Takes the transaction back."""


async def borders(connection: Any, *, limit: int) -> list[Border]:
    """Return rows at which an object may end, in the order of jobs and rows."""
    return [Border(**row) for row in await connection.fetch(SQL.list_borders, limit, KEPT_UNITS)]


async def spill(database: Database, objects: Objects, piece: Piece, *, now: datetime | None = None) -> int:
    """Move a stretch of a log to object storage; returns its bytes, 0 where others did it or the log was erased.

    Raises ObjectStoreError; then the log stays as it was.
    """
    at = (piece.job_id, piece.start_at, piece.end_at)
    if await database.fetchval(SQL.reserve, *at, piece.key, RESERVED_S, now) is None:
        return 0
    rows = await database.fetch(SQL.read_rows, piece.job_id, piece.first_seq, piece.last_seq)
    data = "".join([row["text"] for row in rows]).encode()
    n_rows = len(rows)
    del rows  # the text once is enough to hold while it is on its way
    if n_rows == piece.last_seq - piece.first_seq + 1:
        await objects.put(piece.key, data)
        if await _keep(database, piece, n_rows):
            return len(data)
    await database.execute(SQL.abandon, *at, piece.key, now)
    return 0


async def _keep(database: Database, piece: Piece, n_rows: int) -> bool:
    """Exchange the rows for the object; False where they, or the reservation, are not there any more."""
    with contextlib.suppress(_Refused):
        async with database.transaction() as connection:
            n_gone = await connection.fetchval(SQL.delete_rows, piece.job_id, piece.first_seq, piece.last_seq)
            kept = await connection.fetchval(SQL.keep, piece.job_id, piece.start_at, piece.end_at)
            if n_gone != n_rows or kept is None:
                raise _Refused
        return True
    log.info("log.not_spilled", job_id=str(piece.job_id), key=piece.key)
    return False


async def doom_left_behind(connection: Any, cutoff: datetime, *, limit: int = 1000, now: datetime | None = None) -> int:
    """Have the objects deleted of jobs from before a time that are there no more; returns how many objects."""
    first = id_floor(int(cutoff.timestamp() * 1000))
    return await connection.fetchval(SQL.doom_left_behind, first, limit, now)  # type: ignore[no-any-return]


async def delete_doomed(database: Database, objects: Objects, *, limit: int = 1000, now: datetime | None = None) -> int:
    """Delete objects whose time has come; returns how many. Raises ObjectStoreError; then they go later."""
    async with database.transaction() as connection:
        rows = await connection.fetch(SQL.lock_doomed, limit, now)
        if rows:
            await objects.delete([row["key"] for row in rows])
            ids: list[UUID] = [row["job_id"] for row in rows]
            starts, ends = [row["start_at"] for row in rows], [row["end_at"] for row in rows]
            await connection.execute(SQL.forget, ids, starts, ends)
    return len(rows)
