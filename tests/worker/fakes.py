"""A job source and runtimes in memory, for tests of the loop around them. The real ones have suites of their own."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from uuid import UUID

import msgspec

from millhand.core.errors import SourceUnavailableError
from millhand.core.ids import new_id
from millhand.core.job import ClaimedJob, JobKind, LogChunk, Report
from millhand.core.script import Language, Script
from millhand.core.worker import Cancelation, HostInfo, HostPing, Orders
from millhand.runtimes.contract import Execution, Listener, Outcome, Stop, StopCause, Stopped, Success

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


def claimed(**fields: object) -> ClaimedJob:
    """Return a claimed preview job, but for what is said otherwise."""
    defaults: dict[str, object] = {
        "id": new_id(), "attempt": 1, "worker": "w", "workspace_id": "main", "kind": JobKind.PREVIEW, "tag": "python3",
        "args": b"{}", "created_by": "admin", "permissioned_as": "u/admin", "email": "admin@millhand.local",
        "scheduled_for": EPOCH, "started_at": EPOCH, "runnable_path": None, "runnable_hash": None,
        "raw_code": "def main(): ...", "raw_lock": "", "language": Language.PYTHON3, "entrypoint": None, "priority": 0,
        "timeout_s": None, "cache_ttl_s": None, "parent_job": None, "root_job": None, "flow_step_id": None,
        "trigger": None, "awaited": False, "canceled_by": None, "canceled_reason": None, "delete_after_use": False,
        "restart_unless_cancelled": False,
    }  # fmt: skip
    return ClaimedJob(**(defaults | fields))  # type: ignore[arg-type]


class FakeSource:
    """A queue in a list. `away` makes every call fail; `gate` holds completions until it is set."""

    def __init__(self) -> None:
        self.queue: deque[ClaimedJob] = deque()
        self.running: dict[UUID, ClaimedJob] = {}
        self.reports: dict[UUID, Report] = {}
        self.batches: list[int] = []
        self.events: list[tuple[str, UUID]] = []
        self.logs: dict[UUID, str] = {}
        self.streams: dict[UUID, str] = {}
        self.progress: dict[UUID, int] = {}
        self.scripts: dict[int, Script] = {}
        self.locks: dict[int, tuple[str | None, str | None]] = {}
        self.cache: dict[str, bytes] = {}
        self.released: list[tuple[UUID, str]] = []
        self.hosts: list[HostInfo] = []
        self.pings: list[HostPing] = []
        self.orders = Orders()
        self.due: list[float | None] = []
        self.n_claims = 0
        self.away = False
        self.refuse: Callable[[Sequence[Report]], bool] = lambda _: False
        self.gate = asyncio.Event()
        self.gate.set()
        self._changed = asyncio.Event()
        self._nudge: Callable[[], None] = lambda: None
        self._cancel: Callable[[UUID], None] = lambda _: None

    @property
    def ping(self) -> HostPing | None:
        return self.pings[-1] if self.pings else None

    def push(self, *jobs: ClaimedJob) -> None:
        self.queue.extend(jobs)
        self._nudge()

    def cancel(self, job_id: UUID, by: str, reason: str) -> None:
        self.orders = Orders(cancel=(Cancelation(job_id=job_id, by=by, reason=reason),))
        self._cancel(job_id)

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until a condition holds; checked at each call to the source."""
        async with asyncio.timeout(20):
            while not condition():
                self._changed.clear()
                try:
                    async with asyncio.timeout(0.05):
                        await self._changed.wait()
                except TimeoutError:
                    continue

    async def ended(self, *jobs: ClaimedJob) -> list[Report]:
        await self.until(lambda: all(job.id in self.reports for job in jobs))
        return [self.reports[job.id] for job in jobs]

    async def _call(self) -> None:
        self._changed.set()
        await asyncio.sleep(0)
        if self.away:
            raise SourceUnavailableError("away")

    async def open(self, host: HostInfo, workers: Sequence[str]) -> None:
        await self._call()
        self.hosts.append(host)

    async def close(self) -> None:
        return None

    def on_nudge(self, callback: Callable[[], None]) -> None:
        self._nudge = callback

    def on_cancel(self, callback: Callable[[UUID], None]) -> None:
        self._cancel = callback

    async def claim(self, workers: Sequence[str], tags: Sequence[str]) -> list[ClaimedJob]:
        await self._call()
        self.n_claims += 1
        n_jobs = min(len(workers), len(self.queue))
        jobs = [msgspec.structs.replace(self.queue.popleft(), worker=workers[i]) for i in range(n_jobs)]
        self.running |= {job.id: job for job in jobs}
        return jobs

    async def next_due_s(self, tags: Sequence[str]) -> float | None:
        await self._call()
        return self.due.pop(0) if self.due else None

    async def complete(self, reports: Sequence[Report]) -> set[UUID]:
        await self.gate.wait()
        await self._call()
        if self.refuse(reports):
            raise ValueError("refused")
        self.batches.append(len(reports))
        held = {report.job_id for report in reports if report.job_id in self.running}
        for job_id in held:
            del self.running[job_id]
        for report in reports:
            if report.job_id in held:
                if report.log:
                    self.logs[report.job_id] = self.logs.get(report.job_id, "") + report.log
                    self.events.append(("logged", report.job_id))
                self.reports[report.job_id] = report
                self.events.append(("completed", report.job_id))
        self._changed.set()
        return held

    async def release(self, jobs: Sequence[tuple[UUID, int]], *, why: str) -> set[UUID]:
        await self._call()
        for job_id, _ in jobs:
            self.running.pop(job_id, None)
            self.released.append((job_id, why))
        return {job_id for job_id, _ in jobs}

    async def append_logs(self, chunks: Sequence[LogChunk]) -> None:
        await self._call()
        for chunk in chunks:
            self.logs[chunk.job_id] = self.logs.get(chunk.job_id, "") + chunk.text
            self.events.append(("logged", chunk.job_id))

    async def append_stream(self, job_id: UUID, text: str) -> None:
        await self._call()
        self.streams[job_id] = self.streams.get(job_id, "") + text

    async def set_progress(self, job_id: UUID, percent: int) -> None:
        await self._call()
        self.progress[job_id] = percent

    async def heartbeat(self, ping: HostPing) -> Orders:
        if self.away:
            raise SourceUnavailableError("away")
        self.pings.append(ping)
        orders, self.orders = self.orders, Orders()
        return orders

    async def script(self, workspace_id: str, script_hash: int) -> Script | None:
        await self._call()
        return self.scripts.get(script_hash)

    async def script_at(self, workspace_id: str, path: str) -> Script | None:
        await self._call()
        return next((script for script in self.scripts.values() if script.path == path), None)

    async def save_lock(self, workspace_id: str, script_hash: int, *, lock: str | None, error: str | None) -> None:
        await self._call()
        self.locks[script_hash] = (lock, error)

    async def cached_result(self, key: str) -> bytes | None:
        await self._call()
        return self.cache.get(key)

    def job_token(self, job: ClaimedJob, *, ttl_s: float) -> str:
        return f"jwt_{job.id}"


