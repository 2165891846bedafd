"""Deno: TypeScript in a process that was started ahead, runs one job and ends."""

from __future__ import annotations

import contextlib
import functools
from collections import OrderedDict
from pathlib import Path

import msgspec

from millhand.core.errors import BadRequestError
from millhand.runtimes.contract import Execution, Limits, Listener, Outcome, Stop
from millhand.runtimes.dependencies.deno import LOCK_FILE, DenoEnvironments
from millhand.runtimes.launcher import Child, Launcher, Spawn, base_environment
from millhand.runtimes.pool import WarmPool
from millhand.runtimes.run_child import failed, outcome_of, run_child
from millhand.runtimes.typescript import CHILDREN, SCRIPT, job_frame

# Scripts import each other by path, /f/folder/name or /u/user/name; they lie below the job directory.
_CONFIG = b'{"imports":{"/f/":"./f/","/u/":"./u/"}}'
_FLAGS = (
    "--allow-all",  # the sandbox decides what a job may do
    "--no-prompt", "--quiet", "--no-check",
    "--cached-only",  # never fetches a package while a job runs
    "--config=deno.json",
    "--unstable-sloppy-imports",  # scripts import each other with and without .ts
)  # fmt: skip


# A directory of Deno's own has to be writable, or it starts ten times slower; what is installed is linked into it.
_START = """
DENO_DIR="$TMPDIR/.deno"; export DENO_DIR; mkdir "$DENO_DIR"
for part in npm remote; do [ -z "$PACKAGES" ] || [ ! -e "$PACKAGES/$part" ] || ln -s "$PACKAGES/$part" "$DENO_DIR/"; done
unset PACKAGES; exec "$@"
"""


def deno_spawn(deno: str, limits: Limits, *, environment: Path | None = None) -> Spawn:
    """Return what a child that waits for a Deno job is made from; it can import what its environment holds."""
    main = str(CHILDREN / "deno_main.ts")
    rest: tuple[str, ...]
    if environment is None:
        rest = ("--no-lock", main)
    else:
        rest = (f"--lock={environment / LOCK_FILE}", "--frozen", main, "packages")
    own = {"PACKAGES": str(environment or ""), "DENO_NO_UPDATE_CHECK": "1", "NO_COLOR": "1"}
    argv = ("/bin/sh", "-c", _START, "sh", deno, "run", *_FLAGS, *rest)
    return Spawn(argv=argv, env={**base_environment(), **own}, files={"deno.json": _CONFIG}, limits=limits, init=True)


class DenoPools:
    """Waiting children: some that import nothing from elsewhere, and for a while those of environments lately used."""

    def __init__(self, *, launcher: Launcher, deno: str, most: int, max_environments: int = 8) -> None:
        """Prepare; nothing is started before the first `take`. most: how many wait at most, of each kind."""
        self._launcher = launcher
        self._deno = deno
        self._most = most
        self._max_environments = max_environments
        self.plain = self._new_pool(None, idle=1)
        self._of_environments: OrderedDict[Path, WarmPool] = OrderedDict()

    async def take(self, environment: Path | None, limits: Limits) -> Child:
        """Return a child for one job."""
        pool = self.plain if environment is None else await self._pool(environment)
        return await pool.take(limits)

    async def close(self) -> None:
        """Let the waiting ones go."""
        for pool in (self.plain, *self._of_environments.values()):
            await pool.close()

    async def _pool(self, environment: Path) -> WarmPool:
        if environment not in self._of_environments:
            self._of_environments[environment] = self._new_pool(environment, idle=0)
        self._of_environments.move_to_end(environment)
        if len(self._of_environments) > self._max_environments:
            await self._of_environments.popitem(last=False)[1].close()
        return self._of_environments[environment]

    def _new_pool(self, environment: Path | None, *, idle: int) -> WarmPool:
        make = functools.partial(deno_spawn, self._deno, environment=environment)
        return WarmPool(self._launcher, make, idle=idle, most=self._most)


class DenoRuntime:
    """Runs TypeScript on Deno."""

    def __init__(self, *, pools: DenoPools, environments: DenoEnvironments) -> None:
        """Take children made by `deno_spawn` from pools, which belong to somebody else."""
        self._pools = pools
        self._environments = environments

    async def start(self) -> None:
        """Start nothing: pools warm up at first use."""

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
        try:
            job = job_frame(execution)
        except BadRequestError as error:
            return failed("ExecutionErr", str(error))
        environment = await self._environments.environment(execution.lock or "", listener)
        with contextlib.ExitStack() as held:
            if environment is not None:
                held.enter_context(self._environments.hold(environment))
            child = await self._pools.take(environment, execution.limits)
            ended = await run_child(child, job, listener, stop, until_answer=True)
        return outcome_of(ended, program=SCRIPT)
