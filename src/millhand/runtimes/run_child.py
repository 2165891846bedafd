"""One run of one child: give it the job, hear it out, end it when asked, and say how it went."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import msgspec

from millhand.runtimes.contract import (
    Failure,
    FailureKind,
    Limits,
    Listener,
    Outcome,
    Stop,
    StopCause,
    Stopped,
    Success,
)
from millhand.runtimes.frames import Frame
from millhand.runtimes.launcher import Child, Exit
from millhand.runtimes.log_tap import LogTap

GRACE_S = 5.0  # between TERM and KILL
TAIL_CHARS = 600  # of the log, in the message of a failure that has no better words


class Pool(Protocol):
    """Where children that wait for a job come from."""

    async def take(self, limits: Limits) -> Child:
        """Return a child for one job, under these limits; raises RuntimeUnavailableError."""
        ...


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of a child that ended."""

    exit: Exit
    value: bytes | None = None  # the result it sent: JSON
    error: bytes | None = None  # the error it sent: a JSON object
    compiled: bytes | None = None  # byte-code that it sent before all else
    protocol_error: str | None = None
    stopped: StopCause | None = None  # it was told to end before it had a result
    tail: str = ""  # the end of its log


async def run_child(
    child: Child,
    job: bytes,
    listener: Listener,
    stop: Stop,
    *,
    tail_chars: int = TAIL_CHARS,
    until_answer: bool = False,
) -> Ended:
    """Send the job and wait for the end of the child; a stop is TERM, then KILL after a grace period.

    until_answer: don't wait for the process of a child that has answered to be gone, which takes large ones several
    milliseconds. Such a child writes all of its log, and its peak of memory, before it answers.
    """
    return await _Run(child, listener, stop, tail_chars).run(job, until_answer=until_answer)


class _Run:
    def __init__(self, child: Child, listener: Listener, stop: Stop, tail_chars: int) -> None:
        self._child = child
        self._listener = listener
        self._stop = stop
        self._tap = LogTap(listener, tail_chars=tail_chars)
        self._value: bytes | None = None
        self._error: bytes | None = None
        self._compiled: bytes | None = None
        self._heard = False  # anything at all
        self._peak_kb = 0
        self._stopped: StopCause | None = None
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[None] = self._loop.create_future()  # it has answered, or ended
        self._kill_later: asyncio.TimerHandle | None = None

    async def run(self, job: bytes, *, until_answer: bool) -> Ended:
        self._child.on_log = self._tap.feed
        self._child.on_frame = self._frame
        self._stop.arm(self._end_it)
        try:
            await self._child.send(Frame.JOB, job)
            exit_ = (await self._left_behind() if until_answer else None) or await self._child.ended()
        except BaseException:  # whoever waits for us was cancelled: nothing may go on unwatched
            self._child.kill()
            raise
        finally:
            if self._kill_later is not None:
                self._kill_later.cancel()
        self._tap.finish()
        return Ended(
            exit=exit_,
            value=self._value,
            error=self._error,
            compiled=self._compiled,
            protocol_error=self._child.protocol_error,
            stopped=self._stopped,
            tail=self._tap.tail.text(),
        )

    async def _left_behind(self) -> Exit | None:
        """Wait for the answer and let the process end by itself; None where it ended without one or still says something."""
        self._child.when_ended(self._is_over)
        await self._over
        if self._child.gone or not self._child.read_log_now():
            return None
        self._child.let_go()
        return Exit(code=0, memory_peak_kb=max(self._peak_kb, self._child.sampled_peak_kb))

    def _is_over(self) -> None:
        if not self._over.done():
            self._over.set_result(None)

    def _frame(self, kind: Frame, payload: bytes) -> None:
        take = self._TAKE.get(kind)
        if take is not None and self._value is None and self._error is None:
            take(self, payload)
        self._heard = True

    def _take_compiled(self, payload: bytes) -> None:
        if not self._heard:
            self._compiled = payload

    def _take_value(self, payload: bytes) -> None:
        self._value = payload
        self._is_over()

    def _take_error(self, payload: bytes) -> None:
        self._error = payload
        self._is_over()

    def _take_stream(self, payload: bytes) -> None:
        self._listener.stream(payload.decode("utf-8", "replace"))

    def _take_progress(self, payload: bytes) -> None:
        if payload.isdigit():
            self._listener.progress(min(100, int(payload)))

    def _take_peak(self, payload: bytes) -> None:
        if payload.isdigit():
            self._peak_kb = int(payload[:12])

    def _end_it(self, cause: StopCause) -> None:
        if self._value is None and self._error is None:
            self._stopped = cause
        self._child.terminate()
        self._kill_later = self._loop.call_later(GRACE_S, self._child.kill)

    _TAKE: ClassVar[dict[Frame, Callable[[_Run, bytes], None]]] = {
        Frame.VALUE: _take_value,
        Frame.ERROR: _take_error,
        Frame.STREAM: _take_stream,
        Frame.PROGRESS: _take_progress,
        Frame.PEAK: _take_peak,
        Frame.COMPILED: _take_compiled,
    }


