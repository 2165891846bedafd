"""One incarnation of a worker host: from taking a lease to giving it back or losing it.

running ─► draining ─► ended          never backwards; the heartbeat beats until the end
"""

from __future__ import annotations

import asyncio
import enum
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from uuid import UUID, uuid4

import structlog

from millhand import __version__
from millhand.core.clock import Clock
from millhand.core.ids import worker_name
from millhand.core.job import ClaimedJob, Report
from millhand.core.worker import HostInfo, HostPing, JobSource, Orders
from millhand.runtimes.contract import StopCause
from millhand.worker import classify, machine
from millhand.worker.heartbeat import Heartbeat
from millhand.worker.instant import instant_report
from millhand.worker.logs import LogShipper
from millhand.worker.loop import MAX_CLAIM, ClaimLoop
from millhand.worker.metrics import WorkerMetrics
from millhand.worker.pace import Bell
from millhand.worker.reporter import Reporter
from millhand.worker.roster import Roster
from millhand.worker.run_job import Attempt, JobRunner, Runtimes
from millhand.worker.settings import WorkerSettings

# Ended jobs whose reports may wait to be recorded before the host claims no more: two full batches keep claims and
# completions overlapping, and bound what a host that dies takes with it.
_MAX_UNSETTLED = 2 * MAX_CLAIM
_STOP_S = 10.0  # for runs that were told to stop; runtimes kill long before
_FLUSH_S = 10.0  # for last reports; what can't be recorded by then is rescued by others when the lease ends
_SHUTDOWN = "its worker shut down"

_log = structlog.get_logger()


class End(enum.Enum):
    """Why a session ended."""

    DRAINED = "drained"  # it was told to
    LEASE_LOST = "lease_lost"  # the host was taken for dead; it may come back as another incarnation
    EXHAUSTED = "exhausted"  # it ran as many jobs as it was to run


