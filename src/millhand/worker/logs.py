"""Ship the logs, result streams and progress of running jobs: many jobs in one statement, batched by time and size.

When a text becomes due:
  * at once, when its job has ended but its last words are too many for its report, or 64 KiB have gathered;
  * for a job somebody waits for, 50 ms after the first text, then every 50 ms; so for result streams, but at once at first;
  * else 100 ms after the start, later every 500 ms, and every 2.5 s once the job is ten seconds old.
The line that heads a log waits half a second for the job to say something, so that silent jobs cost no statement.
One shipment is on its way at a time, so texts of one job arrive in order, and a busy source makes batches larger by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from uuid import UUID

import msgspec
import structlog

from millhand.core.clock import Clock
from millhand.core.job import LogChunk
from millhand.core.worker import JobSource
from millhand.worker.pace import Bell, insist

_PROMPT_S = 0.05
_FIRST_S = 0.1
_SILENT_S = 0.5
_YOUNG_S = 0.5
_OLD_S = 2.5
_OLD_AFTER_S = 10.0
_DUE_CHARACTERS = 64 * 1024
_MAX_SHIPMENT = 4 * 1024 * 1024  # characters in one statement
_CHUNK = 512 * 1024  # characters in one row

_log = structlog.get_logger()


class JobLog:
    """What one attempt of a job says while it runs; implements the runtimes' `Listener`."""

    def __init__(
        self,
        job_id: UUID,
        *,
        prompt: bool,
        max_bytes: int,
        now: float,
        due: Callable[[JobLog], None],
        done: Callable[[JobLog], None],
    ) -> None:
        self.job_id = job_id
        self.streamed: list[str] = []  # all of the result stream, for the result
        self.due_at = 0.0
        self._prompt = prompt
        self._silent = True
        self._opened_at = now
        self._flushed_at: float | None = None
        self._bytes_left = max_bytes
        self._max_bytes = max_bytes
        self._due = due
        self._done = done
        self._text: list[str] = []
        self._size = 0
        self._stream: list[str] = []
        self._progress: int | None = None
        self._on_its_way = False
        self._ended: asyncio.Future[None] | None = None
        self._discarded = False

    def head(self, text: str) -> None:
        """Take the first line, before the job says anything."""
        self._text.append(text)
        self._size = len(text)
        self._due(self)

    def log(self, text: str) -> None:
        """Take a piece of the log; what goes over the bound is left out, with one note."""
        self._silent = False
        if self._bytes_left < 0 or self._discarded or not text:
            return
        size = len(text) if text.isascii() else len(text.encode(errors="replace"))
        self._bytes_left -= size
        if self._bytes_left < 0:
            kept = text.encode(errors="replace")[: self._bytes_left].decode(errors="ignore")
            text = f"{kept}\n--- the log is over {self._max_bytes} bytes: the rest is left out ---\n"
        self._text.append(text)
        self._size += len(text)
        self._due(self)

    def stream(self, text: str) -> None:
        """Take a piece of the result stream."""
        if self._discarded or not text:
            return
        self.streamed.append(text)
        self._stream.append(text)
        self._due(self)

    def progress(self, percent: int) -> None:
        """Take the progress; only the latest counts."""
        if not self._discarded:
            self._progress = min(max(percent, 0), 100)
            self._due(self)

    def discard(self) -> None:
        """Forget what has not been shipped, and all that comes: the job is not ours any more."""
        self._discarded = True
        self._text, self._stream, self._progress, self._size = [], [], None, 0
        self._done(self)

    def rest(self) -> str | None:
        """Hand over what is left to say, to go with the job's report; None where it has to be shipped before."""
        if self._on_its_way or self._stream or self._progress is not None or self._size > _CHUNK:
            return None
        rest, self._text, self._size = "".join(self._text), [], 0
        self._done(self)
        return rest

    async def end(self) -> None:
        """Have everything shipped; returns once it is."""
        if self._on_its_way or self.waiting:
            self._ended = asyncio.get_running_loop().create_future()
            self._due(self)
            await self._ended

    @property
    def waiting(self) -> bool:
        """Whether there is something to ship."""
        return bool(self._text or self._stream or self._progress is not None)

    def due(self, now: float) -> float:
        """Return when what waits should be shipped, on the monotonic clock."""
        if self._ended is not None or self._size >= _DUE_CHARACTERS:
            return now
        if self._stream:
            return now if self._flushed_at is None else self._flushed_at + _PROMPT_S
        if self._prompt:
            return (self._opened_at if self._flushed_at is None else self._flushed_at) + _PROMPT_S
        if self._flushed_at is None:
            return self._opened_at + (_SILENT_S if self._silent else _FIRST_S)
        return self._flushed_at + (_YOUNG_S if now - self._opened_at < _OLD_AFTER_S else _OLD_S)

    def take(self, now: float) -> tuple[str, str, int | None]:
        """Hand over the text, the stream and the progress that wait, a row's worth of text at most."""
        text, rest = "".join(self._text), ""
        if len(text) > _CHUNK:
            text, rest = text[:_CHUNK], text[_CHUNK:]
        parts = text, "".join(self._stream), self._progress
        self._text, self._stream, self._progress = [rest] if rest else [], [], None
        self._size = len(rest)
        self._flushed_at, self._on_its_way = now, True
        return parts

    def arrived(self) -> None:
        """Note that what was taken has been shipped."""
        self._on_its_way = False
        if self._ended is not None and not self.waiting and not self._ended.done():
            self._ended.set_result(None)