def outcome_of(ended: Ended, *, program: str) -> Outcome:
    """Classify how a child ended.

    program: what the user calls it ("main.ts"), for the message of an exit without result.
    """
    peak = ended.exit.memory_peak_kb
    if ended.stopped is not None:
        return Stopped(cause=ended.stopped, memory_peak_kb=peak)
    if ended.protocol_error is None and ended.value is not None and is_json(ended.value):
        return Success(result=ended.value, memory_peak_kb=peak)
    return failure_of(ended, program=program)


def failure_of(ended: Ended, *, program: str) -> Failure:
    """Say why a child ended without a result that can be used."""
    peak = ended.exit.memory_peak_kb
    if ended.exit.oom:
        return failed("OutOfMemory", "the job used more memory than it may and was ended", FailureKind.OOM, peak=peak)
    if ended.protocol_error is not None or ended.value is not None:
        why = ended.protocol_error or "the result is not JSON"
        return failed(
            "ProtocolError", f"the job wrote garbage where its result belongs: {why}", FailureKind.PROTOCOL, peak=peak
        )
    if ended.error is not None:
        return _reported(ended.error, peak)
    if ended.exit.lost is not None:
        return failed("RuntimeError", f"the job could not run: {ended.exit.lost}", FailureKind.UNAVAILABLE, peak=peak)
    if ended.exit.signal is not None:
        name = signal.Signals(ended.exit.signal).name
        return failed("Killed", f"the job was ended by {name}{_last_lines(ended.tail)}", FailureKind.KILLED, peak=peak)
    return exit_failure(ended, ended.exit.code or 0, program=program)


def exit_failure(ended: Ended, code: int, *, program: str) -> Failure:
    """Say that a program ended with an exit code instead of a result."""
    what = f'exit code for "{program}": {code}'
    if code == 0:
        what += " without a result: it ended before its main function returned"
    peak = ended.exit.memory_peak_kb
    return failed("ExecutionErr", what + _last_lines(ended.tail), peak=peak, extra={"exit_code": code})


def failed(
    name: str,
    message: str,
    kind: FailureKind = FailureKind.ERROR,
    *,
    peak: int = 0,
    extra: dict[str, Any] | None = None,
) -> Failure:
    """Return a failure of these words."""
    return failed_with({"name": name, "message": message, **(extra or {})}, kind, peak=peak)


def failed_with(error: dict[str, Any], kind: FailureKind = FailureKind.ERROR, *, peak: int = 0) -> Failure:
    """Return a failure of an error object: name, message and what else there is to say."""
    return Failure(kind=kind, error=msgspec.json.encode(error), memory_peak_kb=peak)


def is_json(data: bytes) -> bool:
    """Tell whether these bytes are one JSON value."""
    try:
        data.decode()
        msgspec.json.decode(data, type=msgspec.Raw)
    except (UnicodeDecodeError, msgspec.DecodeError):
        return False
    return True


def _reported(error: bytes, peak: int) -> Failure:
    try:
        msgspec.json.decode(error, type=dict[str, msgspec.Raw])
    except msgspec.DecodeError:
        return failed("ProtocolError", "the job wrote an error that can't be read", FailureKind.PROTOCOL, peak=peak)
    return Failure(kind=FailureKind.ERROR, error=error, memory_peak_kb=peak)


def _last_lines(tail: str) -> str:
    end = tail[-TAIL_CHARS:].strip()
    return f", last log lines:\n{end}" if end else ""
