"""When to try again: intervals with jitter, so that hosts started together don't stay in step."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from millhand.core.errors import MillhandError, SourceUnavailableError

T = TypeVar("T")

_log = structlog.get_logger()
_JITTER = 0.2


def jittered(seconds: float) -> float:
    """Return the interval, up to a fifth longer or shorter."""
    return seconds * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - no secret


class Backoff:
    """Waits longer after each failure: 0.1 s, doubled up to 5 s, with jitter."""

    def __init__(self, *, first_s: float = 0.1, most_s: float = 5.0) -> None:
        self._first_s = first_s
        self._most_s = most_s
        self._next_s = first_s

    def next_s(self) -> float:
        """Return how long to wait after one more failure."""
        wait_s, self._next_s = self._next_s, min(self._next_s * 2, self._most_s)
        return jittered(wait_s)

    def reset(self) -> None:
        """Begin anew, after a success."""
        self._next_s = self._first_s


class Bell:
    """Wakes one waiting loop, by hand or at a time; a ring while nobody waits is kept.

    By hand with a future and a timer: an event and `asyncio.timeout` took a host three times as long, for each job.
    """

    def __init__(self) -> None:
        self._rung = False
        self._waiting: asyncio.Future[None] | None = None

    def ring(self) -> None:
        """Wake the waiting loop, or have its next wait return at once."""
        self._rung = True
        self._wake()

    async def wait(self, seconds: float | None = None) -> bool:
        """Wait for a ring, at most this long; return whether it rang."""
        if not self._rung:
            loop = asyncio.get_running_loop()
            self._waiting = loop.create_future()
            timer = loop.call_later(max(seconds, 0.0), self._wake) if seconds is not None else None
            try:
                await self._waiting
            finally:
                self._waiting = None
                if timer is not None:
                    timer.cancel()
        rung, self._rung = self._rung, False
        return rung

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


async def insist(call: Callable[[], Awaitable[T]], *, tries: int = 3) -> T:
    """Make a call to the source until it can be reached.

    Errors raised on purpose go to the caller at once, others after a few tries: a driver that just lost its connection
    raises strange ones.
    """
    backoff = Backoff()
    while True:
        try:
            return await call()
        except SourceUnavailableError as error:
            _log.warning("source.unavailable", error=str(error))
        except MillhandError:
            raise
        except Exception:
            tries -= 1
            if not tries:
                raise
            _log.exception("source.strange_error")
        await asyncio.sleep(backoff.next_s())
