"""The duty to rescue jobs whose worker host has stopped pinging."""

from __future__ import annotations

import structlog

from millhand.core.job import MAX_ATTEMPTS_LOST
from millhand.store.notify import Notifier
from millhand.store.pool import Database
from millhand.store.rescue import RESCUE_AT_ONCE, rescue

log = structlog.get_logger(__name__)


async def rescue_lost_jobs(
    database: Database, notifier: Notifier, *, restart: bool, max_lost: int = MAX_ATTEMPTS_LOST
) -> int:
    """Rescue all lost jobs, in bounded batches, and tell those who wait; returns how many there were."""
    n_rescued = 0
    while True:
        rescued = await rescue(database, restart=restart, max_lost=max_lost)
        notifier.work(rescued.tags)
        notifier.ended(rescued.awaited)
        n_rescued += rescued.n_jobs
        if rescued.n_jobs:
            log.warning("jobs.rescued", n_requeued=len(rescued.requeued), n_ended=len(rescued.ended))
        if rescued.n_jobs < RESCUE_AT_ONCE:
            return n_rescued
