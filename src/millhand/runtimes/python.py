"""Python: each job in a process forked ahead from the zygote of its environment, alone, for this one run."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from millhand.runtimes.contract import Execution, Failure, FailureKind, Limits, Listener, Outcome, Stop
from millhand.runtimes.launcher import Launcher, Spawn
from millhand.runtimes.pool import WarmPool
from millhand.runtimes.python_child import CompiledCode, python_job
from millhand.runtimes.run_child import Pool, outcome_of, run_child

_PROGRAM = "main.py"  # what messages call a script


class Environments(Protocol):
    """Locks and installs what Python code needs."""

    async def lock(self, code: str, modules: dict[str, str], listener: Listener) -> str:
        """Return the lock of some code, "" where it needs nothing."""
        ...

    async def environment(self, lock: str, listener: Listener) -> Path | None:
        """Return the folder of a lock's packages, installed now if need be."""
        ...

    def interpreter(self, lock: str) -> str:
        """Return the Python for a lock."""
        ...

    def hold(self, environment: Path) -> Held:
        """Keep a folder from being evicted."""
        ...


class Held(Protocol):
    """What keeps a folder from being evicted."""

    def release(self) -> None:
        """Let it go."""
        ...


Launch = Callable[[str, Sequence[Path]], Launcher]  # interpreter, folders of packages → a launcher, not started


def python_spawn(limits: Limits) -> Spawn:
    """Return what a child that waits for a Python job is made from."""
    return Spawn(limits=limits)


class PythonRuntime:
    """Runs Python scripts: those without dependencies in children of the given pool, others each from their environment."""

    def __init__(
        self,
        *,
        pool: Pool,
        environments: Environments,
        launch: Launch,
        most_waiting: int = 16,
        max_environments: int = 8,
    ) -> None:
        """Take children for plain scripts from a pool, which belongs to somebody else.

        launch: makes the launcher of an environment. max_environments: how many of those stay warm while unused.
        """
        self._pool = pool
        self._environments = environments
        self._launch = launch
        self._most_waiting = most_waiting
        self._max_environments = max_environments
        self._stations: OrderedDict[str, _Station] = OrderedDict()  # by lock, least recently used first
        self._opening = asyncio.Lock()
        self._compiled = CompiledCode()

    async def start(self) -> None:
        """Start nothing: the pool is warm already, environments warm up at first use."""

    async def close(self) -> None:
        """End every process of every environment."""
        while self._stations:
            await self._stations.popitem()[1].close()

    async def lock(self, execution: Execution, listener: Listener) -> str:
        """Resolve the imported packages; raises LockFailedError."""
        return await self._environments.lock(execution.code, execution.modules, listener)

    async def prepare(self, execution: Execution, listener: Listener) -> Execution:
        """Lock where it is not, and install; raises LockFailedError."""
        lock = execution.lock if execution.lock is not None else await self.lock(execution, listener)
        if lock and lock not in self._stations:
            await self._environments.environment(lock, listener)
        return msgspec.structs.replace(execution, lock=lock) if lock != execution.lock else execution

    async def execute(self, execution: Execution, listener: Listener, stop: Stop) -> Outcome:
        """Run prepared code."""
        if not execution.lock:
            outcome = await _run(self._pool, self._compiled, execution, listener, stop, site_dir=None)
        else:
            station = await self._station(execution.lock, listener)
            with station:
                outcome = await _run(
                    station.pool, station.compiled, execution, listener, stop, site_dir=station.site_dir
                )
        return _with_memory_errors_named(outcome, execution.limits)

    async def _station(self, lock: str, listener: Listener) -> _Station:
        station = self._stations.get(lock)
        if station is None:
            async with self._opening:
                station = self._stations.get(lock) or await self._open(lock, listener)
                self._stations[lock] = station
                await self._close_unused()
        self._stations.move_to_end(lock)
        return station

    async def _open(self, lock: str, listener: Listener) -> _Station:
        site_dir = await self._environments.environment(lock, listener)
        held = self._environments.hold(site_dir) if site_dir is not None else None
        launcher = self._launch(self._environments.interpreter(lock), [site_dir] if site_dir is not None else [])
        await launcher.start()
        pool = WarmPool(launcher, python_spawn, idle=1, most=self._most_waiting)
        return _Station(launcher=launcher, pool=pool, site_dir=site_dir, held=held)

    async def _close_unused(self) -> None:
        unused = [lock for lock, station in self._stations.items() if not station.n_running]
        for lock in unused[:-1]:  # the newest is about to be used
            if len(self._stations) <= self._max_environments:
                break
            await self._stations.pop(lock).close()


class _Station:
    """A warm environment."""

    def __init__(self, *, launcher: Launcher, pool: WarmPool, site_dir: Path | None, held: Held | None) -> None:
        self.pool = pool
        self.site_dir = site_dir
        self.compiled = CompiledCode()
        self.n_running = 0
        self._launcher = launcher
        self._held = held

    def __enter__(self) -> None:
        self.n_running += 1

    def __exit__(self, *_: object) -> None:
        self.n_running -= 1

    async def close(self) -> None:
        await self.pool.close()
        await self._launcher.close()
        if self._held is not None:
            self._held.release()


async def _run(
    pool: Pool,
    compiled: CompiledCode,
    execution: Execution,
    listener: Listener,
    stop: Stop,
    *,
    site_dir: Path | None,
) -> Outcome:
    child = await pool.take(execution.limits)
    known = compiled.get(execution.path, execution.code)
    job = python_job(
        code=execution.code,
        args=msgspec.Raw(execution.args),
        env=execution.env if site_dir is None else {**execution.env, "PYTHONPATH": str(site_dir)},
        path=execution.path,
        entrypoint=execution.entrypoint,
        modules=execution.modules,
        compiled=known,
    )
    unmeasured = execution.limits.memory_bytes is None  # else only its end tells whether memory ran out
    ended = await run_child(child, job, listener, stop, until_answer=unmeasured)
    if known is None and ended.compiled is not None:
        compiled.keep(execution.path, execution.code, ended.compiled)
    return outcome_of(ended, program=_PROGRAM)


def _with_memory_errors_named(outcome: Outcome, limits: Limits) -> Outcome:
    """Call a MemoryError under a memory limit what it is."""
    if isinstance(outcome, Failure) and limits.memory_bytes and outcome.kind is FailureKind.ERROR:
        name = msgspec.json.decode(outcome.error, type=dict[str, object]).get("name")
        if name == "MemoryError":
            return msgspec.structs.replace(outcome, kind=FailureKind.OOM)
    return outcome
