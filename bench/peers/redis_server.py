"""A throw-away redis-server with Debian's default durability: snapshots, no append-only file."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

DEBIAN_SAVE = "3600 1 300 100 60 10000"


class Redis:
    """One server on a free port of the loopback; use as a context manager."""

    def __init__(self, program: Path) -> None:
        self._folder = tempfile.mkdtemp(prefix="millhand-bench-redis-")
        self.port = _free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self._server = subprocess.Popen(
            [
                str(program),
                *_words(port=self.port, bind="127.0.0.1", dir=self._folder, save=DEBIAN_SAVE, appendonly="no"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                self.number(0, "DBSIZE")
            except OSError:
                time.sleep(0.02)
            else:
                return self
        self.close()
        raise RuntimeError("redis-server did not start within 10 s")

    def __exit__(self, *_: object) -> None:
        self.close()

    def number(self, database: int, *command: str) -> int:
        """Run one command that answers with an integer, and return it."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            connection.sendall(_encode("SELECT", str(database)) + _encode(*command))
            answers = b""
            while answers.count(b"\r\n") < 2:
                answers += connection.recv(4096)
        answer = answers.split(b"\r\n")[1]
        if not answer.startswith(b":"):
            raise RuntimeError(f"{' '.join(command)}: {answer.decode()}")
        return int(answer[1:])

    def close(self) -> None:
        """Stop the server and remove its folder."""
        self._server.kill()
        self._server.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


def _words(**options: object) -> list[str]:
    return [word for name, value in options.items() for word in (f"--{name}", str(value))]


def _encode(*words: str) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word.encode()) for word in words)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
