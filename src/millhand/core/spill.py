"""When a log goes to object storage, in which pieces, and under which names. Pure.

A log is cut into mebi-units: a row that reaches or crosses a multiple of `STEP_UNITS` is a *border*. An object holds the
rows from the first one that is left up to a border. So what is left in the database is less than two steps, borders
are all there is to look at to find what to do, and after a crash the same rows make the same object.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import groupby
from uuid import UUID

import msgspec

from millhand.core.ids import id_ms

# UTF-16 units, as offsets in logs are counted in. The index job_log_border_idx knows this number, too.
STEP_UNITS = 1 << 20
# Larger objects are fewer requests, smaller ones less memory: of text that is not ASCII a unit takes up to three bytes.
OBJECT_UNITS = 4 * STEP_UNITS
# The end of a log stays in the database: the tail that pages show, and the row after which writers go on.
KEPT_UNITS = 16 * 1024

_UUID_VERSION = 7


class Border(msgspec.Struct, frozen=True, kw_only=True):
    """A row of a log at which an object may end."""

    job_id: UUID
    seq: int
    end_at: int
    first_seq: int  # where the rows of this log that are in the database begin
    first_at: int


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of a log that becomes one object: all rows from one to another."""

    job_id: UUID
    first_seq: int
    last_seq: int
    start_at: int
    end_at: int

    @property
    def key(self) -> str:
        """Return the object's name: it says what is in it, so that uploading it again can only write the same."""
        return f"logs/{day(self.job_id)}/{self.job_id}/{self.start_at:012d}-{self.end_at:012d}.txt"


def day(job_id: UUID) -> str:
    """Return the day a job was pushed, as ids of ours bear it; those that others made share one name."""
    if job_id.version != _UUID_VERSION:
        return "other"
    try:
        return f"{datetime.fromtimestamp(id_ms(job_id) / 1000, UTC):%Y-%m-%d}"
    except (OverflowError, ValueError):
        return "other"


def pieces(borders: Iterable[Border]) -> list[Piece]:
    """Return what to upload, given borders in the order of jobs and rows: as few objects as OBJECT_UNITS allows."""
    return [piece for _, of_job in groupby(borders, lambda border: border.job_id) for piece in _cut(list(of_job))]


def _cut(borders: list[Border]) -> list[Piece]:
    first = borders[0]
    start_seq, start_at = first.first_seq, first.first_at
    cut: list[Piece] = []
    for border, following in zip(borders, [*borders[1:], None], strict=True):
        if following is not None and following.end_at - start_at <= OBJECT_UNITS:
            continue
        cut.append(
            Piece(
                job_id=border.job_id, first_seq=start_seq, last_seq=border.seq, start_at=start_at, end_at=border.end_at
            )
        )
        start_seq, start_at = border.seq + 1, border.end_at
    return cut
