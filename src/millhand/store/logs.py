"""Job logs and result streams. Offsets in logs count UTF-16 units, as browsers do; in streams they count pieces.

The older part of a large log may be in object storage (`log_objects.py`); the end of each is in the database.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from millhand.core.errors import ObjectMissingError, ObjectStoreError
from millhand.core.job import LogChunk
from millhand.core.objects import Objects
from millhand.store.sql_files import load

SQL = load("logs")

_NO_BOUND = 2**62


async def append(connection: Any, chunks: Sequence[LogChunk]) -> None:
    """Append text to job logs, in order, in one statement for all of them.

    Two writers of one log (its worker and a rescue, say) may meet: the second one's piece comes after the first's.
    """
    pending: dict[UUID, str] = {}
    for chunk in chunks:
        if text := storable(chunk.text):
            pending[chunk.job_id] = pending.get(chunk.job_id, "") + text
    while pending:
        units = [utf16_length(text) for text in pending.values()]
        rows = await connection.fetch(SQL.append_logs, list(pending), list(pending.values()), units)
        for row in rows:
            del pending[row["job_id"]]


async def read(
    connection: Any, job_id: UUID, *, offset: int = 0, at_most: int | None = None, objects: Objects | None = None
) -> tuple[str, int]:
    """Return a log from an offset on, and the offset after it: where to read on later.

    With `at_most` units, ends after the piece in which these are reached: less came only where the log ends there.
    Raises ObjectStoreError for what is in object storage and can't be had.
    """
    until = _NO_BOUND if at_most is None else offset + at_most
    try:
        return await _read(connection, job_id, offset, until, objects)
    except ObjectMissingError:  # spilled or erased between the look and the reading? The second look tells
        return await _read(connection, job_id, offset, until, objects)


async def _read(connection: Any, job_id: UUID, offset: int, until: int, objects: Objects | None) -> tuple[str, int]:
    rows = await connection.fetch(SQL.read_log, job_id, offset, until)
    if not rows:
        return "", offset
    texts = [await _text(row, objects) for row in rows]
    return _from_unit("".join(texts), max(offset - rows[0]["start_at"], 0)), rows[-1]["end_at"]


async def _text(row: Any, objects: Objects | None) -> str:
    if row["key"] is None:
        return row["text"]  # type: ignore[no-any-return]
    if objects is None:
        raise ObjectStoreError(
            "the older part of this log is in object storage, and this server has none; "
            "start it with MILLHAND_OBJECT_STORE as it was when the job ran"
        )
    text = (await objects.get(row["key"])).decode("utf-8", "replace")
    if utf16_length(text) != row["end_at"] - row["start_at"]:
        raise ObjectMissingError(f"{row['key']} in object storage is not what was written there; restore it")
    return text


async def read_kept(connection: Any, job_id: UUID) -> tuple[str, int]:
    """Return the end of a log that is in the database, all of it where no object storage is used; and its offset."""
    rows = await connection.fetch(SQL.read_kept, job_id)
    return "".join([row["text"] for row in rows]), rows[0]["start_at"] if rows else 0


async def doom(connection: Any, job_ids: Sequence[UUID]) -> None:
    """Have the objects of logs deleted whose rows were deleted, by an earlier statement of the same transaction.

    Not by the same one: that would not see an object which has just taken the place of rows.
    """
    await connection.execute(SQL.doom, job_ids)


async def length(connection: Any, job_id: UUID) -> int:
    """Return the length of a log in UTF-16 units."""
    return await connection.fetchval(SQL.log_length, job_id) or 0


async def append_stream(connection: Any, job_id: UUID, text: str) -> None:
    """Append a piece to a job's result stream."""
    if piece := storable(text):
        while await connection.fetchval(SQL.append_stream, job_id, piece) is None:
            pass


async def read_stream(connection: Any, job_id: UUID, *, offset: int = 0) -> tuple[str, int]:
    """Return a result stream from a piece on, and the number of pieces there are."""
    rows = await connection.fetch(SQL.read_stream, job_id, offset)
    return "".join([row["text"] for row in rows]), offset + len(rows)


def storable(text: str) -> str:
    """Return text without what PostgreSQL can't hold: NUL characters go, lone surrogates become `?`."""
    if "\0" in text:
        text = text.replace("\0", "")
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text


def utf16_length(text: str) -> int:
    """Return how many UTF-16 units a text has: two for each character beyond the basic plane."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le")) // 2


def _from_unit(text: str, skip: int) -> str:
    if skip == 0 or text.isascii():
        return text[skip:]
    # An offset in the middle of a pair of surrogates, which no writer of ours returns, leaves out its second half.
    return text.encode("utf-16-le")[2 * skip :].decode("utf-16-le", "ignore")
