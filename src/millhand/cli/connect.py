"""Find the server that a command talks to, or start one just for it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from millhand.cli.api import Api
from millhand.cli.data_dir import DataDir, Holder
from millhand.core.errors import MillhandError

_START_S = 120.0
_END_S = 15.0
_LOOK_S = 0.02


@contextlib.contextmanager
def running(*, workspace: str, data_dir: Path) -> Iterator[Api]:
    """Give a client of MILLHAND_URL, else of the running `up` of the data directory; raises MillhandError without."""
    with contextlib.ExitStack() as stack:
        api = _of_environment(workspace) or _of_data_dir(workspace, DataDir(data_dir))
        stack.callback(api.close)
        yield api


@contextlib.contextmanager
def running_or_started(*, workspace: str, data_dir: Path) -> Iterator[Api]:
    """Like `running`; where nothing runs, start the whole stack for as long as it is used."""
    api = _of_environment(workspace)
    if api is not None:
        with contextlib.closing(api):
            yield api
        return
    directory = DataDir(data_dir)
    started = None
    try:
        with directory.in_use():
            if _holder(directory) is None:
                started = _start(directory)
            with contextlib.closing(_of_data_dir(workspace, directory)) as api:
                yield api
    finally:
        if started is not None:
            _see_off(started, directory)


def _of_environment(workspace: str) -> Api | None:
    url = os.environ.get("MILLHAND_URL")
    if not url:
        return None
    token = os.environ.get("MILLHAND_TOKEN")
    if not token:
        raise MillhandError("MILLHAND_URL is set and MILLHAND_TOKEN is not; give a token of that server")
    return Api(url=url, token=token, workspace=workspace)


def _of_data_dir(workspace: str, directory: DataDir) -> Api:
    holder = _holder(directory)
    if holder is None:
        raise MillhandError(
            f"millhand is not up on {directory.path}; start it with `millhand up`, "
            "or name a server by MILLHAND_URL and MILLHAND_TOKEN"
        )
    try:
        token = directory.token_file.read_text().strip()
    except OSError as error:
        raise MillhandError(
            f"can't read {directory.token_file}: {error.strerror}; set MILLHAND_URL and MILLHAND_TOKEN"
        ) from None
    return Api(url=holder.url, token=token, workspace=workspace)


def _holder(directory: DataDir) -> Holder | None:
    """Return the `up` that is ready, after waiting for one that starts or ends; None where none runs."""
    deadline = time.monotonic() + _START_S
    while directory.is_held():
        holder = directory.holder()
        if holder is not None and holder.ready:
            return holder
        if time.monotonic() > deadline:
            raise MillhandError(f"the millhand that holds {directory.path} does not get ready; see its log")
        time.sleep(_LOOK_S)
    return None


def _start(directory: DataDir) -> subprocess.Popen[str]:
    """Start a stack that ends when nobody uses it; say on stderr what takes so long."""
    directory.make()
    print(f"starting millhand on {directory.path}, just for this run …", file=sys.stderr, flush=True)
    log_file = directory.path / "log" / "up.log"
    with log_file.open("ab") as log:
        began_at = log.tell()
        process = subprocess.Popen(
            [
                *(sys.executable, "-P", "-m", "millhand"),
                *("up", "--port=0", f"--data-dir={directory.path}", "--until-unused"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("ready: "):
            return process
    process.wait()
    said = log_file.read_bytes()[began_at:].decode(errors="replace").strip()
    raise MillhandError(f"millhand did not start:\n{said or log_file}")


def _see_off(process: subprocess.Popen[str], directory: DataDir) -> None:
    """Wait until the stack we started has ended, unless others use it now."""
    deadline = time.monotonic() + _END_S
    while process.poll() is None and time.monotonic() < deadline:
        holder = directory.holder()
        if holder is not None and holder.ready and directory.is_used():
            break
        time.sleep(_LOOK_S)
    if process.stdout is not None:
        process.stdout.close()
