"""Golden files: what must not change unnoticed. `make golden` writes them."""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "golden"


def assert_golden(name: str, content: str) -> None:
    """Compare with the file of this name; with GOLDEN=write write it instead."""
    path = FOLDER / name
    if os.environ.get("GOLDEN") == "write":
        path.write_text(content)
    assert path.exists(), f"no golden file {name}; write it: make golden"
    assert content == path.read_text(), f"{name} changed; if that is meant: make golden"
