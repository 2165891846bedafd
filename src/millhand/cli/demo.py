"""`make run`: deploy the scripts of a folder, run each on a worker, show what happens, print a table of it.

python -m millhand.cli.demo examples
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from millhand.cli import listings, tables
from millhand.cli.api import Api
from millhand.cli.connect import running_or_started
from millhand.cli.data_dir import default_data_dir
from millhand.cli.push import deploy, deployed, read_script
from millhand.cli.run import error_text
from millhand.cli.watch import follow
from millhand.core.errors import MillhandError
from millhand.core.script import FILE_ENDINGS, language_of_file

_ARGUMENTS: dict[str, dict[str, Any]] = {"primes.go": {"limit": 1000}, "hello.py": {"name": "Millhand"}}
_COLUMNS = ("job", "tag", "worker", "waited", "ran", "result")
_RESULT_WIDTH = 60


def main() -> None:
    """Run the demonstration; exits 0 when every job succeeded."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "examples")
    data_dir = default_data_dir(os.environ)
    try:
        with running_or_started(workspace="main", data_dir=data_dir) as api:
            jobs = {file.name: _deploy_and_run(api, file) for file in _scripts(folder)}
    except MillhandError as error:
        sys.exit(f"millhand: {error}")
    print()
    tables.show(_COLUMNS, [_row(name, job) for name, job in jobs.items()], nothing=f"no scripts in {folder}")
    _say_how_to_go_on(folder)
    sys.exit(0 if all(job.get("success") for job in jobs.values()) else 1)


def _scripts(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.name.endswith(tuple(FILE_ENDINGS)))


def _deploy_and_run(api: Api, file: Path) -> dict[str, Any]:
    path = f"u/admin/{file.name.split('.')[0]}"
    _deploy(api, file, path)
    print(f"── {file.name} ─ run as {path}", flush=True)
    job_id = api.post(f"jobs/run/p/{path}", _ARGUMENTS.get(file.name, {}))
    job = follow(api, job_id, say=_Indented().say)
    outcome = f"→ {_short(job.get('result'))}" if job.get("success") else f"✗ {error_text(job.get('result'))}"
    print(f"{outcome}\n", flush=True)
    return job


def _deploy(api: Api, file: Path, path: str) -> None:
    content = read_script(file)
    there = deployed(api, path)
    if there is None or there["content"] != content or there.get("lock") is None:
        deploy(api, {"path": path, "content": content, "language": language_of_file(file.name), "summary": file.name})


class _Indented:
    """Prints pieces of a log so that each line of it is set in."""

    def __init__(self) -> None:
        self._at_start = True

    def say(self, text: str) -> None:
        """Print a piece, which may end within a line."""
        for line in text.splitlines(keepends=True):
            sys.stdout.write(f"   │ {line}" if self._at_start else line)
            self._at_start = line.endswith("\n")
        sys.stdout.flush()


def _row(name: str, job: dict[str, Any]) -> tuple[str, ...]:
    result = _short(job["result"]) if job.get("success") else error_text(job.get("result")).splitlines()[0]
    waited, ran = listings.waited_s(job), job["duration_ms"] / 1000
    return (name, job["tag"], job.get("worker") or "", tables.span(waited), tables.span(ran), result[:_RESULT_WIDTH])


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _RESULT_WIDTH else f"{text[: _RESULT_WIDTH - 1]}…"


def _say_how_to_go_on(folder: Path) -> None:
    print(
        "\nGo on:\n"
        "  make up                                      the whole stack, until Ctrl-C; then, in another terminal:\n"
        f"  .venv/bin/millhand run {folder}/hello.py name=you   run a file; log to stderr, result to stdout\n"
        "  .venv/bin/millhand jobs                      what ran, what waits and why\n"
        "  docs/tutorial.md                             ten minutes from here to your own worker group"
    )


if __name__ == "__main__":
    main()
