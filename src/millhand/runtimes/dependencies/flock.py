"""Locks between processes, on files: shared or exclusive, never waiting, gone when their process ends."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Self

try:
    import fcntl
except ImportError:  # Windows: one worker host per cache directory
    fcntl = None  # type: ignore[assignment]


class FileLock:
    """A lock that is held, on a file that is made where it is missing."""

    def __init__(self, descriptor: int) -> None:
        """Take over an open file that is locked."""
        self._descriptor: int | None = descriptor

    @classmethod
    def try_shared(cls, path: Path) -> Self | None:
        """Return a lock that others may share, or None where somebody has it exclusively."""
        return cls._try(path, shared=True)

    @classmethod
    def try_exclusive(cls, path: Path) -> Self | None:
        """Return a lock that nobody shares, or None where anybody has it."""
        return cls._try(path, shared=False)

    @classmethod
    def _try(cls, path: Path, *, shared: bool) -> Self | None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if fcntl is not None:
                fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            if _is_at(descriptor, path):
                return cls(descriptor)
        except BlockingIOError:
            pass
        os.close(descriptor)  # somebody has it, or removed the file between our two steps
        return None

    def write(self, text: str) -> None:
        """Replace the text of the file."""
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            os.write(self._descriptor, text.encode())

    def release(self) -> None:
        """Give the lock back; a second call does nothing."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def __enter__(self) -> Self:
        """Hold for the length of a with statement."""
        return self

    def __exit__(self, *_: object) -> None:
        """Release."""
        self.release()


def _is_at(descriptor: int, path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.fstat(descriptor).st_ino == path.stat().st_ino
    return False
