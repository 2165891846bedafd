"""Job logs and result streams. Offsets in logs count UTF-16 units, as browsers do; in streams they count pieces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from millhand.core.job import LogChunk
from millhand.store.sql_files import load

SQL = load("logs")


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


async def read(connection: Any, job_id: UUID, *, offset: int = 0) -> tuple[str, int]:
    """Return a log from an offset on, and the offset after it: where to read on later."""
    rows = await connection.fetch(SQL.read_log, job_id, offset)
    if not rows:
        return "", offset
    text = "".join([row["text"] for row in rows])
    start = rows[0]["start_at"]
    return _from_unit(text, max(offset - start, 0)), start + utf16_length(text)


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
