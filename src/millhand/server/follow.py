"""Following a job: what is new since the last look, and waiting until there is something."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from uuid import UUID

import msgspec
from msgspec import UNSET

from millhand.core.errors import NotFoundError, ObjectStoreError
from millhand.core.objects import Objects
from millhand.server.hub import Hub, Watcher
from millhand.server.payloads import JobUpdate, job_payload
from millhand.store import jobs, logs, results
from millhand.store.pool import Database

LONG_POLL_S = 0.4  # a client that asks in a tight loop is answered this much later where nothing is new
LOOK_S = 1.0  # notifications are hints: while streaming, look this often without one
PART_UNITS = 4 * 1024 * 1024  # of a log in one update; the rest comes with the next ones
UNREACHABLE = (
    "[the log up to here is in object storage, which can't be read right now; get_logs has it when it is back]\n"
)
QUIET_S = 5.0  # after this long without news, a stream says that it is alive

_encode = msgspec.json.Encoder().encode


class Position(msgspec.Struct, kw_only=True):
    """How far a client has come: what it need not be told again."""

    running: bool | None  # what it believes
    log_offset: int = 0  # UTF-16 units
    stream_offset: int = 0  # pieces
    progress: int | None = None
    mem_peak: int | None = None
    with_logs: bool = True
    by_offset: bool = True  # it will ask for the rest of a log that comes in parts
    with_progress: bool = False


class Follower:
    """Follows one job for one client. A large log comes in parts, and the job's end is told with the last of them."""

    def __init__(
        self, database: Database, objects: Objects | None, *, workspace_id: str, job_id: UUID, position: Position
    ) -> None:
        self._database = database
        self._objects = objects
        self._workspace_id = workspace_id
        self._job_id = job_id
        self._position = position
        self._more = False  # whether the last update left out some of the log
        self._streams = False  # whether what can't be read is left out with a note: a stream has no other way to say it

    async def news(self) -> tuple[JobUpdate, bool]:
        """Return what is new, and whether that is anything; moves the position on.

        Raises NotFoundError, and ObjectStoreError where old parts of the log can't be had.

        The state is read before the log: who is told that a job has ended has all of its log.
        """
        now = await jobs.watch(self._database, self._workspace_id, self._job_id)
        if now is None:
            raise NotFoundError(f"there is no job {self._job_id} in workspace {self._workspace_id}")
        if now.state is not None and not now.awaited:
            await jobs.await_job(self._database, self._job_id)
        at = self._position
        text, piece = await self._read()
        ended = now.completed and not (self._more and at.by_offset)
        turned = now.running != at.running if at.running is not None else now.running
        progressed = at.with_progress and now.progress is not None and now.progress != at.progress
        at.running, at.progress, at.mem_peak = now.running, now.progress, now.memory_peak_kb
        update = JobUpdate(
            running=now.running if turned and not now.completed else UNSET,
            completed=True if ended else UNSET,
            new_logs=text or UNSET,
            log_offset=at.log_offset,
            mem_peak=now.memory_peak_kb or UNSET,
            progress=now.progress if at.with_progress and now.progress is not None else UNSET,
            new_result_stream=piece or UNSET,
            stream_offset=at.stream_offset if piece else UNSET,
        )
        return update, bool(ended or turned or text or piece or progressed)

    async def _read(self) -> tuple[str, str]:
        at, text = self._position, ""
        if at.with_logs:
            text = await self._read_log()
        piece, at.stream_offset = await logs.read_stream(self._database, self._job_id, offset=at.stream_offset)
        return text, piece

    async def _read_log(self) -> str:
        at, database = self._position, self._database
        try:
            text, reached = await logs.read(
                database, self._job_id, offset=at.log_offset, at_most=PART_UNITS, objects=self._objects
            )
        except ObjectStoreError:
            if not self._streams:
                raise
            text, start = await logs.read_kept(database, self._job_id)
            text, reached = UNREACHABLE + text, max(start + logs.utf16_length(text), at.log_offset)
        self._more = reached - at.log_offset >= PART_UNITS
        at.log_offset = reached
        return text

    async def next_update(self, watcher: Watcher) -> JobUpdate:
        """Return what is new, waiting a moment for it where nothing is."""
        deadline = time.monotonic() + LONG_POLL_S
        while True:
            update, is_new = await self.news()
            left = deadline - time.monotonic()
            if is_new or left <= 0:
                return update
            await watcher.wait(left)

    async def events(self, hub: Hub, *, lasting_s: float, only_result: bool) -> AsyncIterator[bytes]:
        """Yield server-sent events until the job has ended or the time is over: the client then comes back."""
        self._streams = True
        deadline, told_at = time.monotonic() + lasting_s, time.monotonic()
        with hub.watching(self._job_id) as watcher:
            while True:
                try:
                    update, is_new = await self.news()
                except NotFoundError:
                    yield _event({"type": "notfound"})
                    return
                if is_new:
                    yield await self._update_event(update, only_result=only_result)
                    told_at = time.monotonic()
                if update.completed is True:
                    return
                if time.monotonic() >= deadline:
                    yield _event({"type": "timeout"})
                    return
                if time.monotonic() - told_at > QUIET_S:
                    yield _event({"type": "ping"})
                    told_at = time.monotonic()
                if not self._more:
                    await watcher.wait(min(LOOK_S, max(deadline - time.monotonic(), 0)))

    async def _update_event(self, update: JobUpdate, *, only_result: bool) -> bytes:
        fields = {"type": "update", **msgspec.to_builtins(update)}
        if update.completed is True:
            result = await results.result_of(self._database, self._workspace_id, self._job_id)
            fields["only_result"] = msgspec.Raw(b"null" if result is None else result.value)
            if not only_result:
                job = await jobs.get(self._database, self._workspace_id, self._job_id)
                fields["job"] = None if job is None else job_payload(job)
        return _event(fields)


def _event(fields: dict[str, object]) -> bytes:
    return b"data: " + _encode(fields) + b"\n\n"
