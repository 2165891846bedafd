"""Results on disk: one JSON file per part, so that parts can be run again one by one."""

from __future__ import annotations

from pathlib import Path

import msgspec

from bench.measure import Outcome

FOLDER = Path(__file__).parent / "results"


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    """A part's outcome and the machine it was measured on."""

    machine: dict[str, str]
    outcome: Outcome


def save(outcome: Outcome, machine: dict[str, str]) -> Path:
    """Write a part's outcome; the one before is replaced. Quick runs go to a file that is not kept."""
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / (f"{outcome.part}.quick.tmp" if outcome.quick else f"{outcome.part}.json")
    path.write_bytes(
        msgspec.json.format(msgspec.json.encode(Saved(machine=machine, outcome=outcome)), indent=1) + b"\n"
    )
    return path


def load(part: str) -> Saved | None:
    """Return what a part found when it was last run in full."""
    path = FOLDER / f"{part}.json"
    return msgspec.json.decode(path.read_bytes(), type=Saved) if path.exists() else None