Behaviour = Callable[[Execution, Listener], Awaitable[Outcome]]


async def succeed(execution: Execution, listener: Listener) -> Outcome:
    return Success(result=b'"done"')


async def hang(execution: Execution, listener: Listener) -> Outcome:
    await asyncio.Event().wait()
    raise AssertionError


class FakeRuntime:
    """Runs a coroutine in place of code, and ends it when told to."""

    def __init__(self, behaviour: Behaviour = succeed) -> None:
        self.behaviour = behaviour
        self.executions: list[Execution] = []
        self.locked: Callable[[Execution], str] = lambda _: ""
        self.prepared: Callable[[Execution], Execution] = lambda execution: execution

    async def start(self) -> None:
        return None

    async def close(self) -> None:
        return None

    async def lock(self, execution: Execution, listener: Listener) -> str:
        return self.locked(execution)

    async def prepare(self, execution: Execution, listener: Listener) -> Execution:
        return self.prepared(execution)

    async def execute(self, execution: Execution, listener: Listener, stop: Stop) -> Outcome:
        self.executions.append(execution)
        running = asyncio.ensure_future(self.behaviour(execution, listener))

        def end(_: StopCause) -> None:
            running.cancel()

        stop.arm(end)
        try:
            return await running
        except asyncio.CancelledError:
            assert stop.cause is not None
            return Stopped(cause=stop.cause)


class FakeRuntimes:
    """One fake runtime for all languages."""

    isolation_text = "none"

    def __init__(self, runtime: FakeRuntime | None = None) -> None:
        self.runtime = runtime or FakeRuntime()

    async def start(self) -> None:
        return None

    async def close(self) -> None:
        return None

    def get(self, language: Language) -> FakeRuntime:
        return self.runtime
