"""bubblewrap, where it is installed: keeps a zygote with its children from the machine where we may not do so ourselves.

It may make namespaces that we are refused: it is set-uid root, or the system's policy trusts it. Nobody inside may make
more of them, so jobs are kept from the worker and the machine by it, and from each other as in mode `process`.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from millhand.core.errors import RuntimeUnavailableError

_SYSTEM = (
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/nix/store",
    "/etc",
    "/sys/devices/system/cpu",
)
_PLACES = (
    "import json, os, sys; print(json.dumps([sys.base_prefix, sys.base_exec_prefix, os.path.realpath(sys.executable)]))"
)


def find() -> str | None:
    """Return the program, or None where it is not installed."""
    return shutil.which("bwrap")


async def wrapping(
    bwrap: str, python: str, *, readonly: Iterable[str], hidden: Sequence[str], folder: str
) -> list[str]:
    """Return what comes before a command to have it run inside.

    python: an interpreter that has to work there. readonly, hidden: existing paths to show, and not to show inside of
    those. folder: one that is there to be written to. Raises RuntimeUnavailableError where the interpreter can't start.
    """
    shown = [*_SYSTEM, *await _places(python), *readonly]
    return [
        bwrap, "--unshare-all", "--share-net", "--die-with-parent", "--new-session",
        "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp",  # noqa: S108 - its own
        *[word for path in shown for word in ("--ro-bind-try", path, path)],
        *[word for path in hidden for word in _masking(path)],
        "--bind", folder, folder, "--chdir", "/", "--",
    ]  # fmt: skip


def _masking(name: str) -> list[str]:
    path = Path(name).resolve()
    if path.is_dir():
        return ["--tmpfs", str(path), "--remount-ro", str(path)]
    return ["--ro-bind", "/dev/null", str(path)] if path.exists() else []


async def _places(python: str) -> list[str]:
    """Return where the files of an interpreter are."""
    asking = await asyncio.create_subprocess_exec(
        python, "-I", "-S", "-c", _PLACES, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
    )
    answer, _ = await asking.communicate()
    try:
        return msgspec.json.decode(answer, type=list[str])
    except msgspec.DecodeError:
        raise RuntimeUnavailableError(f"{python} does not start; its stderr says why") from None
