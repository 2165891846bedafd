"""Which tags live workers listen to, for warnings: known to within seconds, at no cost to those who push."""

from __future__ import annotations

import asyncio
import time

import structlog

from millhand.core.why import unserved
from millhand.store import workers
from millhand.store.pool import CONNECTION_ERRORS, Database

FRESH_S = 2.0  # a tag seen served within this time counts as served
RECHECK_S = 0.25  # before a warning, the database is asked again, though not more often than this

log = structlog.get_logger(__name__)


class ServedTags:
    """The tags somebody serves, as of a moment ago."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._tags: frozenset[str] = frozenset()
        self._read_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None

    async def warning(self, tag: str) -> str | None:
        """Return words where no live worker listens to the tag, else None."""
        age = time.monotonic() - self._read_at
        if tag in self._tags:
            if age > FRESH_S:
                self._read()  # in the background: this caller does not wait for it
            return None
        if age > RECHECK_S:
            await asyncio.shield(self._read())
        return None if tag in self._tags else unserved(tag)

    def _read(self) -> asyncio.Task[None]:
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._load(), name="served tags")
        return self._reading

    async def _load(self) -> None:
        try:
            self._tags = frozenset(await workers.served_tags(self._database))
            self._read_at = time.monotonic()
        except CONNECTION_ERRORS as error:
            log.warning("served_tags.unknown", error=str(error))
