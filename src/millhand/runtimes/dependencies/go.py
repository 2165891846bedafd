"""Modules for Go: imports → lock (go.mod and go.sum) → one immutable directory that serves as GOMODCACHE.

The standard library needs none of this. Modules are taken from the proxy that the instance names, and only from it:
`direct` would have version-control programs run on addresses that a script makes up.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from millhand.core.errors import LockFailedError
from millhand.runtimes.contract import Listener
from millhand.runtimes.dependencies.cache import BuildCache, Hold
from millhand.runtimes.dependencies.downloads import Downloads
from millhand.runtimes.dependencies.imports import go_imports
from millhand.runtimes.dependencies.resolutions import Resolutions
from millhand.runtimes.dependencies.tools import run_tool, tool_env

SEPARATOR = "\n//go.sum\n"
MODULE = "mymod"  # the module that scripts are compiled in
MODULE_CACHE = "modules"  # in the environment: its GOMODCACHE
_LOCAL = re.compile(r"^\s*(?:replace\b.*|.*=>\s*(?:[./~\\]|[A-Za-z]:))", re.MULTILINE)


class GoModules:
    """Locks Go code and downloads what locks name."""

    def __init__(
        self, cache_dir: Path, *, go: str, max_bytes: int = 10 << 30, env: Mapping[str, str] | None = None
    ) -> None:
        """Keep everything under `cache_dir`, of which modules and downloads may grow to `max_bytes` each.

        `env` is what GOPROXY, GOSUMDB and their like are taken from (the process's environment where None).
        """
        self._go = go
        self._cache = BuildCache(cache_dir / "go", max_bytes=max_bytes)
        self._downloads = Downloads(cache_dir / "downloads" / "go", max_bytes=max_bytes)
        self._resolutions = Resolutions(cache_dir / "resolutions")
        tools = tool_env(os.environ if env is None else env)
        self.proxy = _proxies(tools.get("GOPROXY", ""))
        own = {
            "GOPROXY": self.proxy or "off",
            "GOFLAGS": "-mod=mod -modcacherw",
            "GOTOOLCHAIN": "local",
            "GOENV": "off",
        }
        self._env = {**tools, **own, "GOVCS": "*:off", "GOWORK": "off", "CGO_ENABLED": "0"}
        self._env |= {"GOPATH": str(self._downloads.root / "path"), "GOCACHE": str(self._downloads.root / "build")}

    async def lock(self, code: str, modules: Mapping[str, str], listener: Listener) -> str:
        """Return the lock of code, "" where the standard library is enough; raises LockFailedError."""
        wanted = module_imports((code, *modules.values()))
        if not wanted:
            return ""
        self._check_proxy(wanted)
        return await self._resolutions.get(("go", self.proxy, wanted), lambda: self._resolve(wanted, listener))

    async def environment(self, lock: str, listener: Listener) -> Path | None:
        """Return a directory with `go.mod`, `go.sum` and `modules` (a GOMODCACHE), or None where the lock names no module.

        Compile in it, or with copies of the two files, with `GOPROXY=off`. The directory stays for ten minutes after each
        call; use `hold` for longer.
        """
        go_mod, go_sum = split_lock(lock)
        if not re.search(r"^\s*require\b", go_mod, re.MULTILINE):
            return None
        key = hashlib.sha256(f"{go_mod}{SEPARATOR}{go_sum}".encode()).hexdigest()[:40]

        async def build(path: Path) -> None:
            self._check_proxy(["of the lock"])
            await self._install(go_mod, go_sum, path, listener)

        return await self._cache.get(key, build)

    def hold(self, environment: Path) -> Hold:
        """Keep an environment from being evicted while something uses it."""
        return self._cache.hold(environment)

    def _check_proxy(self, wanted: list[str]) -> None:
        if not self.proxy:
            raise LockFailedError(
                f"the modules {', '.join(wanted)} have to come from a Go module proxy, and this worker has none; "
                "set GOPROXY to one (https://proxy.golang.org, for instance) in the worker's environment"
            )

    async def _resolve(self, wanted: list[str], listener: Listener) -> str:
        listener.log(f"resolving {', '.join(wanted)}\n")
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            _write_importer(folder, wanted)
            async with self._downloads.used():
                await self._run("mod", "tidy", folder=folder, listener=listener, what="resolving dependencies")
            return f"{_read(folder / 'go.mod')}{SEPARATOR}{_read(folder / 'go.sum')}"

    async def _install(self, go_mod: str, go_sum: str, path: Path, listener: Listener) -> None:
        _write(path, {"go.mod": go_mod, "go.sum": go_sum})
        downloaded = (self._downloads.root / "path/pkg/mod/cache/download").absolute().as_uri()
        cache = {"GOMODCACHE": str(path / MODULE_CACHE), "GOPROXY": f"{downloaded},{self.proxy}"}
        await self._run("mod", "download", folder=path, listener=listener, what="downloading modules", extra=cache)

    async def _run(
        self, *argv: str, folder: Path, listener: Listener, what: str, extra: Mapping[str, str] | None = None
    ) -> None:
        env = {**self._env, **(extra or {})}
        await run_tool([self._go, *argv], cwd=folder, env=env, listener=listener, what=what)


def module_imports(sources: Iterable[str]) -> list[str]:
    """Return the imports that are not of the standard library: those whose first part has a dot, as host names have."""
    found = {path for source in sources for path in go_imports(source)}
    strange = [path for path in found if path.startswith((".", "/"))]
    if strange:
        raise LockFailedError(
            f"the import {strange[0]!r} names a file; Go scripts import the standard library and modules"
        )
    return sorted(path for path in found if "." in path.split("/")[0])


def split_lock(lock: str) -> tuple[str, str]:
    """Return go.mod and go.sum; raises LockFailedError where a module is replaced by something of this machine."""
    go_mod, _, go_sum = lock.partition(SEPARATOR)
    if match := _LOCAL.search(go_mod):
        raise LockFailedError(f"the lock replaces a module ({match[0].strip()}); only modules of a proxy can be used")
    return go_mod, go_sum


def _proxies(setting: str) -> str:
    """Return the proxies of a GOPROXY setting, without `direct` and `off`."""
    return ",".join(item for item in re.split(r"[,|]", setting) if item.strip() not in ("", "direct", "off"))


def _write_importer(folder: Path, wanted: Iterable[str]) -> None:
    lines = "\n".join(f"import _ {path!r}".replace("'", '"') for path in wanted)
    _write(folder, {"go.mod": f"module {MODULE}\n", "imports.go": f"package {MODULE}\n\n{lines}\n"})


def _write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).write_text(text)


def _read(path: Path) -> str:
    return path.read_text() if path.is_file() else ""
