"""The claim loop: one claim for all free workers of a host, whenever there may be work for them.

It wakes for a nudge, for a freed worker while there is a backlog, for the next job that falls due, and every second or so,
because nudges are hints and polling is the truth. One claim is on its way at a time; what was claimed is recorded
meanwhile, so claims and completions overlap.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog

from millhand.core.clock import Clock
from millhand.core.errors import SourceUnavailableError
from millhand.core.job import ClaimedJob
from millhand.core.worker import JobSource
from millhand.worker.metrics import WorkerMetrics
from millhand.worker.pace import Backoff, Bell, jittered
from millhand.worker.roster import Roster

MAX_CLAIM = 500
# After a claim that gave less than asked for, look once more this soon: rows another host had locked may be free again.
_RECHECK_S = 0.02
# With a backlog and only a few workers free, wait this long for more of them: fewer, larger claims.
_GATHER_S = 0.003
_FEW = 4  # a quarter of the workers
# A nudge that brought nothing may mean that a job was scheduled for soon; ask at most this often.
_PROMOTE_AGAIN_S = 0.05

_log = structlog.get_logger()


class ClaimLoop:
    """Claims jobs for free workers and hands them to `accept`, until stopped."""

    def __init__(
        self,
        *,
        source: JobSource,
        tags: Sequence[str],
        roster: Roster,
        has_room: Callable[[], bool],
        accept: Callable[[Sequence[ClaimedJob]], None],
        poll_s: float,
        clock: Clock,
        metrics: WorkerMetrics,
    ) -> None:
        self._source = source
        self._tags = tags
        self._roster = roster
        self._has_room = has_room  # False: too many reports wait to be recorded
        self._accept = accept
        self._poll_s = poll_s
        self._clock = clock
        self._metrics = metrics
        self._bell = Bell()
        self._stopping = asyncio.Event()
        self._backlog = False
        self._gathering = False
        self._nudged = False
        self._promoted_at = float("-inf")
        self._promote_at = float("-inf")

    def nudge(self) -> None:
        """Look for work: somebody said there is some."""
        self._nudged = True
        self._bell.ring()

    def freed(self) -> None:
        """Look for work if more is known to wait: a worker came free, or reports were recorded."""
        if self._backlog and not (self._gathering and self._few_free()):
            self._bell.ring()

    def stop(self) -> None:
        """Claim no more. A claim on its way is let finish: what it took must be handed on."""
        self._stopping.set()
        self._bell.ring()

    async def run(self) -> None:
        """Claim until stopped."""
        backoff = Backoff()
        while not self._stopping.is_set():
            try:
                wait_s = await self._claim()
            except SourceUnavailableError as error:
                _log.warning("claim.failed", error=str(error))
                await self._stand_back(backoff.next_s())
                continue
            except Exception:  # noqa: BLE001 - whatever it is, running jobs must go on, and the next claim may do
                _log.exception("claim.failed")
                await self._stand_back(backoff.next_s())
                continue
            backoff.reset()
            if wait_s > 0:
                await self._bell.wait(wait_s)

    async def _claim(self) -> float:
        """Claim once; return how long to wait for a reason to claim again."""
        free = self._roster.free(MAX_CLAIM)
        if not free or not self._has_room():
            self._backlog = True
            return jittered(self._poll_s)
        if self._backlog and self._few_free():
            await self._gather()
            free = self._roster.free(MAX_CLAIM)
        n_claimed = await self._take(free)
        self._backlog = n_claimed == len(free)
        if self._backlog:
            return 0.0
        return _RECHECK_S if n_claimed else max(self._promote_at - self._clock.monotonic(), 0.001)

    def _few_free(self) -> bool:
        return self._roster.n_free * _FEW < len(self._roster)

    async def _gather(self) -> None:
        """Wait until more workers are free, for a moment."""
        self._gathering = True
        until = self._clock.monotonic() + _GATHER_S
        while self._few_free() and not self._stopping.is_set():
            left_s = until - self._clock.monotonic()
            if left_s <= 0:
                break
            await self._bell.wait(left_s)
        self._gathering = False

    async def _take(self, free: Sequence[str]) -> int:
        nudged, self._nudged = self._nudged, False
        if self._clock.monotonic() >= self._promote_at:
            await self._promote()
        n_claimed = await self._claim_for(free)
        if not n_claimed and nudged and self._clock.monotonic() - self._promoted_at > _PROMOTE_AGAIN_S:
            await self._promote()
            n_claimed = await self._claim_for(free)
        return n_claimed

    async def _claim_for(self, free: Sequence[str]) -> int:
        began = self._clock.monotonic()
        jobs = await self._source.claim(free, self._tags)
        self._metrics.claim.observe(self._clock.monotonic() - began)
        if jobs:
            self._accept(jobs)
        return len(jobs)

    async def _promote(self) -> None:
        """Have due jobs queued, and note when to look again."""
        due_s = await self._source.next_due_s(self._tags)
        self._promoted_at = self._clock.monotonic()
        poll_s = jittered(self._poll_s)
        self._promote_at = self._promoted_at + (poll_s if due_s is None else min(max(due_s, 0.0), poll_s))

    async def _stand_back(self, seconds: float) -> None:
        """Wait after an error, deaf to nudges, so that a source that is away is not hammered."""
        self._metrics.source_errors.inc()
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return
