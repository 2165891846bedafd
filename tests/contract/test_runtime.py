"""What holds for every language: one suite, one table of snippets."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from millhand.core.script import Language
from millhand.runtimes import run_child
from millhand.runtimes.contract import Failure, FailureKind, StopCause, Stopped
from millhand.runtimes.registry import Runtimes
from tests.support import runs
from tests.support.runs import Ran

pytestmark = pytest.mark.asyncio(loop_scope="module")


class Snippets(msgspec.Struct, frozen=True, kw_only=True):
    """The same few programs in one language."""

    add: str  # a and b → their sum, as a number or as text
    say: str  # writes out-1, err-2, out-3 in lines, to stdout, stderr, stdout
    fail: str  # fails with the message "no such thing"
    wait: str  # says "waiting", then waits for a minute
    deaf: str  # says "waiting", then waits, and does not end at TERM
    environment: str  # the value of WM_JOB_ID
    leave: str  # leaves a process behind, and a file
    stream: str | None = None  # streams "a", "b"


PYTHON = Snippets(
    add="def main(a: int, b: int):\n    return a + b",
    say="import sys\ndef main():\n    print('out-1')\n    print('err-2', file=sys.stderr)\n    print('out-3')",
    fail="def main():\n    raise ValueError('no such thing')",
    wait="import time\ndef main():\n    print('waiting')\n    time.sleep(60)",
    deaf="import signal, time\ndef main():\n    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n    print('waiting')\n    time.sleep(60)",
    environment="import os\ndef main():\n    return os.environ['WM_JOB_ID']",
    leave="import subprocess\ndef main():\n    open('left', 'w').close()\n    subprocess.Popen(['sleep', '60'], start_new_session=True)",
    stream="def main():\n    yield 'a'\n    yield 'b'",
)
BASH = Snippets(
    add='a="$1"\nb="$2"\necho $((a + b))',
    say="echo out-1\necho err-2 >&2\necho out-3",
    fail="echo no such thing >&2\nexit 3",
    wait="echo waiting\nsleep 60",
    deaf="trap '' TERM\necho waiting\nsleep 60",
    environment='echo "$WM_JOB_ID"',
    leave="touch left\nsetsid sleep 60 &",
    stream="echo 'WM_STREAM: a'\necho 'WM_STREAM: b'",
)
_WAIT = "await new Promise((resolve) => setTimeout(resolve, 60000));"
BUN = Snippets(
    add="export function main(a: number, b: number) { return a + b; }",
    say="export function main() { console.log('out-1'); console.error('err-2'); console.log('out-3'); }",
    fail="export function main() { throw new Error('no such thing'); }",
    wait=f"export async function main() {{ console.log('waiting'); {_WAIT} }}",
    deaf=f"export async function main() {{ process.on('SIGTERM', () => {{}}); console.log('waiting'); {_WAIT} }}",
    environment="export function main() { return process.env.WM_JOB_ID; }",
    leave="import { spawn } from 'node:child_process';\nexport function main() { spawn('sleep', ['60'], { detached: true }); }",
    stream="export async function* main() { yield 'a'; yield 'b'; }",
)
DENO = msgspec.structs.replace(
    BUN,
    deaf=f"export async function main() {{ Deno.addSignalListener('SIGTERM', () => {{}}); console.log('waiting'); {_WAIT} }}",
    environment="export function main() { return Deno.env.get('WM_JOB_ID'); }",
    leave="export function main() { new Deno.Command('sleep', { args: ['60'] }).spawn(); }",
)
TABLE = {Language.PYTHON3: PYTHON, Language.BASH: BASH, Language.BUN: BUN, Language.DENO: DENO}


@pytest.fixture(params=TABLE)
def language(request: pytest.FixtureRequest) -> Language:
    return request.param


async def run(
    runtimes: Runtimes, language: Language, code: str, args: dict[str, Any] | None = None, **more: Any
) -> Ran:
    return await runs.run(runtimes.get(language), language, code, args, **more)


async def test_a_result(runtimes, language):
    """Arguments go in by name, the result comes back."""
    assert int((await run(runtimes, language, TABLE[language].add, {"a": 2, "b": 40})).result) == 42


async def test_the_log(runtimes, language):
    """Both outputs are in the log, whole lines, in the order in which they were written."""
    ran = await run(runtimes, language, TABLE[language].say)
    assert ran.log == "out-1\nerr-2\nout-3\n"


async def test_a_failure(runtimes, language):
    """A failure is an error object with a name and a message."""
    ran = await run(runtimes, language, TABLE[language].fail)
    assert isinstance(ran.outcome, Failure)
    assert ran.outcome.kind is FailureKind.ERROR
    assert ran.error["name"]
    assert "no such thing" in ran.error["message"]


async def test_a_stop(runtimes, language):
    """A run that is canceled ends soon, and says why it ended."""
    ran = await runs.run_and_stop(runtimes.get(language), language, TABLE[language].wait, after="waiting")
    assert isinstance(ran.outcome, Stopped)
    assert ran.outcome.cause is StopCause.CANCELED


async def test_a_stop_that_is_not_heard(runtimes, language, monkeypatch):
    """A run that does not end at TERM is killed after the grace period."""
    monkeypatch.setattr(run_child, "GRACE_S", 0.2)
    ran = await runs.run_and_stop(runtimes.get(language), language, TABLE[language].deaf, after="waiting")
    assert isinstance(ran.outcome, Stopped)


async def test_the_environment(runtimes, language):
    """The contextual variables are there."""
    ran = await run(runtimes, language, TABLE[language].environment, env={"WM_JOB_ID": "the-id"})
    assert ran.result == "the-id"


async def test_a_stream(runtimes, language):
    """Pieces of a result stream come one by one, in order."""
    ran = await run(runtimes, language, TABLE[language].stream)
    assert "".join(ran.pieces).split() in (["ab"], ["a", "b"])


async def test_nothing_is_left_behind(runtimes, language):
    """A run ends though what it started goes on, and the next one starts in an empty folder."""
    await run(runtimes, language, TABLE[language].leave)
    left = await run(runtimes, Language.BASH, "ls left 2>/dev/null || true; ps -e | grep -c sleep || true")
    assert left.log == "0\n"


async def test_the_memory_peak(runtimes, language):
    """Every run tells how much memory it used."""
    ran = await run(runtimes, language, TABLE[language].add, {"a": 1, "b": 1})
    assert ran.outcome.memory_peak_kb > 1000
