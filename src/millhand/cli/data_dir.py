"""The data directory: all that an `up` keeps, and who holds it.

DIR/up.lock       held (flock) by the running `up`; the kernel lets go of it, however that process ends
DIR/up.json       who holds it: pid, since, url; ready once the API answers
DIR/clients.lock  held (shared) by each `millhand run` that uses a stack started for it
DIR/admin.token   the first superadmin's token, mode 0600
DIR/postgres      the embedded PostgreSQL's files          DIR/log     logs          DIR/cache     built environments
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO

import msgspec

from millhand.core.errors import MillhandError

_LOCK_TRIES = 5
_LOCK_PAUSE_S = 0.05


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """The `up` that holds a data directory."""

    pid: int
    since: datetime
    url: str
    ready: bool = False  # the API answers, and will go on answering for a while


class HeldError(MillhandError):
    """Another `up` holds the data directory."""


def default_data_dir(environment: os._Environ[str] | dict[str, str]) -> Path:
    """Return MILLHAND_DATA_DIR, else the place the system has for such data.

    Root's is /var/lib/millhand: PostgreSQL must reach it as another user, and root's home is closed to others.
    """
    if chosen := environment.get("MILLHAND_DATA_DIR"):
        return Path(chosen).expanduser().absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/millhand")
    home = environment.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(home).expanduser().absolute() / "millhand"


def private_paths(path: Path) -> list[Path]:
    """Return what of a data directory no job may see: all that is there but the cache."""
    try:
        return [entry for entry in path.iterdir() if entry.name != "cache"]
    except OSError:
        return []


class DataDir:
    """One data directory, made when it is missing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.token_file = path / "admin.token"
        self._holder_file = path / "up.json"
        self._lock: IO[bytes] | None = None

    def make(self) -> None:
        """Make the directory; raises MillhandError where it can't be.

        Others may pass through it to the environments in its cache, which jobs need; all else in it is closed to them.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o711)
            (self.path / "log").mkdir(exist_ok=True, mode=0o700)
        except OSError as error:
            raise MillhandError(
                f"can't use {self.path} as data directory: {error.strerror}; choose --data-dir"
            ) from None

    def hold(self) -> None:
        """Take the directory for this process until it ends; raises HeldError that says who has it."""
        self.make()
        lock = _open(self.path / "up.lock")
        for _ in range(_LOCK_TRIES):  # a client that looks whether somebody holds it does so for an instant itself
            if _try_lock(lock, fcntl.LOCK_EX):
                self._lock = lock
                self._holder_file.unlink(missing_ok=True)
                return
            time.sleep(_LOCK_PAUSE_S)
        lock.close()
        raise HeldError(self._who())

    def announce(self, holder: Holder) -> None:
        """Write down who holds the directory, for those who come later."""
        write_private(self._holder_file, msgspec.json.encode(holder))

    def release(self) -> None:
        """Let go of the directory."""
        self._holder_file.unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def holder(self) -> Holder | None:
        """Return the running `up`, if there is one; a file that a killed one left behind does not count."""
        if not self.is_held():
            return None
        try:
            return msgspec.json.decode(self._holder_file.read_bytes(), type=Holder)
        except (OSError, msgspec.DecodeError):
            return None

    def is_held(self) -> bool:
        """Tell whether some process holds the directory now."""
        try:
            lock = _open(self.path / "up.lock")
        except OSError:
            return False
        with lock:
            return not _try_lock(lock, fcntl.LOCK_SH)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep a stack that ends when nobody uses it from ending."""
        self.make()
        with _open(self.path / "clients.lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
            yield

    def is_used(self) -> bool:
        """Tell whether some client is within `in_use` now."""
        with _open(self.path / "clients.lock") as lock:
            return not _try_lock(lock, fcntl.LOCK_EX)

    def retire_unless_used(self, holder: Holder) -> bool:
        """Announce that we end, unless some client is within `in_use`; no client can come in between."""
        with _open(self.path / "clients.lock") as lock:
            if not _try_lock(lock, fcntl.LOCK_EX):
                return False
            self.announce(msgspec.structs.replace(holder, ready=False))
            return True

    def _who(self) -> str:
        holder = self.holder()
        if holder is None:
            return f"another millhand holds {self.path} and is just starting or ending; try again in a moment"
        since = holder.since.astimezone().strftime("%Y-%m-%d %H:%M:%S")
        return (
            f"millhand is already up on {self.path}: process {holder.pid} since {since}, {holder.url}; "
            "stop that one first, or choose another --data-dir"
        )


def write_private(path: Path, content: bytes) -> None:
    """Replace a file by one that only its owner can read, at once and whole."""
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    fresh.rename(path)


def _open(path: Path) -> IO[bytes]:
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b")


def _try_lock(file: IO[bytes], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
