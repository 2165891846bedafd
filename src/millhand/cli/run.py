"""`millhand run`: one script, its log to stderr, its result to stdout, its fate in the exit code."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from millhand.cli.api import Api, ApiError
from millhand.cli.arguments import read_arguments
from millhand.cli.connect import running_or_started
from millhand.cli.usage import UsageError
from millhand.cli.watch import follow
from millhand.core.script import Language, check_path, language_of_file
from millhand.core.signature import parse_signature


class RunRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for."""

    target: str
    arguments: tuple[str, ...] = ()
    json: str | None = None
    tag: str | None = None
    timeout_s: float | None = None

    @property
    def timeout(self) -> int | None:
        """Return whole seconds, as the API takes them; raises UsageError for what is no duration."""
        if self.timeout_s is None:
            return None
        if not 0 < self.timeout_s < float("inf"):
            raise UsageError("--timeout is a number of seconds above 0")
        return max(1, round(self.timeout_s))


class _File(msgspec.Struct, frozen=True):
    name: str
    code: str
    language: Language
    schema: dict[str, Any]


def run_script(request: RunRequest, *, workspace: str, data_dir: Path) -> int:
    """Run a file or a deployed script to its end; returns the exit code."""
    timeout = request.timeout
    file = _file(request.target)
    if file is None:
        check_path(request.target)
    arguments = None if file is None else read_arguments(request.arguments, request.json, file.schema)
    with running_or_started(workspace=workspace, data_dir=data_dir) as api:
        if file is None:
            arguments = read_arguments(request.arguments, request.json, _schema(api, request.target))
            job_id = api.post(f"jobs/run/p/{request.target}", arguments, tag=request.tag, timeout=timeout)
        else:
            preview = {
                "content": file.code,
                "language": file.language,
                "path": None,
                "args": arguments,
                "tag": request.tag,
            }
            job_id = api.post("jobs/run/preview", {k: v for k, v in preview.items() if v is not None}, timeout=timeout)
        return _see_through(api, job_id)


def _file(target: str) -> _File | None:
    """Read the target where it is a file; raises UsageError where it looks like one and is none."""
    path = Path(target)
    if not path.is_file():
        if "/" not in target or path.suffix in (".py", ".sh", ".ts", ".go", ".sql"):
            raise UsageError(f"there is no file {target!r}; a deployed script is named like u/admin/hello")
        return None
    language = language_of_file(path.name)
    try:
        code = path.read_text("utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"{target} is not UTF-8 text") from None
    return _File(path.name, code, language, parse_signature(language, code).json_schema())


def _schema(api: Api, path: str) -> dict[str, Any] | None:
    try:
        schema: dict[str, Any] | None = api.get(f"scripts/get/p/{path}").get("schema")
    except ApiError as error:
        if error.status == 404:  # noqa: PLR2004 - HTTP's
            raise UsageError(
                f"no script is deployed at {path} in workspace {api.workspace!r}, and there is no such file"
            ) from None
        raise
    return schema


def _see_through(api: Api, job_id: str) -> int:
    """Stream the job's log, then print what came of it; Ctrl-C cancels it."""
    try:
        job = follow(api, job_id)
    except KeyboardInterrupt:
        api.close()
        api.post(f"jobs_u/queue/cancel/{job_id}", {"reason": "Ctrl-C"})
        print("canceled", file=sys.stderr)
        return 130
    if job.get("success"):
        print(show_json(api.get(f"jobs_u/completed/get_result/{job_id}")), flush=True)
        return 0
    print(error_text(job.get("result")), file=sys.stderr)
    return 1


def show_json(value: Any) -> str:
    """Write a result: over several lines for people, on one for programs."""
    return json.dumps(value, indent=2 if sys.stdout.isatty() else None, ensure_ascii=False)


def error_text(result: Any) -> str:
    """Write the error of a failed job: name, message, and the stack where it has one."""
    error = result.get("error") if isinstance(result, dict) else None
    if not isinstance(error, dict):
        return f"failed: {json.dumps(result, ensure_ascii=False)}"
    head = f"{error.get('name', 'Error')}: {error.get('message', '')}"
    stack = error.get("stack")
    return f"{head}\n{stack}" if stack else head
