"""Programs of our own that run as jobs of a Python child: they are warm and alone as any Python job is."""

from __future__ import annotations

from typing import Any

import msgspec

from millhand.runtimes.contract import Execution


def program_job(execution: Execution, *, program: str, args: dict[str, Any]) -> bytes:
    """Return the job frame that calls the `main` of a program in the environment of an execution.

    program: the name of a module in children/, which the child's launcher has preloaded.
    """
    return msgspec.json.encode({
        "id": execution.job_id, "code": f"from {program} import main", "path": None, "args": args, "env": execution.env,
        "entrypoint": None, "modules": {},
    })  # fmt: skip
