"""Cost of isolation: what a job of its own costs beside a plain function call, and beside a fresh interpreter, in turn."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager

import msgspec

from bench import stack
from bench.context import Context, Part
from bench.measure import Row, Samples, percentile
from millhand.core.errors import RuntimeUnavailableError
from millhand.core.ids import new_id
from millhand.core.script import Language
from millhand.runtimes.contract import Execution, Outcome, Runtime, Stop, Success
from millhand.runtimes.registry import Runtimes

PYTHON = """\
import time

def main(x: int):
    return {"x": x, "at": time.time()}
"""
TYPESCRIPT = """\
export function main(x: number) {
  return { x, at: (performance.timeOrigin + performance.now()) / 1000 };
}
"""
FRESH = PYTHON + "import json, sys\nprint(json.dumps(main(**json.loads(sys.argv[1]))))\n"
PAUSE_S = 0.05  # long enough for the next process to be made ready, also a TypeScript one
WARM_UP = 3
BLOCKS = 5
ENVIRONMENT = {f"WM_VARIABLE_{number}": "a value of some length" for number in range(24)}  # as many as a worker gives


class Silence:
    """Listens to a run and keeps nothing."""

    def log(self, text: str) -> None:
        """Drop a piece of the log."""

    def stream(self, text: str) -> None:
        """Drop a piece of the result stream."""

    def progress(self, percent: int) -> None:
        """Drop the progress."""


def run(context: Context) -> Iterable[Row]:
    """Measure each language with a process waiting ready and, for Python, without; a fresh interpreter in the same run."""
    samples = Samples()
    for _ in context.rounds():
        stack.run(_round(samples, context))
    yield from _python_rows(samples)
    for language, target in (("Bun", 8), ("Deno", 5)):
        if f"{language} ready" in samples:
            yield _row(
                f"isolated {language} job, one waiting ready, until its function is called",
                samples[f"{language} called"],
            )
            yield _row(f"isolated {language} job, one waiting ready", samples[f"{language} ready"], target)
        else:
            context.note(f"{language} is not installed")


def _python_rows(samples: Samples) -> Iterable[Row]:
    loop, fresh = samples["loop"], samples["fresh"]
    ready = tuple(a - b for a, b in zip(samples["Python ready"], loop, strict=True))
    streak = tuple(a - b for a, b in zip(samples["Python streak"], loop, strict=True))
    yield _row("function called in a loop, arguments and result as JSON", loop)
    yield _row("isolated Python job, one waiting ready, until its function is called", samples["Python called"])
    yield _row("isolated Python job over the loop, one waiting ready", ready, 1)
    yield _row("isolated Python job over the loop, one right after the other", streak, 2.5)
    yield _row("fresh interpreter per job (python -c), not isolated", fresh)
    yield Row(
        metric="fresh interpreter / isolated job, in turn in the same run",
        unit="x",
        values=tuple(a / b for a, b in zip(fresh, samples["Python streak"], strict=True)),
        target=5,
    )


def _row(metric: str, values: tuple[float, ...], target: float | None = None) -> Row:
    return Row(metric=f"{metric}, p50", unit="ms", values=values, target=target, more_is_better=False)


async def _round(samples: Samples, context: Context) -> None:
    n = context.size(100, 15)
    samples.add("loop", _loop_ms(10_000))
    async with _runtimes() as runtimes:
        context.say("Python, waiting ready and fresh, in turn")
        python = await _prepared(runtimes.get(Language.PYTHON3), Language.PYTHON3, PYTHON)
        ready, fresh = await _in_turn(python, n)
        _add_ready(samples, "Python", ready)
        samples.add("fresh", percentile(fresh, 0.5))
        streak = [await _timed(python) for _ in range(2 * n)]
        samples.add("Python streak", percentile([took.until_ended for took in streak], 0.5))
        for name, language in (("Bun", Language.BUN), ("Deno", Language.DENO)):
            context.say(name)
            try:
                runtime = runtimes.get(language)
            except RuntimeUnavailableError:
                continue
            job = await _prepared(runtime, language, TYPESCRIPT)
            _add_ready(samples, name, [await _rested(job) for _ in range(n)])


class Took(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds from asking for a run."""

    until_called: float  # until the script's function runs
    until_ended: float  # until its outcome is known and its process is gone


def _add_ready(samples: Samples, name: str, took: list[Took]) -> None:
    samples.add(f"{name} called", percentile([one.until_called for one in took], 0.5))
    samples.add(f"{name} ready", percentile([one.until_ended for one in took], 0.5))


@asynccontextmanager
async def _runtimes() -> AsyncIterator[Runtimes]:
    with stack.folder() as cache:
        runtimes = Runtimes(cache_dir=cache, n_workers=2)
        await runtimes.start()
        try:
            if not runtimes.isolation_text.startswith("sandbox"):
                raise stack.HostFailedError(f"jobs are not isolated here: {runtimes.isolation_text}")
            yield runtimes
        finally:
            await runtimes.close()


Job = Callable[[], Awaitable[Outcome]]


async def _prepared(runtime: Runtime, language: Language, code: str) -> Job:
    """Return what runs this code once more, after it has run a few times."""
    lock = "" if language is Language.PYTHON3 else None
    execution = _execution(language, code, lock)
    execution = await runtime.prepare(execution, Silence())

    async def job() -> Outcome:
        return await runtime.execute(msgspec.structs.replace(execution, job_id=new_id()), Silence(), Stop())

    for _ in range(WARM_UP):
        await _timed(job)
    return job


def _execution(language: Language, code: str, lock: str | None) -> Execution:
    return Execution(
        job_id=new_id(), language=language, code=code, args=b'{"x": 1}', env=ENVIRONMENT, path="u/bench/x", lock=lock
    )


async def _in_turn(job: Job, n: int) -> tuple[list[Took], list[float]]:
    """Measure in blocks: a fresh interpreter right before each run would leave it a cold cache."""
    isolated, fresh = [], []
    for _ in range(BLOCKS):
        isolated += [await _rested(job) for _ in range(n // BLOCKS)]
        fresh += [await asyncio.to_thread(_fresh_ms) for _ in range(n // BLOCKS)]
    return isolated, fresh


async def _rested(job: Job) -> Took:
    await asyncio.sleep(PAUSE_S)
    return await _timed(job)


async def _timed(job: Job) -> Took:
    asked_at, began = time.time(), time.perf_counter()
    outcome = await job()
    took = time.perf_counter() - began
    if not isinstance(outcome, Success):
        raise stack.HostFailedError(f"the job ended with {outcome}")
    return Took(until_called=(json.loads(outcome.result)["at"] - asked_at) * 1000, until_ended=took * 1000)


def _fresh_ms() -> float:
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", FRESH, '{"x": 1}'], capture_output=True, check=True)
    assert json.loads(done.stdout)["x"] == 1
    return (time.perf_counter() - began) * 1000


def _loop_ms(n: int) -> float:
    names: dict[str, Callable[..., object]] = {}
    exec(PYTHON, names)  # the very code that the jobs run
    main = names["main"]
    began = time.perf_counter()
    for _ in range(n):
        msgspec.json.encode(main(**msgspec.json.decode(b'{"x": 1}')))
    return (time.perf_counter() - began) / n * 1000


PART = Part(name="isolation", title="Cost of isolation", budget_s=60, run=run)
