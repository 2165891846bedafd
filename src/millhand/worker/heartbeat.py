"""The heartbeat of a worker host: a thread with an event loop and a connection of its own, so that no job can hold it up.

It renews the lease of the host's incarnation, says what the workers do, and brings back orders: runs to cancel, jobs that
are not ours any more, or that the whole lease is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable

import structlog

from millhand.core.clock import Clock
from millhand.core.errors import SourceUnavailableError
from millhand.core.worker import HostPing, JobSource, Orders
from millhand.worker.pace import Bell, jittered

_RETRY_S = 1.0
_TIMEOUT_S = 10.0  # for one ping; a connection that hangs must not use up the lease

_log = structlog.get_logger()


class Heartbeat:
    """Pings from `start` to `stop`, every few seconds and at once when asked."""

    def __init__(
        self,
        *,
        source: JobSource,
        ping: Callable[[], HostPing],
        obey: Callable[[Orders, float], None],
        interval_s: float,
        clock: Clock,
    ) -> None:
        self._source = source
        self._ping = ping  # called on the heartbeat's thread
        self._obey = obey  # called on the event loop that started it, with the monotonic time of the ping
        self._clock = clock
        self._interval_s = interval_s
        self._thread = threading.Thread(target=self._main, name="heartbeat", daemon=True)
        self._own_loop: asyncio.AbstractEventLoop | None = None
        self._bell: Bell | None = None
        self._ready = threading.Event()
        self._resting = False
        self._stopping = False
        self._host_loop: asyncio.AbstractEventLoop | None = None
        self._rests = asyncio.Event()
        self._ended = asyncio.Event()

    def start(self) -> None:
        """Begin to beat."""
        self._host_loop = asyncio.get_running_loop()
        self._thread.start()
        self._ready.wait()

    def soon(self) -> None:
        """Ping now: there may be orders."""
        self._wake()

    async def rest(self) -> None:
        """Ping no more. The thread's loop still turns, so that the source can close the connection it has there."""
        self._resting = True
        self._wake()
        await self._rests.wait()

    async def stop(self) -> None:
        """End the thread."""
        self._stopping = True
        self._wake()
        await self._ended.wait()
        self._thread.join()

    def _wake(self) -> None:
        if self._own_loop is None or self._bell is None:
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed: the thread has ended
            self._own_loop.call_soon_threadsafe(self._bell.ring)

    def _main(self) -> None:
        assert self._host_loop is not None
        try:
            asyncio.run(self._beat())
        except Exception:  # noqa: BLE001 - a thread has nobody above it to tell
            _log.exception("heartbeat.died")
        finally:
            self._ready.set()
            self._tell(self._rests)
            self._tell(self._ended)

    async def _beat(self) -> None:
        bell = self._bell = Bell()
        self._own_loop = asyncio.get_running_loop()
        self._ready.set()
        while not self._resting:
            await bell.wait(jittered(await self._once()))
        self._tell(self._rests)
        while not self._stopping:
            await bell.wait()

    def _tell(self, event: asyncio.Event) -> None:
        """Set an event of the host's loop."""
        assert self._host_loop is not None
        self._host_loop.call_soon_threadsafe(event.set)

    async def _once(self) -> float:
        """Ping once; return the seconds until the next."""
        assert self._host_loop is not None
        try:
            asked_at, ping = self._clock.monotonic(), self._ping()
            async with asyncio.timeout(_TIMEOUT_S):
                orders = await self._source.heartbeat(ping)
        except (SourceUnavailableError, TimeoutError) as error:
            _log.warning("heartbeat.failed", error=str(error) or "no answer in time")
            return _RETRY_S
        except Exception:  # noqa: BLE001 - whatever went wrong, the next ping may save the lease
            _log.exception("heartbeat.failed")
            return _RETRY_S
        self._host_loop.call_soon_threadsafe(self._obey, orders, asked_at)
        return self._interval_s
