"""Python environments: requirements → lock → one immutable directory of installed packages, by uv."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from millhand.core.errors import LockFailedError, RuntimeUnavailableError
from millhand.runtimes.contract import Listener
from millhand.runtimes.dependencies.cache import BuildCache, Hold
from millhand.runtimes.dependencies.downloads import Downloads
from millhand.runtimes.dependencies.interpreters import Interpreters
from millhand.runtimes.dependencies.requirements import Wanted, read_lock, wanted, write_lock
from millhand.runtimes.dependencies.resolutions import Resolutions
from millhand.runtimes.dependencies.tools import run_tool, tool_env

_PIP_TO_UV = {
    "PIP_INDEX_URL": "UV_DEFAULT_INDEX",
    "PIP_EXTRA_INDEX_URL": "UV_INDEX",
    "PIP_TRUSTED_HOST": "UV_INSECURE_HOST",
}


def find_uv() -> str:
    """Return the path of uv, which comes with Millhand; raises RuntimeUnavailableError."""
    try:
        from uv import find_uv_bin  # noqa: PLC0415 — only where it is asked for

        return str(find_uv_bin())
    except (ImportError, FileNotFoundError):
        raise RuntimeUnavailableError("uv is missing on this worker; install it with `pip install uv`") from None


class PythonEnvironments:
    """Locks Python code and installs what locks name. No code of a package is run unless builds are allowed."""

    def __init__(
        self,
        cache_dir: Path,
        *,
        python: str,
        uv: str,
        max_bytes: int = 10 << 30,
        allow_builds: bool | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Keep everything under `cache_dir`, of which packages and downloads may grow to `max_bytes` each.

        `python` is the default interpreter. `env` is what settings of the index and proxies are taken from (the
        process's environment where None). `allow_builds` (else `MILLHAND_ALLOW_BUILDS=1` there) lets packages that have
        no wheel run their build code, outside of the sandbox.
        """
        self._cache = BuildCache(cache_dir / "python", max_bytes=max_bytes)
        self._downloads = Downloads(cache_dir / "downloads" / "uv", max_bytes=max_bytes)
        self._resolutions = Resolutions(cache_dir / "resolutions")
        settings = os.environ if env is None else env
        self._env = _uv_env(tool_env(settings), self._downloads.root)
        self._uv = uv
        if allow_builds is None:
            allow_builds = settings.get("MILLHAND_ALLOW_BUILDS", "").lower() in ("1", "true")
        self._builds = () if allow_builds else ("--no-build",)
        self._interpreters = Interpreters(default=python, uv=uv, env=self._env)

    async def lock(self, code: str, modules: Mapping[str, str], listener: Listener) -> str:
        """Return the lock of code and the scripts it imports: `# py: 3.x`, then a pinned requirement per line.

        It is "" where nothing is needed and the default Python will do. Raises LockFailedError with the resolver's words.
        """
        needs = wanted(code, modules.values())
        version, python = await self._interpreters.choose(needs.python)
        if not needs.requirements:
            return "" if python == self._interpreters.default else write_lock(version, ())
        question = ("python", version, needs.requirements)
        return await self._resolutions.get(
            question, lambda: self._resolve(needs, version, python, listener), fresh=needs.fresh
        )

    async def environment(self, lock: str, listener: Listener) -> Path | None:
        """Return the directory with the packages of a lock, installed now where nobody has done it before.

        It is None where the lock names none. The directory stays for ten minutes after each call; use `hold` for longer.
        """
        named = read_lock(lock)
        version, python = await self._interpreters.of_version(named.python)
        if not named.requirements:
            return None
        key = hashlib.sha256("\n".join(named.requirements).encode()).hexdigest()[:40]

        async def build(path: Path) -> None:
            await self._install(named.requirements, python, path, listener)

        return await self._cache.get(f"cp{version.replace('.', '')}-{key}", build)

    def interpreter(self, lock: str) -> str:
        """Return the Python of a lock. Other Pythons than the default are known once `environment` was asked for theirs."""
        found = self._interpreters.path(read_lock(lock).python)
        if found is None:
            raise LockFailedError("the Python of this lock was not looked for yet; ask for its environment first")
        return found

    def hold(self, environment: Path) -> Hold:
        """Keep an environment from being evicted while something runs in it."""
        return self._cache.hold(environment)

    async def _resolve(self, needs: Wanted, version: str, python: str, listener: Listener) -> str:
        listener.log(f"resolving {', '.join(needs.requirements)}\n")
        with tempfile.TemporaryDirectory() as folder:
            source, result = Path(folder, "requirements.in"), Path(folder, "requirements.txt")
            _write_lines(source, needs.requirements)
            argv = [self._uv, "--no-config", "--quiet", "pip", "compile", source.name, "--output-file", result.name]
            argv += ["--python", python, "--no-header", "--no-annotate", *self._builds]
            try:
                async with self._downloads.used():
                    await run_tool(
                        argv, cwd=Path(folder), env=self._env, listener=listener, what="resolving dependencies"
                    )
            except LockFailedError as error:
                raise LockFailedError(
                    f"{error}{_hint(needs, no_wheel=bool(self._builds) and 'wheel' in str(error))}"
                ) from None
            return write_lock(version, _read_lines(result))

    async def _install(self, requirements: tuple[str, ...], python: str, path: Path, listener: Listener) -> None:
        listener.log(f"installing {len(requirements)} packages\n")
        lock = path / "requirements.lock"
        _write_lines(lock, requirements)
        argv = [self._uv, "--no-config", "pip", "install", "--requirement", str(lock), "--target", str(path)]
        argv += ["--no-deps", "--python", python, "--link-mode", "hardlink", "--compile-bytecode", *self._builds]
        async with self._downloads.used():
            await run_tool(argv, cwd=path, env=self._env, listener=listener, what="installing dependencies")
        (path / ".lock").unlink(missing_ok=True)  # uv's own


def _uv_env(env: dict[str, str], cache: Path) -> dict[str, str]:
    """Return the environment of uv: ours, the index settings under uv's names, quiet, and byte-code that is never stale."""
    renamed = {uv: env[pip] for pip, uv in _PIP_TO_UV.items() if pip in env}
    return {
        "UV_PYTHON_DOWNLOADS": "never",
        **renamed,
        **env,
        "UV_CACHE_DIR": str(cache),
        "PYC_INVALIDATION_MODE": "UNCHECKED_HASH",
        "UV_NO_PROGRESS": "1",
        "NO_COLOR": "1",
    }


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    path.write_text("\n".join(lines) + "\n")


def _read_lines(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if line.strip()]


def _hint(needs: Wanted, *, no_wheel: bool) -> str:
    hints = []
    if needs.inferred:
        hints.append(
            f"Inferred from imports: {', '.join(needs.inferred)}. Where a package has another name than its module, "
            "list what you need in a `# requirements:` block."
        )
    if no_wheel:
        hints.append(
            "Packages without a wheel for this Python are not built here; "
            "MILLHAND_ALLOW_BUILDS=1 on the workers allows it, and their build code then runs outside of the sandbox."
        )
    return "".join(f"\n{hint}" for hint in hints)
