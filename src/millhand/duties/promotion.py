"""The duty to queue jobs whose time has come although no worker polls, so that counts and scaling see them."""

from __future__ import annotations

from millhand.store.notify import Notifier
from millhand.store.pool import Database
from millhand.store.queue import PROMOTE_AT_ONCE, promote_due


async def promote_due_jobs(database: Database, notifier: Notifier) -> int:
    """Queue all jobs whose time has come, in bounded batches; returns how many there were."""
    n_promoted = 0
    while True:
        due = await promote_due(database)
        notifier.work(due.tags)
        n_promoted += due.n_promoted
        if due.n_promoted < PROMOTE_AT_ONCE:
            return n_promoted
