"""The cache in which a tool keeps what it has downloaded: shared by all processes, emptied when it has grown too big."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from millhand.runtimes.dependencies.cache import remove_tree, size_of
from millhand.runtimes.dependencies.flock import FileLock

_POLL_S = 0.05


class Downloads:
    """A folder that tools fill side by side and that is only emptied while none of them works."""

    def __init__(self, root: Path, *, max_bytes: int) -> None:
        """Use (and make, where missing) a folder."""
        self.root = root
        self._max_bytes = max_bytes
        self._lock_path = root.with_name(f"{root.name}.lock")
        root.mkdir(parents=True, exist_ok=True)

    @contextlib.asynccontextmanager
    async def used(self) -> AsyncIterator[None]:
        """Keep the folder from being emptied while a tool works with it; empty it afterwards where it is too big."""
        while (lock := FileLock.try_shared(self._lock_path)) is None:  # noqa: ASYNC110 — locks of other processes call nobody
            await asyncio.sleep(_POLL_S)
        with lock:
            yield
        await asyncio.to_thread(self._trim)

    def _trim(self) -> None:
        lock = FileLock.try_exclusive(self._lock_path)
        if lock is None:
            return
        with lock:
            if size_of(self.root) > self._max_bytes:
                for entry in self.root.iterdir():
                    if entry.is_dir():
                        remove_tree(entry)
                    else:
                        entry.unlink(missing_ok=True)
