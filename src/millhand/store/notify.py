"""Nudges: NOTIFY after the commit, from a statement of its own, never more often than it helps.

NOTIFY in the writing transaction would have all commits wait for each other (measured: a tenth of the throughput), and
one per job would drown those who listen; so only a push or a completion that is nearly alone does it. Losing one costs
a poll interval: polling is the truth.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Self
from uuid import UUID

import structlog

from millhand.store.pool import CONNECTION_ERRORS, Database
from millhand.store.sql_files import load

log = structlog.get_logger(__name__)
SQL = load("notify")

WORK_CHANNEL = "millhand_work"  # heard by worker hosts
WATCH_CHANNEL = "millhand_watch"  # heard by servers
TAG_EVERY_S = 0.005
_IDS_PER_PAYLOAD = 200  # a payload holds less than 8,000 bytes


class Notifier:
    """Sends nudges in the background: the first at once, then what gathered while the last ones were under way.

    The same tag is named at most once per TAG_EVERY_S.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._tags: set[str] = set()
        self._ids: dict[str, dict[UUID, None]] = {"c": {}, "d": {}, "l": {}}
        self._sent_at: dict[str, float] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="notify")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._send([*self._due_tags(float("inf")), *self._id_messages()])

    def work(self, tags: Iterable[str]) -> None:
        """Say that there is work for these tags."""
        self._tags.update(tags)
        self._wake.set()

    def canceled(self, job_ids: Iterable[UUID]) -> None:
        """Say that these running jobs were canceled."""
        self._add("c", job_ids)

    def ended(self, job_ids: Iterable[UUID]) -> None:
        """Say that these awaited jobs have ended."""
        self._add("d", job_ids)

    def grew(self, job_ids: Iterable[UUID]) -> None:
        """Say that the log, stream or progress of these awaited jobs has grown."""
        self._add("l", job_ids)

    def _add(self, kind: str, job_ids: Iterable[UUID]) -> None:
        self._ids[kind].update(dict.fromkeys(job_ids))
        self._wake.set()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self._send([*self._due_tags(loop.time()), *self._id_messages()])
            if self._tags:
                loop.call_later(TAG_EVERY_S, self._wake.set)

    def _due_tags(self, now: float) -> list[tuple[str, str]]:
        due = [tag for tag in self._tags if now - self._sent_at.get(tag, -TAG_EVERY_S) >= TAG_EVERY_S]
        self._tags.difference_update(due)
        lately = {tag: at for tag, at in self._sent_at.items() if now - at < TAG_EVERY_S}
        self._sent_at = lately | dict.fromkeys(due, now)
        return [(WORK_CHANNEL, f"q:{tag}") for tag in due]

    def _id_messages(self) -> list[tuple[str, str]]:
        canceled, ended, grew = self._ids["c"], self._ids["d"], self._ids["l"]
        self._ids = {"c": {}, "d": {}, "l": {}}
        return [
            *((WORK_CHANNEL, f"c:{job_id}") for job_id in canceled),
            *_watch_messages("d", list(ended)),
            *_watch_messages("l", list(grew)),
        ]

    async def _send(self, messages: list[tuple[str, str]]) -> None:
        if not messages:
            return
        channels, payloads = zip(*messages, strict=True)
        try:
            await self._database.execute(SQL.notify, channels, payloads)
        except CONNECTION_ERRORS as error:
            log.warning("nudge.lost", n_messages=len(messages), error=str(error))


def _watch_messages(kind: str, job_ids: list[UUID]) -> list[tuple[str, str]]:
    starts = range(0, len(job_ids), _IDS_PER_PAYLOAD)
    pieces = [job_ids[start : start + _IDS_PER_PAYLOAD] for start in starts]
    return [(WATCH_CHANNEL, f"{kind}:{','.join(map(str, piece))}") for piece in pieces]


def parse_ids(payload: str) -> list[UUID]:
    """Read the ids of a `c:`, `d:` or `l:` message."""
    return [UUID(text) for text in payload[2:].split(",") if text]
