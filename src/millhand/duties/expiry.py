"""The duty to delete what carries its own time: cached results, tokens, results that were to be erased after use."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from millhand.store import completion, retention
from millhand.store.pool import Database

BATCH = 1000
UNDELIVERED_S = 60.0


async def delete_expired(database: Database) -> None:
    """Delete all that has expired, in bounded batches."""
    await _repeat(lambda: completion.delete_expired_results(database, limit=BATCH))
    await _repeat(lambda: retention.delete_expired_tokens(database, limit=BATCH))
    await _repeat(lambda: completion.erase_undelivered(database, older_than_s=UNDELIVERED_S, limit=BATCH))


async def _repeat(delete: Callable[[], Awaitable[int]]) -> None:
    while await delete() >= BATCH:
        pass