class _Shipment(msgspec.Struct):
    logs: list[JobLog] = []
    chunks: list[LogChunk] = []
    streams: list[tuple[UUID, str]] = []
    progress: list[tuple[UUID, int]] = []


class LogShipper:
    """Carries the words of all jobs of a host to the source, and holds them while it can't be reached."""

    def __init__(self, *, source: JobSource, clock: Clock, max_log_bytes: int) -> None:
        self._source = source
        self._clock = clock
        self._max_log_bytes = max_log_bytes
        self._waiting: dict[JobLog, None] = {}
        self._bell = Bell()
        self._wakes_at = 0.0

    def open(self, job_id: UUID, *, awaited: bool) -> JobLog:
        """Return the log of one attempt; `awaited`: somebody watches, be prompt."""
        now = self._clock.monotonic()
        return JobLog(job_id, prompt=awaited, max_bytes=self._max_log_bytes, now=now, due=self._note, done=self._forget)

    async def run(self) -> None:
        """Ship what becomes due, until cancelled."""
        while True:
            now = self._clock.monotonic()
            self._wakes_at = min((log.due_at for log in self._waiting), default=float("inf"))
            if self._wakes_at > now:
                await self._bell.wait(None if self._wakes_at == float("inf") else self._wakes_at - now)
                continue
            await self._ship(self._gather(now))

    def _note(self, log: JobLog) -> None:
        """Remember that a log has something to ship, and wake up for it if it is due earlier than all others."""
        log.due_at = log.due(self._clock.monotonic())
        self._waiting[log] = None
        if log.due_at < self._wakes_at:
            self._wakes_at = log.due_at
            self._bell.ring()

    def _forget(self, log: JobLog) -> None:
        """Take note that a log has nothing to ship: its rest goes with the job's report."""
        self._waiting.pop(log, None)

    def _gather(self, now: float) -> _Shipment:
        shipment, size = _Shipment(), 0
        for log in [log for log in self._waiting if log.due_at <= now]:
            text, stream, progress = log.take(now)
            shipment.logs.append(log)
            if text:
                shipment.chunks.append(LogChunk(job_id=log.job_id, text=text))
            if stream:
                shipment.streams.append((log.job_id, stream))
            if progress is not None:
                shipment.progress.append((log.job_id, progress))
            if not log.waiting:
                del self._waiting[log]
            size += len(text) + len(stream)
            if size >= _MAX_SHIPMENT:
                break
        return shipment

    async def _ship(self, shipment: _Shipment) -> None:
        if shipment.chunks:
            await self._deliver(partial(self._source.append_logs, shipment.chunks))
        for stream in shipment.streams:
            await self._deliver(partial(self._source.append_stream, *stream))
        for progress in shipment.progress:
            await self._deliver(partial(self._source.set_progress, *progress))
        for log in shipment.logs:
            log.arrived()

    async def _deliver(self, call: Callable[[], Awaitable[None]]) -> None:
        """Make a call to the source. Words it refuses are dropped: they must not hold up a result."""
        try:
            await insist(call)
        except Exception:  # noqa: BLE001 - whatever is wrong with the words, the job's result must get through
            _log.exception("logs.dropped")