class Session:
    """Claims, runs and reports under one lease."""

    def __init__(
        self,
        *,
        settings: WorkerSettings,
        source: JobSource,
        runtimes: Runtimes,
        clock: Clock,
        metrics: WorkerMetrics,
    ) -> None:
        self._settings = settings
        self._source = source
        self._clock = clock
        self._metrics = metrics
        self._info = _host_info(settings, clock, runtimes.isolation_text)
        self._roster = Roster(_names(settings, self._info.hostname), clock=clock)
        self._held: dict[UUID, int] = {}  # attempt of each job between its claim and its record
        self._attempts: dict[UUID, Attempt] = {}
        self._end: End | None = None
        self._deadline: float | None = None  # of draining, monotonic
        self._bell = Bell()  # something happened that the session's end may wait for
        self._shipper = LogShipper(source=source, clock=clock, max_log_bytes=settings.max_log_bytes)
        self._reporter = Reporter(source=source, recorded=self._recorded)
        self._loop = ClaimLoop(
            source=source,
            tags=settings.tags,
            roster=self._roster,
            has_room=self._has_room,
            accept=self._accept,
            poll_s=settings.poll_s,
            clock=clock,
            metrics=metrics,
        )
        self._heartbeat = Heartbeat(
            source=source, ping=self._ping, obey=self._obey, interval_s=settings.heartbeat_s, clock=clock
        )
        self._runner = JobRunner(
            source=source,
            runtimes=runtimes,
            settings=settings,
            clock=clock,
            hostname=self._info.hostname,
            free=self._freed,
            report=self._ended,
        )

    @property
    def jobs_executed(self) -> int:
        """How many jobs this session has run."""
        return self._roster.jobs_executed

    async def open(self) -> None:
        """Connect and take the lease; raises SourceUnavailableError."""
        await self._source.open(self._info, self._roster.free(len(self._roster)))
        self._source.on_nudge(self._loop.nudge)
        self._source.on_cancel(self._maybe_canceled)
        self._metrics.watch(n_workers=len(self._roster), n_busy=lambda: self._roster.n_busy)
        _log.info("worker.started", incarnation=str(self._info.incarnation), n_workers=len(self._roster))

    async def run(self) -> End:
        """Work until told to end; then finish or give back what is held, and give the lease back."""
        self._heartbeat.start()
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                lanes = [tasks.create_task(self._shipper.run()), tasks.create_task(self._reporter.run())]
                claiming = tasks.create_task(self._loop.run())
                end = await self._until_told()
                self._loop.stop()
                await asyncio.wait([claiming])
                await self._finish(end)
                for lane in lanes:
                    lane.cancel()
        finally:
            await self._heartbeat.rest()
            try:
                await self._source.close()
            finally:
                await self._heartbeat.stop()
        _log.info("worker.ended", incarnation=str(self._info.incarnation), why=end.value)
        return end

    def drain(self, deadline: float) -> None:
        """Claim no more; let jobs finish until the deadline, then give them back. An earlier deadline replaces a later one."""
        self._deadline = min(deadline, self._deadline or deadline)
        self._tell(End.DRAINED)

    def _tell(self, end: End) -> None:
        self._end = self._end or end
        self._bell.ring()

    async def _until_told(self) -> End:
        while self._end is None:
            await self._bell.wait()
        return self._end

    async def _finish(self, end: End) -> None:
        if end is End.LEASE_LOST:
            self._stop_all(StopCause.LOST)
        elif await self._wait_for_attempts(self._left_s):
            self._stop_all(StopCause.SHUTDOWN)
        stop_by = self._clock.monotonic() + _STOP_S
        if await self._wait_for_attempts(lambda: stop_by - self._clock.monotonic()):
            _log.error("worker.runs_left", job_ids=[str(job_id) for job_id in self._attempts])
            self._abandon()
        await self._flush()

    def _left_s(self) -> float | None:
        return None if self._deadline is None else self._deadline - self._clock.monotonic()

    async def _wait_for_attempts(self, left_s: Callable[[], float | None]) -> bool:
        """Wait until no attempt is left, or time is up; return whether some are left."""
        while self._attempts:
            seconds = left_s()
            if seconds is not None and seconds <= 0:
                return True
            await self._bell.wait(seconds)
        return False

    async def _flush(self) -> None:
        try:
            async with asyncio.timeout(_FLUSH_S):
                await self._reporter.settled()
        except TimeoutError:
            _log.error("worker.unreported", n_jobs=self._reporter.n_unsettled)

    def _has_room(self) -> bool:
        return len(self._held) - len(self._attempts) < _MAX_UNSETTLED

    def _accept(self, jobs: Sequence[ClaimedJob]) -> None:
        """Answer what can be answered at once, all in one go; start the rest."""
        held, reports = self._held, []
        for job in jobs:
            held[job.id] = job.attempt
            report = instant_report(job)
            if report is not None:
                self._roster.answered(job)
                reports.append(report)
            elif self._end is not None:
                self._reporter.give_back(job.id, job.attempt, why=_SHUTDOWN)
            else:
                self._start(job)
        if reports:
            self._reporter.put(reports, awaited=any(job.awaited for job in jobs))
            self._count_ended(jobs, reports)
            self._end_if_exhausted()
        self._count_started(jobs)

    def _start(self, job: ClaimedJob) -> None:
        log = self._shipper.open(job.id, awaited=job.awaited)
        attempt = Attempt(job, log, began=self._clock.monotonic())
        self._attempts[job.id] = attempt
        self._roster.begin(job)
        attempt.task = self._tasks.create_task(self._run(attempt))

    async def _run(self, attempt: Attempt) -> None:
        """Run an attempt; a bug of ours in reporting it ends the job with a clear error, not the host."""
        try:
            await self._runner.run(attempt)
        except Exception as error:  # noqa: BLE001 - see above
            _log.exception("job.runner_failed", job_id=str(attempt.job.id))
            found = classify.failure("WorkerError", f"the worker failed to report this job: {error}")
            ran = classify.Ran(duration_ms=0, timeout_s=attempt.timeout_s)
            attempt.report = classify.report_failure(attempt.job, found, ran)
            self._ended(attempt)

    def _freed(self, attempt: Attempt) -> None:
        self._roster.end(attempt.job)
        self._metrics.ran(attempt.job.tag, self._clock.monotonic() - attempt.began)
        self._end_if_exhausted()
        self._loop.freed()

    def _end_if_exhausted(self) -> None:
        most = self._settings.exit_after_n_jobs
        if most is not None and self._roster.jobs_executed >= most:
            self._loop.stop()
            self._tell(End.EXHAUSTED)

    def _ended(self, attempt: Attempt) -> None:
        """Take the report of an attempt; where there is none, the job goes back, or is not ours any more."""
        job = attempt.job
        del self._attempts[job.id]
        if attempt.report is not None:
            self._reporter.put([attempt.report], awaited=job.awaited)
            self._metrics.completed(job.tag, attempt.report.status)
        elif attempt.stop.cause is StopCause.SHUTDOWN:
            self._reporter.give_back(job.id, job.attempt, why=_SHUTDOWN)
        else:
            _log.info("job.lost", job_id=str(job.id), attempt=job.attempt)
            self._held.pop(job.id, None)
        self._bell.ring()

    def _recorded(self, job_ids: Sequence[UUID]) -> None:
        for job_id in job_ids:
            self._held.pop(job_id, None)
        self._loop.freed()

    def _ping(self) -> HostPing:
        """Say how things stand; on the heartbeat's thread. Copies of dictionaries are atomic under the interpreter's lock."""
        return HostPing(
            workers=self._roster.pings(),
            memory_usage=machine.memory_usage(),
            host_memory_usage=machine.own_memory_usage(),
            draining=self._end is not None,
            held=tuple(self._held.copy()),
        )

    def _obey(self, orders: Orders, asked_at: float) -> None:
        """Apply the answer to a ping. What began after it was asked is not what the answer means."""
        for cancelation in orders.cancel:
            attempt = self._attempts.get(cancelation.job_id)
            if attempt is not None:
                attempt.cancel(cancelation)
        for job_id in orders.lost:
            attempt = self._attempts.get(job_id)
            if attempt is not None and attempt.began <= asked_at:
                attempt.stop.request(StopCause.LOST)
        if orders.lease_lost:
            _log.warning("worker.lease_lost", incarnation=str(self._info.incarnation))
            self._tell(End.LEASE_LOST)
            self._stop_all(StopCause.LOST)

    def _maybe_canceled(self, job_id: UUID) -> None:
        """Ask for orders at once: the answer tells who cancels the job and why, or that it is not ours any more."""
        if job_id in self._attempts:
            self._heartbeat.soon()

    def _stop_all(self, cause: StopCause) -> None:
        for attempt in list(self._attempts.values()):
            attempt.stop.request(cause)

    def _abandon(self) -> None:
        for attempt in self._attempts.values():
            if attempt.task is not None:
                attempt.task.cancel()

    def _count_started(self, jobs: Sequence[ClaimedJob]) -> None:
        for tag, n_jobs in Counter(job.tag for job in jobs).items():
            self._metrics.started(tag, n_jobs)
        self._metrics.queue_wait.observe_all([(job.started_at - job.scheduled_for).total_seconds() for job in jobs])

    def _count_ended(self, jobs: Sequence[ClaimedJob], reports: Sequence[Report]) -> None:
        tags = {job.id: job.tag for job in jobs}
        for (tag, status), n_jobs in Counter((tags[report.job_id], report.status) for report in reports).items():
            self._metrics.completed(tag, status, n_jobs)


def _names(settings: WorkerSettings, hostname: str) -> tuple[str, ...]:
    names: set[str] = set()
    while len(names) < settings.num_workers:  # five random characters may meet
        names.add(worker_name(settings.group, hostname))
    return tuple(names)


def _host_info(settings: WorkerSettings, clock: Clock, isolation_text: str) -> HostInfo:
    return HostInfo(
        incarnation=uuid4(),
        group=settings.group,
        hostname=socket.gethostname(),
        ip=machine.ip_address(),
        version=__version__,
        started_at=clock.now(),
        tags=settings.tags,
        isolation=isolation_text,
        vcpus=machine.vcpus(),
        memory=machine.memory_limit(),
        lease_s=settings.lease_s,
    )
