"""Bash: the script runs under a warm Python child, which hands over what it left; the result is made here."""

from __future__ import annotations

import shutil
from typing import Any

import msgspec

from millhand.core.errors import RuntimeUnavailableError
from millhand.core.script import Language
from millhand.core.signature import parse_signature
from millhand.runtimes.contract import Execution, Listener, Outcome, Stop, Success
from millhand.runtimes.python_child import program_job
from millhand.runtimes.run_child import Ended, Pool, exit_failure, failed, failed_with, is_json, outcome_of, run_child

PROGRAM = "bash_main"  # preloaded by the launcher of the pool
_PROGRAM = "main.sh"  # what messages call it
_LAST_LINE_CHARS = 1 << 20  # the longest line that is still taken for the result


class _Left(msgspec.Struct):
    """What a script left behind."""

    code: int  # exit code; 128 + n for signal n
    json: str | None = None  # of result.json
    text: str | None = None  # of result.out


class BashRuntime:
    """Runs Bash scripts."""

    def __init__(self, *, pool: Pool, bash: str | None = None) -> None:
        """Take Python children from a pool, which belongs to somebody else; `bash` is the shell's path."""
        self._pool = pool
        self._bash = bash or shutil.which("bash")

    async def start(self) -> None:
        """Start nothing: the pool is warm already."""

    async def close(self) -> None:
        """Leave nothing: each job's process ends with its job."""

    async def lock(self, execution: Execution, listener: Listener) -> str:  # noqa: ARG002 — the port's signature
        """Return "": a Bash script uses what is installed."""
        return ""

    async def prepare(self, execution: Execution, listener: Listener) -> Execution:  # noqa: ARG002 — the port's signature
        """Return the execution as it is: there is nothing to make ready."""
        return execution

    async def execute(self, execution: Execution, listener: Listener, stop: Stop) -> Outcome:
        """Run a script with its arguments in the order in which its header names them."""
        if self._bash is None:
            raise RuntimeUnavailableError(
                "this worker has no bash; install it, or give its jobs a tag of another worker"
            )
        args = {"script": execution.code, "arguments": positional(execution), "bash": self._bash}
        child = await self._pool.take(execution.limits)
        job = program_job(execution, program=PROGRAM, args=args)
        ended = await run_child(child, job, listener, stop, tail_chars=_LAST_LINE_CHARS)
        outcome = outcome_of(ended, program=_PROGRAM)
        return _result(ended, outcome) if isinstance(outcome, Success) else outcome


def positional(execution: Execution) -> list[str]:
    """Return the arguments as Bash takes them: strings as they are, other values as JSON, missing ones empty."""
    given: dict[str, Any] = msgspec.json.decode(execution.args)
    signature = parse_signature(Language.BASH, execution.code)
    return [_word(given.get(param.name)) for param in signature.params]


def _word(value: Any) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text.replace("\0", "")  # no program can be given one


def _result(ended: Ended, outcome: Success) -> Outcome:
    """Make the result: of result.json, else of result.out, else of the last line of the output."""
    left = msgspec.json.decode(outcome.result, type=_Left)
    peak = outcome.memory_peak_kb
    if left.code != 0:
        return _failure(ended, left)
    if left.json is not None:
        if is_json(left.json.encode()):
            return Success(result=left.json.encode(), memory_peak_kb=peak)
        return failed("ResultError", "result.json holds no valid JSON", peak=peak)
    text = left.text if left.text is not None else _last_line(ended.tail)
    return Success(result=msgspec.json.encode(text), memory_peak_kb=peak)


def _failure(ended: Ended, left: _Left) -> Outcome:
    """Tell an exit code; a script that wrote a result.json before tells its error itself."""
    if left.json is not None and is_json(left.json.encode()):
        own = msgspec.json.decode(left.json)
        if isinstance(own, dict):
            return failed_with({"name": "ExecutionErr", **own, "exit_code": left.code}, peak=ended.exit.memory_peak_kb)
    return exit_failure(ended, left.code, program=_PROGRAM)


def _last_line(output: str) -> str | None:
    return output.rstrip().rpartition("\n")[2].strip() or None
