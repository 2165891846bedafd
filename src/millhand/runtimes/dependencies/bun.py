"""npm packages for Bun: imports → lock (package.json and bun.lock) → one immutable directory with node_modules."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from millhand.core.errors import LockFailedError
from millhand.runtimes.contract import Listener
from millhand.runtimes.dependencies.cache import BuildCache, Hold
from millhand.runtimes.dependencies.downloads import Downloads
from millhand.runtimes.dependencies.imports import typescript_imports
from millhand.runtimes.dependencies.npm import check_version, package_of
from millhand.runtimes.dependencies.resolutions import Resolutions
from millhand.runtimes.dependencies.tools import run_tool, tool_env

SEPARATOR = "\n//bun.lock\n"
_EMPTY = "<empty>"
_LOCAL = re.compile(r"@(?:file|link|workspace|root|portal):|@\.{0,2}/")
_FLAGS = ("--ignore-scripts", "--no-progress", "--no-summary")


class _PackageJson(msgspec.Struct):
    dependencies: dict[str, str] = {}


class BunEnvironments:
    """Locks TypeScript for Bun and installs what locks name; no script of a package is run."""

    def __init__(
        self, cache_dir: Path, *, bun: str, max_bytes: int = 10 << 30, env: Mapping[str, str] | None = None
    ) -> None:
        """Keep everything under `cache_dir`, of which packages and downloads may grow to `max_bytes` each.

        `env` is what settings of the registry and proxies are taken from (the process's environment where None).
        """
        self._bun = bun
        self._cache = BuildCache(cache_dir / "bun", max_bytes=max_bytes)
        self._downloads = Downloads(cache_dir / "downloads" / "bun", max_bytes=max_bytes)
        self._resolutions = Resolutions(cache_dir / "resolutions")
        own = {"BUN_INSTALL_CACHE_DIR": str(self._downloads.root), "NO_COLOR": "1", "DO_NOT_TRACK": "1"}
        self._env = {**tool_env(os.environ if env is None else env), **own}

    async def lock(self, code: str, modules: Mapping[str, str], listener: Listener) -> str:
        """Return the lock of code and the scripts it imports, "" where they need no package; raises LockFailedError."""
        wanted = wanted_packages((code, *modules.values()))
        if not wanted:
            return ""
        return await self._resolutions.get(("bun", wanted), lambda: self._resolve(wanted, listener))

    async def environment(self, lock: str, listener: Listener) -> Path | None:
        """Return a directory with `node_modules` as the lock says, or None where it names no package.

        The directory stays for ten minutes after each call; use `hold` for longer.
        """
        package_json, bun_lock = _split(lock)
        if not bun_lock:
            return None
        key = hashlib.sha256(f"{package_json}{SEPARATOR}{bun_lock}".encode()).hexdigest()[:40]

        async def build(path: Path) -> None:
            await self._install(package_json, bun_lock, path, listener)

        return await self._cache.get(key, build)

    def hold(self, environment: Path) -> Hold:
        """Keep an environment from being evicted while something runs in it."""
        return self._cache.hold(environment)

    async def _resolve(self, wanted: dict[str, str], listener: Listener) -> str:
        listener.log(f"resolving {', '.join(f'{name}@{version}' for name, version in wanted.items())}\n")
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            package_json = _package_json(wanted)
            _write(folder, {"package.json": package_json})
            argv = [self._bun, "install", "--lockfile-only", "--save-text-lockfile", *_FLAGS]
            async with self._downloads.used():
                await run_tool(argv, cwd=folder, env=self._env, listener=listener, what="resolving dependencies")
            return f"{package_json}{SEPARATOR}{_read(folder, 'bun.lock')}"

    async def _install(self, package_json: str, bun_lock: str, path: Path, listener: Listener) -> None:
        _write(path, {"package.json": package_json, "bun.lock": bun_lock})
        argv = [self._bun, "install", "--frozen-lockfile", "--backend", "hardlink", *_FLAGS]
        async with self._downloads.used():
            await run_tool(argv, cwd=path, env=self._env, listener=listener, what="installing dependencies")


def wanted_packages(sources: Iterable[str]) -> dict[str, str]:
    """Return the packages that sources import, with their versions, by name; raises LockFailedError."""
    found: dict[str, str] = {}
    for specifier in (item for source in sources for item in typescript_imports(source) if not item.type_only):
        package = package_of(specifier.text)
        if package is None:
            continue
        known = found.get(package.name, "")
        if known and package.version and package.version != known:
            raise LockFailedError(
                f"{package.name} is imported as {known} and as {package.version}; import one version of it"
            )
        found[package.name] = package.version or known
    return {name: check_version(name, version) for name, version in sorted(found.items())}


def plain_imports(code: str) -> str:
    """Return code whose imports name packages without versions and `npm:`, as Bun finds them in node_modules."""
    source = code.encode()
    for item in sorted(typescript_imports(code), key=lambda item: item.start, reverse=True):
        package = package_of(item.text)
        if package is not None and package.plain != item.text:
            source = source[: item.start] + msgspec.json.encode(package.plain) + source[item.end :]
    return source.decode()


def _package_json(dependencies: dict[str, str]) -> str:
    return msgspec.json.format(msgspec.json.encode({"dependencies": dependencies}), indent=2).decode()


def _split(lock: str) -> tuple[str, str]:
    """Return package.json, cut down to its dependencies, and bun.lock; raises LockFailedError for what isn't ours to install."""
    head, _, bun_lock = lock.partition(SEPARATOR)
    if not head.strip() or not bun_lock.strip() or bun_lock.strip() == _EMPTY:
        return "", ""
    try:
        package_json = msgspec.json.decode(head, type=_PackageJson)
    except msgspec.MsgspecError as error:
        raise LockFailedError(
            f"the lock does not start with a package.json: {error}; deploy the script without it"
        ) from None
    if _LOCAL.search(bun_lock):
        raise LockFailedError("the lock names files of this machine; only packages of a registry can be installed")
    dependencies = {name: check_version(name, version) for name, version in package_json.dependencies.items()}
    return _package_json(dependencies), bun_lock


def _write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).write_text(text)


def _read(folder: Path, name: str) -> str:
    path = folder / name
    if not path.is_file():
        raise LockFailedError(f"resolving dependencies gave no {name}")
    return path.read_text()
