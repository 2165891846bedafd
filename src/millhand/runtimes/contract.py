"""What every runtime takes and gives. One conformance suite (tests/contract) holds for all of them."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Protocol
from uuid import UUID

import msgspec

from millhand.core.script import Language


class Isolation(enum.StrEnum):
    """How far a job is kept from the worker and from other jobs (`MILLHAND_ISOLATION`)."""

    NONE = "none"  # a plain child process with a cleaned environment
    PROCESS = "process"  # own session, rlimits, another uid where root: needs no right to make namespaces
    SANDBOX = "sandbox"  # own PID, mount and IPC namespaces, read-only root; falls back to PROCESS and says so
    REQUIRED = "required"  # SANDBOX, or refuse to start


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one job may use."""

    memory_bytes: int | None = None
    tmp_bytes: int = 1 << 30  # size of the private /tmp with the job directory
    processes: int = 1024
    open_files: int = 4096
    network: bool = True


class Execution(msgspec.Struct, frozen=True, kw_only=True):
    """One run of one piece of code."""

    job_id: UUID
    language: Language
    code: str
    args: bytes  # a JSON object
    env: dict[str, str]  # the contextual variables; the runtime adds PATH, HOME, TZ and proxies
    path: str | None = None  # names the script in tracebacks
    lock: str | None = None  # None: resolve now (previews without a lock)
    entrypoint: str | None = None  # another function than main
    modules: dict[str, str] = {}  # sources of scripts it imports, by path (f/folder/name)
    limits: Limits = Limits()


class StopCause(enum.StrEnum):
    """Why a run was ended from outside."""

    CANCELED = "canceled"
    TIMEOUT = "timeout"
    LOST = "lost"  # the worker no longer holds the job
    SHUTDOWN = "shutdown"  # the worker ends; the job goes back to the queue


class FailureKind(enum.StrEnum):
    """What kind of failure, so that nobody has to read the message to tell."""

    ERROR = "error"  # the code raised, or exited with a code other than 0
    OOM = "oom"  # ended for want of memory
    KILLED = "killed"  # ended by a signal that we did not send
    PROTOCOL = "protocol"  # wrote garbage where the result belongs
    UNAVAILABLE = "unavailable"  # the runtime could not be started


class Success(msgspec.Struct, frozen=True, kw_only=True, tag="success"):
    """The code returned."""

    result: bytes  # valid JSON
    memory_peak_kb: int = 0


class Failure(msgspec.Struct, frozen=True, kw_only=True, tag="failure"):
    """The code failed."""

    kind: FailureKind
    error: bytes  # JSON object {name, message, stack?, …}
    memory_peak_kb: int = 0


class Stopped(msgspec.Struct, frozen=True, kw_only=True, tag="stopped"):
    """The run was ended from outside, by `Run.stop`."""

    cause: StopCause
    memory_peak_kb: int = 0


Outcome = Success | Failure | Stopped


class Listener(Protocol):
    """Hears what a run says while it runs. Calls come on the event loop and return at once."""

    def log(self, text: str) -> None:
        """Take a piece of stdout or stderr, valid Unicode, whole lines as far as possible."""
        ...

    def stream(self, text: str) -> None:
        """Take a piece of the result stream."""
        ...

    def progress(self, percent: int) -> None:
        """Take the progress, 0 to 100."""
        ...


class Stop:
    """A switch that ends one run: `TERM`, then after a grace period `KILL`, to everything the job started."""

    def __init__(self) -> None:
        self.cause: StopCause | None = None
        self._callback: Callable[[StopCause], None] | None = None

    def request(self, cause: StopCause) -> None:
        """End the run; the first cause stays."""
        if self.cause is None:
            self.cause = cause
            if self._callback is not None:
                self._callback(cause)

    def arm(self, callback: Callable[[StopCause], None]) -> None:
        """Have the runtime called back; at once, where the stop was requested before."""
        self._callback = callback
        if self.cause is not None:
            callback(self.cause)

    def disarm(self) -> None:
        """Call nobody back until armed again."""
        self._callback = None


class Runtime(Protocol):
    """Runs code of one or more languages."""

    async def start(self) -> None:
        """Start what should be warm before the first job."""
        ...

    async def close(self) -> None:
        """End every process of this runtime."""
        ...

    async def lock(self, execution: Execution, listener: Listener) -> str:
        """Resolve the code's dependencies to a lock ("" where there are none); raises LockFailedError."""
        ...

    async def prepare(self, execution: Execution, listener: Listener) -> Execution:
        """Make the environment of this code ready (lock it where it is not, install, compile); raises LockFailedError."""
        ...

    async def execute(self, execution: Execution, listener: Listener, stop: Stop) -> Outcome:
        """Run prepared code alone, to its end. Never raises for what the code does."""
        ...
