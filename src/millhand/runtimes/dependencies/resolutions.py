"""Resolutions kept for a while: the same question within five minutes gives the same lock, and asks no registry."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from weakref import WeakValueDictionary

TTL_S = 300.0


class Resolutions:
    """Locks by question, in a folder that all processes of this machine share."""

    def __init__(self, root: Path, *, ttl_s: float = TTL_S) -> None:
        """Use (and make, where missing) a folder."""
        self._root = root
        self._ttl_s = ttl_s
        self._asking: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        root.mkdir(parents=True, exist_ok=True)

    async def get(self, question: object, resolve: Callable[[], Awaitable[str]], *, fresh: bool = False) -> str:
        """Return the lock for a question (anything with a repr of its own), by `resolve` where none is kept.

        Within one process nobody asks what another is asking already. `fresh` takes no notice of what is kept.
        """
        kept = self._root / hashlib.sha256(repr(question).encode()).hexdigest()
        async with self._asking.setdefault(kept.name, asyncio.Lock()):
            if not fresh and (found := self._recent(kept)) is not None:
                return found
            lock = await resolve()
            self._keep(kept, lock)
            return lock

    def _recent(self, path: Path) -> str | None:
        try:
            age_s = time.time() - path.stat().st_mtime
            return path.read_text() if 0 <= age_s < self._ttl_s else None
        except FileNotFoundError:
            return None

    def _keep(self, path: Path, lock: str) -> None:
        unfinished = path.with_suffix(f".{os.getpid()}")
        unfinished.write_text(lock)
        unfinished.replace(path)
        for old in self._root.iterdir():
            if self._recent(old) is None:
                old.unlink(missing_ok=True)
