"""The worker host: what `millhand worker` starts. Lives through one session after another, until it is drained.

running ─► draining ─► terminated          never backwards
"""

from __future__ import annotations

import asyncio
import enum

import structlog

from millhand.core.clock import Clock, SystemClock
from millhand.core.errors import SourceUnavailableError
from millhand.core.worker import JobSource
from millhand.worker.metrics import WorkerMetrics
from millhand.worker.pace import Backoff, Bell
from millhand.worker.run_job import Runtimes
from millhand.worker.session import End, Session
from millhand.worker.settings import WorkerSettings

_log = structlog.get_logger()


class HostState(enum.StrEnum):
    """Where a host stands in its life."""

    RUNNING = "running"  # claims and runs jobs
    DRAINING = "draining"  # claims no more, lets its jobs finish
    TERMINATED = "terminated"  # holds nothing


class WorkerHost:
    """Runs `settings.num_workers` workers over one job source.

    `await start()`, then `await wait()`; `drain()` and `terminate()` may be called at any time, also more than once.
    """

    def __init__(
        self,
        *,
        settings: WorkerSettings,
        source: JobSource,
        runtimes: Runtimes,
        clock: Clock | None = None,
        metrics: WorkerMetrics | None = None,
    ) -> None:
        self._settings = settings
        self._source = source
        self._runtimes = runtimes
        self._clock = clock or SystemClock()
        self.metrics = metrics or WorkerMetrics()
        self.state = HostState.RUNNING
        self._deadline: float | None = None
        self._session: Session | None = None
        self._life: asyncio.Task[None] | None = None
        self._bell = Bell()

    async def start(self) -> None:
        """Warm the runtimes, connect, take the lease; raises SourceUnavailableError or RuntimeUnavailableError."""
        await self._runtimes.start()
        try:
            session = await self._open()
        except BaseException:
            await self._runtimes.close()
            raise
        self._life = asyncio.create_task(self._live(session))

    async def wait(self) -> None:
        """Wait until the host is terminated; raises what ended it where that was an error of ours."""
        assert self._life is not None, "start() comes first"
        await asyncio.shield(self._life)

    async def drain(self, grace_s: float | None = None) -> None:
        """Claim no more, let jobs finish within the grace period (settings say how long), give back those that don't."""
        self._quiet(self._settings.grace_s if grace_s is None else grace_s)
        await self.wait()

    async def terminate(self) -> None:
        """End now: stop all jobs and give them back to the queue. None of them spends an attempt."""
        self._quiet(0.0)
        await self.wait()

    def _quiet(self, grace_s: float) -> None:
        deadline = self._clock.monotonic() + grace_s
        self._deadline = deadline if self._deadline is None else min(deadline, self._deadline)
        if self.state is HostState.RUNNING:
            self.state = HostState.DRAINING
            _log.info("worker.draining", grace_s=grace_s)
        if self._session is not None:
            self._session.drain(self._deadline)
        self._bell.ring()

    async def _live(self, session: Session) -> None:
        try:
            opened: Session | None = session
            while opened is not None and await opened.run() is End.LEASE_LOST:
                opened = await self._reopen()
        finally:
            self.state = HostState.TERMINATED
            await self._runtimes.close()

    async def _reopen(self) -> Session | None:
        """Open another session as soon as the source can be reached; None when told to end before."""
        backoff = Backoff()
        while self.state is HostState.RUNNING:
            try:
                return await self._open()
            except SourceUnavailableError as error:
                _log.warning("worker.cannot_reopen", error=str(error))
            await self._bell.wait(backoff.next_s())
        return None

    async def _open(self) -> Session:
        """Open a session under a new incarnation and new names; those of an earlier one are never used again."""
        session = Session(
            settings=self._settings,
            source=self._source,
            runtimes=self._runtimes,
            clock=self._clock,
            metrics=self.metrics,
        )
        await session.open()
        self._session = session
        if self._deadline is not None:
            session.drain(self._deadline)
        return session
