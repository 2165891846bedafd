"""What a Python child is told to run, and the byte-code of what has run before."""

from __future__ import annotations

import struct
from array import array
from collections import OrderedDict
from collections.abc import Mapping
from itertools import accumulate
from typing import Any

import msgspec

from millhand.runtimes.contract import Execution
from millhand.runtimes.launcher import base_environment

_LENGTHS = struct.Struct("<IIII?")  # as in children/python_main.py
_MAX_COMPILED_BYTES = 32 << 20  # of all that is kept
_MAX_SEEN = 4096
_KNOWN = base_environment().keys()  # variables that every child has before its job


class CompiledCode:
    """The byte-code of scripts that one interpreter has compiled, so that their next run doesn't compile them again.

    A child sends it before anything of the script has run, so no script can pass off other code as its own. It is asked
    for when a script comes the second time: most previews never do.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str | None, str], bytes] = OrderedDict()  # least recently used first
        self._size = 0
        self._seen: OrderedDict[int, None] = OrderedDict()

    def get(self, path: str | None, code: str) -> bytes | None:
        """Return the byte-code of a script: b"" where there is none, None where it is worth keeping if it is sent."""
        key = (path, code)
        compiled = self._kept.get(key)
        if compiled is not None:
            self._kept.move_to_end(key)
            return compiled
        seen = hash(key)
        if seen in self._seen:
            return None
        self._seen[seen] = None
        if len(self._seen) > _MAX_SEEN:
            self._seen.popitem(last=False)
        return b""

    def keep(self, path: str | None, code: str, compiled: bytes) -> None:
        """Keep the byte-code of a script, and less of others where it would be too much."""
        if len(compiled) > _MAX_COMPILED_BYTES // 4 or (path, code) in self._kept:
            return
        self._kept[path, code] = compiled
        self._size += len(compiled)
        while self._size > _MAX_COMPILED_BYTES:
            self._size -= len(self._kept.popitem(last=False)[1])


def python_job(
    *,
    code: str,
    args: msgspec.Raw | Mapping[str, Any],
    env: Mapping[str, str],
    path: str | None = None,
    entrypoint: str | None = None,
    modules: Mapping[str, str] | None = None,
    compiled: bytes | None = b"",
) -> bytes:
    """Return the frame of a job: what it consists of, one after the other, most of it as the child needs it.

    compiled: its byte-code, or None to have the child send it.
    """
    variables = [f"{name}={value}\0" for name, value in env.items()]
    block = "".join(variables).encode("utf-8", "replace")
    sizes = list(map(len, variables))
    if sum(sizes) != len(block):
        sizes = [len(each.encode("utf-8", "replace")) for each in variables]
    places = array("I", accumulate(sizes[:-1], initial=0) if sizes and _KNOWN.isdisjoint(env) else ())
    source = code.encode("utf-8", "replace")
    rest = msgspec.json.encode({"path": path, "args": args, "entrypoint": entrypoint, "modules": modules or {}})
    lengths = _LENGTHS.pack(len(places), len(block), len(compiled or b""), len(source), compiled is None)
    return b"".join([lengths, places, block, compiled or b"", source, rest])


def program_job(execution: Execution, *, program: str, args: dict[str, Any]) -> bytes:
    """Return the job that calls the `main` of a program of ours in the environment of an execution.

    program: the name of a module in children/, which the child's launcher has preloaded.
    """
    return python_job(code=f"from {program} import main", args=args, env=execution.env)
