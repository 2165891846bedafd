"""Running pieces of code through runtimes, and keeping what they say."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from pathlib import Path
from typing import Any
from uuid import uuid4

from millhand.core.errors import LockFailedError
from millhand.core.script import Language
from millhand.runtimes.contract import Execution, Failure, Outcome, Runtime, Stop, StopCause, Success


class Heard:
    """A listener that keeps what it hears, and can be waited on."""

    def __init__(self) -> None:
        self.text = ""
        self.pieces: list[str] = []
        self.percents: list[int] = []
        self._news = asyncio.Event()

    def log(self, text: str) -> None:
        self.text += text
        self._news.set()

    def stream(self, text: str) -> None:
        self.pieces.append(text)
        self._news.set()

    def progress(self, percent: int) -> None:
        self.percents.append(percent)
        self._news.set()

    async def until(self, text: str) -> None:
        """Wait until the log has this text."""
        async with asyncio.timeout(20):
            while text not in self.text:
                self._news.clear()
                await self._news.wait()


class Ran:
    """How one run went."""

    def __init__(self, outcome: Outcome, heard: Heard) -> None:
        self.outcome = outcome
        self.log = heard.text
        self.pieces = heard.pieces
        self.percents = heard.percents

    @property
    def result(self) -> Any:
        """Return the result of a run that must have succeeded."""
        assert isinstance(self.outcome, Success), f"{self.outcome}\n{self.log}"
        return json.loads(self.outcome.result)

    @property
    def error(self) -> dict[str, Any]:
        """Return the error of a run that must have failed."""
        assert isinstance(self.outcome, Failure), self.outcome
        return json.loads(self.outcome.error)


def execution(language: Language, code: str, args: dict[str, Any] | None = None, **more: Any) -> Execution:
    """Return an execution of some code, with defaults for the rest."""
    more.setdefault("env", {"WM_WORKSPACE": "main"})
    return Execution(job_id=uuid4(), language=language, code=code, args=json.dumps(args or {}).encode(), **more)


async def run(runtime: Runtime, language: Language, code: str, args: dict[str, Any] | None = None, **more: Any) -> Ran:
    """Prepare and execute some code, to its end."""
    heard = Heard()
    prepared = await runtime.prepare(execution(language, code, args, **more), heard)
    return Ran(await runtime.execute(prepared, heard, Stop()), heard)


async def run_and_stop(runtime: Runtime, language: Language, code: str, *, after: str) -> Ran:
    """Execute some code, and cancel it as soon as its log has a text."""
    heard, stop = Heard(), Stop()
    prepared = await runtime.prepare(execution(language, code), heard)
    running = asyncio.create_task(runtime.execute(prepared, heard, stop))
    await heard.until(after)
    stop.request(StopCause.CANCELED)
    return Ran(await running, heard)


async def lock_error(runtime: Runtime, language: Language, code: str) -> str:
    """Return what a preparation that must fail says."""
    try:
        await runtime.prepare(execution(language, code), Heard())
    except LockFailedError as error:
        return str(error)
    raise AssertionError("the preparation did not fail")


def cache_dir() -> Path:
    """Return a cache that outlives the tests: the first compilation of Go's standard library takes most of a minute."""
    return Path(os.environ.get("MILLHAND_TEST_CACHE") or f"{tempfile.gettempdir()}/millhand-test-cache-{os.geteuid()}")
