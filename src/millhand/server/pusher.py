"""From requests to the queue: pushes of concurrent requests share a statement, and its commit."""

from __future__ import annotations

from collections.abc import Sequence

from millhand.core.errors import BadRequestError, ConflictError, TooLargeError
from millhand.core.job import NewJob
from millhand.server.batcher import Batcher
from millhand.store import queue
from millhand.store.notify import Notifier
from millhand.store.pool import Database

ALONE_BYTES = 1024 * 1024  # arguments from this size on are not sent together with others'
AT_ONCE = 1000


class Pusher:
    """Puts jobs into the queue and nudges the workers."""

    def __init__(self, database: Database, notifier: Notifier) -> None:
        self._database = database
        self._notifier = notifier
        self._n_sending = 0
        self._batcher: Batcher[NewJob, None] = Batcher(self._send)

    async def push(self, job: NewJob) -> None:
        """Store one job durably; raises ConflictError where its id exists."""
        if len(job.args) + len(job.raw_code or "") > ALONE_BYTES:
            self._notifier.work(await queue.push(self._database, [job]))
        else:
            await self._batcher.ask(job)

    async def push_many(self, jobs: Sequence[NewJob]) -> None:
        """Store many jobs, all or none."""
        tags: set[str] = set()
        async with self._database.transaction() as connection:
            for start in range(0, len(jobs), AT_ONCE):
                tags.update(await queue.push(connection, jobs[start : start + AT_ONCE]))
        self._notifier.work(tags)

    async def _send(self, jobs: list[NewJob]) -> Sequence[Exception | None]:
        """Push a batch. One that is under way alone nudges with its commit; others leave that to the notifier."""
        alone = self._n_sending == 0
        self._n_sending += 1
        try:
            tags = await queue.push(self._database, jobs, nudge=alone)
            if not alone:
                self._notifier.work(tags)
        except (ConflictError, BadRequestError, TooLargeError) as error:
            return [error] if len(jobs) == 1 else [await self._alone(job) for job in jobs]
        finally:
            self._n_sending -= 1
        return [None] * len(jobs)

    async def _alone(self, job: NewJob) -> Exception | None:
        """Push one job of a batch that was refused: only the offender is told."""
        try:
            self._notifier.work(await queue.push(self._database, [job]))
        except (ConflictError, BadRequestError, TooLargeError) as error:
            return error
        return None
