"""`millhand push`: deploy a script and wait until its dependencies are resolved."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from millhand.cli import tables
from millhand.cli.api import Api, ApiError
from millhand.cli.usage import UsageError
from millhand.cli.watch import follow
from millhand.core.errors import MillhandError
from millhand.core.script import check_path, language_of_file

_LOCK_S = 300.0
_LOOK_S = 0.1


def push_script(api: Api, *, file: Path, path: str, tag: str | None, summary: str, as_json: bool) -> None:
    """Deploy a file; raises UsageError for what is no script, MillhandError where its dependencies can't be resolved."""
    content = read_script(file)
    script = {"path": check_path(path), "content": content, "language": language_of_file(file.name), "summary": summary}
    script_hash = deploy(api, {**script, **({"tag": tag} if tag is not None else {})})
    if as_json:
        tables.show_json({"path": path, "hash": script_hash, "language": script["language"]})
    else:
        print(f"deployed {path} as {script_hash}; run it: millhand run {path}")


def read_script(file: Path) -> str:
    """Return the text of a script file; raises UsageError where there is none."""
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(f"can't read {file}: {why}") from None


def deploy(api: Api, script: dict[str, Any]) -> str:
    """Create a version of a script, after the one that is there, and wait for its lock; returns its hash."""
    parent = deployed(api, script["path"])
    if parent is not None:
        script = {**script, "parent_hash": parent["hash"]}
    script_hash: str = api.post("scripts/create", script)
    _await_lock(api, script["path"], script_hash)
    return script_hash


def deployed(api: Api, path: str) -> dict[str, Any] | None:
    """Return the script at a path, or None."""
    try:
        found: dict[str, Any] = api.get(f"scripts/get/p/{path}")
    except ApiError as error:
        if error.status == 404:  # noqa: PLR2004 - HTTP's
            return None
        raise
    return found


def _await_lock(api: Api, path: str, script_hash: str) -> None:
    """Wait until the dependencies job has ended; on a terminal or not, its log is worth reading."""
    status = api.get(f"scripts/deployment_status/h/{script_hash}")
    if status.get("lock") is None and status.get("job_id") and not status.get("lock_error_logs"):
        print(f"resolving the dependencies of {path} …", file=sys.stderr)
        follow(api, status["job_id"])
    deadline = time.monotonic() + _LOCK_S
    while status.get("lock") is None and not status.get("lock_error_logs") and time.monotonic() < deadline:
        status = api.get(f"scripts/deployment_status/h/{script_hash}")
        time.sleep(_LOOK_S)
    if status.get("lock_error_logs"):
        raise MillhandError(f"{path} is deployed but can't run; its dependencies: {status['lock_error_logs']}")
