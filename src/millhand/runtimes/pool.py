"""Children started ahead: each waits for one job, runs it and is thrown away."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict, deque
from collections.abc import Callable

import msgspec
import structlog

from millhand.core.errors import RuntimeUnavailableError
from millhand.runtimes.contract import Limits
from millhand.runtimes.launcher import Child, Launcher, Spawn

_REFILL_S = 0.002  # how long a shelf that is not empty lets the job that was just started go first
_CALM_S = 10.0  # how long a shelf must not have been nearly empty before it keeps fewer
_LEISURE_S = 0.02  # between two jobs, on average: then there is time for children to rehearse
_MAX_SHELVES = 4  # kinds of limits for which children wait
_log = structlog.get_logger(__name__)


class WarmPool:
    """Gives out waiting children of one launcher; keeps a few while idle, more while they are asked for quickly."""

    def __init__(self, launcher: Launcher, make: Callable[[Limits], Spawn], *, idle: int = 2, most: int = 16) -> None:
        """Prepare; nothing is started before `start` or the first `take`.

        make: what a child under these limits is made from. idle, most: how many wait at least and at most.
        """
        self._launcher = launcher
        self._make = make
        self._idle = idle
        self._most = max(idle, most)
        self._shelves: OrderedDict[Limits, _Shelf] = OrderedDict()
        self._default = Limits()

    async def start(self, limits: Limits | None = None) -> None:
        """Start the children that wait under these limits, else the default ones."""
        await self._launcher.start()
        self._shelf(limits or self._default).refill()

    async def take(self, limits: Limits | None = None) -> Child:
        """Return a child for one job: one that waits, else a new one; raises RuntimeUnavailableError."""
        shelf = self._shelf(limits or self._default)
        return shelf.waiting_one() or await shelf.new_one()

    async def close(self) -> None:
        """Let the waiting ones go. The launcher stays."""
        for shelf in self._shelves.values():
            await shelf.close()
        self._shelves.clear()

    def _shelf(self, limits: Limits) -> _Shelf:
        shelf = self._shelves.get(limits)
        if shelf is None:
            if len(self._shelves) >= _MAX_SHELVES:
                self._shelves.popitem(last=False)[1].empty()
            spawn = self._make(limits)
            shelf = self._shelves[limits] = _Shelf(self._launcher, spawn, idle=self._idle, most=self._most)
        self._shelves.move_to_end(limits)
        return shelf


class _Shelf:
    """The waiting children of one kind."""

    def __init__(self, launcher: Launcher, spawn: Spawn, *, idle: int, most: int) -> None:
        self._launcher = launcher
        self._spawn = spawn
        self._rehearsing = msgspec.structs.replace(spawn, rehearse=True)
        self._idle, self._most = idle, most
        self._target = idle
        self._waiting: deque[Child] = deque()
        self._refilling: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._lowest = idle  # fewest that waited since the last look
        self._loop = asyncio.get_running_loop()
        self._taken_at = self._loop.time()
        self._pace_s = 1.0  # between two takes, lately
        self._calm: asyncio.TimerHandle = self._loop.call_later(_CALM_S, self._look)

    def waiting_one(self) -> Child | None:
        now, child = self._loop.time(), None
        self._pace_s += (min(now - self._taken_at, 1.0) - self._pace_s) / 4
        self._taken_at = now
        while self._waiting and child is None:
            first = self._waiting.popleft()
            child = first if first.alive else None
        if child is None:
            self._target = min(self._most, max(1, self._target * 2))
        self._lowest = min(self._lowest, len(self._waiting))
        if self._timer is None and self._target:
            self._timer = self._loop.call_later(_REFILL_S if self._waiting else 0, self.refill)
        return child

    async def new_one(self) -> Child:
        """Start one; it rehearses while few are asked for, and does without where that would take time from jobs."""
        return await self._launcher.spawn(self._rehearsing if self._pace_s > _LEISURE_S else self._spawn)

    def refill(self) -> None:
        self._timer = None
        if self._refilling is None or self._refilling.done():
            self._refilling = self._loop.create_task(self._fill())

    async def _fill(self) -> None:
        try:
            while len(self._waiting) < self._target:
                self._waiting.append(await self.new_one())
        except RuntimeUnavailableError as error:
            _log.warning("pool.refill_failed", error=str(error))

    def _look(self) -> None:
        """Keep half as many when more than half were never needed."""
        if self._lowest > self._target // 2:
            self._target = max(self._idle, self._target // 2)
        while len(self._waiting) > self._target:
            self._waiting.pop().close_channel()
        self._lowest = len(self._waiting)
        self._calm = self._loop.call_later(_CALM_S, self._look)

    def empty(self) -> None:
        self._calm.cancel()
        if self._timer is not None:
            self._timer.cancel()
        self._target = 0
        while self._waiting:
            self._waiting.pop().close_channel()

    async def close(self) -> None:
        self.empty()
        if self._refilling is not None:
            self._refilling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._refilling
        self.empty()
