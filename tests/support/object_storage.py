"""Object storage for tests: moto's S3 server as a process, a folder, and one that does what a test says."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx

from millhand.core.errors import ObjectMissingError, ObjectStoreError

BUCKET = "millhand-logs"


class S3Server:
    """The real API of S3 over HTTP, kept in memory by a process of its own."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        code = "import sys; from moto.server import main; main(sys.argv[1:])"
        command = [sys.executable, "-W", "ignore", "-c", code, "-H", "127.0.0.1", "-p", str(port)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def start(self) -> None:
        """Wait until it answers, and make the bucket."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                httpx.put(f"{self.url}/{BUCKET}", timeout=5).raise_for_status()
                return
            time.sleep(0.05)
        raise RuntimeError("moto's server did not start")

    def stop(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()

    def names(self) -> list[str]:
        """Return the names of all objects there are."""
        listed = httpx.get(f"{self.url}/{BUCKET}", params={"list-type": "2"}, timeout=5).text
        return [part.split("</Key>")[0] for part in listed.split("<Key>")[1:]]

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables by which clients find it."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
        }


class MemoryObjects:
    """Objects in a dictionary, which can be away."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.away = False
        self.n_puts = 0

    async def put(self, key: str, data: bytes) -> None:
        """Keep an object."""
        self._answer()
        self.n_puts += 1
        self.objects[key] = data

    async def get(self, key: str) -> bytes:
        """Return an object."""
        self._answer()
        if key not in self.objects:
            raise ObjectMissingError(f"object storage does not have {key}")
        return self.objects[key]

    async def delete(self, keys) -> None:
        """Forget objects."""
        self._answer()
        for key in keys:
            self.objects.pop(key, None)

    async def check(self) -> None:
        """Answer, or not."""
        self._answer()

    def _answer(self) -> None:
        if self.away:
            raise ObjectStoreError("object storage can't be used right now")


def files(folder: Path) -> list[str]:
    """Return the names of all files below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
