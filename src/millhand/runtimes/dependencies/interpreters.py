"""The Pythons of this machine: the default one, and those that uv finds."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from millhand.core.errors import LockFailedError
from millhand.runtimes.dependencies.tools import run_tool

_SAY_VERSION = "import sys; print(sys.version.split()[0]); print(sys.executable)"


_LISTED_S = 60.0


class _Found(msgspec.Struct, kw_only=True):
    version: str
    path: str | None = None
    implementation: str = "cpython"
    variant: str = "default"


class Interpreters:
    """Chooses a Python by version: the default one where it will do, so that most scripts share one zygote."""

    def __init__(self, *, default: str, uv: str, env: Mapping[str, str]) -> None:
        """Ask the default Python for its version."""
        self.default = default
        self.default_version = _version_of(default)
        self._uv = uv
        self._env = env
        self._listing = asyncio.Lock()
        self._listed: dict[str, str] = {}
        self._listed_until = 0.0
        self._paths = {_minor(self.default_version): default}

    def path(self, version: str | None) -> str | None:
        """Return the Python of a version like 3.12 (None: the default), where it was found before."""
        return self.default if version is None else self._paths.get(version)

    async def of_version(self, version: str | None) -> tuple[str, str]:
        """Return version and path of a Python like 3.12 (None: the default); raises as `choose` does."""
        found = self.path(version)
        if found is None:
            return await self.choose(f"=={version}.*")
        return version or _minor(self.default_version), found

    async def choose(self, specifiers: str) -> tuple[str, str]:
        """Return version (3.x) and path of a Python that fits PEP 440 specifiers.

        Raises LockFailedError that names those there are. Of several that fit, the default is taken, else the newest.
        """
        wanted = SpecifierSet(specifiers, prereleases=True)
        if Version(self.default_version) in wanted:
            return _minor(self.default_version), self.default
        installed = await self._installed()
        found = {version: path for version, path in installed.items() if Version(version) in wanted}
        if not found:
            raise self._none_fits(specifiers, installed)
        newest = max(found, key=Version)
        self._paths[_minor(newest)] = found[newest]
        return _minor(newest), found[newest]

    def _none_fits(self, specifiers: str, installed: Iterable[str]) -> LockFailedError:
        versions = {_minor(version) for version in (self.default_version, *installed)}
        known = ", ".join(sorted(versions, key=Version))
        return LockFailedError(
            f"no Python {specifiers} on this worker; it has {known}. Ask for one of those, "
            "or install another (`uv python install`)"
        )

    async def _installed(self) -> dict[str, str]:
        """Return the paths of installed Pythons by version, as they were within the last minute."""
        async with self._listing:
            if time.monotonic() > self._listed_until:
                self._listed = await self._list()
                self._listed_until = time.monotonic() + _LISTED_S
            return self._listed

    async def _list(self) -> dict[str, str]:
        argv = [self._uv, "--no-config", "python", "list", "--only-installed", "--output-format", "json"]
        output = await run_tool(
            argv, cwd=Path("/"), env=self._env, what="looking for Pythons", timeout_s=60, stderr=False
        )
        found: dict[str, str] = {}
        for item in msgspec.json.decode(output, type=list[_Found]):
            if item.path and item.implementation == "cpython" and item.variant == "default":
                found.setdefault(item.version, item.path)
        return found


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _version_of(python: str) -> str:
    if python == sys.executable:
        return ".".join(map(str, sys.version_info[:3]))
    output = subprocess.run([python, "-I", "-c", _SAY_VERSION], capture_output=True, text=True, check=True, timeout=60)
    return output.stdout.split()[0]
