"""What is particular to Bash."""

from __future__ import annotations

import pytest

from millhand.core.script import Language
from millhand.runtimes.contract import FailureKind, StopCause, Stopped
from millhand.runtimes.registry import Runtimes
from tests.support import runs
from tests.support.runs import Ran

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def bash(runtimes: Runtimes, code: str, **args: object) -> Ran:
    return await runs.run(runtimes.get(Language.BASH), Language.BASH, code, args)


async def test_arguments_are_positional(runtimes):
    """Header lines name the arguments; strings come as they are, other values as JSON, missing ones by their default."""
    ran = await bash(
        runtimes,
        'text="$1"\nlist="$2"\nname="${3:-nobody}"\necho "$text|$list|$name"',
        text="a b",
        list=[1, {"x": True}],
    )
    assert ran.result == 'a b|[1,{"x":true}]|nobody'


async def test_an_argument_is_data_never_code(runtimes):
    """What looks like shell syntax in an argument is passed on as it is."""
    ran = await bash(runtimes, 'text="$1"\necho "$text"', text="$(id) `id` \"; id; '")
    assert ran.result == "$(id) `id` \"; id; '"


async def test_the_last_line_is_the_result(runtimes):
    """Without a result file the last line of the output is the result; all of it is logged, in order."""
    ran = await bash(runtimes, "echo one; echo two >&2; echo three")
    assert (ran.result, ran.log) == ("three", "one\ntwo\nthree\n")


async def test_no_output_is_null(runtimes):
    """A script that says nothing has the result null."""
    assert (await bash(runtimes, "true")).result is None


async def test_result_json_comes_first(runtimes):
    """result.json is the result as it stands, before result.out and the output."""
    ran = await bash(runtimes, """echo '{"a": 1.50}' > result.json; echo text > result.out; echo line""")
    assert ran.outcome.result == b'{"a": 1.50}'


async def test_result_out_is_text(runtimes):
    """result.out is the result as a string, before the output."""
    assert (await bash(runtimes, "printf 'two\\nlines' > result.out; echo line")).result == "two\nlines"


async def test_a_broken_result_json_is_an_error(runtimes):
    """A result.json that is no JSON fails the job and says so."""
    assert "result.json" in (await bash(runtimes, "echo '{' > result.json")).error["message"]


async def test_the_first_failing_command_ends_it(runtimes):
    """Commands after a failing one don't run; the error has the exit code and the end of the log."""
    ran = await bash(runtimes, "echo before; false; echo after")
    assert ran.error == {
        "name": "ExecutionErr",
        "message": 'exit code for "main.sh": 1, last log lines:\nbefore',
        "exit_code": 1,
    }


async def test_a_failing_script_can_tell_its_error(runtimes):
    """The object in result.json is the error of a script that then fails."""
    ran = await bash(runtimes, """echo '{"message": "no luck", "code": 7}' > result.json; exit 3""")
    assert ran.error == {"name": "ExecutionErr", "message": "no luck", "code": 7, "exit_code": 3}


async def test_a_signal_is_told_as_shells_do(runtimes):
    """A script that a signal ends has the exit code 128 + signal."""
    assert (await bash(runtimes, "kill -9 $$")).error["exit_code"] == 137


async def test_a_syntax_error_has_its_line(runtimes):
    """Line numbers in Bash's messages are those of the script."""
    assert "main.sh: line 2" in (await bash(runtimes, "true\nif then")).error["message"]


async def test_the_environment_is_the_jobs(runtimes):
    """The script sees the job's variables, and a PATH."""
    assert (await bash(runtimes, 'echo "$WM_WORKSPACE ${PATH:+path}"')).result == "main path"


async def test_standard_streams_can_be_opened_by_name(runtimes):
    """Writing to /dev/stdout and /dev/stderr works."""
    assert (await bash(runtimes, "echo a > /dev/stdout; echo b > /dev/stderr")).log == "a\nb\n"


async def test_the_channel_is_not_the_scripts(runtimes):
    """The script has no descriptor of the protocol: it can't forge a result."""
    assert (await bash(runtimes, "echo garbage >&4")).outcome.kind is FailureKind.ERROR


async def test_background_processes_end_with_the_job(runtimes):
    """A job is over when its script is, whatever it left running."""
    assert (await bash(runtimes, "setsid sleep 1000 & echo done")).result == "done"


async def test_stream_lines_are_no_log(runtimes):
    """Lines marked as pieces of the result stream go there, not to the log."""
    ran = await bash(runtimes, "echo 'WM_STREAM: one\\ntwo'; echo log; echo 'WM_STREAM: three'")
    assert (ran.pieces, ran.log) == (["one\ntwo", "three"], "log\n")


async def test_traps_run_when_it_is_canceled(runtimes):
    """TERM reaches the script and what it waits for; its trap can still say something."""
    ran = await runs.run_and_stop(
        runtimes.get(Language.BASH), Language.BASH, "trap 'echo bye' TERM\necho ready\nsleep 1000", after="ready"
    )
    assert isinstance(ran.outcome, Stopped)
    assert ran.outcome.cause is StopCause.CANCELED
    assert "bye" in ran.log
