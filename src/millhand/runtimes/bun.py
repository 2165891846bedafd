"""Bun: TypeScript in a process that was started ahead, runs one job and ends. Serves nativets, too."""

from __future__ import annotations

import contextlib
import functools

import msgspec

from millhand.core.errors import BadRequestError
from millhand.runtimes.contract import Execution, Limits, Listener, Outcome, Stop
from millhand.runtimes.dependencies.bun import BunEnvironments, plain_imports
from millhand.runtimes.launcher import Spawn, base_environment
from millhand.runtimes.run_child import Pool, failed, outcome_of, run_child
from millhand.runtimes.typescript import CHILDREN, SCRIPT, job_frame

# Scripts import each other by path, /f/folder/name or /u/user/name; they lie below the job directory.
_TSCONFIG = b'{"compilerOptions":{"paths":{"/f/*":["./f/*"],"/u/*":["./u/*"]}}}'


def bun_spawn(bun: str, limits: Limits) -> Spawn:
    """Return what a child that waits for a Bun job is made from."""
    argv = (bun, "--no-install", str(CHILDREN / "bun_main.ts"))  # never fetches a package while a job runs
    env = {**base_environment(), "DO_NOT_TRACK": "1", "BUN_RUNTIME_TRANSPILER_CACHE_PATH": "0"}
    return Spawn(argv=argv, env=env, files={"tsconfig.json": _TSCONFIG}, limits=limits, init=True)


class BunRuntime:
    """Runs TypeScript on Bun."""

    def __init__(self, *, pool: Pool, environments: BunEnvironments) -> None:
        """Take children made by `bun_spawn` from a pool, which belongs to somebody else."""
        self._pool = pool
        self._environments = environments

    async def start(self) -> None:
        """Start nothing: the pool warms up at first use."""

    async def close(self) -> None:
        """Leave nothing: each job's process ends with its job."""

    async def lock(self, execution: Execution, listener: Listener) -> str:
        """Resolve the imported packages; raises LockFailedError."""
        return await self._environments.lock(execution.code, execution.modules, listener)

    async def prepare(self, execution: Execution, listener: Listener) -> Execution:
        """Lock where it is not, and install; raises LockFailedError."""
        lock = execution.lock if execution.lock is not None else await self.lock(execution, listener)
        await self._environments.environment(lock, listener)
        return msgspec.structs.replace(execution, lock=lock)

    async def execute(self, execution: Execution, listener: Listener, stop: Stop) -> Outcome:
        """Run prepared code."""
        environment = await self._environments.environment(execution.lock or "", listener)
        with contextlib.ExitStack() as held:
            if environment is not None:
                held.enter_context(self._environments.hold(environment))
                execution = _with_plain_imports(execution)
            try:
                job = job_frame(execution, node_modules=environment and environment / "node_modules")
            except BadRequestError as error:
                return failed("ExecutionErr", str(error))
            child = await self._pool.take(execution.limits)
            ended = await run_child(child, job, listener, stop, until_answer=True)
        return outcome_of(ended, program=SCRIPT)


def _with_plain_imports(execution: Execution) -> Execution:
    """Return the execution with imports as Bun finds them in node_modules: without versions."""
    modules = {path: _plain(source) for path, source in execution.modules.items()}
    return msgspec.structs.replace(execution, code=_plain(execution.code), modules=modules)


_plain = functools.lru_cache(maxsize=256)(plain_imports)
