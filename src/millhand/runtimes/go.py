"""Go: a script is compiled once, with a program around it, and its binary runs for every job."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

import msgspec

from millhand.core.errors import BadRequestError, LockFailedError
from millhand.core.script import Language
from millhand.core.signature import parse_signature
from millhand.runtimes.contract import Execution, Listener, Outcome, Stop
from millhand.runtimes.dependencies.cache import BuildCache
from millhand.runtimes.dependencies.downloads import Downloads
from millhand.runtimes.dependencies.go import MODULE, MODULE_CACHE, GoModules, split_lock
from millhand.runtimes.dependencies.tools import run_tool, tool_env
from millhand.runtimes.launcher import Launcher, Spawn, base_environment
from millhand.runtimes.run_child import failed, outcome_of, run_child

_PROGRAM = (Path(__file__).parent / "children" / "go_main.go").read_text()
_PACKAGE = re.compile(r"^package\s+\w+", re.MULTILINE)
_BINARY = "job"


class GoRuntime:
    """Compiles and runs Go scripts."""

    def __init__(
        self,
        *,
        launcher: Launcher,
        go: str,
        cache_dir: Path,
        max_bytes: int = 5 << 30,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Compile with the toolchain `go`; keep binaries under `cache_dir`, which children of the launcher can read."""
        self._launcher = launcher
        self._go = go
        self._modules = GoModules(cache_dir, go=go, max_bytes=max_bytes, env=env)
        self._binaries = BuildCache(cache_dir / "go-binaries", max_bytes=max_bytes)
        self._compiled = Downloads(cache_dir / "downloads" / "go-build", max_bytes=max_bytes)
        self._env = {**tool_env(os.environ if env is None else env), **_SETTINGS, "GOCACHE": str(self._compiled.root)}
        self._version = ""

    async def start(self) -> None:
        """Start nothing: Go has no start-up worth hiding."""

    async def close(self) -> None:
        """Leave nothing: each job's process ends with its job."""

    async def lock(self, execution: Execution, listener: Listener) -> str:
        """Resolve the code's modules; raises LockFailedError."""
        return await self._modules.lock(execution.code, execution.modules, listener)

    async def prepare(self, execution: Execution, listener: Listener) -> Execution:
        """Lock where it is not, and compile; raises LockFailedError with what the compiler said."""
        lock = execution.lock if execution.lock is not None else await self.lock(execution, listener)
        locked = msgspec.structs.replace(execution, lock=lock)
        with contextlib.suppress(BadRequestError):  # of a function that is missing; `execute` tells
            await self._binary(locked, listener)
        return locked

    async def execute(self, execution: Execution, listener: Listener, stop: Stop) -> Outcome:
        """Run the binary of prepared code."""
        try:
            signature = parse_signature(Language.GO, execution.code, execution.entrypoint)
        except BadRequestError as error:
            return failed("ExecutionErr", str(error))
        job = {"args": msgspec.Raw(execution.args), "params": [param.name for param in signature.params]}
        binary = await self._binary(execution, listener)
        with self._binaries.hold(binary):
            env = {**base_environment(), **execution.env}
            spawn = Spawn(argv=(str(binary / _BINARY),), env=env, limits=execution.limits, init=True)
            child = await self._launcher.spawn(spawn)
            ended = await run_child(child, msgspec.json.encode(job), listener, stop)
        return outcome_of(ended, program="main.go")

    async def _binary(self, execution: Execution, listener: Listener) -> Path:
        """Return the directory with the binary of this code, compiled where nobody has done so before."""
        lock, entrypoint = execution.lock or "", execution.entrypoint or "main"
        parts = (_PROGRAM, await self._toolchain(), lock, entrypoint, execution.code)
        key = hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:40]
        found = self._binaries.find(key)
        if found is not None:
            return found
        parse_signature(Language.GO, execution.code, entrypoint)  # has better words for a missing function

        async def build(path: Path) -> None:
            await self._compile(execution.code, entrypoint, lock, path / _BINARY, listener)

        return await self._binaries.get(key, build)

    async def _compile(self, code: str, entrypoint: str, lock: str, binary: Path, listener: Listener) -> None:
        modules = await self._modules.environment(lock, listener)
        env = {**self._env, **({"GOMODCACHE": str(modules / MODULE_CACHE)} if modules else {})}
        go_mod, go_sum = split_lock(lock)
        with tempfile.TemporaryDirectory() as name:
            files = {
                "go.mod": go_mod or f"module {MODULE}\n\ngo {await self._toolchain()}\n",
                "go.sum": go_sum,
                "main.go": _PROGRAM,
                "inner/entry.go": f"package inner\n\nvar MillhandEntry any = {entrypoint}\n",
                "inner/main.go": inner_package(code),
            }
            _write(Path(name), files)
            argv = [self._go, "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", str(binary), "."]
            async with self._compiled.used():
                await run_tool(argv, cwd=Path(name), env=env, listener=listener, what="compiling the Go script")

    async def _toolchain(self) -> str:
        """Return the toolchain's version, "1.24": the language version of scripts without a go.mod of their own."""
        if not self._version:
            argv = [self._go, "env", "GOVERSION"]
            said = await run_tool(
                argv, cwd=Path(tempfile.gettempdir()), env=self._env, what="asking Go for its version"
            )
            match = re.search(r"go(\d+\.\d+)", said)
            if match is None:
                raise LockFailedError(f"{self._go} does not tell its version: {said.strip()!r}")
            self._version = match[1]
        return self._version


_SETTINGS = {
    "CGO_ENABLED": "0",  # static binaries run in any sandbox, and no C compiler works on a script's flags
    "GOFLAGS": "-mod=mod",
    "GOPROXY": "off",  # what the lock names was downloaded before
    "GOTOOLCHAIN": "local",
    "GOENV": "off",
    "GOWORK": "off",
    "GO111MODULE": "on",
}


def inner_package(code: str) -> str:
    """Return a script as package inner, whatever it calls itself; line numbers stay."""
    return _PACKAGE.sub("package inner", code, count=1)


def _write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
