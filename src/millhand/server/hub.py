"""Who waits for which job: one listener on the database feeds all requests of this server.

Notifications are hints. A sweep every second asks the database for all that is waited for, in one statement, and so
does every reconnection: nobody waits for a word that was lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import TypeVar
from uuid import UUID

import structlog

from millhand.core.job import JobStatus
from millhand.store import results
from millhand.store.notify import WATCH_CHANNEL, parse_ids
from millhand.store.pool import CONNECTION_ERRORS, Database, Listener
from millhand.store.results import Result

SWEEP_S = 1.0
T = TypeVar("T")
log = structlog.get_logger(__name__)


class Watcher:
    """Somebody who follows one job."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    def wake(self) -> None:
        """Say that the job may have changed."""
        self._changed.set()

    async def wait(self, timeout_s: float) -> bool:
        """Wait until the job may have changed since the last call; False where nothing was heard in time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        except TimeoutError:
            return False
        self._changed.clear()
        return True


class Hub:
    """Waits for results, and wakes who follows a job."""

    def __init__(self, database: Database, *, on_scripts_changed: Callable[[], None] = lambda: None) -> None:
        self._database = database
        self._on_scripts_changed = on_scripts_changed
        self._results: dict[UUID, set[asyncio.Future[Result]]] = {}
        self._watchers: dict[UUID, set[Watcher]] = {}
        self._ended: set[UUID] = set()
        self._fetch_now = asyncio.Event()
        self._listener = Listener(database, WATCH_CHANNEL, self._heard, on_reconnect=self._look_again)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Hub]:
        """Listen, for as long as the context is open."""
        await self._listener.start()
        tasks = [
            asyncio.create_task(self._fetch(), name="hub.fetch"),
            asyncio.create_task(self._sweep(), name="hub.sweep"),
        ]
        try:
            await self._listener.listening()
            yield self
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._listener.stop()

    @contextlib.contextmanager
    def awaiting(self, job_id: UUID) -> Iterator[asyncio.Future[Result]]:
        """Give a future of a job's result. Enter before the job is pushed, and nothing can be missed."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._results.setdefault(job_id, set()).add(future)
        try:
            yield future
        finally:
            _discard(self._results, job_id, future)

    @contextlib.contextmanager
    def watching(self, job_id: UUID) -> Iterator[Watcher]:
        """Give a watcher of a job."""
        watcher = Watcher()
        self._watchers.setdefault(job_id, set()).add(watcher)
        try:
            yield watcher
        finally:
            _discard(self._watchers, job_id, watcher)

    def ended(self, job_ids: Iterable[UUID]) -> None:
        """Note that these jobs have ended, as far as somebody here wants to know."""
        for job_id in job_ids:
            if job_id in self._results:
                self._ended.add(job_id)
                self._fetch_now.set()
            self.changed(job_id)

    def changed(self, job_id: UUID) -> None:
        """Wake those who follow a job."""
        for watcher in self._watchers.get(job_id, ()):
            watcher.wake()

    def _heard(self, payload: str) -> None:
        if payload.startswith("s:"):
            self._on_scripts_changed()
        if not self._results and not self._watchers:
            return
        if payload.startswith("r:"):
            self._told(payload)
        elif payload.startswith("d:"):
            self.ended(parse_ids(payload))
        elif payload.startswith("l:"):
            for job_id in parse_ids(payload):
                self.changed(job_id)

    def _told(self, payload: str) -> None:
        """Take a result that came with the word of its job's end."""
        _, id_text, status, value = payload.split(":", 3)
        job_id = UUID(id_text)
        if job_id in self._results:
            self._settle(job_id, Result(status=JobStatus(status), value=value.encode()))
        self.changed(job_id)

    def _look_again(self) -> None:
        self._on_scripts_changed()
        self.ended([*self._results, *self._watchers])

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S * random.uniform(0.75, 1.25))  # noqa: S311 - jitter
            if self._results:
                self._ended.update(self._results)
                self._fetch_now.set()

    async def _fetch(self) -> None:
        while True:
            await self._fetch_now.wait()
            self._fetch_now.clear()
            asked, self._ended = [job_id for job_id in self._ended if job_id in self._results], set()
            if not asked:
                continue
            try:
                found = await results.results_of(self._database, asked)
            except CONNECTION_ERRORS as error:
                log.warning("hub.fetch_failed", n_jobs=len(asked), error=str(error))
                continue  # the sweep asks again
            for job_id, result in found.items():
                self._settle(job_id, result)

    def _settle(self, job_id: UUID, result: Result) -> None:
        for future in self._results.get(job_id, ()):
            if not future.done():
                future.set_result(result)


def _discard(registry: dict[UUID, set[T]], job_id: UUID, item: T) -> None:
    waiting = registry.get(job_id)
    if waiting is not None:
        waiting.discard(item)
        if not waiting:
            del registry[job_id]
