"""One part of a running `up`: a process that is started again when it dies, ever more slowly."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import structlog

from millhand.cli.lifeline import ParentEnd
from millhand.core.errors import MillhandError

_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 10.0
_STEADY_S = 30.0  # who ran for this long may be started again at once
_READY_S = 60.0

log = structlog.get_logger()


class Part:
    """`millhand <name>` as a child process; life cycle: start, run (watch), then end."""

    def __init__(
        self,
        name: str,
        *,
        environment: Mapping[str, str],
        log_file: Path | None = None,
        descriptors: Sequence[int] = (),
    ) -> None:
        self.name = name
        self._environment = environment
        self._log_file = log_file
        self._descriptors = descriptors
        self._process: asyncio.subprocess.Process | None = None
        self._line: ParentEnd | None = None
        self._started_at = 0.0
        self._ending = False

    @property
    def pid(self) -> int | None:
        """Return the process id while the part runs."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def start(self) -> None:
        """Start the process and wait until it says that it is ready; raises MillhandError where it does not."""
        self._line = ParentEnd()
        output = sys.stderr.buffer if self._log_file is None else self._log_file.open("ab")
        try:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "millhand", self.name),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **self._environment, **self._line.environment},
                pass_fds=(self._line.descriptor, *self._descriptors),
                start_new_session=True,  # Ctrl-C is for `up`, which ends its parts in order
            )
        finally:
            self._line.started()
            if self._log_file is not None:
                output.close()
        self._started_at = time.monotonic()
        async with asyncio.timeout(_READY_S):
            if not await self._line.wait_ready():
                code = await self._process.wait()
                where = f"; see {self._log_file}" if self._log_file is not None else ""
                raise MillhandError(f"millhand {self.name} ended with code {code} before it was ready{where}")

    async def run(self) -> None:
        """Watch over the started part until `end`: start it again when it dies."""
        pause = _FIRST_PAUSE_S
        while not self._ending:
            assert self._process is not None
            code = await self._process.wait()
            if self._ending:
                return
            if time.monotonic() - self._started_at > _STEADY_S:
                pause = _FIRST_PAUSE_S
            log.warning("part.died", part=self.name, exit_code=code, starts_again_in_s=pause)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_S)
            await self._start_again()

    async def end(self, *, at_once: asyncio.Event, patience_s: float | None) -> None:
        """Ask the part to end in good order; insist when `at_once` is set or patience is over; at last kill it."""
        self._ending = True
        if self._process is not None and self._process.returncode is None:
            await self._ask_and_insist(at_once=at_once, patience_s=patience_s)
        if self._line is not None:
            self._line.close()

    async def _ask_and_insist(self, *, at_once: asyncio.Event, patience_s: float | None) -> None:
        assert self._process is not None
        ended = asyncio.ensure_future(self._process.wait())
        hurried = asyncio.ensure_future(at_once.wait())
        self._signal(signal.SIGTERM)
        await asyncio.wait((ended, hurried), timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            self._signal(signal.SIGTERM)
            await asyncio.wait((ended,), timeout=10)
        if not ended.done():
            self._signal(signal.SIGKILL)
        await ended
        hurried.cancel()

    async def _start_again(self) -> None:
        if self._line is not None:
            self._line.close()
        try:
            await self.start()
        except (MillhandError, TimeoutError, OSError) as error:
            log.warning("part.start_failed", part=self.name, error=str(error))

    def _signal(self, kind: int) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(kind)
