"""Report ended attempts: at once when nothing is on its way, else all that gathered meanwhile, up to 500 in one statement.

While more than one comes at a time, and nobody waits for one of them, some more time is given for company: each statement
costs the host and PostgreSQL as much as several more reports in it.

What can't be reported because the source is away is kept and tried again until it answers: a result is never dropped
while this process lives. Zero rows for a report means the job is not ours any more, a normal answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from uuid import UUID

import msgspec
import structlog

from millhand.core.job import JobStatus, Report, error_result
from millhand.core.worker import JobSource
from millhand.worker.pace import Bell, insist

MAX_BATCH = 500
_GATHER_S = 0.008  # how long to wait for company, under load: a third of the commits at 800 jobs/s

_log = structlog.get_logger()

Recorded = Callable[[Sequence[UUID]], None]


class Reporter:
    """Takes reports and jobs to give back, and calls `recorded` for each job that is settled, held or not."""

    def __init__(self, *, source: JobSource, recorded: Recorded) -> None:
        self._source = source
        self._recorded = recorded
        self._reports: list[Report] = []
        self._releases: dict[str, list[tuple[UUID, int]]] = {}  # by why
        self._n_on_their_way = 0
        self._idle = True
        self._bell = Bell()
        self._settled = asyncio.Event()
        self._settled.set()

    @property
    def n_unsettled(self) -> int:
        """How many reports and releases have not been recorded yet."""
        return len(self._reports) + sum(map(len, self._releases.values())) + self._n_on_their_way

    def put(self, reports: Iterable[Report], *, awaited: bool = False) -> None:
        """Take reports to be recorded; `awaited`: somebody waits for them, be prompt."""
        self._reports.extend(reports)
        self._settled.clear()
        if self._idle or awaited or len(self._reports) >= MAX_BATCH:
            self._bell.ring()

    def give_back(self, job_id: UUID, attempt: int, *, why: str) -> None:
        """Take a job to be put back in the queue without spending an attempt."""
        self._releases.setdefault(why, []).append((job_id, attempt))
        self._settled.clear()
        self._bell.ring()

    async def settled(self) -> None:
        """Wait until everything taken so far is recorded."""
        await self._settled.wait()

    async def run(self) -> None:
        """Record what comes, until cancelled."""
        while True:
            self._idle = True
            await self._bell.wait()
            self._idle = False
            while self._reports or self._releases:
                await self._release()
                n_recorded = await self._record()
                if not self.n_unsettled:
                    self._settled.set()
                if 1 < n_recorded < MAX_BATCH:
                    await self._bell.wait(_GATHER_S)

    async def _record(self) -> int:
        batch, self._reports = self._reports[:MAX_BATCH], self._reports[MAX_BATCH:]
        if batch:
            self._n_on_their_way = len(batch)
            held = await self._complete(batch)
            self._n_on_their_way = 0
            if len(held) != len(batch):
                _log.info("job.not_held", job_ids=[str(r.job_id) for r in batch if r.job_id not in held])
            self._recorded([report.job_id for report in batch])
        return len(batch)

    async def _complete(self, batch: Sequence[Report]) -> set[UUID]:
        """Record a batch; where it is refused as a whole, each report alone, so that one can't hold up the others."""
        try:
            return await insist(partial(self._source.complete, batch))
        except Exception:  # noqa: BLE001 - one report the source can't take must not lose the others
            _log.exception("reporter.refused", n_reports=len(batch))
        held: set[UUID] = set()
        for report in batch:
            held |= await self._complete_alone(report)
        return held

    async def _complete_alone(self, report: Report) -> set[UUID]:
        try:
            return await insist(partial(self._source.complete, [report]))
        except Exception as error:  # noqa: BLE001 - the job must end, with another result if need be
            _log.exception("reporter.refused_one", job_id=str(report.job_id))
            plain = _unrecordable(report, error)
        try:
            return await insist(partial(self._source.complete, [plain]))
        except Exception:  # noqa: BLE001 - nothing more can be done for this one; the others go on
            _log.exception("reporter.gave_up", job_id=str(report.job_id))
            return set()

    async def _release(self) -> None:
        while self._releases:
            why, jobs = self._releases.popitem()
            self._n_on_their_way = len(jobs)
            try:
                await insist(partial(self._source.release, jobs, why=why))
            except Exception:  # noqa: BLE001 - they are rescued when the lease ends
                _log.exception("reporter.release_refused", n_jobs=len(jobs))
            self._n_on_their_way = 0
            self._recorded([job_id for job_id, _ in jobs])


def _unrecordable(report: Report, error: Exception) -> Report:
    """Return the report of a job whose result the source refuses."""
    result = error_result("ResultRefused", f"the job ended, but its result could not be recorded: {error}")
    return msgspec.structs.replace(report, status=JobStatus.FAILURE, result=result, labels=(), cache_key=None)
