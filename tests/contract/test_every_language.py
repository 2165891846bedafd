"""What holds for the runtimes of all languages."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from millhand.core.errors import RuntimeUnavailableError
from millhand.core.script import Language
from millhand.runtimes.contract import Failure, FailureKind, Stop, StopCause, Stopped
from tests.contract import snippets
from tests.contract.snippets import Snippets
from tests.support import runs

# Go's first compilation anywhere includes its standard library.
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]


@pytest.fixture(params=snippets.ALL)
def language(request) -> Language:
    """Return each language in turn."""
    return request.param


@pytest.fixture
def snippet(language) -> Snippets:
    """Return the language's small jobs."""
    return snippets.ALL[language]


@pytest.fixture
def runtime(runtimes, language):
    """Return the language's runtime."""
    try:
        return runtimes.get(language)
    except RuntimeUnavailableError as error:
        pytest.skip(str(error))


async def test_arguments_in_result_out(runtime, language, snippet):
    """Arguments reach the code by name, and what it returns is the result."""
    ran = await runs.run(runtime, language, snippet.add, {"a": 1, "b": 2})
    assert ran.result == snippet.sum


async def test_many_at_once_stay_apart(runtime, language, snippet):
    """Runs side by side each have their own arguments and result."""
    ran = await asyncio.gather(*(runs.run(runtime, language, snippet.add, {"a": n, "b": 0}) for n in range(8)))
    assert [int(one.result) for one in ran] == list(range(8))


async def test_output_is_logged_in_order(runtime, language, snippet):
    """Both streams are logged, in the order in which they were written."""
    lines = (await runs.run(runtime, language, snippet.say)).log.split()
    assert [line for line in lines if line in ("one", "two", "three")] == ["one", "two", "three"]


async def test_a_failure_has_a_name_and_a_message(runtime, language, snippet):
    """Code that fails gives an error that says why."""
    ran = await runs.run(runtime, language, snippet.fail)
    assert ran.outcome.kind is FailureKind.ERROR
    assert ran.error["name"]
    assert "no luck" in ran.error["message"]


async def test_the_environment_is_the_jobs(runtime, language, snippet):
    """Code sees the job's variables."""
    assert (await runs.run(runtime, language, snippet.environment)).result == snippet.workspace


async def test_a_stream_comes_in_pieces(runtime, language, snippet):
    """Pieces of the result stream arrive in order."""
    if snippet.stream is None:
        pytest.skip("the language has no result streams")
    assert (await runs.run(runtime, language, snippet.stream)).pieces == ["a", "b"]


async def test_an_exit_is_a_failure(runtime, language, snippet):
    """Code that ends its process has no result; the exit code is told."""
    if snippet.exit is None:
        pytest.skip("the language can't end its process")
    assert (await runs.run(runtime, language, snippet.exit)).error["exit_code"] == 5


@pytest.mark.parametrize("cause", [StopCause.CANCELED, StopCause.TIMEOUT])
async def test_a_run_can_be_stopped(runtime, language, snippet, cause):
    """A run that is told to stop ends within the grace period, and says what ended it."""
    heard, stop = runs.Heard(), Stop()
    prepared = await runtime.prepare(runs.execution(language, snippet.wait), heard)
    running = asyncio.create_task(runtime.execute(prepared, heard, stop))
    await heard.until("ready")
    stop.request(cause)
    async with asyncio.timeout(10):
        outcome = await running
    assert isinstance(outcome, Stopped)
    assert outcome.cause is cause


async def test_a_stop_before_the_start_holds(runtime, language, snippet):
    """A run that was told to stop before it began doesn't go on."""
    heard, stop = runs.Heard(), Stop()
    prepared = await runtime.prepare(runs.execution(language, snippet.wait), heard)
    stop.request(StopCause.CANCELED)
    async with asyncio.timeout(10):
        outcome = await runtime.execute(prepared, heard, stop)
    assert isinstance(outcome, Stopped)


async def test_nothing_outlives_the_job(runtime, language, snippet):
    """What a job started in a session of its own ends with the job."""
    if snippet.escape is None:
        pytest.skip("the language can't start processes")
    seconds = 3600 + list(Language).index(language) / 100
    ran = await runs.run(runtime, language, snippet.escape, {"a": seconds})
    assert not isinstance(ran.outcome, Failure), ran.outcome
    async with asyncio.timeout(10):
        while f"sleep\0{seconds:g}\0" in _command_lines():
            await asyncio.sleep(0.01)


async def test_the_peak_of_memory_is_known(runtime, language, snippet):
    """How much memory a run took is part of its outcome."""
    ran = await runs.run(runtime, language, snippet.add, {"a": 1, "b": 2})
    assert ran.outcome.memory_peak_kb > 500


def _command_lines() -> str:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_text())
        except OSError:
            continue
    return "\n".join(found)
