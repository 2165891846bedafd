"""The workers of a host: who is free, who runs what, and what they say of themselves."""

from __future__ import annotations

from collections.abc import Iterable

from millhand.core.clock import Clock
from millhand.core.job import ClaimedJob
from millhand.core.worker import WorkerPing
from millhand.worker.occupancy import OccupancyHistory


class Worker:
    """One worker: what the user sees on the Workers page. Written by the event loop, read by the heartbeat's thread."""

    def __init__(self, name: str, *, now: float) -> None:
        self.name = name
        self.jobs_executed = 0
        self.last_job: ClaimedJob | None = None
        self._current: tuple[ClaimedJob, float] | None = None  # one assignment: the other thread sees both or none
        self._busy_s = 0.0
        self._started_at = now
        self._history = OccupancyHistory()

    def begin(self, job: ClaimedJob, now: float) -> None:
        """Note the start of a job."""
        self._current = job, now

    def end(self, now: float) -> None:
        """Note the end of the current job."""
        assert self._current is not None
        job, since = self._current
        self._busy_s += now - since
        self._current = None
        self.jobs_executed += 1
        self.last_job = job

    def ping(self, now: float) -> WorkerPing:
        """Return what this worker says of itself, and take a sample of its occupancy."""
        current = self._current
        busy_s = self._busy_s + (now - current[1] if current else 0.0)
        share = self._history.sample(age_s=now - self._started_at, busy_s=busy_s)
        last = self.last_job
        return WorkerPing(
            worker=self.name,
            jobs_executed=self.jobs_executed,
            occupancy=share.total,
            occupancy_15s=share.last_15s,
            occupancy_5m=share.last_5m,
            occupancy_30m=share.last_30m,
            current_job=current[0].id if current else None,
            last_job=last.id if last else None,
            last_job_workspace=last.workspace_id if last else None,
        )


class Roster:
    """All workers of one incarnation, by name."""

    def __init__(self, names: Iterable[str], *, clock: Clock) -> None:
        now = clock.monotonic()
        self._clock = clock
        self._workers = {name: Worker(name, now=now) for name in names}
        self._free = dict.fromkeys(self._workers)

    def __len__(self) -> int:
        return len(self._workers)

    @property
    def n_free(self) -> int:
        """How many workers run nothing."""
        return len(self._free)

    @property
    def n_busy(self) -> int:
        """How many workers run a job."""
        return len(self._workers) - len(self._free)

    @property
    def jobs_executed(self) -> int:
        """How many jobs these workers have ended."""
        return sum(worker.jobs_executed for worker in self._workers.values())

    def free(self, most: int) -> list[str]:
        """Return the names of free workers."""
        names = list(self._free)
        return names if len(names) <= most else names[:most]

    def begin(self, job: ClaimedJob) -> None:
        """Have the worker named in the job run it."""
        del self._free[job.worker]
        self._workers[job.worker].begin(job, self._clock.monotonic())

    def end(self, job: ClaimedJob) -> None:
        """Free the worker of a job."""
        self._workers[job.worker].end(self._clock.monotonic())
        self._free[job.worker] = None

    def answered(self, job: ClaimedJob) -> None:
        """Count a job that its worker answered in no time."""
        worker = self._workers[job.worker]
        worker.jobs_executed += 1
        worker.last_job = job

    def pings(self) -> tuple[WorkerPing, ...]:
        """Return what the workers say of themselves."""
        now = self._clock.monotonic()
        return tuple(worker.ping(now) for worker in self._workers.values())
