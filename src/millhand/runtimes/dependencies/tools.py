"""Running the tools that resolve and install dependencies: uv, bun, deno, go.

They run outside of the sandbox, so they get nothing of the worker's environment but what they need, and they are
never asked to run code of a package: no build from source, no life-cycle scripts.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from millhand.core.errors import LockFailedError
from millhand.runtimes.contract import Listener

_KEPT = {"PATH", "HOME", "TZ", "LANG", "LC_ALL", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS"}
_KEPT |= {"SYSTEMROOT", "USERPROFILE", "LOCALAPPDATA", "APPDATA"}  # Windows programs fail in odd ways without them
_KEPT_PREFIXES = (
    "UV_",
    "PIP_",
    "NPM_CONFIG_",
    "BUN_CONFIG_",
    "DENO_",
    "GOPROXY",
    "GOSUMDB",
    "GONOSUM",
    "GOPRIVATE",
    "GOINSECURE",
)
_PROXIES = {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"}
_TAIL_CHARS = 4000
# Jobs run under other users and must be able to read what is installed. By way of a shell: uvloop can't set a umask,
# and Python code between fork and exec is no good in a process with threads.
_READABLE_BY_ALL = ("/bin/sh", "-c", 'umask 022; exec "$@"', "sh") if os.name == "posix" else ()


def tool_env(source: Mapping[str, str]) -> dict[str, str]:
    """Return what a tool may see of an environment: paths, proxies, certificates, and its own settings."""
    return {
        name: value
        for name, value in source.items()
        if name in _KEPT or name.upper() in _PROXIES or name.upper().startswith(_KEPT_PREFIXES)
    }


async def run_tool(  # noqa: D417 — the rest is told by its name
    argv: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    listener: Listener | None = None,
    what: str,
    timeout_s: float = 600.0,
    stderr: bool = True,
) -> str:
    """Run a tool to its end and return what it wrote; the listener hears it line by line.

    Raises LockFailedError with the end of its output where it fails or takes too long. Nothing of it is left behind,
    however this ends.

    Args:
        what: what the tool is doing, for the error: "<what> failed: …".
        stderr: whether standard error is part of the output.
    """
    process = await asyncio.create_subprocess_exec(
        *_READABLE_BY_ALL,
        *argv,
        cwd=cwd,
        env=dict(env),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT if stderr else asyncio.subprocess.DEVNULL,
        limit=1 << 24,  # of one line
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(timeout_s):
            output = await _read(process, listener)
            code = await process.wait()
    except TimeoutError:
        raise LockFailedError(f"{what} took longer than {timeout_s:g} s and was ended") from None
    finally:
        _kill_group(process)
        await process.wait()
    if code != 0:
        raise LockFailedError(f"{what} failed:\n{output[-_TAIL_CHARS:].strip() or f'exit code {code}'}")
    return output


async def _read(process: asyncio.subprocess.Process, listener: Listener | None) -> str:
    if process.stdout is None:
        return ""
    lines = []
    async for data in process.stdout:
        line = data.decode("utf-8", "replace").replace("\0", "")
        lines.append(line)
        if listener is not None:
            listener.log(line)
    return "".join(lines)


def _kill_group(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        elif process.returncode is None:
            process.kill()
