"""Packages for Deno: `npm:`, `jsr:` and https imports → lock (deno.lock) → one immutable directory that serves as DENO_DIR."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from millhand.core.errors import LockFailedError
from millhand.runtimes.contract import Listener
from millhand.runtimes.dependencies.cache import BuildCache, Hold, remove_tree
from millhand.runtimes.dependencies.downloads import Downloads
from millhand.runtimes.dependencies.imports import typescript_imports
from millhand.runtimes.dependencies.resolutions import Resolutions
from millhand.runtimes.dependencies.tools import run_tool, tool_env

LOCK_FILE = "deno.lock"  # in the environment
_REMOTE = ("npm:", "jsr:", "https://", "http://")
_ENTRY = "imports.ts"


class _DenoLock(msgspec.Struct):
    specifiers: dict[str, str] = {}
    remote: dict[str, str] = {}


class DenoEnvironments:
    """Locks TypeScript for Deno and downloads what locks name."""

    def __init__(
        self, cache_dir: Path, *, deno: str, max_bytes: int = 10 << 30, env: Mapping[str, str] | None = None
    ) -> None:
        """Keep everything under `cache_dir`, of which packages and downloads may grow to `max_bytes` each.

        `env` is what settings of the registry and proxies are taken from (the process's environment where None).
        """
        self._deno = deno
        self._cache = BuildCache(cache_dir / "deno", max_bytes=max_bytes)
        self._downloads = Downloads(cache_dir / "downloads" / "deno", max_bytes=max_bytes)
        self._resolutions = Resolutions(cache_dir / "resolutions")
        own = {"NO_COLOR": "1", "DENO_NO_UPDATE_CHECK": "1"}
        self._env = {**tool_env(os.environ if env is None else env), **own}

    async def lock(self, code: str, modules: Mapping[str, str], listener: Listener) -> str:
        """Return the lock of code and the scripts it imports, "" where they need nothing; raises LockFailedError."""
        wanted = remote_imports((code, *modules.values()))
        if not wanted:
            return ""
        return await self._resolutions.get(("deno", wanted), lambda: self._resolve(wanted, listener))

    async def environment(self, lock: str, listener: Listener) -> Path | None:
        """Return a directory to run with as `DENO_DIR`, or None where the lock names nothing.

        Run with `--cached-only --frozen --lock=<directory>/deno.lock`. It needs no right to write there. The directory
        stays for ten minutes after each call; use `hold` for longer.
        """
        if not lock.strip():
            return None
        wanted = _named_by(lock)
        if not wanted:
            return None

        async def build(path: Path) -> None:
            await self._install(lock, wanted, path, listener)

        return await self._cache.get(hashlib.sha256(lock.encode()).hexdigest()[:40], build)

    def hold(self, environment: Path) -> Hold:
        """Keep an environment from being evicted while something runs in it."""
        return self._cache.hold(environment)

    async def _resolve(self, wanted: list[str], listener: Listener) -> str:
        listener.log(f"resolving {', '.join(wanted)}\n")
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            _write_imports(folder, wanted)
            async with self._downloads.used():
                await self._deno_cache(folder, self._downloads.root, listener, what="resolving dependencies")
            return _read(folder / LOCK_FILE)

    async def _install(self, lock: str, wanted: list[str], path: Path, listener: Listener) -> None:
        _write_imports(path, wanted, lock)
        await self._deno_cache(path, path, listener, "--frozen", what="installing dependencies")
        _remove_leftovers(path)

    async def _deno_cache(self, folder: Path, deno_dir: Path, listener: Listener, *flags: str, what: str) -> None:
        argv = [
            self._deno,
            "cache",
            "--no-config",
            "--node-modules-dir=none",
            "--allow-import",
            f"--lock={LOCK_FILE}",
            *flags,
            _ENTRY,
        ]
        await run_tool(argv, cwd=folder, env={**self._env, "DENO_DIR": str(deno_dir)}, listener=listener, what=what)


def remote_imports(sources: Iterable[str]) -> list[str]:
    """Return what sources import from a registry or an address, sorted, each once."""
    specifiers = (item.text for source in sources for item in typescript_imports(source) if not item.type_only)
    return sorted({specifier for specifier in specifiers if specifier.startswith(_REMOTE)})


def _named_by(lock: str) -> list[str]:
    """Return all that a lock names; raises LockFailedError where it is none, or names what is not on the network."""
    try:
        named = msgspec.json.decode(lock, type=_DenoLock)
    except msgspec.MsgspecError as error:
        raise LockFailedError(f"the lock is not a deno.lock: {error}; deploy the script without it") from None
    found = [*named.specifiers, *named.remote]
    if strange := next((specifier for specifier in found if not specifier.startswith(_REMOTE)), None):
        raise LockFailedError(f"the lock names {strange!r}; only npm:, jsr: and http(s) imports can be installed")
    return found


def _write_imports(folder: Path, wanted: Iterable[str], lock: str | None = None) -> None:
    lines = [f"import {msgspec.json.encode(specifier).decode()};\n" for specifier in wanted]
    (folder / _ENTRY).write_text("".join(lines))
    if lock is not None:
        (folder / LOCK_FILE).write_text(lock)


def _remove_leftovers(path: Path) -> None:
    """Remove what Deno keeps for itself: compiled code of our list of imports, and databases it can't open read-only."""
    (path / _ENTRY).unlink()
    for database in path.glob("*_cache_v*"):
        database.unlink()
    remove_tree(path / "gen" / "file")


def _read(path: Path) -> str:
    if not path.is_file():
        raise LockFailedError(f"resolving dependencies gave no {path.name}")
    return path.read_text()
