"""PostgreSQL as a worker host's JobSource: its pool, its listener, its nudges, its heartbeat's connection."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

import structlog

from millhand.core.credentials import JobClaims, sign_job_token
from millhand.core.errors import SourceUnavailableError
from millhand.core.job import ClaimedJob, LogChunk, Report
from millhand.core.script import Script
from millhand.core.worker import HostInfo, HostPing, Orders
from millhand.store import completion, logs, migrate, queue, scripts
from millhand.store import workers as hosts
from millhand.store.notify import WORK_CHANNEL, Notifier, parse_ids
from millhand.store.pool import CONNECTION_ERRORS, QUEUE_PLANS, Database, Listener

log = structlog.get_logger(__name__)

CLAIM_GOOD_FOR_S = 60.0  # well within workers.FORGOTTEN_S: what is claimed is held before it is taken for forgotten
POOL_SIZE = 3  # a claim, a completion and one other thing at a time
_AT_ONCE = 2  # connections that are opened at the start, and have a claim and a completion from then on
SCRIPTS_KEPT = 1000
_FORGOTTEN = "its worker never heard that it was given this job; the job goes back to the queue\n"
_P = ParamSpec("_P")
_R = TypeVar("_R")

# Logs, progress and heartbeats may be lost when PostgreSQL crashes; what decides about jobs may not.
_RELAXED = {"synchronous_commit": "off"}


def _needs_database(
    method: Callable[_P, Awaitable[_R]],
) -> Callable[_P, Coroutine[Any, Any, _R]]:
    """Have a method raise SourceUnavailableError for all that a lost connection raises."""

    @functools.wraps(method)
    async def wrapped(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return await method(*args, **kwargs)
        except ValueError:
            raise  # a value the driver can't send is not a lost connection, though it derives from the same class
        except CONNECTION_ERRORS as error:
            raise SourceUnavailableError(f"the database can't be reached: {error or type(error).__name__}") from error

    return wrapped


class PgJobSource:
    """The queue in PostgreSQL, seen by one worker host."""

    def __init__(self, url: str) -> None:
        self._database = Database(
            url, application_name="millhand worker", min_size=_AT_ONCE, max_size=POOL_SIZE, settings=QUEUE_PLANS
        )
        self._relaxed = Database(
            url, application_name="millhand worker logs", min_size=1, max_size=1, settings=_RELAXED
        )
        self._notifier = Notifier(self._database)  # not behind the logs: somebody waits for these
        self._listener = Listener(self._database, WORK_CHANNEL, self._heard, on_reconnect=self._nudge)
        self._exit = contextlib.AsyncExitStack()
        self._host: HostInfo
        self._loop: asyncio.AbstractEventLoop
        self._secret = ""
        self._nudge_callback: Callable[[], None] = lambda: None
        self._cancel_callback: Callable[[UUID], None] = lambda _: None
        self._nudged = False
        self._awaited: set[UUID] = set()
        self._scripts: dict[tuple[str, int], Script] = {}
        self._heart: Any = None
        self._heart_loop: asyncio.AbstractEventLoop | None = None

    @_needs_database
    async def open(self, host: HostInfo, workers: Sequence[str]) -> None:
        """Connect, check the schema and take the lease of this incarnation."""
        self._host, self._loop = host, asyncio.get_running_loop()
        async with contextlib.AsyncExitStack() as opening:
            await opening.enter_async_context(self._database)
            await opening.enter_async_context(self._relaxed)
            await migrate.check_schema(self._database)
            self._secret = await migrate.setting(self._database, "jwt_secret")
            await hosts.register(self._database, host, workers)
            await asyncio.gather(*[self._rehearse() for _ in range(_AT_ONCE)])
            await opening.enter_async_context(self._notifier)
            await self._listener.start()
            opening.push_async_callback(self._listener.stop)
            self._exit = opening.pop_all()

    async def _rehearse(self) -> None:
        """Have a connection know the statements that jobs wait for: the first claim on one takes 13 ms, later ones 1."""
        async with self._database.acquire() as connection:
            await queue.claim(connection, [], (), self._host.incarnation)
            await completion.rehearse(connection, self._host.incarnation)

    async def close(self) -> None:
        """Give the lease back and disconnect."""
        with contextlib.suppress(*CONNECTION_ERRORS):
            await hosts.deregister(self._database, self._host.incarnation)
        await self._exit.aclose()
        if self._heart_loop is not None and not self._heart_loop.is_closed():
            self._heart_loop.call_soon_threadsafe(self._drop_heart)

    def on_nudge(self, callback: Callable[[], None]) -> None:
        """Call back, on the event loop, when there may be work for the tags of this host."""
        self._nudge_callback = callback

    def on_cancel(self, callback: Callable[[UUID], None]) -> None:
        """Call back, on the event loop, when somebody cancels a running job."""
        self._cancel_callback = callback

    def _heard(self, payload: str) -> None:
        if payload.startswith("c:"):
            for job_id in parse_ids(payload):
                self._cancel_callback(job_id)
        elif payload.startswith("q:") and payload[2:] in self._host.tags:
            self._nudge()

    def _nudge(self) -> None:
        """Pass a nudge on, once for all that came in the same turn of the loop."""
        if not self._nudged:
            self._nudged = True
            self._loop.call_soon(self._pass_nudge)

    def _pass_nudge(self) -> None:
        self._nudged = False
        self._nudge_callback()

    @_needs_database
    async def claim(self, workers: Sequence[str], tags: Sequence[str]) -> list[ClaimedJob]:
        """Mark up to one due job per free worker as running and return them, best first."""
        began = time.monotonic()
        claimed = await queue.claim(self._database, workers, tags, self._host.incarnation)
        if time.monotonic() - began > CLAIM_GOOD_FOR_S:
            log.warning("claim.too_late", job_ids=[str(job.id) for job in claimed])  # given back by a later ping
            return []
        self._awaited.update([job.id for job in claimed if job.awaited])
        return claimed

    @_needs_database
    async def next_due_s(self, tags: Sequence[str]) -> float | None:
        """Promote jobs whose time has come, of whatever tag, and return the seconds until the next one is due."""
        due = await queue.promote_due(self._database)
        if due.n_promoted:
            self._notifier.work(due.tags)
        if not set(due.tags).isdisjoint(tags):
            self._nudge()
        return due.next_due_s

    @_needs_database
    async def complete(self, reports: Sequence[Report]) -> set[UUID]:
        """Record ended attempts durably; return the jobs that were still held."""
        done = await completion.complete(self._database, reports, self._host.incarnation)
        if self._awaited:
            self._awaited.difference_update([report.job_id for report in reports])
        self._notifier.ended(done.awaited)
        self._notifier.work(done.tags)
        return set(done.held)

    @_needs_database
    async def release(self, jobs: Sequence[tuple[UUID, int]], *, why: str) -> set[UUID]:
        """Put running jobs back in the queue without spending an attempt, and say why in their logs."""
        released = await queue.release(self._database, jobs, self._host.incarnation)
        self._awaited.difference_update(released)
        self._notifier.work(set(released.values()))
        await logs.append(self._relaxed, [LogChunk(job_id=job_id, text=f"{why}\n") for job_id in released])
        return set(released)

    @_needs_database
    async def append_logs(self, chunks: Sequence[LogChunk]) -> None:
        """Append text to job logs, in order."""
        await logs.append(self._relaxed, chunks)
        self._grew([chunk.job_id for chunk in chunks])

    @_needs_database
    async def append_stream(self, job_id: UUID, text: str) -> None:
        """Append a piece to a job's result stream."""
        await logs.append_stream(self._relaxed, job_id, text)
        self._grew([job_id])

    @_needs_database
    async def set_progress(self, job_id: UUID, percent: int) -> None:
        """Record how far a job is, 0 to 100."""
        if await queue.set_progress(self._relaxed, job_id, percent, self._host.incarnation):
            self._notifier.grew([job_id])

    def _grew(self, job_ids: Sequence[UUID]) -> None:
        if awaited := self._awaited.intersection(job_ids):
            self._notifier.grew(awaited)

    @_needs_database
    async def heartbeat(self, ping: HostPing) -> Orders:
        """Renew the lease, on a connection of the calling thread's loop; it is opened again after any error."""
        if self._heart is None or self._heart.is_closed():
            self._heart_loop = asyncio.get_running_loop()
            self._heart = await self._heartbeats.connect(purpose="heartbeat")
        try:
            orders = await hosts.ping(self._heart, self._host, ping)
            if not orders.lease_lost:
                await self._release_forgotten(self._heart, ping.held)
        except BaseException:
            self._drop_heart()
            raise
        return orders

    async def _release_forgotten(self, heart: Any, held: Sequence[UUID]) -> None:
        """Queue what was claimed for us while the answer was lost, and say so; on the heartbeat's thread."""
        released = await hosts.release_forgotten(heart, self._host.incarnation, held)
        if not released:
            return
        log.warning("jobs.forgotten", job_ids=[str(job_id) for job_id in released])
        self._loop.call_soon_threadsafe(self._notifier.work, set(released.values()))
        await logs.append(heart, [LogChunk(job_id=job_id, text=_FORGOTTEN) for job_id in released])

    @functools.cached_property
    def _heartbeats(self) -> Database:
        return Database(self._database.url, application_name="millhand worker", settings=_RELAXED)

    def _drop_heart(self) -> None:
        heart, self._heart = self._heart, None
        if heart is not None:
            heart.terminate()

    @_needs_database
    async def script(self, workspace_id: str, script_hash: int) -> Script | None:
        """Return a deployed script by hash; kept in memory once its lock is known, as nothing of it changes then."""
        key = (workspace_id, script_hash)
        if kept := self._scripts.get(key):
            return kept
        found = await scripts.get(self._database, workspace_id, script_hash)
        if found is not None and found.lock is not None:
            if len(self._scripts) >= SCRIPTS_KEPT:
                self._scripts.pop(next(iter(self._scripts)))
            self._scripts[key] = found
        return found

    @_needs_database
    async def script_at(self, workspace_id: str, path: str) -> Script | None:
        """Return the latest version of a script at a path."""
        return await scripts.latest(self._database, workspace_id, path)

    @_needs_database
    async def save_lock(self, workspace_id: str, script_hash: int, *, lock: str | None, error: str | None) -> None:
        """Store what a dependencies job found: the lock, or why there is none."""
        await scripts.save_lock(self._database, workspace_id, script_hash, lock=lock, error=error)

    @_needs_database
    async def cached_result(self, key: str) -> bytes | None:
        """Return a result kept by an earlier run with the same input, if it has not expired."""
        return await completion.cached_result(self._database, key)

    def job_token(self, job: ClaimedJob, *, ttl_s: float) -> str:
        """Return an API token with the rights of the job and nothing more, for so many seconds after its claim."""
        claims = JobClaims(
            email=job.email,
            username=job.permissioned_as[2:] if job.permissioned_as.startswith("u/") else job.created_by,
            workspace_id=job.workspace_id,
            job_id=job.id,
            permissioned_as=job.permissioned_as,
            exp=int(job.started_at.timestamp() + ttl_s),  # the database's time: ours may be off
        )
        return sign_job_token(self._secret, claims)
