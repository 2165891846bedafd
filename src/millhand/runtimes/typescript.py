"""What the runtimes for TypeScript have in common: the job frame, and the order in which `main` takes its arguments."""

from __future__ import annotations

import functools
from pathlib import Path

import msgspec

from millhand.core.script import Language
from millhand.core.signature import parse_signature
from millhand.runtimes.contract import Execution

CHILDREN = Path(__file__).parent / "children"
SCRIPT = "main.ts"  # what messages call a script without a path


def job_frame(execution: Execution, *, node_modules: Path | None = None) -> bytes:
    """Return the frame that has a child (children/serve.ts) run this; raises BadRequestError where there is no main."""
    entrypoint = execution.entrypoint or "main"
    return msgspec.json.encode({
        "id": execution.job_id,
        "code": execution.code,
        "path": execution.path,
        "entrypoint": entrypoint,
        "params": params_of(execution.code, entrypoint),
        "args": msgspec.Raw(execution.args),
        "env": execution.env,
        "modules": execution.modules,
        "node_modules": node_modules and str(node_modules),
    })  # fmt: skip


@functools.lru_cache(maxsize=256)
def params_of(code: str, entrypoint: str) -> tuple[tuple[str, str], ...]:
    """Return the names and kinds of the entry function's parameters, in order; raises BadRequestError."""
    signature = parse_signature(Language.BUN, code, entrypoint)
    return tuple((param.name, param.kind) for param in signature.params)
