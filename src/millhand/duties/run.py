"""Runs the duties in one of all servers: the one that holds the leader's lock."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Self

import msgspec
import structlog

from millhand.core.errors import ObjectStoreError
from millhand.core.job import MAX_ATTEMPTS_LOST
from millhand.core.objects import Objects
from millhand.duties.expiry import delete_expired
from millhand.duties.promotion import promote_due_jobs
from millhand.duties.rescue import rescue_lost_jobs
from millhand.duties.retention import drop_old_jobs, make_partitions
from millhand.duties.spill import delete_doomed_objects, spill_logs
from millhand.store.leader import try_to_lead
from millhand.store.notify import Notifier
from millhand.store.pool import CONNECTION_ERRORS, Database, backoff_s

log = structlog.get_logger(__name__)


class DutySettings(msgspec.Struct, frozen=True, kw_only=True):
    """How often, and how, the duties are done."""

    rescue_every_s: float = 5.0
    promote_every_s: float = 5.0
    expiry_every_s: float = 60.0
    partitions_every_s: float = 3600.0
    retention_every_s: float = 600.0
    retention_s: float = 30 * 86_400.0  # how long ended jobs are kept (JOB_RETENTION_SECS)
    spill_every_s: float = 10.0  # a look that finds nothing takes about a millisecond
    restart_lost: bool = True  # whether lost jobs run again (RESTART_ZOMBIE_JOBS)
    max_lost: int = MAX_ATTEMPTS_LOST
    lead_every_s: float = 5.0  # how often the others try to take over, and the leader makes sure


class Duty(msgspec.Struct, frozen=True, kw_only=True):
    """Something to do again and again."""

    name: str
    every_s: float
    do: Callable[[], Awaitable[Any]]


class Duties:
    """The duties of one server, as a context: done while it leads, waiting for its turn otherwise."""

    def __init__(
        self, database: Database, settings: DutySettings | None = None, *, objects: Objects | None = None
    ) -> None:
        self._database = database
        self._objects = objects
        self._checked = False
        self._settings = settings or DutySettings()
        self._notifier = Notifier(database)
        self._task: asyncio.Task[None] | None = None
        self.leading = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self._notifier.__aenter__()
        self._task = asyncio.create_task(self._run(), name="duties")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._notifier.__aexit__()

    async def _run(self) -> None:
        failures = 0
        while True:
            try:
                async with self._leadership() as lost:
                    failures = 0
                    await self._lead_until(lost)
            except CONNECTION_ERRORS as error:
                failures += 1
                log.warning("duties.interrupted", error=str(error), failures=failures)
                await asyncio.sleep(backoff_s(failures))

    @contextlib.asynccontextmanager
    async def _leadership(self) -> AsyncIterator[asyncio.Event]:
        """Wait for the leader's lock; yields an event that is set when it is lost."""
        lost = asyncio.Event()
        connection = await self._database.connect(purpose="leader")
        try:
            connection.add_termination_listener(lambda _: lost.set())
            while not await try_to_lead(connection):  # noqa: ASYNC110 - the lock is in another process's hands
                await asyncio.sleep(_jittered(self._settings.lead_every_s))
            log.info("duties.leading")
            self.leading.set()
            yield lost
        finally:
            self.leading.clear()
            connection.terminate()

    async def _lead_until(self, lost: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as tasks:
            doing = [tasks.create_task(_repeat(duty), name=duty.name) for duty in self._duties()]
            await lost.wait()
            log.warning("duties.lost_lead")
            for task in doing:
                task.cancel()

    def _duties(self) -> list[Duty]:
        database, notifier, settings = self._database, self._notifier, self._settings
        return [
            Duty(
                name="rescue",
                every_s=settings.rescue_every_s,
                do=lambda: rescue_lost_jobs(
                    database, notifier, restart=settings.restart_lost, max_lost=settings.max_lost
                ),
            ),
            Duty(name="promotion", every_s=settings.promote_every_s, do=lambda: promote_due_jobs(database, notifier)),
            Duty(name="partitions", every_s=settings.partitions_every_s, do=lambda: make_partitions(database)),
            Duty(
                name="retention",
                every_s=settings.retention_every_s,
                do=lambda: drop_old_jobs(database, retention_s=settings.retention_s),
            ),
            Duty(name="expiry", every_s=settings.expiry_every_s, do=lambda: delete_expired(database)),
            *(() if self._objects is None else self._duties_of(self._objects)),
        ]

    def _duties_of(self, objects: Objects) -> list[Duty]:
        database, settings = self._database, self._settings
        return [
            Duty(name="spill", every_s=settings.spill_every_s, do=lambda: self._spill(objects)),
            Duty(
                name="objects",
                every_s=settings.expiry_every_s,
                do=lambda: delete_doomed_objects(database, objects, retention_s=settings.retention_s),
            ),
        ]

    async def _spill(self, objects: Objects) -> None:
        if not self._checked:  # who set it up wants to know now, not when the first log is large
            await objects.check()
            self._checked = True
            log.info("objects.ready")
        await spill_logs(self._database, objects)


async def _repeat(duty: Duty) -> None:
    """Do a duty for ever. One that fails is tried again when its time comes: the others go on."""
    while True:
        try:
            await duty.do()
        except (*CONNECTION_ERRORS, ObjectStoreError) as error:
            log.warning("duty.postponed", duty=duty.name, error=str(error))
        except Exception:
            log.exception("duty.failed", duty=duty.name)
        await asyncio.sleep(_jittered(duty.every_s))


def _jittered(seconds: float) -> float:
    return seconds * random.uniform(0.8, 1.2)  # noqa: S311 - spreads load, hides nothing
