"""What a path or a hash runs: asked of the database in batches, remembered until somebody deploys.

Whatever changes a script says so on the watch channel in the transaction of the change, so that all servers forget. A
server that lost its listener may be deaf for a while: what is remembered is trusted for TRUST_S at most.
"""

from __future__ import annotations

import time
from typing import Generic, TypeVar

from millhand.server.batcher import Batcher
from millhand.store import scripts
from millhand.store.pool import Database
from millhand.store.scripts import Runnable

TRUST_S = 5.0
MAX_REMEMBERED = 10_000

Key = TypeVar("Key")


class Memory(Generic[Key]):
    """Answers of one kind, with the time until which each is trusted."""

    def __init__(self, batcher: Batcher[Key, Runnable | None]) -> None:
        self._batcher = batcher
        self._known: dict[Key, tuple[Runnable, float]] = {}
        self._generation = 0

    async def find(self, key: Key) -> Runnable | None:
        """Return what is to be run, or None where there is nothing."""
        known = self._known.get(key)
        if known is not None and time.monotonic() < known[1]:
            return known[0]
        generation = self._generation
        found = await self._batcher.ask(key)
        # What was asked before a change must not be remembered after it; what has no lock yet is about to change.
        if found is not None and found.locked and generation == self._generation:
            if len(self._known) >= MAX_REMEMBERED:
                self._known.clear()
            self._known[key] = (found, time.monotonic() + TRUST_S)
        return found

    def forget(self) -> None:
        """Ask the database again, whatever is wanted next."""
        self._generation += 1
        self._known.clear()


class Runnables:
    """Finds what to run."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._paths: Memory[tuple[str, str]] = Memory(Batcher(self._ask_paths))
        self._hashes: Memory[tuple[str, int]] = Memory(Batcher(self._ask_hashes))

    async def at(self, workspace_id: str, path: str) -> Runnable | None:
        """Return what the script at a path runs."""
        return await self._paths.find((workspace_id, path))

    async def of_hash(self, workspace_id: str, script_hash: int) -> Runnable | None:
        """Return what a version of a script runs."""
        return await self._hashes.find((workspace_id, script_hash))

    def forget(self) -> None:
        """Forget everything: some script has changed, or may have. Deployments are rare."""
        self._paths.forget()
        self._hashes.forget()

    async def _ask_paths(self, asked: list[tuple[str, str]]) -> list[Runnable | None]:
        return await scripts.runnables_at(self._database, asked)

    async def _ask_hashes(self, asked: list[tuple[str, int]]) -> list[Runnable | None]:
        return await scripts.runnables_by_hash(self._database, asked)
