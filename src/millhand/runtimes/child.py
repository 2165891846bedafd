"""The host's end of one single-use child: its channel, its log, its end."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import deque
from collections.abc import Callable

import msgspec

from millhand.runtimes.contract import Limits
from millhand.runtimes.frames import Decoder, Frame, ProtocolError, encode
from millhand.runtimes.log_text import CHUNK, LogText
from millhand.runtimes.memory import MemoryGroup, PeakSampler, Watched

_PIPE = 1 << 20  # what a pipe holds at most, where nobody raised it
_GRACE_S = 1.0  # for a process that closed its channels and goes on, and for channels that outlive their process


class Spawn(msgspec.Struct, frozen=True, kw_only=True):
    """What a child is to become."""

    argv: tuple[str, ...] = ()  # a program with its arguments; empty: stay this Python and run the job in place
    env: dict[
        str, str
    ] = {}  # of a program the whole environment (see `base_environment`), of a Python job what is added
    files: dict[str, bytes] = {}  # written below the job directory, the working directory, before the program starts
    limits: Limits = Limits()
    rehearse: bool = False  # a Python child runs a job that does nothing while it waits: quicker then, dearer in all
    init: bool = False  # run the program under a tiny init: default signal actions work, TERM reaches all it started


class Exit(msgspec.Struct, frozen=True, kw_only=True):
    """How a child ended."""

    code: int | None = None  # exit code, or None where a signal ended it (under an init: 128 + signal)
    signal: int | None = None  # the signal that ended it, or None
    oom: bool = False  # something in it was ended for want of memory
    memory_peak_kb: int = 0  # over the whole process tree, as far as known
    lost: str | None = None  # why it could not start, or that its launcher died


class Child(Watched):
    """One single-use process of a launcher. Frames go to its descriptor 3 and come from its 4; stdout and stderr are its log.

    `on_frame` and `on_log` may be set at any time; what came before is kept and delivered then.
    """

    def __init__(
        self,
        child_id: int,
        *,
        uid: int,
        group: MemoryGroup | None,
        sampler: PeakSampler,
        memory_limit: int | None = None,
    ) -> None:
        super().__init__(uid=uid, memory_limit=memory_limit)
        self.id = child_id
        self.protocol_error: str | None = None  # it wrote something that is not a frame, and was killed for it
        self.on_signal: Callable[[int], None] | None = None  # set by the launcher: deliver a signal
        self.on_gone: Callable[[], None] | None = None  # set by the launcher: its user and folder are free
        self._group = group
        self._sampler = sampler
        self._loop = asyncio.get_running_loop()
        self._in = self._out = self._log = -1  # our ends of its pipes
        self._unsent: deque[memoryview] = deque()
        self._sent: asyncio.Future[None] | None = None
        self._decoder = Decoder()
        self._frames: list[tuple[Frame, bytes]] = []
        self._on_frame: Callable[[Frame, bytes], None] | None = None
        self._text = LogText(self._say)
        self._said: list[str] = []
        self._on_log: Callable[[str], None] | None = None
        self._log_paused = False
        self._failure: str | None = None
        self._exit: Exit | None = None
        self._drained = False  # all that it wrote has been read, or nobody wants to
        self._ended: asyncio.Future[Exit] = self._loop.create_future()
        self._patience: asyncio.TimerHandle | None = None

    @property
    def on_frame(self) -> Callable[[Frame, bytes], None] | None:
        """Who takes frames of the child."""
        return self._on_frame

    @on_frame.setter
    def on_frame(self, callback: Callable[[Frame, bytes], None]) -> None:
        self._on_frame = callback
        kept, self._frames = self._frames, []
        for kind, payload in kept:
            callback(kind, payload)

    @property
    def on_log(self) -> Callable[[str], None] | None:
        """Who takes the text of stdout and stderr."""
        return self._on_log

    @on_log.setter
    def on_log(self, callback: Callable[[str], None]) -> None:
        self._on_log = callback
        kept, self._said = self._said, []
        for text in kept:
            callback(text)

    @property
    def alive(self) -> bool:
        """Whether the process may still take a job."""
        return self._exit is None and not self._drained

    async def send(self, kind: Frame, payload: bytes = b"") -> None:
        """Write one frame; waits while the pipe is full. A child that is gone swallows it: `ended` tells."""
        if kind is Frame.JOB:
            self._sampler.watch(self)
        self._write(encode(kind, payload))
        if self._unsent:
            self._sent = self._sent or self._loop.create_future()
            await asyncio.shield(self._sent)

    def when_ended(self, callback: Callable[[], None]) -> None:
        """Call back when `ended` has its answer."""
        self._ended.add_done_callback(lambda _: callback())

    @property
    def gone(self) -> bool:
        """Whether `ended` has its answer."""
        return self._ended.done()

    async def ended(self) -> Exit:
        """Wait until everything was read and the process, with all it started, is gone."""
        return await asyncio.shield(self._ended)

    def pause_log(self) -> None:
        """Stop reading the log, so that a flood blocks the child and not us."""
        if not self._log_paused and self._log >= 0:
            self._loop.remove_reader(self._log)
        self._log_paused = True

    def resume_log(self) -> None:
        """Read the log again."""
        if self._log_paused and self._log >= 0:
            self._loop.add_reader(self._log, self._read_log)
        self._log_paused = False

    def read_log_now(self) -> bool:
        """Take what the log's pipe holds at this moment; False where it is not being read, or more comes than fits a pipe."""
        if self._log_paused:
            return False
        for _ in range(_PIPE // CHUNK + 1):
            try:
                data = os.read(self._log, CHUNK) if self._log >= 0 else b""
            except BlockingIOError:
                data = b""
            if not data:
                self._text.flush()
                return True
            self._text.feed(data)
        return False

    def terminate(self) -> None:
        """Ask it to end (TERM)."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it and all it started, at once."""
        self._signal(signal.SIGKILL)

    def kill_soon(self) -> None:
        """End it where it doesn't do so itself within a moment."""
        if self._exit is None:
            self._wait_for(self.kill)

    def let_go(self) -> None:
        """Hear no more of it: it has said all that counts, and has a moment to end by itself."""
        self._close_out()
        self._close_log()

    def _signal(self, number: int) -> None:
        if self._exit is None and self.on_signal is not None:
            self.on_signal(number)

    # What the launcher calls.

    def open(self) -> list[int]:
        """Make the pipes; return the child's ends in the order of the numbers they get (see children/zygote.py)."""
        theirs_in, self._in = os.pipe()
        self._out, theirs_out = os.pipe()
        self._log, theirs_log = os.pipe()
        for fd in (self._in, self._out, self._log):
            os.set_blocking(fd, False)
        self._loop.add_reader(self._out, self._read_out)
        self._loop.add_reader(self._log, self._read_log)
        if self.uid >= 0:
            for fd in (
                theirs_in,
                theirs_out,
                theirs_log,
            ):  # so that it may open them anew by /proc/self/fd, as Deno does
                os.fchown(fd, self.uid, self.uid)
        group = [] if self._group is None else [self._group.open_members()]
        return [theirs_log, theirs_log, theirs_in, theirs_out, *group]

    def begin(self, spawn: bytes) -> None:
        """Tell the child what to become."""
        self._write(spawn)

    def close_channel(self) -> None:
        """Tell the child that no job will come."""
        if self._in >= 0:
            self._stop_writing()

    def reaped(self, exit_: Exit) -> None:
        """Take note that the process is gone."""
        self._exit = exit_
        if self._drained:
            self._finish()
        else:
            self._wait_for(self._close_readers)

    def lose(self, why: str) -> None:
        """Take note that nobody will tell how it ended."""
        self._failure = self._failure or why
        self.reaped(Exit(signal=signal.SIGKILL))

    # The channel to the child.

    def _write(self, data: bytes) -> None:
        if self._in < 0:
            return
        if self._unsent:
            self._unsent.append(memoryview(data))
            return
        sent = self._write_some(data)
        if sent < len(data) and self._in >= 0:
            self._unsent.append(memoryview(data)[sent:])
            self._loop.add_writer(self._in, self._write_more)

    def _write_some(self, data: bytes | memoryview) -> int:
        try:
            return os.write(self._in, data)
        except BlockingIOError:
            return 0
        except OSError:
            self._stop_writing()
            return 0

    def _write_more(self) -> None:
        while self._unsent:
            sent = self._write_some(self._unsent[0])
            if not self._unsent or sent < len(self._unsent[0]):
                if self._unsent:
                    self._unsent[0] = self._unsent[0][sent:]
                return
            self._unsent.popleft()
        self._loop.remove_writer(self._in)
        self._wake_sender()

    def _stop_writing(self) -> None:
        if self._in >= 0:
            self._loop.remove_writer(self._in)
            os.close(self._in)
            self._in = -1
        self._unsent.clear()
        self._wake_sender()

    def _wake_sender(self) -> None:
        if self._sent is not None and not self._sent.done():
            self._sent.set_result(None)
        self._sent = None

    # The channel and the log from the child.

    def _read_out(self) -> None:
        try:
            data = os.read(self._out, CHUNK)
            if data:
                frames = self._decoder.feed(data)
            else:
                frames = []
                self._decoder.close()
        except BlockingIOError:
            return
        except ProtocolError as error:
            self.protocol_error = str(error)
            self.kill()
            data, frames = b"", []
        for kind, payload in frames:
            self._hear(kind, payload)
        if not data:
            self._close_out()

    def _hear(self, kind: Frame, payload: bytes) -> None:
        if kind is Frame.FAILED:
            self._failure = payload.decode("utf-8", "replace")
        elif self._on_frame is None:
            self._frames.append((kind, payload))
        else:
            self._on_frame(kind, payload)

    def _read_log(self) -> None:
        try:
            data = os.read(self._log, CHUNK)
        except BlockingIOError:
            return
        if data:
            self._text.feed(data)
        else:
            self._close_log()

    def _say(self, text: str) -> None:
        if self._on_log is None:
            self._said.append(text)
        else:
            self._on_log(text)

    def _close_out(self) -> None:
        if self._out >= 0:
            self._loop.remove_reader(self._out)
            os.close(self._out)
            self._out = -1
        self._check_drained()

    def _close_log(self) -> None:
        if self._log >= 0:
            self._loop.remove_reader(self._log)
            os.close(self._log)
            self._log = -1
            self._text.end()
        self._check_drained()

    # The end.

    def _check_drained(self) -> None:
        if self._out >= 0 or self._log >= 0 or self._drained:
            return
        self._drained = True
        if self._exit is not None:
            self._finish()
        else:
            self.kill_soon()

    def _wait_for(self, what: Callable[[], None]) -> None:
        self._stop_waiting()
        self._patience = self._loop.call_later(_GRACE_S, what)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _close_readers(self) -> None:
        """Give up on channels that something outside the child's reach keeps open; never on a log we chose not to read."""
        if self._log_paused and self._log >= 0:
            self._wait_for(self._close_readers)
            return
        self._close_out()
        self._close_log()

    def _finish(self) -> None:
        if self._ended.done() or self._exit is None:
            return
        self._stop_waiting()
        self._stop_writing()
        self._sampler.forget(self)
        peak_kb, oom = max(self._exit.memory_peak_kb, self.sampled_peak_kb), self.over_limit
        if self._group is not None:
            group_peak_kb, group_oom = self._group.finish()
            peak_kb, oom = max(peak_kb, group_peak_kb), oom or group_oom
        self._ended.set_result(
            msgspec.structs.replace(self._exit, memory_peak_kb=peak_kb, oom=oom, lost=self._failure or self._exit.lost)
        )
        if self.on_gone is not None:
            self.on_gone()
