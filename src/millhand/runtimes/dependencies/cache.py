"""Directories built once, by content, and shared by every process on this machine.

A directory appears under its key whole, by one rename, and never changes after that. Beside it, `.state/<key>` says when
it was used last (its mtime) and how big it is (its text), and carries the lock: builders and evictors take it
exclusively, users share it. So two builders of one key never work at once, and what somebody holds is never evicted.
The lock dies with its process: nothing is left to clean up after a crash but a hidden directory, which the next
builder of that key removes.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import re
import secrets
import shutil
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Self

from millhand.runtimes.dependencies.flock import FileLock

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,150}")
_POLL_S = 0.05
_BLOCK = 512  # unit of st_blocks


class Hold:
    """Keeps one directory from being evicted, until it is released or this process ends."""

    def __init__(self, lock: FileLock) -> None:
        """Take over a shared lock."""
        self._lock = lock

    def release(self) -> None:
        """Let the directory go; a second call does nothing."""
        self._lock.release()

    def __enter__(self) -> Self:
        """Hold for the length of a with statement."""
        return self

    def __exit__(self, *_: object) -> None:
        """Release."""
        self.release()


class BuildCache:
    """A bounded set of immutable directories under one root; the least recently used go first."""

    def __init__(self, root: Path, *, max_bytes: int = 10 << 30, grace_s: float = 600.0) -> None:
        """Use (and make, where missing) a root; a directory used within `grace_s` is never evicted."""
        self.root = root
        self._state = root / ".state"
        self._max_bytes = max_bytes
        self._grace_s = grace_s
        self._state.mkdir(parents=True, exist_ok=True)

    def find(self, key: str) -> Path | None:
        """Return the directory of a key, used now, or None where it is not built."""
        state = self._lock_path(key)
        if not (self.root / key).is_dir():
            return None
        lock = FileLock.try_shared(state)
        if lock is None:  # being evicted at this moment
            return None
        with lock:
            return self._used(key)

    async def get(self, key: str, build: Callable[[Path], Awaitable[None]]) -> Path:
        """Return the directory of a key, built by filling an empty one where nobody has done so before.

        Whoever comes second waits for the first. Where the build raises, nothing is left, and the next one tries anew.
        """
        while True:
            if (found := self.find(key)) is not None:
                return found
            if (lock := FileLock.try_exclusive(self._lock_path(key))) is not None:
                break
            await asyncio.sleep(_POLL_S)
        with lock:
            found = self._used(key)
            if found is None:
                found = await self._build(key, build)
                lock.write(str(await asyncio.to_thread(size_of, found)))
        await asyncio.to_thread(self.sweep)
        return found

    def hold(self, path: Path) -> Hold:
        """Keep a directory of this cache from being evicted; raises FileNotFoundError where it is gone already."""
        lock = FileLock.try_shared(self._lock_path(path.name)) if path.is_dir() else None
        if lock is not None and self._used(path.name) is not None:
            return Hold(lock)
        if lock is not None:
            lock.release()
        raise FileNotFoundError(path)

    def sweep(self) -> list[str]:
        """Evict what was used least recently until the rest fits; return the keys that went."""
        entries = sorted(self._entries())
        total = sum(size for _, size, _ in entries)
        evicted = []
        for used_at, size, key in entries:
            if total <= self._max_bytes or used_at > time.time() - self._grace_s:
                break
            if self._evict(key):
                total -= size
                evicted.append(key)
        return evicted

    def _lock_path(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise ValueError(f"not a cache key: {key!r}")
        return self._state / key

    def _used(self, key: str) -> Path | None:
        path = self.root / key
        if not path.is_dir():
            return None
        os.utime(self._state / key)
        return path

    async def _build(self, key: str, build: Callable[[Path], Awaitable[None]]) -> Path:
        """Build beside the final place and rename; the caller holds the lock of the key."""
        for stale in self.root.glob(f".build-{key}~*"):  # left by a process that was killed
            await asyncio.to_thread(remove_tree, stale)
        unfinished = self.root / f".build-{key}~{secrets.token_hex(4)}"
        unfinished.mkdir()
        try:
            unfinished.chmod(0o755)  # whatever the umask: jobs under other users read it
            await build(unfinished)
            await asyncio.to_thread(_flush, unfinished)
            return unfinished.rename(self.root / key)
        except BaseException:
            remove_tree(unfinished)
            self._lock_path(key).unlink()
            raise

    def _entries(self) -> Iterator[tuple[float, int, str]]:
        """Yield time of last use, size in bytes and key of what is built."""
        for state in self._state.iterdir():
            with contextlib.suppress(OSError, ValueError):
                if (self.root / state.name).is_dir():
                    yield state.stat().st_mtime, int(state.read_text() or 0), state.name

    def _evict(self, key: str) -> bool:
        lock = FileLock.try_exclusive(self._lock_path(key))
        if lock is None:
            return False  # somebody uses it
        with lock:
            if (self._state / key).stat().st_mtime > time.time() - self._grace_s:
                return False  # used since we looked
            trash = self.root / f".build-{key}~{secrets.token_hex(4)}"
            (self.root / key).rename(trash)
            remove_tree(trash)
            (self._state / key).unlink()
            return True


def size_of(root: Path) -> int:
    """Return the bytes that a tree occupies on the disk; a file with several names counts once."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for folder, _, names in os.walk(root):
        for name in names:
            with contextlib.suppress(OSError):
                stat = os.lstat(os.path.join(folder, name))  # noqa: PTH118 — a hundred thousand times
                if (stat.st_dev, stat.st_ino) not in seen:
                    seen.add((stat.st_dev, stat.st_ino))
                    total += stat.st_blocks * _BLOCK if hasattr(stat, "st_blocks") else stat.st_size
    return total


def remove_tree(root: Path) -> None:
    """Remove a tree as far as possible, read-only folders included (Go writes such)."""
    for folder, _, _ in os.walk(root):
        with contextlib.suppress(OSError):
            Path(folder).chmod(0o700)
    shutil.rmtree(root, ignore_errors=True)


def _flush(path: Path) -> None:
    """Have the file system write what it holds back, so that a power cut after the rename finds whole files."""
    try:
        syncfs = ctypes.CDLL(None).syncfs
    except (AttributeError, OSError, TypeError):  # not Linux
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        syncfs(descriptor)
    finally:
        os.close(descriptor)
