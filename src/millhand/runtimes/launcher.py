"""Starts jobs' processes, alone: the host's side of a zygote. (API published first; bodies follow.)"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from millhand.runtimes.contract import Isolation, Limits
from millhand.runtimes.frames import Frame


class Spawn(msgspec.Struct, frozen=True, kw_only=True):
    """What a child is to become."""

    argv: tuple[str, ...] = ()  # a program with its arguments; empty: stay this Python and run the job in place
    env: dict[str, str] = {}  # the whole environment of the program, nothing is added (see `base_environment`)
    files: dict[str, bytes] = {}  # written below the job directory before the program starts; it is the working directory
    limits: Limits = Limits()
    init: bool = False  # run the program under a tiny init: default signal actions work, TERM reaches all it started


class Exit(msgspec.Struct, frozen=True, kw_only=True):
    """How a child ended."""

    code: int | None = None  # exit code, or None where a signal ended it
    signal: int | None = None  # the signal that ended it, or None
    oom: bool = False  # the kernel, or we, ended something in it for want of memory
    memory_peak_kb: int = 0  # over the whole process tree, as far as known
    lost: str | None = None  # why it could not start, or that its launcher died


def base_environment() -> dict[str, str]:
    """Return what a job gets of the host's environment: PATH, HOME, TMPDIR, TZ, LANG and the proxies."""
    raise NotImplementedError


class Child:
    """One single-use process of a launcher. Frames go to its descriptor 3 and come from its 4; stdout and stderr are its log.

    `on_frame` and `on_log` may be set at any time; what came before is kept and delivered then.
    """

    id: int
    protocol_error: str | None = None  # it wrote something that is not a frame; it was killed for it
    on_frame: Callable[[Frame, bytes], None] | None
    on_log: Callable[[str], None] | None

    async def send(self, kind: Frame, payload: bytes = b"") -> None:
        """Write one frame; waits while the pipe is full. A child that is gone swallows it: `ended` tells."""

    async def drained(self) -> None:
        """Wait until the result channel and the log are closed: nothing more will be said. Comes shortly before `ended`."""

    async def ended(self) -> Exit:
        """Wait until everything was read and the process, with all it started, is gone."""
        raise NotImplementedError

    def pause_log(self) -> None:
        """Stop reading the log, so that a flood blocks the child and not us."""

    def resume_log(self) -> None:
        """Read the log again."""

    def terminate(self) -> None:
        """Ask it to end (TERM)."""

    def kill(self) -> None:
        """End it and all it started, at once."""


class Launcher:
    """A zygote and its children. Restarts the zygote where it dies."""

    isolation_text: str  # what jobs are kept apart by, and why not better: for the ping and the log

    def __init__(
        self,
        *,
        python: str,
        site_dirs: Sequence[Path] = (),
        isolation: Isolation = Isolation.SANDBOX,
        readonly: Sequence[Path] = (),
        hidden: Sequence[Path] = (),
        scratch: Path,
    ) -> None:
        """Prepare; nothing runs before `start`.

        python: the interpreter of the zygote. site_dirs: folders of packages for Python jobs. readonly: what else
        children may see (language runtimes, caches; later content of these folders shows). hidden: never to be seen,
        also inside of those. scratch: an existing folder of ours for what needs a place on disk.
        """

    async def start(self) -> None:
        """Start the zygote; raises RuntimeUnavailableError where it can't, or where REQUIRED isolation is refused."""

    async def close(self) -> None:
        """Kill all children, end the zygote."""

    async def spawn(self, spawn: Spawn) -> Child:
        """Start a child."""
        raise NotImplementedError


