"""Workers and worker hosts: what they say of themselves, and the port through which they reach the queue."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

import msgspec

from millhand.core.job import ClaimedJob, LogChunk, Report
from millhand.core.script import Script


class HostInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One start of a worker host. Its incarnation holds the lease of all its jobs and is never used again."""

    incarnation: UUID
    group: str
    hostname: str
    ip: str
    version: str
    started_at: datetime
    tags: tuple[str, ...]
    isolation: str  # what jobs are kept apart by: "sandbox", "process: <why>", "none"
    vcpus: int  # in 1/100000 of a CPU, as cgroup quotas count
    memory: int  # bytes this host may use
    lease_s: float = 60.0  # a host that has not pinged for this long has lost its jobs


class WorkerPing(msgspec.Struct, frozen=True, kw_only=True):
    """What one worker says of itself every few seconds."""

    worker: str
    jobs_executed: int
    occupancy: float | None  # busy share since its start, 0..1
    occupancy_15s: float | None
    occupancy_5m: float | None
    occupancy_30m: float | None
    current_job: UUID | None
    last_job: UUID | None
    last_job_workspace: str | None


class HostPing(msgspec.Struct, frozen=True, kw_only=True):
    """One heartbeat of a worker host, for all its workers and jobs at once."""

    workers: tuple[WorkerPing, ...]
    memory_usage: int  # bytes used by the jobs and the host together
    host_memory_usage: int  # bytes used by the host itself
    draining: bool
    held: tuple[UUID, ...]  # jobs this host believes it holds


class Cancelation(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody wants a running job to stop."""

    job_id: UUID
    by: str
    reason: str | None


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a heartbeat."""

    cancel: tuple[Cancelation, ...] = ()
    lost: tuple[UUID, ...] = ()  # jobs of `held` that this host no longer holds: end them, report nothing
    lease_lost: bool = False  # the host was taken for dead; its jobs were given away


class JobSource(Protocol):
    """The port between a worker host and the queue: PostgreSQL here, HTTP for agents.

    Every method may raise SourceUnavailableError; the host keeps what it has and tries again with jitter.
    """

    async def open(self, host: HostInfo, workers: Sequence[str]) -> None:
        """Connect and take the lease of this incarnation."""
        ...

    async def close(self) -> None:
        """Give the lease back and disconnect."""
        ...

    def on_nudge(self, callback: Callable[[], None]) -> None:
        """Call back, on the event loop, when there may be work for the tags of this host. A hint; polling is the truth."""
        ...

    def on_cancel(self, callback: Callable[[UUID], None]) -> None:
        """Call back, on the event loop, when somebody cancels a running job (maybe not one of ours)."""
        ...

    async def claim(self, workers: Sequence[str], tags: Sequence[str]) -> list[ClaimedJob]:
        """Mark up to one due job per free worker as running and return them, best first."""
        ...

    async def next_due_s(self, tags: Sequence[str]) -> float | None:
        """Promote jobs whose time has come, and return the seconds until the next one is due, or None."""
        ...

    async def complete(self, reports: Sequence[Report]) -> set[UUID]:
        """Record ended attempts durably, all in one transaction; return the jobs that were still held."""
        ...

    async def release(self, jobs: Sequence[tuple[UUID, int]], *, why: str) -> set[UUID]:
        """Put running jobs, named by id and attempt, back in the queue without spending an attempt."""
        ...

    async def append_logs(self, chunks: Sequence[LogChunk]) -> None:
        """Append text to job logs, in order."""
        ...

    async def append_stream(self, job_id: UUID, text: str) -> None:
        """Append a piece to a job's result stream."""
        ...

    async def set_progress(self, job_id: UUID, percent: int) -> None:
        """Record how far a job is, 0 to 100."""
        ...

    async def heartbeat(self, ping: HostPing) -> Orders:
        """Renew the lease; called from a thread of its own, on its own connection and event loop."""
        ...

    async def script(self, workspace_id: str, script_hash: int) -> Script | None:
        """Return a deployed script by hash; it never changes but for its lock."""
        ...

    async def script_at(self, workspace_id: str, path: str) -> Script | None:
        """Return the latest version of a script at a path."""
        ...

    async def save_lock(self, workspace_id: str, script_hash: int, *, lock: str | None, error: str | None) -> None:
        """Store what a dependencies job found: the lock, or why there is none."""
        ...

    async def cached_result(self, key: str) -> bytes | None:
        """Return a result kept by an earlier run with the same input, if it has not expired."""
        ...

    def job_token(self, job: ClaimedJob, *, ttl_s: float) -> str:
        """Return an API token with the rights of the job and nothing more, for so many seconds after its claim."""
        ...
