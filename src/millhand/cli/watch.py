"""Follow a job: its log as it grows, why it waits, its end."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from millhand.cli.api import Api, UnreachableError
from millhand.core.errors import MillhandError

_PATIENCE_S = 3.0  # a job that has not started after this long: say why
_AGAIN_S = 10.0
_RECONNECT_S = 0.5
_MAX_LOST = 20


def follow(api: Api, job_id: str, *, say: Callable[[str], None] | None = None) -> dict[str, Any]:
    """Write a job's log to stderr (or `say`) until it has ended; returns the completed job."""
    say = say or _to_stderr
    waiting = _Waiting(api.twin(), job_id, say)
    waiting.start()
    try:
        _stream(api, job_id, say, waiting)
    finally:
        waiting.over.set()
    job: dict[str, Any] = api.get(f"jobs_u/completed/get/{job_id}")
    return job


def show_log(api: Api, job_id: str, *, follow: bool) -> None:
    """Write a job's log to stdout; with `follow` until it has ended."""

    def say(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    if follow:
        _stream(api, job_id, say, None)
    else:
        say(api.get(f"jobs_u/get_logs/{job_id}"))


def _stream(api: Api, job_id: str, say: Callable[[str], None], waiting: _Waiting | None) -> None:
    """Read the stream of updates; where it breaks off, take it up again at the offset that was reached."""
    offset, lost = 0, 0
    while lost < _MAX_LOST:
        try:
            for event in api.events(f"jobs_u/getupdate_sse/{job_id}", log_offset=offset, running=False, fast=True):
                lost = 0
                if text := event.get("new_logs"):
                    say(text)
                    offset = event["log_offset"]
                if waiting is not None and (event.get("running") or event.get("completed")):
                    waiting.over.set()
                if event.get("completed"):
                    return
                if event.get("type") == "notfound":
                    raise MillhandError(f"there is no job {job_id} in workspace {api.workspace!r}")
        except UnreachableError:
            lost += 1
            time.sleep(_RECONNECT_S)
    raise MillhandError(f"the server was lost while job {job_id} ran; `millhand logs -f {job_id}` follows it again")


class _Waiting(threading.Thread):
    """Says why a job has not started, when that takes long."""

    def __init__(self, api: Api, job_id: str, say: Callable[[str], None]) -> None:
        super().__init__(daemon=True)
        self._api = api
        self._job_id = job_id
        self._say = say
        self.over = threading.Event()

    def run(self) -> None:
        said = ""
        patience = _PATIENCE_S
        while not self.over.wait(patience):
            patience = _AGAIN_S
            text = self._why()
            if text and text != said and not self.over.is_set():
                self._say(f"waiting: {text}\n")
                said = text
        self._api.close()

    def _why(self) -> str:
        try:
            return why_text(self._api.get(f"jobs_u/why/{self._job_id}"))
        except MillhandError:
            return ""


def why_text(answer: dict[str, Any]) -> str:
    """Return the words of a `why` answer."""
    return str(answer.get("text") or answer.get("message") or "")


def _to_stderr(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()
